//! Where something runs.

use mesh_core::Locality;

/// `region`, `region/zone` or `region/zone/sub-zone`, as Istio writes it.
pub(super) fn parse(text: &str) -> Result<Locality, String> {
    let parts: Vec<_> = text.split('/').collect();
    match parts[..] {
        [region] if !region.is_empty() => Ok(Locality::new(region, "", "")),
        [region, zone] if ![region, zone].contains(&"") => Ok(Locality::new(region, zone, "")),
        [region, zone, sub_zone] if !parts.contains(&"") => {
            Ok(Locality::new(region, zone, sub_zone))
        }
        _ => Err(format!("{text:?} is not allowed, expected region/zone/sub-zone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_to_three_parts() {
        for text in ["eu", "eu/a", "eu/a/rack-7"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in ["", "/", "/a", "eu/", "eu//a", "eu/a/", "a/b/c/d"] {
            assert!(parse(text).unwrap_err().contains("expected region/zone"), "{text}");
        }
    }
}

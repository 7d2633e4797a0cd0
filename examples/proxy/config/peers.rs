//! Patterns of SPIFFE IDs.

use mesh_tls::{PeerPolicy, SpiffeId, TrustDomain};

/// The policy that allows what any of the patterns allows: an ID (`spiffe://shop.example/ns/pay/sa/api`), a path and
/// all below it (`spiffe://shop.example/ns/pay/*`), or a whole trust domain (`spiffe://shop.example/*`).
pub(crate) fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<PeerPolicy, String> {
    patterns
        .iter()
        .try_fold(PeerPolicy::nobody(), |policy, pattern| Ok(policy.or(&one(pattern.as_ref())?)))
}

fn one(pattern: &str) -> Result<PeerPolicy, String> {
    let wrong = |why: &dyn std::fmt::Display| {
        format!(
            "{pattern:?} is no SPIFFE ID ({why}), expected spiffe://DOMAIN/PATH, \
             spiffe://DOMAIN/PATH/* or spiffe://DOMAIN/*"
        )
    };
    let Some(prefix) = pattern.strip_suffix("/*") else {
        return pattern.parse::<SpiffeId>().map(PeerPolicy::exact).map_err(|error| wrong(&error));
    };
    let Some(rest) = prefix.strip_prefix("spiffe://") else {
        return Err(wrong(&"it does not begin with spiffe://"));
    };
    let (domain, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let domain: TrustDomain = domain.parse().map_err(|error| wrong(&error))?;
    if path.is_empty() {
        return Ok(PeerPolicy::trust_domain(domain));
    }
    PeerPolicy::path_prefix(domain, path).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_allows_what_it_says_and_no_more() {
        let allowed =
            |pattern: &str, id: &str| parse(&[pattern]).unwrap().allows(&id.parse().unwrap());
        let api = "spiffe://shop.example/ns/pay/sa/api";
        for pattern in [api, "spiffe://shop.example/ns/pay/*", "spiffe://shop.example/*"] {
            assert!(allowed(pattern, api), "{pattern}");
        }
        assert!(!allowed(api, "spiffe://shop.example/ns/pay/sa/other"));
        assert!(!allowed("spiffe://shop.example/ns/pa/*", api), "a segment is not cut");
        assert!(!allowed("spiffe://other.example/*", api));
        assert!(!parse::<&str>(&[]).unwrap().allows(&api.parse().unwrap()));
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for pattern in ["", "*", "shop.example/*", "https://shop.example/a", "spiffe:///*"] {
            assert!(parse(&[pattern]).unwrap_err().contains("expected spiffe://"), "{pattern}");
        }
    }
}

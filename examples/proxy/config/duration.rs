//! Durations as they are written in files and on the command line: `20s`, `500ms`, `1m30s`.

use std::time::Duration;

/// Reads a duration. At least one number, each with its unit: `h`, `m`, `s`, `ms`.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        rest = &rest[letters..];
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        for (text, millis) in
            [("20s", 20_000), ("500ms", 500), ("1m30s", 90_000), ("2h", 7_200_000), ("0s", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "20", "s", "1.5s", "-1s", "1s ", "1d", "99999999999999999999s", "ß"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

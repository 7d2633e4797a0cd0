//! Durations as Istio writes them: Go's form, `1h30m`, `0.25s`, `100ms`.
//!
//! Why not the parser of a crate: those know days and weeks, accept spaces, or refuse a fraction; what Istio refuses
//! must not work here by accident.

use std::{fmt, time::Duration};

/// Istio counts in whole milliseconds and refuses less than one.
const STEP: u128 = 1_000_000;
/// A year: longer is a mistake, and short enough that no sum of two overflows.
const MAX: u128 = 365 * 24 * 3_600 * 1_000_000_000;

/// Why a text is no duration that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Form,
    Fraction,
    Zero,
    Long,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "is not a duration, expected e.g. \"10s\", \"1m30s\", \"0.25s\"",
            Self::Fraction => "is not allowed, expected whole milliseconds",
            Self::Zero => "is not allowed, expected 1ms or more",
            Self::Long => "is not allowed, expected at most \"8760h\", a year",
        })
    }
}

/// Reads one or more of number and unit: `h`, `m`, `s`, `ms`, `us`, `ns`. A bare `0` needs no unit, as in Go.
pub(super) fn parse(text: &str) -> Result<Duration, Refused> {
    let nanos = if text == "0" { 0 } else { nanos(text)? };
    if nanos > MAX {
        return Err(Refused::Long);
    }
    if !nanos.is_multiple_of(STEP) {
        return Err(Refused::Fraction);
    }
    // At most MAX, a 55-bit number.
    Ok(Duration::from_nanos(nanos as u64))
}

fn nanos(text: &str) -> Result<u128, Refused> {
    let mut rest = text;
    let mut sum = 0u128;
    while !rest.is_empty() {
        let number = take(&mut rest, |c| c.is_ascii_digit() || c == '.');
        let unit = match take(&mut rest, |c| c.is_alphabetic()) {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1_000,
            "ns" => 1,
            _ => return Err(Refused::Form),
        };
        sum = sum.saturating_add(scale(number, unit)?);
    }
    if text.is_empty() { Err(Refused::Form) } else { Ok(sum) }
}

fn take<'a>(rest: &mut &'a str, part: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
    let (taken, left) = rest.split_at(end);
    *rest = left;
    taken
}

/// `number × unit`, exactly.
fn scale(number: &str, unit: u128) -> Result<u128, Refused> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(Refused::Form);
    }
    let mut nanos = 0u128;
    for digit in whole.bytes() {
        nanos = nanos.saturating_mul(10).saturating_add(u128::from(digit - b'0'));
    }
    nanos = nanos.saturating_mul(unit);
    let fraction = fraction.trim_end_matches('0');
    // A nanosecond is a 3.6·10¹²th of an hour: more digits than these cannot be whole nanoseconds.
    if fraction.len() > 18 {
        return Err(Refused::Fraction);
    }
    let (mut part, mut of) = (0u128, 1u128);
    for digit in fraction.bytes() {
        part = part * 10 + u128::from(digit - b'0');
        of *= 10;
    }
    if !(part * unit).is_multiple_of(of) {
        return Err(Refused::Fraction);
    }
    nanos = nanos.saturating_add(part * unit / of);
    Ok(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_go() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("0.25s", 250),
            (".5s", 500),
            ("1.s", 1_000),
            ("100ms", 100),
            ("1h", 3_600_000),
            ("1.5h", 5_400_000),
            ("0.05m", 3_000),
            ("2000us", 2),
            ("1000000ns", 1),
            ("0", 0),
            ("0s", 0),
            ("8760h", 31_536_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn the_rest_is_refused() {
        for text in [
            "", "10", "s", "10x", "10 s", " 10s", "-1s", "+1s", "1e3s", "1..5s", "1.2.3s", ".s",
            "1d", "10S", "1s.", "٣s", "1_000s", "1h2", "inf", "\u{0}s",
        ] {
            assert_eq!(parse(text), Err(Refused::Form), "{text}");
        }
        for text in ["1.5ms", "1ns", "999us", "0.0001s", "0.00000000001s"] {
            assert_eq!(parse(text), Err(Refused::Fraction), "{text}");
        }
        for text in ["8761h", "99999999999999999999999999999999999999999999h", "8760h1ms"] {
            assert_eq!(parse(text), Err(Refused::Long), "{text}");
        }
    }
}

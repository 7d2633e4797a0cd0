use std::{fmt, str::FromStr};

use crate::InvalidConfig;

/// A ratio in parts per million: exact, `Eq + Hash`, no floating point in a configuration.
///
/// May exceed one (a retry budget of 1.5 retries for each request). At most 4,294.
///
/// ```
/// use mesh_core::Ratio;
///
/// assert_eq!("20%".parse::<Ratio>().unwrap(), Ratio::from_percent(20));
/// assert_eq!("0.2".parse::<Ratio>().unwrap(), Ratio::from_ppm(200_000));
/// assert_eq!(Ratio::from_percent(20).of(50), 10);
/// assert!("twenty".parse::<Ratio>().is_err());
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ratio(u32);

impl Ratio {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The whole: 1,000,000 parts per million.
    pub const ONE: Self = Self(1_000_000);

    /// `ppm` parts per million.
    pub const fn from_ppm(ppm: u32) -> Self {
        Self(ppm)
    }

    /// `percent` per cent; saturates at 429,496 %.
    pub const fn from_percent(percent: u32) -> Self {
        Self(percent.saturating_mul(10_000))
    }

    /// Parts per million.
    pub const fn as_ppm(self) -> u32 {
        self.0
    }

    /// This share of `whole`, rounded down, exactly.
    pub const fn of(self, whole: u64) -> u64 {
        let share = whole as u128 * self.0 as u128 / 1_000_000;
        if share > u64::MAX as u128 { u64::MAX } else { share as u64 }
    }

    /// Whether `part / whole` is at least this ratio, exactly; false if `whole` is 0.
    pub const fn is_reached_by(self, part: u64, whole: u64) -> bool {
        whole > 0 && part as u128 * 1_000_000 >= whole as u128 * self.0 as u128
    }
}

impl FromStr for Ratio {
    type Err = InvalidConfig;

    /// Reads `20%`, `0.5%` or `0.2`; up to six decimals of the ratio are kept, more are refused.
    fn from_str(text: &str) -> Result<Self, InvalidConfig> {
        let invalid = || {
            InvalidConfig::new("ratio", text, "a share such as \"20%\" or \"0.2\", at most 4294")
        };
        let (number, scale) = match text.trim().strip_suffix('%') {
            Some(percent) => (percent.trim_end(), 10_000u64),
            None => (text.trim(), 1_000_000),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return Err(invalid());
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let mut ppm = whole.checked_mul(scale).ok_or_else(invalid)?;
        let mut unit = scale;
        for digit in fraction.bytes().map(|b| u64::from(b - b'0')) {
            if digit != 0 && unit % 10 != 0 {
                return Err(invalid());
            }
            unit /= 10;
            ppm = ppm.checked_add(digit * unit).ok_or_else(invalid)?;
        }
        u32::try_from(ppm).map(Self).map_err(|_| invalid())
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        write!(f, "{whole}.{}%", format!("{rest:04}").trim_end_matches('0'))
    }
}

impl fmt::Debug for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for ppm in [0, 1, 10, 2_500, 10_000, 123_456, 200_000, 1_000_000, 1_500_000, u32::MAX] {
            let ratio = Ratio::from_ppm(ppm);
            assert_eq!(ratio.to_string().parse::<Ratio>().unwrap(), ratio, "{ratio}");
        }
    }

    #[test]
    fn bad_text_is_refused_with_the_value() {
        for text in ["", "%", ".", "-1", "1e3", "0.0000001", "99999", "1.2.3", "٣"] {
            let error = text.parse::<Ratio>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn shares_are_exact() {
        assert_eq!(Ratio::from_percent(10).of(9), 0);
        assert_eq!(Ratio::from_percent(10).of(10), 1);
        assert!(Ratio::from_percent(50).is_reached_by(1, 2));
        assert!(!Ratio::from_percent(50).is_reached_by(0, 0));
        assert!(!Ratio::from_ppm(500_001).is_reached_by(1, 2));
    }
}

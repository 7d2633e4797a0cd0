use std::{fmt, str::FromStr};

use crate::{InvalidConfig, Locality};

/// A set of localities: `*`, `region/*`, `region/zone/*`, or a locality. Parts that are missing match anything.
///
/// ```
/// use mesh_core::{Locality, balance::locality::Pattern};
///
/// let pattern: Pattern = "eu/a/*".parse()?;
/// assert!(pattern.matches(&Locality::new("eu", "a", "rack-7")));
/// assert!(!pattern.matches(&Locality::new("eu", "b", "")));
/// assert!("eu".parse::<Pattern>()?.matches(&Locality::new("eu", "b", "")));
/// // A wildcard stands at the end.
/// assert_eq!("*/a".parse::<Pattern>().unwrap_err().value(), "*/a");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    /// `None` matches anything, and then so does all that follows.
    parts: [Option<String>; 3],
}

impl Pattern {
    /// Whether `locality` is in the set.
    pub fn matches(&self, locality: &Locality) -> bool {
        let parts = [locality.region(), locality.zone(), locality.sub_zone()];
        self.parts.iter().zip(parts).all(|(wanted, part)| match wanted {
            Some(wanted) => wanted == part,
            None => true,
        })
    }

    /// Whether some locality is in both sets.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.parts.iter().zip(&other.parts).all(|pair| match pair {
            (Some(a), Some(b)) => a == b,
            (None, _) | (_, None) => true,
        })
    }
}

impl FromStr for Pattern {
    type Err = InvalidConfig;

    /// # Errors
    ///
    /// An empty part, more than three parts, a wildcard that is not the last part or that stands within one.
    fn from_str(text: &str) -> Result<Self, InvalidConfig> {
        let invalid = || {
            InvalidConfig::new(
                "locality",
                text,
                "region[/zone[/sub-zone]] with a * only at its end",
            )
        };
        let mut parts = [None, None, None];
        let mut wildcard = false;
        for (index, part) in text.split('/').enumerate() {
            let slot = parts.get_mut(index).ok_or_else(invalid)?;
            if wildcard || part.is_empty() || (part != "*" && part.contains('*')) {
                return Err(invalid());
            }
            wildcard = part == "*";
            *slot = (!wildcard).then(|| part.to_owned());
        }
        Ok(Self { parts })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = self.parts.iter().flatten().map(String::as_str).collect();
        f.write_str(&known.join("/"))?;
        match known.len() {
            0 => f.write_str("*"),
            1 | 2 => f.write_str("/*"),
            _ => Ok(()),
        }
    }
}

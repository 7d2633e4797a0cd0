use super::Pattern;
use crate::{InvalidConfig, Locality};

/// Where the requests of the callers in some localities go (Istio `distribute`).
///
/// ```
/// use mesh_core::{Locality, balance::locality::Distribute};
///
/// let distribute = Distribute::new("eu/*", [("eu/*", 70), ("us/*", 30)])?;
/// let groups = [
///     (Locality::new("eu", "a", ""), 3),
///     (Locality::new("eu", "b", ""), 1),
///     (Locality::new("us", "a", ""), 10),
///     (Locality::new("asia", "a", ""), 10),
/// ];
/// let shares = distribute.shares(&groups);
/// // 70 shared 3 to 1 and rounded up, 30, and nothing.
/// assert_eq!(shares, [Some(53), Some(18), Some(30), None]);
///
/// let error = Distribute::new("eu/*", [("eu/*", 70)]).unwrap_err();
/// assert_eq!(error.to_string(), "distribute: 70 is not allowed, expected weights with a sum of 100");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Distribute {
    from: Pattern,
    to: Vec<(Pattern, u32)>,
}

impl Distribute {
    /// For callers in `from`, so many per cent to each of `to`, by Istio's rules.
    ///
    /// # Errors
    ///
    /// A pattern that is none, patterns that overlap, a weight of 0 or above 100, a sum other than 100.
    pub fn new<'a>(
        from: &str,
        to: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Result<Self, InvalidConfig> {
        let distribute = Self::in_proportion(from, to)?;
        let sum = distribute.to.iter().fold(0, |sum: u32, (_, weight)| sum.saturating_add(*weight));
        if sum != 100 {
            return Err(InvalidConfig::new("distribute", sum, "weights with a sum of 100"));
        }
        Ok(distribute)
    }

    /// The same with weights that need not sum up to 100: they count in proportion to each other.
    ///
    /// # Errors
    ///
    /// A pattern that is none, patterns that overlap, a weight of 0 or above 100, no weight at all.
    pub fn in_proportion<'a>(
        from: &str,
        to: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Result<Self, InvalidConfig> {
        let from = from.parse()?;
        let mut patterns: Vec<(Pattern, u32)> = Vec::new();
        for (text, weight) in to {
            let pattern: Pattern = text.parse()?;
            if !(1..=100).contains(&weight) {
                return Err(InvalidConfig::new("distribute", weight, "weights of 1 to 100"));
            }
            if patterns.iter().any(|(other, _)| other.overlaps(&pattern)) {
                return Err(InvalidConfig::new(
                    "distribute",
                    text,
                    "localities that do not overlap",
                ));
            }
            patterns.push((pattern, weight));
        }
        if patterns.is_empty() {
            return Err(InvalidConfig::new("distribute", "nothing", "at least one locality"));
        }
        Ok(Self { from, to: patterns })
    }

    /// The callers that it is for.
    pub fn from(&self) -> &Pattern {
        &self.from
    }

    /// The new weight of each group of endpoints, given the locality and the weight that it has; `None` for one that gets
    /// nothing. A weight of 0 is one that was not set: 1.
    ///
    /// The weight of an entry is shared by its groups in proportion to the weights that they have, rounded up.
    pub fn shares(&self, groups: &[(Locality, u32)]) -> Vec<Option<u32>> {
        let entry_of =
            |locality: &Locality| self.to.iter().position(|(pattern, _)| pattern.matches(locality));
        let entries: Vec<_> = groups.iter().map(|(locality, _)| entry_of(locality)).collect();
        let weight = |index: usize| u128::from(groups[index].1.max(1));
        let mut sums = vec![0u128; self.to.len()];
        for (index, entry) in entries.iter().enumerate() {
            if let Some(entry) = entry {
                sums[*entry] += weight(index);
            }
        }
        let share = |(index, entry): (usize, &Option<usize>)| {
            let entry = (*entry)?;
            // At most 100, which fits.
            Some((weight(index) * u128::from(self.to[entry].1)).div_ceil(sums[entry]) as u32)
        };
        entries.iter().enumerate().map(share).collect()
    }
}

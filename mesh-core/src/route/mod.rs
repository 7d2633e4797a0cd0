//! Weighted routing: which destination gets this request, and which endpoints make up a subset.
//!
//! # Why not endpoint weights for a canary
//!
//! A balancer bends the shares of its endpoints by their load, as it should. A canary of 5 % must get 5 %
//! whether or not it is the faster one. So the split is drawn first, and only then does a balancer choose within
//! the chosen subset. The draw is made once for each request: retries stay in the chosen destination
//! (Envoy weighted clusters; Linkerd draws again for each retry).
//!
//! # How it decides
//!
//! The destinations stand side by side on a line, each as long as its weight, in the order given; a point is
//! drawn on the line, and the half-open range that it falls into is the choice. The rules of Istio's
//! VirtualService hold: `share = weight / sum`, the sum need not be 100; one destination alone gets everything
//! whatever its weight; among several, weight 0 means none at all, and all zero is refused. The sum may
//! not exceed 2³²−1 (Envoy).
//!
//! # What it does not do
//!
//! It does not look at health: a destination whose endpoints are all down still gets its share.
//!
//! # Example
//!
//! ```
//! use mesh_core::{SplitMix64, route::Split};
//!
//! let split = Split::new(vec![("v1", 95), ("v2", 5)]).unwrap();
//! let mut rng = SplitMix64::new(1);
//! let canary = (0..10_000).filter(|_| *split.pick(&mut rng) == "v2").count();
//! assert!((400..600).contains(&canary));
//!
//! let error = Split::new(vec![("v1", 0), ("v2", 0)]).unwrap_err();
//! assert_eq!(error.field(), "weight");
//! ```

use std::fmt;

use crate::{Endpoint, InvalidConfig, Labels, Ratio, Rng};

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

/// Destinations and their shares. At least one destination, each with a share above zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Split<T> {
    /// In the order given; `end` is where the destination's range on the line ends.
    ranges: Vec<Range<T>>,
}

impl<T> Split<T> {
    /// A split in the proportion of the weights.
    ///
    /// # Errors
    ///
    /// No destination at all; several, and all of weight 0; a sum of weights above 2³²−1.
    ///
    /// ```
    /// use mesh_core::route::Split;
    ///
    /// // One destination gets everything.
    /// assert!(Split::new(vec![("v1", 0)]).is_ok());
    /// // Among several, weight 0 gets nothing.
    /// assert_eq!(Split::new(vec![("v1", 0), ("v2", 7)]).unwrap().len(), 1);
    /// assert!(Split::new(vec![("v1", u32::MAX), ("v2", 1)]).is_err());
    /// assert!(Split::<&str>::new(vec![]).is_err());
    /// ```
    pub fn new(destinations: Vec<(T, u32)>) -> Result<Self, InvalidConfig> {
        let alone = destinations.len() == 1;
        let mut total = 0u32;
        let mut ranges = Vec::with_capacity(destinations.len());
        for (destination, weight) in destinations {
            let weight = if alone { weight.max(1) } else { weight };
            if weight == 0 {
                continue;
            }
            total = total.checked_add(weight).ok_or_else(|| {
                InvalidConfig::new("weight", weight, "a sum of at most 4294967295")
            })?;
            ranges.push(Range { end: total, destination });
        }
        if ranges.is_empty() {
            return Err(InvalidConfig::new("weight", 0, "a sum of at least 1"));
        }
        Ok(Self { ranges })
    }

    /// Everything to one destination.
    pub fn single(destination: T) -> Self {
        Self { ranges: vec![Range { end: 1, destination }] }
    }

    /// Draws a destination. O(log n), no allocation.
    pub fn pick(&self, rng: &mut impl Rng) -> &T {
        self.at_offset(rng.below(u64::from(self.total())) as u32)
    }

    /// The destination at `point` modulo the sum of the weights: the same point gives the same destination.
    /// For a split that sticks to a caller, by the hash of a header.
    ///
    /// ```
    /// use mesh_core::route::Split;
    ///
    /// let split = Split::new(vec![("a", 1), ("b", 2), ("c", 3)]).unwrap();
    /// assert_eq!([0, 1, 2, 3, 5, 6].map(|p| *split.at(p)), ["a", "b", "b", "c", "c", "a"]);
    /// ```
    pub fn at(&self, point: u64) -> &T {
        self.at_offset((point % u64::from(self.total())) as u32)
    }

    /// Each destination and its share, rounded down to a millionth.
    ///
    /// ```
    /// use mesh_core::{Ratio, route::Split};
    ///
    /// let split = Split::new(vec![("v1", 9), ("v2", 1)]).unwrap();
    /// let shares: Vec<_> = split.shares().collect();
    /// assert_eq!(shares, [(&"v1", Ratio::from_percent(90)), (&"v2", Ratio::from_percent(10))]);
    /// ```
    pub fn shares(&self) -> impl Iterator<Item = (&T, Ratio)> {
        let total = u64::from(self.total());
        self.weights().map(move |(destination, weight)| {
            let ppm = u64::from(weight) * u64::from(Ratio::ONE.as_ppm()) / total;
            (destination, Ratio::from_ppm(ppm as u32))
        })
    }

    /// Each destination and its weight; none is 0.
    pub fn weights(&self) -> impl Iterator<Item = (&T, u32)> {
        let starts = std::iter::once(0).chain(self.ranges.iter().map(|range| range.end));
        self.ranges.iter().zip(starts).map(|(range, start)| (&range.destination, range.end - start))
    }

    /// The number of destinations that get anything.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The sum of the weights.
    pub fn total(&self) -> u32 {
        self.ranges.last().map_or(1, |range| range.end)
    }

    fn at_offset(&self, offset: u32) -> &T {
        let index = self.ranges.partition_point(|range| range.end <= offset);
        &self.ranges[index].destination
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Range<T> {
    /// One past the last point.
    end: u32,
    destination: T,
}

/// A subset: the endpoints that carry all of its labels (Istio `subsets[].labels`).
///
/// ```
/// use mesh_core::{Endpoint, route::Selector};
///
/// let v2 = Selector::new([("version", "v2")].into_iter().collect());
/// assert!(v2.selects(&Endpoint::new("10.0.0.1:80").with_label("version", "v2")));
/// assert!(!v2.selects(&Endpoint::new("10.0.0.2:80").with_label("version", "v1")));
/// assert!(!v2.selects(&Endpoint::new("10.0.0.3:80")));
/// assert!(Selector::any().selects(&Endpoint::new("10.0.0.3:80")));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Labels);

impl Selector {
    /// The endpoints that carry all of `labels` with the same values.
    pub fn new(labels: Labels) -> Self {
        Self(labels)
    }

    /// Every endpoint.
    pub fn any() -> Self {
        Self::default()
    }

    /// The labels that it asks for.
    pub fn labels(&self) -> &Labels {
        &self.0
    }

    /// Whether `endpoint` is in the subset.
    pub fn selects(&self, endpoint: &Endpoint) -> bool {
        endpoint.labels().matches(&self.0)
    }
}

impl From<Labels> for Selector {
    fn from(labels: Labels) -> Self {
        Self(labels)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

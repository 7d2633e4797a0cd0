use crate::{InvalidConfig, Ratio, Rng};

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
        let lift = |(destination, weight): (T, u32)| {
            (destination, if alone { weight.max(1) } else { weight })
        };
        Self::weighted(destinations.into_iter().map(lift).collect())
    }

    /// [`new`](Self::new) without Istio's exception: one destination alone needs a weight too (Envoy
    /// `weighted_clusters`).
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and a single destination of weight 0.
    ///
    /// ```
    /// use mesh_core::route::Split;
    ///
    /// assert!(Split::weighted(vec![("v1", 0)]).is_err());
    /// assert!(Split::weighted(vec![("v1", 1)]).is_ok());
    /// ```
    pub fn weighted(destinations: Vec<(T, u32)>) -> Result<Self, InvalidConfig> {
        let mut total = 0u32;
        let mut ranges = Vec::with_capacity(destinations.len());
        for (destination, weight) in destinations {
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

    /// The same shares of other destinations.
    pub fn map<U>(self, mut to: impl FnMut(T) -> U) -> Split<U> {
        let ranges = self.ranges.into_iter();
        let ranges =
            ranges.map(|Range { end, destination }| Range { end, destination: to(destination) });
        Split { ranges: ranges.collect() }
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

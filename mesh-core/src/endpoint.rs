use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
    sync::Arc,
};

use crate::InvalidConfig;

/// One address behind an upstream, with what is known of it.
///
/// ```
/// use mesh_core::{Endpoint, Weight};
///
/// let endpoint = Endpoint::new("10.0.0.7:8080")
///     .with_label("version", "v1")
///     .with_weight(Weight::new(3).unwrap());
/// assert!(endpoint.labels().matches(&[("version", "v1")].into_iter().collect()));
/// assert_eq!(endpoint.weight().get(), 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    address: Arc<str>,
    labels: Labels,
    weight: Weight,
    locality: Locality,
    priority: u32,
}

impl Endpoint {
    /// An endpoint at `address` (`host:port`), without labels, of weight 1.
    pub fn new(address: impl Into<Arc<str>>) -> Self {
        Self {
            address: address.into(),
            labels: Labels::default(),
            weight: Weight::ONE,
            locality: Locality::default(),
            priority: 0,
        }
    }

    /// Adds a label, replacing one of the same name.
    #[must_use]
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.0.insert(name.into(), value.into());
        self
    }

    /// Replaces all labels.
    #[must_use]
    pub fn with_labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// Sets the weight.
    #[must_use]
    pub fn with_weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the locality.
    #[must_use]
    pub fn with_locality(mut self, locality: Locality) -> Self {
        self.locality = locality;
        self
    }

    /// Sets the priority that whoever lists it gives it (Envoy `LocalityLbEndpoints.priority`): 0, the first, unless said.
    /// An endpoint of a later one gets nothing while those of the earlier suffice. The numbers may have gaps. How far it is
    /// from the caller ([`balance::locality`](crate::balance::locality)) counts within its priority.
    ///
    /// ```
    /// use mesh_core::Endpoint;
    ///
    /// assert_eq!(Endpoint::new("10.0.0.7:8080").priority(), 0);
    /// assert_eq!(Endpoint::new("10.9.0.7:8080").with_priority(1).priority(), 1);
    /// ```
    #[must_use]
    pub fn with_priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// `host:port`; the identity of an endpoint within its upstream.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// The labels by which subsets find it.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Its share of the traffic, relative to its neighbours.
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// Where it runs.
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    /// See [`Endpoint::with_priority`].
    pub fn priority(&self) -> u32 {
        self.priority
    }
}

/// Names and values, ordered. A subset is the endpoints whose labels contain the subset's.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether every label of `selector` is here with the same value. An empty selector matches everything.
    pub fn matches(&self, selector: &Self) -> bool {
        selector.0.iter().all(|(name, value)| self.get(name) == Some(value))
    }

    /// All labels, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(labels: I) -> Self {
        Self(labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Display for Labels {
    /// `app=shop,version=v1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// The relative weight of an endpoint or of a route's destination: 1 to 2³²−1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(NonZeroU32);

impl Weight {
    /// The weight of an endpoint of which nothing else is said.
    pub const ONE: Self = Self(NonZeroU32::MIN);

    /// # Errors
    ///
    /// 0 is no weight: to send nothing to an endpoint, remove it.
    pub fn new(weight: u32) -> Result<Self, InvalidConfig> {
        NonZeroU32::new(weight)
            .map(Self)
            .ok_or_else(|| InvalidConfig::new("weight", weight, "1 to 4294967295"))
    }

    /// The weight as a number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

/// Where an endpoint runs: region, zone, sub-zone. Empty parts are unknown.
///
/// Cheap to clone and to compare: many thousand endpoints stand in a dozen of localities.
#[derive(Clone, Default)]
pub struct Locality {
    /// Of all parts: another one is nearly always told apart by it, without its text.
    digest: u64,
    /// The parts, one behind the other; `None` if all are empty.
    text: Option<Arc<str>>,
    region_ends: usize,
    zone_ends: usize,
}

impl Locality {
    /// A locality of three parts, from the widest to the narrowest.
    pub fn new(region: impl AsRef<str>, zone: impl AsRef<str>, sub_zone: impl AsRef<str>) -> Self {
        let parts = [region.as_ref(), zone.as_ref(), sub_zone.as_ref()];
        if parts.iter().all(|part| part.is_empty()) {
            return Self::default();
        }
        let mut digest = DefaultHasher::new();
        parts.hash(&mut digest);
        let region_ends = parts[0].len();
        Self {
            digest: digest.finish(),
            text: Some(parts.concat().into()),
            region_ends,
            zone_ends: region_ends + parts[1].len(),
        }
    }

    /// The region.
    pub fn region(&self) -> &str {
        self.parts().0
    }

    /// The zone within the region.
    pub fn zone(&self) -> &str {
        self.parts().1
    }

    /// The sub-zone within the zone.
    pub fn sub_zone(&self) -> &str {
        self.parts().2
    }

    /// The same for those that are equal, and hardly ever for others.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    fn parts(&self) -> (&str, &str, &str) {
        let text = self.text.as_deref().unwrap_or_default();
        let (rest, sub_zone) = text.split_at(self.zone_ends);
        let (region, zone) = rest.split_at(self.region_ends);
        (region, zone, sub_zone)
    }
}

impl PartialEq for Locality {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.parts() == other.parts()
    }
}

impl Eq for Locality {}

impl PartialOrd for Locality {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Locality {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl Hash for Locality {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

impl fmt::Debug for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locality").field(&self.parts()).finish()
    }
}

impl fmt::Display for Locality {
    /// `region/zone/sub-zone`, without empty parts at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (region, zone, sub_zone) = self.parts();
        let whole = format!("{region}/{zone}/{sub_zone}");
        f.write_str(whole.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_needs_all_its_labels() {
        let labels: Labels = [("app", "shop"), ("version", "v1")].into_iter().collect();
        let selector = |pairs: &[(&'static str, &'static str)]| pairs.iter().copied().collect();
        assert!(labels.matches(&Labels::default()));
        assert!(labels.matches(&selector(&[("version", "v1")])));
        assert!(!labels.matches(&selector(&[("version", "v2")])));
        assert!(!labels.matches(&selector(&[("version", "v1"), ("zone", "a")])));
    }

    #[test]
    fn localities_are_told_apart_by_where_their_parts_end() {
        let all: Vec<_> = [
            ("", "", ""),
            ("eu", "", ""),
            ("", "eu", ""),
            ("", "", "eu"),
            ("e", "u", ""),
            ("eu", "a", "1"),
            ("eu", "a1", ""),
            ("eua", "", "1"),
        ]
        .into_iter()
        .collect();
        for one in &all {
            let locality = Locality::new(one.0, one.1, one.2);
            assert_eq!((locality.region(), locality.zone(), locality.sub_zone()), *one);
            for other in &all {
                let compared = Locality::new(other.0, String::from(other.1), other.2);
                assert_eq!(locality == compared, one == other, "{one:?} {other:?}");
                assert_eq!(locality.cmp(&compared), one.cmp(other), "{one:?} {other:?}");
            }
        }
        assert_eq!(Locality::new("", "", ""), Locality::default());
        assert_eq!(format!("{:?}", Locality::new("eu", "a", "")), r#"Locality(("eu", "a", ""))"#);
    }

    #[test]
    fn display_is_short() {
        assert_eq!(Locality::new("eu", "a", "").to_string(), "eu/a");
        assert_eq!(Locality::default().to_string(), "");
        let labels: Labels = [("b", "2"), ("a", "1")].into_iter().collect();
        assert_eq!(labels.to_string(), "a=1,b=2");
    }
}

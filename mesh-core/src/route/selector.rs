use std::fmt;

use crate::{Endpoint, Labels};

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

    /// The endpoints that carry its labels and those of `more`, which wins where both name one: a route's metadata match
    /// and that of one of its weighted clusters (Envoy).
    ///
    /// ```
    /// use mesh_core::route::Selector;
    ///
    /// let selector = |labels: &[(&'static str, &'static str)]| Selector::new(labels.iter().copied().collect());
    /// let route = selector(&[("stage", "prod"), ("v", "1.0")]);
    /// let canary = selector(&[("stage", "canary")]);
    /// assert_eq!(route.and(&canary), selector(&[("stage", "canary"), ("v", "1.0")]));
    /// ```
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        Self(self.0.iter().chain(more.0.iter()).collect())
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

use std::sync::Arc;

#[cfg(feature = "router")]
use mesh_core::balance::subset::merged;
use mesh_core::{
    Labels,
    balance::subset::{Found, Subsets},
};

/// The labels that a request wants its endpoint to have: put it among the extensions of the request. It counts where the
/// policy knows [label subsets](super::Policy::with_label_subsets).
///
/// ```
/// use mesh_core::balance::subset::{Config, Selector};
/// use mesh_tower::upstream::{Criteria, Policy};
///
/// let subsets = Config::default().with_selector(Selector::new(["version"])?)?;
/// let policy = Policy::default().with_label_subsets(Some(subsets));
///
/// // Version 2, else version 1, else nothing.
/// let version = |number| [("version", number)].into_iter().collect();
/// let criteria = Criteria::new(version("2")).or(version("1"));
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(criteria);
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Criteria(Arc<Wanted>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Wanted {
    labels: Labels,
    alternatives: Vec<Labels>,
}

impl Criteria {
    /// Endpoints with these values of these labels. The names must be exactly those of a
    /// [`Selector`](mesh_core::balance::subset::Selector).
    pub fn new(labels: Labels) -> Self {
        Self(Arc::new(Wanted { labels, alternatives: Vec::new() }))
    }

    /// Else those with these labels in the place of the same names of [`new`](Self::new), and the others as they are (Envoy
    /// `metadata_fallback_policy: FALLBACK_LIST`): where the first choice finds nobody who is available. In the order given. A
    /// fallback of the first choice comes before.
    #[must_use]
    pub fn or(mut self, labels: Labels) -> Self {
        Arc::make_mut(&mut self.0).alternatives.push(labels);
        self
    }

    /// These, and what `wider` says beside.
    #[cfg(feature = "router")]
    pub(crate) fn over(&self, wider: &Self) -> Self {
        let labels = merged(&wider.0.labels, &self.0.labels);
        Self(Arc::new(Wanted { labels, alternatives: self.0.alternatives.clone() }))
    }

    /// Where to pick from, in this order; without alternatives no allocation.
    pub(super) fn find(&self, subsets: &Subsets) -> impl Iterator<Item = Found> {
        let Wanted { labels, alternatives } = &*self.0;
        let first = subsets.find(labels);
        let others = match alternatives.as_slice() {
            [] => Vec::new(),
            alternatives => subsets.find_each(labels, alternatives),
        };
        first.into_iter().chain(others)
    }
}

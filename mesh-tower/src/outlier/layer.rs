use std::sync::Arc;

use tower_layer::Layer;

use super::{Member, Outlier};
use crate::classify::Standard;

/// Makes the [`Outlier`] services of one endpoint; made by [`OutlierSet::layer`](super::OutlierSet::layer).
///
/// ```
/// use mesh_core::outlier::Config;
/// use mesh_tower::{classify::Errors, outlier::OutlierSet};
///
/// let set = OutlierSet::new(Config::default());
/// let http = set.layer("10.0.0.1:80");
/// let other = set.layer("10.0.0.2:5432").with_classify(Errors);
/// assert!(!http.is_ejected());
/// ```
#[derive(Clone, Debug)]
pub struct OutlierLayer<C = Standard> {
    member: Arc<Member>,
    classify: C,
}

impl OutlierLayer {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self { member, classify: Standard }
    }
}

impl<C> OutlierLayer<C> {
    /// Lets `classify` decide what a failure is; [`Errors`](crate::classify::Errors) for services that are not HTTP.
    #[must_use]
    pub fn with_classify<D>(self, classify: D) -> OutlierLayer<D> {
        OutlierLayer { member: self.member, classify }
    }

    /// Whether the endpoint is out of rotation.
    pub fn is_ejected(&self) -> bool {
        self.member.is_ejected()
    }
}

impl<S, C: Clone> Layer<S> for OutlierLayer<C> {
    type Service = Outlier<S, C>;

    fn layer(&self, inner: S) -> Outlier<S, C> {
        Outlier::new(inner, Arc::clone(&self.member), self.classify.clone())
    }
}

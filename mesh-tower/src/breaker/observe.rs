use std::sync::Arc;

use super::policy::Transition;

/// Whose breaker it is, as far as its owner has said.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) upstream: Option<Arc<str>>,
    pub(super) endpoint: Option<Arc<str>>,
}

/// A breaker has changed its state: something that an operator acts on.
pub(super) fn transition(names: &Names, transition: &Transition) {
    tracing::info!(
        upstream = names.upstream.as_deref(),
        endpoint = names.endpoint.as_deref(),
        from = %transition.from,
        to = %transition.to,
        reason = %transition.reason,
        "breaker"
    );
}

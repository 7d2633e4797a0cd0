//! Turns what the machines return into tracing events and metrics. Nothing else in this crate logs or counts.
//!
//! Levels: a state change that an operator would act on is INFO, why nothing was done is DEBUG, a request is TRACE.

mod authorize;
#[cfg(feature = "metrics")]
mod handles;
#[cfg(feature = "metrics")]
mod limit;
#[cfg(feature = "metrics")]
mod names;

use std::{sync::Arc, time::Duration};

pub(crate) use authorize::Authorized;
use http::StatusCode;
use mesh_core::{
    Outcome, breaker::Transition, health, limit::adaptive::Limiter, outlier::Event, retry::GiveUp,
};

#[cfg(feature = "metrics")]
pub use names::{describe_metrics, recommended_buckets};

use crate::{BoxError, MeshError, error::Reason, health::Report, upstream::Life};

/// How the adaptive limit of this name stands; since the last time it has refused so many.
pub(crate) fn adaptive_limit(name: &str, limiter: &Limiter, refused: u64) {
    tracing::trace!(
        limit = name,
        is = limiter.limit(),
        in_flight = limiter.in_flight(),
        refused,
        "adaptive limit"
    );
    #[cfg(feature = "metrics")]
    limit::report(name, limiter, refused);
}

/// An active check of an endpoint has ended.
pub(crate) fn health_check(
    upstream: &str,
    endpoint: &str,
    report: &Report,
    transition: Option<health::Transition>,
) {
    match transition {
        Some(health::Transition::BecameHealthy) => {
            tracing::info!(upstream, endpoint, why = %report, "passes its checks");
        }
        Some(health::Transition::BecameUnhealthy) => {
            tracing::info!(upstream, endpoint, why = %report, "fails its checks");
        }
        None => tracing::trace!(upstream, endpoint, why = %report, "checked"),
    }
    #[cfg(feature = "metrics")]
    names::health_check(upstream, report.verdict(), transition);
}

/// A policy that stands alone turned a request away.
pub(crate) fn refused(upstream: Option<&Arc<str>>, reason: Reason) {
    let upstream = upstream.map_or("", |upstream| &**upstream);
    tracing::debug!(upstream, %reason, "refused");
    #[cfg(feature = "metrics")]
    names::refused(upstream, MeshError::from(reason).flag());
}

/// What came of a source of endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Discovered<'a> {
    Update { changes: bool, endpoints: usize },
    Failed { message: &'a str, age: Option<Duration>, is_first: bool },
    Recovered,
    Ended,
}

/// An upstream has heard from its source of endpoints.
pub(crate) fn discovered(upstream: &str, event: Discovered<'_>) {
    match event {
        Discovered::Update { changes, endpoints } => {
            tracing::debug!(upstream, changes, endpoints, "discovered");
        }
        Discovered::Failed { message, age, is_first: true } => {
            tracing::info!(upstream, error = message, ?age, "discovery fails");
        }
        Discovered::Failed { message, age, is_first: false } => {
            tracing::debug!(upstream, error = message, ?age, "discovery still fails");
        }
        Discovered::Recovered => tracing::info!(upstream, "discovery works again"),
        Discovered::Ended => tracing::info!(upstream, "discovery has ended"),
    }
    #[cfg(feature = "metrics")]
    match event {
        Discovered::Update { changes: true, .. } => names::discovered(upstream, "changed"),
        Discovered::Update { changes: false, .. } => names::discovered(upstream, "unchanged"),
        Discovered::Failed { .. } => names::discovered(upstream, "failed"),
        Discovered::Recovered | Discovered::Ended => {}
    }
}

/// Speaks for one subset of one upstream.
#[derive(Debug)]
pub(crate) struct Observer {
    upstream: Arc<str>,
    subset: Arc<str>,
    #[cfg(feature = "metrics")]
    handles: handles::Cache,
}

impl Observer {
    pub(crate) fn new(upstream: &str, subset: &str) -> Self {
        Self {
            upstream: upstream.into(),
            subset: subset.into(),
            #[cfg(feature = "metrics")]
            handles: handles::Cache::new(upstream, subset),
        }
    }

    /// A request was answered by an endpoint, or failed with an error.
    #[inline]
    pub(crate) fn request(&self, result: Result<StatusCode, &BoxError>, took: Duration) {
        #[cfg(feature = "metrics")]
        self.handles.with(|handles| {
            match result {
                Ok(status) => handles.requests_by_class(status).increment(1),
                Err(error) => {
                    let flag = MeshError::find(&**error).map_or("UC", MeshError::flag);
                    handles.failed_requests(flag).increment(1);
                }
            }
            handles.request_duration.record(took.as_secs_f64());
        });
        #[cfg(not(feature = "metrics"))]
        let _ = (result, took, MeshError::flag);
    }

    /// A policy turned a request away.
    pub(crate) fn refused(&self, reason: Reason) {
        tracing::debug!(upstream = %self.upstream, subset = %self.subset, %reason, "refused");
        #[cfg(feature = "metrics")]
        self.handles.with(|handles| handles.refused(MeshError::from(reason).flag()).increment(1));
    }

    /// An attempt ended.
    #[inline]
    pub(crate) fn attempt(&self, outcome: Outcome) {
        #[cfg(feature = "metrics")]
        self.handles.with(|handles| handles.attempts_by_outcome(outcome).increment(1));
        #[cfg(not(feature = "metrics"))]
        let _ = outcome;
    }

    /// An endpoint is picked as if none were ejected: too many are.
    pub(crate) fn panic(&self) {
        tracing::trace!(upstream = %self.upstream, subset = %self.subset, "panic");
        #[cfg(feature = "metrics")]
        self.handles.with(|handles| handles.panics.increment(1));
    }

    /// A retry was granted.
    pub(crate) fn retry(&self) {
        #[cfg(feature = "metrics")]
        self.handles.with(|handles| handles.retries.increment(1));
    }

    /// A failed request was not tried again, although its answer is one of those that are.
    pub(crate) fn gave_up(&self, why: GiveUp) {
        tracing::debug!(upstream = %self.upstream, subset = %self.subset, %why, "not retried");
        #[cfg(feature = "metrics")]
        self.handles.with(|handles| handles.gave_up(why).increment(1));
    }

    /// The subset has so many endpoints.
    pub(crate) fn endpoints(&self, count: usize) {
        #[cfg(feature = "metrics")]
        self.handles.endpoints(count);
        #[cfg(not(feature = "metrics"))]
        let _ = count;
    }

    /// An endpoint has changed from one state of its life to another. What an operator would act on, an ejection say, is
    /// told apart.
    #[cold]
    pub(crate) fn life(&self, endpoint: &str, from: Life, to: Life) {
        tracing::debug!(upstream = %self.upstream, subset = %self.subset, endpoint, %from, %to, "life");
        #[cfg(feature = "metrics")]
        names::life_change(&self.upstream, &self.subset, to);
    }

    /// So many endpoints of the subset are in each state of their lives.
    pub(crate) fn lives(&self, census: &[usize; Life::ALL.len()]) {
        #[cfg(feature = "metrics")]
        names::lives(&self.upstream, &self.subset, census);
        #[cfg(not(feature = "metrics"))]
        let _ = census;
    }

    /// The breaker of an endpoint changed its state, if it did.
    #[inline]
    pub(crate) fn breaker(&self, endpoint: &str, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        tracing::info!(
            upstream = %self.upstream,
            subset = %self.subset,
            endpoint,
            from = %transition.from,
            to = %transition.to,
            reason = %transition.reason,
            "breaker"
        );
        #[cfg(feature = "metrics")]
        self.handles.with(|handles| handles.breaker_transitions(transition.to).increment(1));
    }

    /// Outlier detection came to a decision about an endpoint.
    #[cold]
    pub(crate) fn outlier(&self, endpoint: &str, event: Event) {
        match event {
            Event::Ejected { detector, times, .. } => {
                tracing::info!(upstream = %self.upstream, subset = %self.subset, endpoint, %detector, times, "ejected");
            }
            Event::NotEjected { detector, why } => {
                tracing::debug!(upstream = %self.upstream, subset = %self.subset, endpoint, %detector, %why, "not ejected");
            }
            Event::Unejected { after } => {
                tracing::info!(upstream = %self.upstream, subset = %self.subset, endpoint, ?after, "back in rotation");
            }
        }
        #[cfg(feature = "metrics")]
        self.handles.outlier(event);
    }

    /// An endpoint was removed while it was ejected: it is out no longer, though it does not come back.
    pub(crate) fn removed_while_ejected(&self) {
        #[cfg(feature = "metrics")]
        self.handles.removed_while_ejected();
    }
}

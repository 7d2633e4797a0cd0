use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwapOption;
use http::StatusCode;
use mesh_core::{
    Outcome,
    breaker::State,
    outlier::{Detector, Event, WhyNot},
    retry::GiveUp,
};
use metrics::{Counter, Gauge, Histogram, SharedString, counter, gauge, histogram};

use super::names;

/// The handles of one subset, made once for each recorder.
///
/// A handle belongs for ever to the recorder that was installed when it was made: one made before any was installed
/// counts nothing, however many are installed later. So the cache remembers whose handles it holds, and makes new ones
/// when the recorder is another. A process has two recorders as a rule, none and its own: these two are found by a
/// comparison. Nothing is allocated or formatted on the way of a request.
pub(super) struct Cache {
    upstream: SharedString,
    subset: SharedString,
    /// How things stand, for recorders to come.
    endpoints: AtomicUsize,
    ejected: AtomicI64,
    usual: [OnceLock<Handles>; 2],
    /// Of whoever came after them.
    other: ArcSwapOption<Handles>,
}

/// The metrics that each request touches, and the labels of those that are touched seldom.
pub(super) struct Handles {
    recorder: usize,
    upstream: SharedString,
    subset: SharedString,
    requests: [Counter; 5],
    attempts: [Counter; 8],
    pub(super) retries: Counter,
    pub(super) panics: Counter,
    endpoints: Gauge,
    pub(super) request_duration: Histogram,
    ejected: Gauge,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

// === impl Cache ===

impl Cache {
    pub(super) fn new(upstream: &str, subset: &str) -> Self {
        let upstream = SharedString::from(upstream.to_owned());
        let subset = SharedString::from(subset.to_owned());
        let first = OnceLock::from(Handles::new(&upstream, &subset, recorder()));
        Self {
            upstream,
            subset,
            endpoints: AtomicUsize::new(0),
            ejected: AtomicI64::new(0),
            usual: [first, OnceLock::new()],
            other: ArcSwapOption::empty(),
        }
    }

    #[inline]
    pub(super) fn with(&self, record: impl FnOnce(&Handles)) {
        let current = recorder();
        let mut usual = self.usual.iter().filter_map(OnceLock::get);
        match usual.find(|handles| handles.recorder == current) {
            Some(handles) => record(handles),
            None => self.with_another(current, record),
        }
    }

    #[cold]
    fn with_another(&self, current: usize, record: impl FnOnce(&Handles)) {
        if let Some(handles) = &*self.other.load()
            && handles.recorder == current
        {
            return record(handles);
        }
        let fresh = Handles::new(&self.upstream, &self.subset, current);
        // What is a state, and not a sum, is told to the new recorder too.
        fresh.endpoints.set(self.endpoints.load(Relaxed) as f64);
        fresh.ejected.set(self.ejected.load(Relaxed) as f64);
        match self.usual[1].set(fresh) {
            Ok(()) => self.with(record),
            Err(fresh) => {
                let fresh = Arc::new(fresh);
                self.other.store(Some(fresh.clone()));
                record(&fresh);
            }
        }
    }

    pub(super) fn endpoints(&self, count: usize) {
        self.endpoints.store(count, Relaxed);
        self.with(|handles| handles.endpoints.set(count as f64));
    }

    pub(super) fn outlier(&self, event: Event) {
        // The handles first: were the new state noted before, a new recorder would hear of the event twice.
        self.with(|handles| handles.outlier(event));
        match event {
            Event::Ejected { .. } => self.ejected.fetch_add(1, Relaxed),
            Event::Unejected { .. } => self.ejected.fetch_sub(1, Relaxed),
            Event::NotEjected { .. } => return,
        };
    }

    pub(super) fn removed_while_ejected(&self) {
        self.with(|handles| handles.ejected.decrement(1.0));
        self.ejected.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

/// Tells recorders apart by where they live.
#[inline]
pub(super) fn recorder() -> usize {
    metrics::with_recorder(|recorder| std::ptr::from_ref(recorder).cast::<()>().addr())
}

// === impl Handles ===

impl Handles {
    fn new(upstream: &SharedString, subset: &SharedString, recorder: usize) -> Self {
        let labels = || [("upstream", upstream.clone()), ("subset", subset.clone())];
        let with = |name: &'static str, value: &'static str| {
            let [upstream, subset] = labels();
            [upstream, subset, (name, value.into())]
        };
        Self {
            recorder,
            upstream: upstream.clone(),
            subset: subset.clone(),
            requests: CLASSES.map(|class| counter!(names::REQUESTS, &with("status_class", class))),
            attempts: Outcome::ALL
                .map(|outcome| counter!(names::ATTEMPTS, &with("outcome", outcome_label(outcome)))),
            retries: counter!(names::RETRIES, &labels()),
            panics: counter!(names::PANICS, &labels()),
            endpoints: gauge!(names::ENDPOINTS, &labels()),
            request_duration: histogram!(names::REQUEST_DURATION, &labels()),
            ejected: gauge!(names::EJECTED, &labels()),
        }
    }

    #[inline]
    pub(super) fn requests_by_class(&self, status: StatusCode) -> &Counter {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        &self.requests[class]
    }

    #[inline]
    pub(super) fn attempts_by_outcome(&self, outcome: Outcome) -> &Counter {
        &self.attempts[outcome as usize]
    }

    pub(super) fn failed_requests(&self, flag: &'static str) -> Counter {
        counter!(names::FAILED_REQUESTS, &self.with("flag", flag))
    }

    pub(super) fn refused(&self, flag: &'static str) -> Counter {
        counter!(names::REFUSED, &self.with("flag", flag))
    }

    pub(super) fn gave_up(&self, why: GiveUp) -> Counter {
        let reason = match why {
            GiveUp::NotRetriable => "not_retriable",
            GiveUp::NowhereElse => "nowhere_else",
            GiveUp::LimitExceeded => "limit_exceeded",
            GiveUp::BudgetExhausted => "budget_exhausted",
            GiveUp::Overflow => "overflow",
            GiveUp::NotReplayable => "not_replayable",
            GiveUp::DeadlineTooClose => "deadline_too_close",
            GiveUp::PushedBack => "pushed_back",
            GiveUp::RetryAfterTooLong => "retry_after_too_long",
        };
        counter!(names::GAVE_UP, &self.with("reason", reason))
    }

    pub(super) fn breaker_transitions(&self, to: State) -> Counter {
        let state = match to {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
            State::ForcedOpen => "forced_open",
            State::ForcedClosed => "forced_closed",
            State::MetricsOnly => "metrics_only",
        };
        counter!(names::BREAKER_TRANSITIONS, &self.with("to", state))
    }

    pub(super) fn outlier(&self, event: Event) {
        let counter = |detector: Detector, enforced: &'static str| {
            let [upstream, subset, method] = self.with("method", detector.name());
            counter!(names::EJECTIONS, &[upstream, subset, method, ("enforced", enforced.into())])
        };
        match event {
            Event::Ejected { detector, .. } => {
                counter(detector, "yes").increment(1);
                self.ejected.increment(1.0);
            }
            Event::NotEjected { detector, why: WhyNot::OverCap { .. } } => {
                counter(detector, "over_cap").increment(1);
            }
            Event::NotEjected { detector, why: WhyNot::NotEnforced { .. } } => {
                counter(detector, "no").increment(1);
            }
            Event::NotEjected { why: WhyNot::AlreadyEjected, .. } => {}
            Event::Unejected { .. } => self.ejected.decrement(1.0),
        }
    }

    fn with(&self, name: &'static str, value: &'static str) -> [(&'static str, SharedString); 3] {
        [("upstream", self.upstream.clone()), ("subset", self.subset.clone()), (name, value.into())]
    }
}

const fn outcome_label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::ServerError => "server_error",
        Outcome::GatewayError => "gateway_error",
        Outcome::ConnectFailed => "connect_failed",
        Outcome::Timeout => "timeout",
        Outcome::Reset => "reset",
        Outcome::Throttled => "throttled",
        Outcome::Cancelled => "cancelled",
    }
}

//! What an authorization layer decides.

#[cfg(feature = "metrics")]
use std::sync::{Arc, OnceLock};

#[cfg(feature = "metrics")]
use arc_swap::ArcSwapOption;
#[cfg(feature = "metrics")]
use mesh_core::authorize::RuleId;
use mesh_core::authorize::{Connection, Decision};
#[cfg(feature = "metrics")]
use metrics::{Counter, counter};

#[cfg(feature = "metrics")]
use super::{handles::recorder, names};

/// Speaks for the policies of one layer.
#[derive(Debug)]
pub(crate) struct Authorized {
    layer: Box<str>,
    #[cfg(feature = "metrics")]
    policies: Box<[Box<str>]>,
    /// Of the recorder that was installed last, as in the cache of an upstream's handles.
    #[cfg(feature = "metrics")]
    counters: ArcSwapOption<Counters>,
}

impl Authorized {
    pub(crate) fn new<'a>(layer: &str, policies: impl Iterator<Item = &'a str>) -> Self {
        #[cfg(not(feature = "metrics"))]
        drop(policies);
        Self {
            layer: layer.into(),
            #[cfg(feature = "metrics")]
            policies: policies.map(Into::into).collect(),
            #[cfg(feature = "metrics")]
            counters: ArcSwapOption::empty(),
        }
    }

    /// The policies have decided about a request. One that is not clear is refused whatever they say.
    pub(crate) fn decided(
        &self,
        decision: &Decision<'_>,
        is_clear: bool,
        is_watching: bool,
        connection: &Connection<'_>,
    ) {
        if !decision.is_allowed() || !is_clear {
            tracing::debug!(
                layer = &*self.layer,
                principal = connection.principal(),
                reason = %decision.reason(),
                rule = decision.rule().map(tracing::field::display),
                is_clear,
                is_watching,
                "denied"
            );
        }
        if let Some(rule) = decision.audit() {
            tracing::debug!(layer = &*self.layer, principal = connection.principal(), %rule, "audited");
        }
        // On trial: only what would be otherwise is worth a word.
        let changed =
            decision.trial().filter(|(reason, _)| reason.is_allowed() != decision.is_allowed());
        if let Some((reason, rule)) = changed {
            let rule = rule.map(tracing::field::display);
            tracing::debug!(layer = &*self.layer, principal = connection.principal(), %reason, rule, "on trial");
        }
        #[cfg(feature = "metrics")]
        self.count(decision, is_clear, is_watching, changed.map(|(reason, _)| reason.is_allowed()));
    }

    #[cfg(feature = "metrics")]
    fn count(
        &self,
        decision: &Decision<'_>,
        is_clear: bool,
        is_watching: bool,
        trial: Option<bool>,
    ) {
        let current = recorder();
        let loaded = self.counters.load();
        let fresh;
        let counters = match &*loaded {
            Some(counters) if counters.recorder == current => counters,
            _ => {
                fresh = Arc::new(Counters::new(current, self.policies.len()));
                self.counters.store(Some(fresh.clone()));
                &fresh
            }
        };
        let is_allowed = decision.is_allowed() && is_clear;
        let result = match (is_allowed, is_watching) {
            (true, _) => ALLOWED,
            (false, false) => DENIED,
            (false, true) => WOULD_DENY,
        };
        // What is not clear was refused by no policy.
        let rule = decision.rule().filter(|_| is_clear);
        self.increment(counters, result, rule);
        if decision.audit().is_some() {
            self.increment(counters, AUDITED, decision.audit());
        }
        if let Some(allows) = trial {
            let result = RESULTS[if allows { ALLOWED } else { DENIED }];
            let labels = [("layer", self.layer.to_string()), ("result", result.to_owned())];
            counter!(names::TRIALS, &labels).increment(1);
        }
    }

    /// The first time, the counter is made.
    #[cfg(feature = "metrics")]
    fn increment(&self, counters: &Counters, result: usize, rule: Option<RuleId<'_>>) {
        let policy = rule.map_or(self.policies.len(), |rule| rule.policy_index());
        let made = counters.cells[result][policy].get_or_init(|| {
            let policy = self.policies.get(policy).map_or("", |policy| policy);
            let (layer, policy) =
                (("layer", self.layer.to_string()), ("policy", policy.to_owned()));
            if result == AUDITED {
                return counter!(names::AUDITED, &[layer, policy]);
            }
            counter!(names::AUTHORIZED, &[layer, ("result", RESULTS[result].to_owned()), policy])
        });
        made.increment(1);
    }
}

#[cfg(feature = "metrics")]
const ALLOWED: usize = 0;
#[cfg(feature = "metrics")]
const DENIED: usize = 1;
#[cfg(feature = "metrics")]
const WOULD_DENY: usize = 2;
#[cfg(feature = "metrics")]
const AUDITED: usize = 3;
#[cfg(feature = "metrics")]
const RESULTS: [&str; 3] = ["allowed", "denied", "would_deny"];

/// By result, and by policy; the last is none.
#[cfg(feature = "metrics")]
struct Counters {
    recorder: usize,
    cells: [Box<[OnceLock<Counter>]>; 4],
}

#[cfg(feature = "metrics")]
impl Counters {
    fn new(recorder: usize, policies: usize) -> Self {
        let cells = || (0..=policies).map(|_| OnceLock::new()).collect();
        Self { recorder, cells: [cells(), cells(), cells(), cells()] }
    }
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

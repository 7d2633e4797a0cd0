use mesh_core::health::{Transition, Verdict};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use crate::upstream::Life;

pub(super) const REQUESTS: &str = "mesh_client_requests_total";
pub(super) const FAILED_REQUESTS: &str = "mesh_client_failed_requests_total";
pub(super) const REFUSED: &str = "mesh_client_refused_total";
pub(super) const REQUEST_DURATION: &str = "mesh_client_request_duration_seconds";
pub(super) const ATTEMPTS: &str = "mesh_client_attempts_total";
pub(super) const RETRIES: &str = "mesh_retry_total";
pub(super) const GAVE_UP: &str = "mesh_retry_given_up_total";
pub(super) const BREAKER_TRANSITIONS: &str = "mesh_circuit_transitions_total";
pub(super) const EJECTIONS: &str = "mesh_outlier_ejections_total";
pub(super) const EJECTED: &str = "mesh_outlier_ejected";
pub(super) const PANICS: &str = "mesh_panic_picks_total";
pub(super) const HEALTH_CHECKS: &str = "mesh_health_checks_total";
pub(super) const HEALTH_TRANSITIONS: &str = "mesh_health_transitions_total";
pub(super) const ENDPOINTS: &str = "mesh_endpoints";
pub(super) const LIVES: &str = "mesh_endpoints_by_life";
pub(super) const LIFE_CHANGES: &str = "mesh_endpoint_life_changes_total";
pub(super) const ADAPTIVE_LIMIT: &str = "mesh_adaptive_limit";
pub(super) const ADAPTIVE_IN_FLIGHT: &str = "mesh_adaptive_limit_in_flight";
pub(super) const ADAPTIVE_MIN_RTT: &str = "mesh_adaptive_limit_min_rtt_seconds";
pub(super) const ADAPTIVE_REFUSED: &str = "mesh_adaptive_limit_refused_total";
pub(super) const AUTHORIZED: &str = "mesh_authorize_total";
pub(super) const AUDITED: &str = "mesh_authorize_audited_total";
pub(super) const TRIALS: &str = "mesh_authorize_trial_total";
pub(super) const DISCOVERED: &str = "mesh_discovery_updates_total";

/// Describes every metric of this crate to the installed recorder. Call it once, after installing one.
///
/// | metric | kind | labels besides `upstream` and `subset` |
/// | --- | --- | --- |
/// | `mesh_client_requests_total` | counter | `status_class`: what callers saw |
/// | `mesh_client_failed_requests_total` | counter | `flag`: no endpoint answered |
/// | `mesh_client_refused_total` | counter | `flag`: a policy turned it away |
/// | `mesh_client_request_duration_seconds` | histogram | |
/// | `mesh_client_attempts_total` | counter | `outcome` |
/// | `mesh_retry_total` | counter | |
/// | `mesh_retry_given_up_total` | counter | `reason` |
/// | `mesh_circuit_transitions_total` | counter | `to` |
/// | `mesh_outlier_ejections_total` | counter | `method`; `enforced`: `yes`, `no` (chance, or a detector that only looks), `over_cap` |
/// | `mesh_outlier_ejected` | gauge | |
/// | `mesh_panic_picks_total` | counter | |
/// | `mesh_health_checks_total` | counter | `result`: `passed`, `failed`, `unhealthy`; `subset` is always empty |
/// | `mesh_health_transitions_total` | counter | `to`: `healthy`, `unhealthy`; `subset` is always empty |
/// | `mesh_endpoints` | gauge | |
/// | `mesh_endpoints_by_life` | gauge | `life`: a [`Life`] but `gone`; as the driver saw it last, at most a second ago |
/// | `mesh_endpoint_life_changes_total` | counter | `to`: a [`Life`]; what comes and goes between two looks is not seen |
///
/// `subset` is empty for the whole upstream.
///
/// [Discovery](crate::discover) is counted for the upstream alone: `mesh_discovery_updates_total`, by `upstream` and `result`
/// (`changed`, `unchanged`, `failed`).
///
/// Each [adaptive limit](crate::limit::adaptive) tells of itself once a second and when it falls quiet, under the label
/// `limit`, the name that its layer was given:
///
/// | metric | kind | |
/// | --- | --- | --- |
/// | `mesh_adaptive_limit` | gauge | how many requests may be in flight |
/// | `mesh_adaptive_limit_in_flight` | gauge | how many are |
/// | `mesh_adaptive_limit_min_rtt_seconds` | gauge | the latency without load, once known |
/// | `mesh_adaptive_limit_refused_total` | counter | neither a slot nor a place in the queue |
///
/// Each [layer of authorization](crate::authorize) counts what it decides, under the label `layer`, the name that it was given;
/// the table stands there.
pub fn describe_metrics() {
    let count = |name, text| describe_counter!(name, Unit::Count, text);
    count(
        REQUESTS,
        "Requests answered by an endpoint, by the class of the status that the caller saw",
    );
    count(FAILED_REQUESTS, "Requests that no endpoint answered, by response flag");
    count(REFUSED, "Requests that a policy turned away, by response flag");
    count(ATTEMPTS, "Attempts, by how they ended");
    count(RETRIES, "Retries that were granted");
    count(GAVE_UP, "Failed requests that were not tried again, by reason");
    count(BREAKER_TRANSITIONS, "State changes of circuit breakers");
    count(EJECTIONS, "Endpoints that outlier detection ejected, or would have");
    count(PANICS, "Attempts whose endpoint was picked as if none were ejected: too many were");
    count(HEALTH_CHECKS, "Active health checks, by how they ended");
    count(HEALTH_TRANSITIONS, "Endpoints that active checks found well, or not");
    describe_histogram!(
        REQUEST_DURATION,
        Unit::Seconds,
        "Time to the head of the response, retries included"
    );
    describe_gauge!(EJECTED, Unit::Count, "Endpoints that are ejected now");
    describe_gauge!(ENDPOINTS, Unit::Count, "Endpoints that are known");
    describe_gauge!(LIVES, Unit::Count, "Endpoints, by where they stand in their lives");
    count(LIFE_CHANGES, "Endpoints that came to another state of their lives");
    describe_gauge!(ADAPTIVE_LIMIT, Unit::Count, "Requests that may be in flight");
    describe_gauge!(ADAPTIVE_IN_FLIGHT, Unit::Count, "Requests that are in flight");
    describe_gauge!(ADAPTIVE_MIN_RTT, Unit::Seconds, "Latency without load");
    count(DISCOVERED, "What sources of endpoints have yielded, by result");
    count(AUTHORIZED, "Requests that authorization policies decided about, by result and policy");
    count(AUDITED, "Requests that an audit policy matched");
    count(TRIALS, "Decisions that policies on trial would change, by what they would be");
    count(ADAPTIVE_REFUSED, "Requests that an adaptive limit turned away");
}

/// Counts a refusal outside of any upstream. Refusals are rare, and this one looks its counter up.
pub(super) fn refused(upstream: &str, flag: &'static str) {
    let labels =
        [("upstream", upstream.to_owned()), ("subset", String::new()), ("flag", flag.to_owned())];
    metrics::counter!(REFUSED, &labels).increment(1);
}

/// Counts a check. They are few, and look their counters up.
pub(super) fn health_check(upstream: &str, verdict: Verdict, transition: Option<Transition>) {
    let count = |metric: &'static str, name: &'static str, value: &'static str| {
        let (upstream, value) = (upstream.to_owned(), value.to_owned());
        let labels = [("upstream", upstream), ("subset", String::new()), (name, value)];
        metrics::counter!(metric, &labels).increment(1);
    };
    let result = match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Unhealthy => "unhealthy",
    };
    count(HEALTH_CHECKS, "result", result);
    match transition {
        Some(Transition::BecameHealthy) => count(HEALTH_TRANSITIONS, "to", "healthy"),
        Some(Transition::BecameUnhealthy) => count(HEALTH_TRANSITIONS, "to", "unhealthy"),
        None => {}
    }
}

/// Counts a change in an endpoint's life. They are few, and look their counter up.
pub(super) fn life_change(upstream: &str, subset: &str, to: Life) {
    metrics::counter!(LIFE_CHANGES, &life_labels(upstream, subset, "to", to)).increment(1);
}

/// How many endpoints are where. Looked up each time, so that a recorder that came later is told too.
pub(super) fn lives(upstream: &str, subset: &str, census: &[usize; Life::ALL.len()]) {
    for (life, count) in Life::ALL.into_iter().zip(census) {
        if life != Life::Gone {
            let labels = life_labels(upstream, subset, "life", life);
            metrics::gauge!(LIVES, &labels).set(*count as f64);
        }
    }
}

fn life_labels(
    upstream: &str,
    subset: &str,
    name: &'static str,
    life: Life,
) -> [(&'static str, String); 3] {
    let (upstream, subset) = (upstream.to_owned(), subset.to_owned());
    [("upstream", upstream), ("subset", subset), (name, life.as_str().to_owned())]
}

/// Counts what a source has yielded. Looked up each time: it is not on the way of a request.
pub(super) fn discovered(upstream: &str, result: &'static str) {
    let labels = [("upstream", upstream.to_owned()), ("result", result.to_owned())];
    metrics::counter!(DISCOVERED, &labels).increment(1);
}

/// Buckets for `mesh_client_request_duration_seconds`, in seconds: those of OpenTelemetry's HTTP convention.
///
/// An exporter that is given none renders summaries, and `histogram_quantile` stays empty.
///
/// ```
/// assert!(mesh_tower::recommended_buckets().is_sorted());
/// ```
pub fn recommended_buckets() -> &'static [f64] {
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
}

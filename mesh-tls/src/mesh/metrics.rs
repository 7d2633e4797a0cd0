//! The counters of [`Stats`](super::Stats) through the `metrics` facade, and the gauges of an identity.
//!
//! A handshake costs a fifth of a millisecond, so its counter is looked up each time and no handle is kept: a
//! recorder that is installed late hears of everything from then on.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use metrics::{SharedString, Unit, counter, describe_counter, describe_gauge, gauge};

use super::{Counter, Generation};

const HANDSHAKES: &str = "mesh_tls_handshakes_total";
const PLAINTEXT: &str = "mesh_tls_plaintext_total";
const DRAINED: &str = "mesh_tls_drained_total";
const UPDATES: &str = "mesh_tls_updates_total";
pub(crate) const GENERATION: &str = "mesh_tls_generation";
pub(crate) const NOT_AFTER: &str = "mesh_tls_not_after_timestamp_seconds";
pub(crate) const ROOTS_NOT_AFTER: &str = "mesh_tls_roots_not_after_timestamp_seconds";
pub(crate) const CRL_NEXT_UPDATE: &str = "mesh_tls_crl_next_update_timestamp_seconds";
const DENIED: &str = "mesh_tls_denied_requests_total";

/// Describes every metric of this crate to the installed recorder. Call it once, after installing one.
///
/// | metric | kind | labels besides `identity` |
/// | --- | --- | --- |
/// | `mesh_tls_handshakes_total` | counter | `side`: `server`, `client`; `result`: `ok`, `refused` (by us), `failed`; `reason`, empty where it is `ok` |
/// | `mesh_tls_plaintext_total` | counter | connections let in without TLS |
/// | `mesh_tls_drained_total` | counter | `reason`: `untrusted`, `not_authorized`, `no_proof`, `age`, `expired` |
/// | `mesh_tls_updates_total` | counter | `result`: `published`, `refused`, `source_error` |
/// | `mesh_tls_generation` | gauge | |
/// | `mesh_tls_not_after_timestamp_seconds` | gauge | when our certificate expires; less `time()` it is the time left |
/// | `mesh_tls_roots_not_after_timestamp_seconds` | gauge | when the next of the roots expires that were valid when they were read: only of servers outside the mesh |
/// | `mesh_tls_crl_next_update_timestamp_seconds` | gauge | when the first of the revocation lists is out of date: the same |
///
/// `identity` is our own SPIFFE ID. Of servers outside the mesh it is empty, and there is one label more, `upstream`: the name
/// that their `origination::Config` has.
///
/// [`AuthorizePeerLayer`](crate::AuthorizePeerLayer) counts `mesh_tls_denied_requests_total`, by `peer`: `none` or `known`.
///
/// The gauges are 0 where there is nothing to tell of: for an identity that was withdrawn, or that another one has replaced; for
/// an upstream that is gone, or that needs no certificate. The counters count events, the dates are in seconds since 1970. An
/// alarm that rings a day before the end, for identities and upstreams alike:
///
/// ```text
/// (mesh_tls_not_after_timestamp_seconds > 0) - time() < 86400
/// ```
pub fn describe_metrics() {
    let count = |name, text| describe_counter!(name, Unit::Count, text);
    count(HANDSHAKES, "TLS handshakes, by side, result and reason");
    count(PLAINTEXT, "Connections let in without TLS");
    count(DRAINED, "Connections asked to end, by reason");
    count(UPDATES, "Updates of the identity, by result");
    count(DENIED, "Requests whose peer the route does not allow");
    describe_gauge!(GENERATION, Unit::Count, "The number of the current generation");
    let date = |name, text| describe_gauge!(name, Unit::Seconds, text);
    date(NOT_AFTER, "When our certificate expires, since 1970");
    date(ROOTS_NOT_AFTER, "When the next root for servers outside the mesh expires, since 1970");
    date(CRL_NEXT_UPDATE, "When the first revocation list for them is out of date, since 1970");
}

/// Counts a request that was turned away for its peer.
pub(crate) fn denied(peer: &'static str) {
    counter!(DENIED, "peer" => peer).increment(1);
}

fn dates(identity: &Arc<String>, generation: u64, not_after: u64) {
    let identity = SharedString::from(String::clone(identity));
    gauge!(GENERATION, "identity" => identity.clone()).set(generation as f64);
    gauge!(NOT_AFTER, "identity" => identity).set(not_after as f64);
}

/// Under which name it is counted.
#[derive(Debug, Default)]
pub(super) struct Label {
    identity: ArcSwapOption<String>,
    /// Of servers outside the mesh, the name that they have together.
    upstream: Option<String>,
}

// === impl Label ===

impl Label {
    #[cfg(feature = "origination")]
    pub(super) fn outside(upstream: String) -> Self {
        Self { identity: ArcSwapOption::empty(), upstream: Some(upstream) }
    }

    pub(super) fn published(&self, generation: &Generation) {
        let id = Arc::new(generation.own.id().to_string());
        let before = self.identity.swap(Some(Arc::clone(&id)));
        // A series is never taken back: one of another name would tell of its last certificate for ever.
        if let Some(before) = before.filter(|before| *before != id) {
            dates(&before, 0, 0);
        }
        dates(&id, generation.number, generation.own.not_after().as_secs());
    }

    pub(super) fn withdrawn(&self) {
        if let Some(id) = &*self.identity.load() {
            dates(id, 0, 0);
        }
    }

    pub(super) fn add(&self, count: Counter) {
        let labels = |more: &[(&'static str, &'static str)]| -> Vec<metrics::Label> {
            let identity = self.identity.load();
            let identity = identity.as_ref().map_or("", |id| id.as_str()).to_owned();
            let identity = metrics::Label::new("identity", identity);
            let upstream = self.upstream.clone().map(|name| metrics::Label::new("upstream", name));
            let more = more.iter().map(metrics::Label::from);
            [identity].into_iter().chain(upstream).chain(more).collect()
        };
        let handshake = |side: &'static str, result: &'static str, reason: &'static str| {
            let labels = labels(&[("side", side), ("result", result), ("reason", reason)]);
            counter!(HANDSHAKES, labels).increment(1);
        };
        let other = |metric: &'static str, name: &'static str, value: &'static str| {
            counter!(metric, labels(&[(name, value)])).increment(1);
        };
        match count {
            Counter::Accepted => handshake("server", "ok", ""),
            Counter::RefusedPlaintext => handshake("server", "refused", "plaintext"),
            Counter::RefusedNoCertificate => handshake("server", "refused", "no_certificate"),
            Counter::RefusedExpired => handshake("server", "refused", "expired"),
            Counter::RefusedUnknownIssuer => handshake("server", "refused", "unknown_issuer"),
            Counter::RefusedBadCertificate => handshake("server", "refused", "bad_certificate"),
            Counter::RefusedNotAuthorized => handshake("server", "refused", "not_authorized"),
            Counter::RefusedTimeout => handshake("server", "failed", "timeout"),
            Counter::RefusedNotReady => handshake("server", "failed", "not_ready"),
            Counter::RefusedCrowdedOut => handshake("server", "failed", "crowded_out"),
            Counter::RefusedOther => handshake("server", "failed", "other"),
            Counter::Connected => handshake("client", "ok", ""),
            Counter::ConnectUntrusted => handshake("client", "refused", "untrusted"),
            Counter::ConnectNotAuthorized => handshake("client", "refused", "not_authorized"),
            Counter::ConnectRejectedByPeer => handshake("client", "failed", "rejected_by_peer"),
            Counter::ConnectNotReady => handshake("client", "failed", "not_ready"),
            Counter::ConnectOther => handshake("client", "failed", "other"),
            Counter::AcceptedPlaintext => {
                counter!(PLAINTEXT, labels(&[])).increment(1);
            }
            Counter::DrainedUntrusted => other(DRAINED, "reason", "untrusted"),
            Counter::DrainedNotAuthorized => other(DRAINED, "reason", "not_authorized"),
            Counter::DrainedNoProof => other(DRAINED, "reason", "no_proof"),
            Counter::DrainedAge => other(DRAINED, "reason", "age"),
            Counter::DrainedExpired => other(DRAINED, "reason", "expired"),
            Counter::Rotations => other(UPDATES, "result", "published"),
            Counter::UpdatesRefused => other(UPDATES, "result", "refused"),
            Counter::SourceErrors => other(UPDATES, "result", "source_error"),
        }
    }
}

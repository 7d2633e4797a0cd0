//! The counters of [`Stats`](super::Stats) through the `metrics` facade, and two gauges.
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
const GENERATION: &str = "mesh_tls_generation";
const NOT_AFTER: &str = "mesh_tls_not_after_timestamp_seconds";
const DENIED: &str = "mesh_tls_denied_requests_total";

/// Describes every metric of this crate to the installed recorder. Call it once, after installing one.
///
/// | metric | kind | labels besides `identity`, our own SPIFFE ID |
/// | --- | --- | --- |
/// | `mesh_tls_handshakes_total` | counter | `side`: `server`, `client`; `result`: `ok`, `refused` (by us), `failed`; `reason`, empty where it is `ok` |
/// | `mesh_tls_plaintext_total` | counter | connections let in without TLS |
/// | `mesh_tls_drained_total` | counter | `reason`: `untrusted`, `not_authorized`, `no_proof`, `age`, `expired` |
/// | `mesh_tls_updates_total` | counter | `result`: `published`, `refused`, `source_error` |
/// | `mesh_tls_generation` | gauge | |
/// | `mesh_tls_not_after_timestamp_seconds` | gauge | when our certificate expires; less `time()` it is the time left |
///
/// [`AuthorizePeerLayer`](crate::AuthorizePeerLayer) counts `mesh_tls_denied_requests_total`, by `peer`: `none` or `known`.
///
/// Both gauges are 0 for an identity that was withdrawn, or that another one has replaced. The counters count events, the one
/// date is in seconds. An alarm that rings a day before the end:
///
/// ```text
/// mesh_tls_not_after_timestamp_seconds - time() < 86400 and on (identity) mesh_tls_generation > 0
/// ```
pub fn describe_metrics() {
    let count = |name, text| describe_counter!(name, Unit::Count, text);
    count(HANDSHAKES, "TLS handshakes, by side, result and reason");
    count(PLAINTEXT, "Connections let in without TLS");
    count(DRAINED, "Connections asked to end, by reason");
    count(UPDATES, "Updates of the identity, by result");
    count(DENIED, "Requests whose peer the route does not allow");
    describe_gauge!(GENERATION, Unit::Count, "The number of the current generation");
    describe_gauge!(NOT_AFTER, Unit::Seconds, "When our certificate expires, since 1970");
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
}

// === impl Label ===

impl Label {
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
        let identity = self.identity.load();
        let identity =
            SharedString::from(identity.as_ref().map_or("", |id| id.as_str()).to_owned());
        let handshake = |side: &'static str, result: &'static str, reason: &'static str| {
            let labels = [
                ("identity", identity.clone()),
                ("side", side.into()),
                ("result", result.into()),
                ("reason", reason.into()),
            ];
            counter!(HANDSHAKES, &labels).increment(1);
        };
        let other = |metric: &'static str, name: &'static str, value: &'static str| {
            let labels = [("identity", identity.clone()), (name, value.into())];
            counter!(metric, &labels).increment(1);
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
                counter!(PLAINTEXT, "identity" => identity).increment(1);
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

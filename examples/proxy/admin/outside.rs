//! What is shown of servers outside the mesh, an upstream at a time.

use std::{
    mem,
    sync::{Mutex, PoisonError},
};

use mesh_tls::{Origination, Stats, origination::Status};
use metrics::{counter, gauge};
use serde_json::{Value, json};

/// One upstream.
pub(crate) struct Outside {
    origination: Origination,
    /// What the counters have been told.
    told: Mutex<Stats>,
}

impl Outside {
    pub(crate) fn new(origination: Origination) -> Self {
        Self { origination, told: Mutex::default() }
    }

    /// For the page.
    pub(super) fn now(&self) -> (Status, Stats) {
        (self.origination.status(), self.origination.stats())
    }

    pub(super) fn name(&self) -> String {
        self.origination.status().name
    }

    /// No key, no certificate: names, numbers and dates.
    pub(super) fn shown(&self, now: u64) -> Value {
        let status = self.origination.status();
        let end = status.certificate.as_ref().map(|own| own.not_after.as_secs());
        let stats = self.origination.stats();
        json!({
            "status": status,
            "expires_in": end.map(|end| end.saturating_sub(now)),
            "stats": {
                "connected": stats.connected,
                "connect_untrusted": stats.connect_untrusted,
                "connect_rejected_by_peer": stats.connect_rejected_by_peer,
                "connect_not_ready": stats.connect_not_ready,
                "connect_other": stats.connect_other,
                "drained_untrusted": stats.drained_untrusted,
                "rotations": stats.rotations,
                "updates_refused": stats.updates_refused,
            },
        })
    }

    /// Brings the metrics up to date. What was counted is added, not copied: an upstream that is built anew, by another
    /// configuration, begins at 0, and its series does not.
    pub(super) fn publish(&self) {
        self.count();
        let Status { name, certificate, roots, crl, .. } = self.origination.status();
        let own = certificate.map(|own| own.not_after);
        let crl = crl.and_then(|crl| crl.next_update);
        let secs = |time: Option<mesh_tls::pki_types::UnixTime>| time.map_or(0, |t| t.as_secs());
        dates(&name, [secs(own), secs(roots.next_not_after), secs(crl)]);
    }

    fn count(&self) {
        let name = self.name();
        // Read under the lock: of two who ask at once, the one that comes second must not have read first.
        let mut last = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.origination.stats();
        let told = mem::replace(&mut *last, now);
        for (result, now, told) in [
            ("ok", now.connected, told.connected),
            ("untrusted", now.connect_untrusted, told.connect_untrusted),
            ("rejected_by_peer", now.connect_rejected_by_peer, told.connect_rejected_by_peer),
            ("not_ready", now.connect_not_ready, told.connect_not_ready),
            ("other", now.connect_other, told.connect_other),
        ] {
            counter!("mesh_tls_connects_total", "upstream" => name.clone(), "result" => result)
                .increment(now - told);
        }
        for (metric, now, told) in [
            ("mesh_tls_rotations_total", now.rotations, told.rotations),
            ("mesh_tls_updates_refused_total", now.updates_refused, told.updates_refused),
        ] {
            counter!(metric, "upstream" => name.clone()).increment(now - told);
        }
        let drained = now.drained_untrusted - told.drained_untrusted;
        counter!("mesh_tls_drained_total", "upstream" => name, "reason" => "untrusted")
            .increment(drained);
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.count();
        // If another one has the name, it says its own before anybody looks.
        dates(&self.name(), [0; 3]);
    }
}

fn dates(upstream: &str, [own, roots, crl]: [u64; 3]) {
    for (metric, value) in [
        ("mesh_tls_not_after_seconds", own),
        ("mesh_tls_roots_not_after_seconds", roots),
        ("mesh_tls_crl_next_update_seconds", crl),
    ] {
        gauge!(metric, "upstream" => upstream.to_owned()).set(value as f64);
    }
}

//! The metrics of the process, in Prometheus' text format.

use std::{sync::OnceLock, time::Duration};

use mesh_tls::Stats;
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Histograms collect what they are told until somebody reads; where nobody scrapes, this does.
const UPKEEP: Duration = Duration::from_secs(5);

static INSTALLED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Renders what was counted.
#[derive(Clone)]
pub(crate) struct Exporter(Option<PrometheusHandle>);

impl Exporter {
    /// The recorder of this process, installed by the first call. It must be made before the first upstream counts.
    pub(crate) fn installed() -> Self {
        Self(INSTALLED.get_or_init(install).clone())
    }

    pub(crate) fn render(&self) -> String {
        self.0.as_ref().map(PrometheusHandle::render).unwrap_or_default()
    }

    /// Keeps the memory of the histograms bounded. Never returns.
    pub(crate) async fn upkeep(self) {
        loop {
            tokio::time::sleep(UPKEEP).await;
            if let Some(handle) = &self.0 {
                handle.run_upkeep();
            }
        }
    }
}

fn install() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets(mesh_tower::recommended_buckets())
        .map_err(|error| tracing::error!(%error, "no metrics: bad buckets"))
        .ok()?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|error| tracing::error!(%error, "no metrics: another recorder is installed"))
        .ok()?;
    mesh_tower::describe_metrics();
    // Series that nothing has happened to yet are there with 0: an alert can tell 0 from "unknown".
    counter!("mesh_config_rejected_total").absolute(0);
    counter!("mesh_config_reloads_total").absolute(0);
    Some(handle)
}

/// Copies the counters of an identity.
pub(super) fn publish(identity: &str, stats: &Stats) {
    let accepted = [("mtls", stats.accepted), ("plaintext", stats.accepted_plaintext)];
    let refused = [
        ("plaintext", stats.refused_plaintext),
        ("no_certificate", stats.refused_no_certificate),
        ("expired", stats.refused_expired),
        ("unknown_issuer", stats.refused_unknown_issuer),
        ("bad_certificate", stats.refused_bad_certificate),
        ("not_authorized", stats.refused_not_authorized),
        ("timeout", stats.refused_timeout),
        ("not_ready", stats.refused_not_ready),
        ("crowded_out", stats.refused_crowded_out),
        ("other", stats.refused_other),
    ];
    let drained = [
        ("untrusted", stats.drained_untrusted),
        ("not_authorized", stats.drained_not_authorized),
        ("no_proof", stats.drained_no_proof),
        ("age", stats.drained_age),
        ("expired", stats.drained_expired),
    ];
    let connects = [
        ("ok", stats.connected),
        ("untrusted", stats.connect_untrusted),
        ("not_authorized", stats.connect_not_authorized),
        ("rejected_by_peer", stats.connect_rejected_by_peer),
        ("not_ready", stats.connect_not_ready),
        ("other", stats.connect_other),
    ];
    for (kind, value) in accepted {
        counter!("mesh_tls_accepted_total", "identity" => identity.to_owned(), "kind" => kind)
            .absolute(value);
    }
    for (reason, value) in refused {
        counter!("mesh_tls_refused_total", "identity" => identity.to_owned(), "reason" => reason)
            .absolute(value);
    }
    for (reason, value) in drained {
        counter!("mesh_tls_drained_total", "identity" => identity.to_owned(), "reason" => reason)
            .absolute(value);
    }
    for (result, value) in connects {
        counter!("mesh_tls_connects_total", "identity" => identity.to_owned(), "result" => result)
            .absolute(value);
    }
    counter!("mesh_tls_rotations_total", "identity" => identity.to_owned())
        .absolute(stats.rotations);
    counter!("mesh_tls_updates_refused_total", "identity" => identity.to_owned())
        .absolute(stats.updates_refused);
    gauge!("mesh_tls_not_after_seconds", "identity" => identity.to_owned())
        .set(stats.not_after as f64);
}

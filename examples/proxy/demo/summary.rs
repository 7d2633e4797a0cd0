//! The numbers of the demonstration, as they are at one moment.

use std::{fmt, time::Duration};

use mesh_tower::upstream::EndpointStatus;

use super::{
    caller::{Caller, Seen},
    rogue::Rogue,
    world::{SERVICE, World},
};
use crate::admin::clusters::shown;

/// What has happened so far.
pub(super) struct Summary {
    pub(super) age: Duration,
    pub(super) caller: Seen,
    pub(super) attempts_per_request: f64,
    pub(super) retries: u64,
    pub(super) ejections: u64,
    pub(super) rogue_tried: u64,
    pub(super) let_in: u64,
    /// As the endpoints counted them, by reason.
    pub(super) refused: Vec<(&'static str, u64)>,
    pub(super) endpoints: Vec<EndpointStatus>,
}

impl Summary {
    pub(super) fn of(world: &World, caller: &Caller, rogue: &Rogue, age: Duration) -> Self {
        let metrics = world.caller_side.admin.metrics();
        let requests = sum(&metrics, "mesh_client_requests_total", "")
            + sum(&metrics, "mesh_client_failed_requests_total", "");
        let attempts = sum(&metrics, "mesh_client_attempts_total", "");
        let (rogue_tried, let_in) = rogue.counts();
        Self {
            age,
            caller: caller.seen(),
            attempts_per_request: attempts as f64 / requests as f64,
            retries: sum(&metrics, "mesh_retry_total", ""),
            ejections: sum(&metrics, "mesh_outlier_ejections_total", "enforced=\"yes\""),
            rogue_tried,
            let_in,
            refused: refused(world),
            endpoints: world.meshes.iter().flat_map(shown).collect(),
        }
    }

    /// The share of the caller's requests that were answered well.
    pub(super) fn success_rate(&self) -> f64 {
        self.caller.ok as f64 / self.caller.requests as f64
    }

    /// The share of each version of the answers, and how the policy would have it.
    pub(super) fn split(&self) -> String {
        let all: u64 = self.caller.by_version.values().sum();
        let share = |(version, count): (&String, &u64)| {
            format!("{version} {:.1} %", 100.0 * *count as f64 / all as f64)
        };
        self.caller.by_version.iter().map(share).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn refused_in_words(&self) -> String {
        let all: u64 = self.refused.iter().map(|(_, count)| count).sum();
        let parts = self.refused.iter().map(|(reason, count)| format!("{reason} {count}"));
        format!("{all} refused ({})", parts.collect::<Vec<_>>().join(", "))
    }
}

/// Handshakes that the endpoints turned away.
fn refused(world: &World) -> Vec<(&'static str, u64)> {
    let stats = world.identities.iter().map(|(_, identity)| identity.stats());
    let mut refused =
        [("plaintext", 0), ("no certificate", 0), ("foreign authority", 0), ("other", 0)];
    for stats in stats {
        let other = stats.refused_expired
            + stats.refused_not_authorized
            + stats.refused_timeout
            + stats.refused_other;
        let counts = [
            stats.refused_plaintext,
            stats.refused_no_certificate,
            // An authority of another name, or one of the same name whose signature does not verify.
            stats.refused_unknown_issuer + stats.refused_bad_certificate,
            other,
        ];
        for ((_, sum), count) in refused.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    refused.into()
}

/// The sum of a counter of the payment service over all its series with this label.
fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let of_service = format!("upstream=\"{SERVICE}\"");
    metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')))
        .filter(|line| line.contains(&of_service) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { requests, ok, .. } = self.caller;
        let mut line = |what: &str, value: String| writeln!(f, "  {what:<19} {value}");
        line("time", format!("{:.1} s", self.age.as_secs_f64()))?;
        line("requests", format!("{requests} ({ok} ok, {} failed)", requests - ok))?;
        line("success rate", format!("{:.2} % as callers saw it", 100.0 * self.success_rate()))?;
        line("latency", self.latency())?;
        line(
            "attempts a request",
            format!("{:.3} ({} retries)", self.attempts_per_request, self.retries),
        )?;
        line("ejections", self.ejections.to_string())?;
        line("split", self.split())?;
        line(
            "rogue connections",
            format!(
                "{} tried, {} let in, {}",
                self.rogue_tried,
                self.let_in,
                self.refused_in_words()
            ),
        )
    }
}

impl Summary {
    pub(super) fn latency(&self) -> String {
        let ms = |share| 1_000.0 * self.caller.percentile(share).as_secs_f64();
        format!("p50 {:.1} ms, p99 {:.1} ms", ms(0.5), ms(0.99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_series_that_are_meant_are_summed() {
        let metrics = "\
# TYPE mesh_retry_total counter
mesh_retry_total{upstream=\"payment-service\",subset=\"v1\"} 2
mesh_retry_total{upstream=\"payment-service\",subset=\"v2\"} 3
mesh_retry_total{upstream=\"other\",subset=\"\"} 100
mesh_retry_total_other{upstream=\"payment-service\"} 100
";
        assert_eq!(sum(metrics, "mesh_retry_total", ""), 5);
        assert_eq!(sum(metrics, "mesh_retry_total", "subset=\"v2\""), 3);
        assert_eq!(sum(metrics, "mesh_nothing", ""), 0);
    }
}

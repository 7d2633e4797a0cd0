//! What is counted.

use ::metrics::Key;
use mesh_core::limit;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::ServiceExt;

use crate::support::*;

/// What a recorder has seen.
struct Seen(Vec<(Key, f64)>);

impl Seen {
    /// The sum over all series of a metric, or over those that have this label.
    fn sum(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        let of = self.0.iter().filter(|(key, _)| key.name() == name);
        of.filter(|(key, _)| {
            label.is_none_or(|(k, v)| key.labels().any(|l| l.key() == k && l.value() == v))
        })
        .map(|(_, value)| value)
        .sum()
    }
}

/// Runs `work` with a recorder of its own.
fn recorded(work: impl Future<Output = ()>) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let recorder = DebuggingRecorder::new();
    ::metrics::with_local_recorder(&recorder, || runtime.block_on(work));
    let of = |value: DebugValue| match value {
        DebugValue::Counter(count) => count as f64,
        DebugValue::Gauge(value) => value.0,
        DebugValue::Histogram(values) => values.len() as f64,
    };
    let all = recorder.snapshotter().snapshot().into_vec().into_iter();
    Seen(all.map(|(key, _, _, value)| (key.key().clone(), of(value))).collect())
}

#[test]
fn a_request_over_the_limit_is_counted_as_refused() {
    let seen = recorded(async {
        let limits = limit::Config::default().with_max_requests(1);
        let upstream = shop(&["a:1"]).limits(limits).build_undriven(make(|_, _| 200)).unwrap();
        let first = upstream.clone().oneshot(request()).await.unwrap();
        upstream.clone().oneshot(request()).await.unwrap_err();
        drop(first);
        upstream.oneshot(request()).await.unwrap();
    });
    assert_eq!(seen.sum("mesh_client_refused_total", Some(("flag", "UO"))), 1.0);
    assert_eq!(seen.sum("mesh_client_requests_total", None), 2.0);
}

#[test]
fn an_endpoint_that_is_removed_while_it_is_out_is_no_longer_out() {
    let seen = recorded(async {
        let builder = shop(&["a:1", "b:1"]).outlier(ejecting_at_once());
        let upstream = builder.build_undriven(make(|_, _| 500)).unwrap();
        upstream.clone().oneshot(request()).await.unwrap();
        let status = upstream.status();
        let out: Vec<_> = status.iter().filter(|endpoint| !endpoint.is_healthy()).collect();
        assert_eq!(out.len(), 1);
        upstream.remove_endpoint(out[0].endpoint.address());
    });
    assert_eq!(seen.sum("mesh_outlier_ejections_total", None), 1.0);
    assert_eq!(seen.sum("mesh_outlier_ejected", None), 0.0);
}

#[test]
fn a_recorder_installed_later_is_told_how_things_stand() {
    let builder = shop(&["a:1", "b:1", "c:1"]).outlier(ejecting_at_once());
    let upstream =
        builder.build_undriven(make(|_, attempt| if attempt == 0 { 500 } else { 200 })).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(upstream.clone().oneshot(request())).unwrap();

    let seen = recorded(async {
        upstream.oneshot(request()).await.unwrap();
    });
    assert_eq!(seen.sum("mesh_endpoints", None), 3.0);
    assert_eq!(seen.sum("mesh_outlier_ejected", None), 1.0);
}

//! Metrics: nothing without a recorder, right with one that is installed later.
#![cfg(feature = "metrics")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{Endpoint, Ratio, balance, outlier, retry};
use mesh_tower::{
    BoxError,
    body::ReplayBody,
    describe_metrics,
    health::{self, Report},
    limit::{self, LimitLayer, adaptive},
    recommended_buckets,
    upstream::{Origin, Upstream},
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{Layer, ServiceExt, service_fn};

/// Name, labels and value.
type Series = (String, Vec<(String, String)>, f64);

/// The sum of a counter over all series that have these labels.
fn sum(snapshot: &[Series], name: &str, label: Option<(&str, &str)>) -> f64 {
    snapshot
        .iter()
        .filter(|(key, labels, _)| {
            key == name && label.is_none_or(|(k, v)| labels.iter().any(|(a, b)| a == k && b == v))
        })
        .map(|(_, _, value)| value)
        .sum()
}

fn read(snapshotter: &Snapshotter) -> Vec<Series> {
    let of = |value: DebugValue| match value {
        DebugValue::Counter(count) => count as f64,
        DebugValue::Gauge(value) => value.0,
        DebugValue::Histogram(values) => values.len() as f64,
    };
    let snapshot = snapshotter.snapshot().into_vec();
    snapshot
        .into_iter()
        .map(|(key, _, _, value)| {
            let key = key.key();
            let labels = key.labels().map(|l| (l.key().to_owned(), l.value().to_owned())).collect();
            (key.name().to_owned(), labels, of(value))
        })
        .collect()
}

#[test]
fn a_recorder_installed_after_the_upstream_was_made_sees_everything_from_then_on() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let make = |origin: &Origin<'_>| {
        let status = if &**origin.endpoint().address() == "bad:1" { 503 } else { 200 };
        service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| async move {
            let response = Response::builder().status(status).body(Full::<Bytes>::default());
            Ok::<_, BoxError>(response.unwrap())
        })
    };
    let upstream = Upstream::builder("shop")
        .endpoints([Endpoint::new("bad:1"), Endpoint::new("good:1")])
        .retry(retry::Config::none().with_retries(1).with_retry_on("5xx".parse().unwrap()))
        // So that the bad one is met again before it is ejected.
        .balance(balance::Config::round_robin())
        .outlier(
            outlier::Config::default()
                .with_consecutive_5xx(3)
                .with_max_ejection_percent(Ratio::ONE)
                .unwrap(),
        )
        .build_undriven(make)
        .unwrap();
    let send = |times: usize| {
        runtime.block_on(async {
            for _ in 0..times {
                let request = Request::new(Full::<Bytes>::default());
                assert_eq!(upstream.clone().oneshot(request).await.unwrap().status(), 200);
                tokio::time::advance(Duration::from_millis(1)).await;
            }
        });
    };
    send(2); // before: counts nowhere, and must not bind the handles for ever

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        describe_metrics();
        send(40);
    });
    let seen = read(&snapshotter);
    assert_eq!(sum(&seen, "mesh_client_requests_total", Some(("status_class", "2xx"))), 40.0);
    assert_eq!(sum(&seen, "mesh_client_requests_total", Some(("upstream", "shop"))), 40.0);
    let attempts = sum(&seen, "mesh_client_attempts_total", None);
    let retries = sum(&seen, "mesh_retry_total", None);
    assert_eq!(attempts, 40.0 + retries);
    assert!(retries >= 1.0, "{seen:?}");
    assert_eq!(
        sum(&seen, "mesh_client_attempts_total", Some(("outcome", "gateway_error"))),
        retries
    );
    assert_eq!(sum(&seen, "mesh_outlier_ejections_total", Some(("enforced", "yes"))), 1.0);
    assert_eq!(sum(&seen, "mesh_client_request_duration_seconds", None), 40.0);
    assert!(seen.iter().all(|(name, ..)| name.starts_with("mesh_")));
    assert!(recommended_buckets().is_sorted());
}

/// Once a second, and when all is quiet.
#[test]
fn an_adaptive_limit_tells_how_it_stands() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        describe_metrics();
        let config = adaptive::Gradient::default().with_request_count(3).build().unwrap();
        let layer = LimitLayer::server(limit::Config::default().with_max_pending(0))
            .with_adaptive(config)
            .named("shop");
        let service = layer.layer(service_fn(async |()| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok::<_, BoxError>(())
        }));
        runtime.block_on(async {
            let (a, b, c, d) = tokio::join!(
                service.clone().oneshot(()),
                service.clone().oneshot(()),
                service.clone().oneshot(()),
                service.clone().oneshot(()),
            );
            assert_eq!([a, b, c, d].iter().filter(|result| result.is_ok()).count(), 3);
        });
    });
    let snapshot = read(&snapshotter);
    let value = |name| sum(&snapshot, name, Some(("limit", "shop")));
    assert_eq!(value("mesh_adaptive_limit"), 3.0);
    assert_eq!(value("mesh_adaptive_limit_in_flight"), 0.0);
    assert_eq!(value("mesh_adaptive_limit_min_rtt_seconds"), 0.01);
    assert_eq!(value("mesh_adaptive_limit_refused_total"), 1.0);
}

#[test]
fn a_pick_in_panic_is_counted() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let picks = |threshold: u32| {
        let make = |_: &Origin<'_>| {
            service_fn(|_: Request<ReplayBody<Full<Bytes>>>| async {
                let response = Response::builder().status(503).body(Full::<Bytes>::default());
                Ok::<_, BoxError>(response.unwrap())
            })
        };
        let outlier = outlier::Config::default().with_consecutive_5xx(3);
        let upstream = Upstream::builder("shop")
            .endpoints([Endpoint::new("bad:1")])
            .retry(retry::Config::none())
            .outlier(outlier.with_max_ejection_percent(Ratio::ONE).unwrap())
            .panic_threshold(Ratio::from_percent(threshold))
            .build_undriven(make)
            .unwrap();
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                for _ in 0..5 {
                    drop(upstream.clone().oneshot(Request::new(Full::<Bytes>::default())).await);
                }
            });
        });
        sum(&read(&snapshotter), "mesh_panic_picks_total", Some(("upstream", "shop")))
    };
    // The third failure in a row ejects the only endpoint.
    assert_eq!(picks(50), 2.0);
    assert_eq!(picks(0), 0.0);
}

/// Passed twice, failed twice, and then so that one is enough.
#[test]
fn checks_are_counted_and_what_they_find() {
    let seen =
        checks(&[Report::passed(), Report::passed(), Report::failed("no"), Report::failed("no")]);
    assert_eq!(seen, ([2.0, 2.0, 0.0], [1.0, 1.0]), "the first one decides, whatever was trusted");
    let seen = checks(&[Report::unhealthy("leave me"), Report::passed(), Report::passed()]);
    assert_eq!(seen, ([2.0, 0.0, 1.0], [1.0, 1.0]));
    // A single failure is none yet: what counts is the transition, not the check.
    let seen = checks(&[Report::passed(), Report::failed("no"), Report::passed()]);
    assert_eq!(seen, ([2.0, 1.0, 0.0], [1.0, 0.0]));
}

/// `mesh_health_checks_total` by result (passed, failed, unhealthy) and `mesh_health_transitions_total` (healthy,
/// unhealthy), after these reports, one a second.
#[expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
fn checks(reports: &[Report]) -> ([f64; 3], [f64; 2]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let config = health::Config::default()
        .with_initial_jitter(Duration::ZERO)
        .with_interval_jitter(Ratio::ZERO)
        .with_interval(Duration::from_secs(1))
        .and_then(|config| config.with_unhealthy_threshold(2))
        .and_then(|config| config.with_healthy_threshold(2))
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let next = Arc::new(AtomicUsize::new(0));
            let all = Duration::from_secs(1) * reports.len() as u32;
            let reports = reports.to_vec();
            let check = move |_| {
                let report = reports.get(next.fetch_add(1, Ordering::Relaxed)).cloned();
                async move {
                    match report {
                        Some(report) => report,
                        None => std::future::pending().await,
                    }
                }
            };
            let make = |_: &Origin<'_>| {
                service_fn(|_: Request<ReplayBody<Full<Bytes>>>| async {
                    Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
                })
            };
            let upstream = Upstream::builder("shop")
                .endpoints([Endpoint::new("a:1")])
                .health_check(config, check)
                .spawn(make)
                .unwrap();
            tokio::time::sleep(all).await;
            drop(upstream);
        });
    });
    let seen = read(&snapshotter);
    assert!(seen.iter().any(|(name, labels, _)| {
        let of = |key: &str| labels.iter().find(|(name, _)| name == key).map(|(_, value)| &**value);
        name == "mesh_health_checks_total"
            && of("upstream") == Some("shop")
            && of("subset") == Some("")
    }));
    let count = |name, label, value| sum(&seen, name, Some((label, value)));
    let results = ["passed", "failed", "unhealthy"];
    (
        results.map(|result| count("mesh_health_checks_total", "result", result)),
        ["healthy", "unhealthy"].map(|to| count("mesh_health_transitions_total", "to", to)),
    )
}

//! Changes of state and states are counted.

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use super::*;

/// By metric and life. What is read is forgotten: counters count from the last time, and gauges say what they were
/// set to since.
fn read(snapshotter: &Snapshotter) -> impl Fn(&str, &str) -> f64 {
    let of = |value| match value {
        DebugValue::Counter(count) => count as f64,
        DebugValue::Gauge(value) => value.0,
        DebugValue::Histogram(values) => values.len() as f64,
    };
    let all: BTreeMap<(String, String), f64> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter_map(|(key, _, _, value)| {
            let life = key.key().labels().find(|label| ["life", "to"].contains(&label.key()))?;
            Some(((key.key().name().to_owned(), life.value().to_owned()), of(value)))
        })
        .collect();
    move |metric, life| {
        let name = match metric {
            "in" => "mesh_endpoints_by_life",
            _ => "mesh_endpoint_life_changes_total",
        };
        all.get(&(name.to_owned(), life.to_owned())).copied().unwrap_or(0.0)
    }
}

#[test]
fn every_change_is_counted_and_every_state() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    ::metrics::with_local_recorder(&recorder, || runtime.block_on(run(&snapshotter)));
}

async fn run(snapshotter: &Snapshotter) {
    let fleet = Fleet::default();
    let upstream = shop(&["a:1", "b:1"]).outlier(ejecting()).spawn(fleet.clone()).unwrap();
    fleet.set_link("b:1", Link::Idle);
    sleep(2 * SECOND).await;
    let seen = read(snapshotter);
    assert_eq!((seen("in", "ready"), seen("in", "idle"), seen("in", "draining")), (1.0, 1.0, 0.0));
    assert_eq!((seen("to", "ready"), seen("to", "idle")), (1.0, 0.0), "idle is how it begins");

    fleet.kill("a:1");
    for _ in 0..6 {
        drop(send(&upstream).await.unwrap());
    }
    turn().await;
    let seen = read(snapshotter);
    assert_eq!((seen("in", "ejected"), seen("in", "ready")), (1.0, 0.0), "at once");
    assert_eq!(seen("to", "ejected"), 1.0);
    fleet.revive();
    sleep(40 * SECOND).await;
    let seen = read(snapshotter);
    assert_eq!((seen("in", "ejected"), seen("in", "ready")), (0.0, 1.0));
    assert_eq!(seen("to", "ready"), 1.0);

    let (gate, answer) = occupy(&fleet, &upstream).await;
    upstream.remove_endpoint("a:1");
    turn().await;
    let seen = read(snapshotter);
    assert_eq!((seen("in", "draining"), seen("in", "ready"), seen("in", "idle")), (1.0, 0.0, 1.0));
    assert_eq!((seen("to", "draining"), seen("to", "gone")), (1.0, 0.0));
    gate.notify_waiters();
    text(answer).await;
    sleep(2 * SECOND).await;
    let seen = read(snapshotter);
    assert_eq!(seen("in", "draining"), 0.0);
    assert_eq!(seen("to", "gone"), 1.0);
    // Without anything under way it does not drain first.
    upstream.remove_endpoint("b:1");
    let seen = read(snapshotter);
    assert_eq!((seen("to", "gone"), seen("to", "draining")), (1.0, 0.0));
}

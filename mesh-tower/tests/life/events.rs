//! Changes of state are told as events.

use std::fmt::Write as _;

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use super::*;

/// Writes down the events of endpoints' lives, one a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        // Those of other tests are told too.
        if line.0.starts_with(" message=life upstream=told ") {
            let mut log = self.0.lock().unwrap();
            log.push_str(line.0.trim());
            log.push('\n');
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

#[test]
fn every_change_is_told_once() {
    let log = Log::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    // For all threads: a subscriber of one thread misses what another has met first.
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    runtime.block_on(async {
        let fleet = Fleet::default();
        let upstream = Upstream::builder("told")
            .endpoints([Endpoint::new("a:1")])
            .retry(retry::Config::none())
            .outlier(ejecting())
            .spawn(fleet.clone())
            .unwrap();
        sleep(5 * SECOND).await;
        fleet.kill("a:1");
        for _ in 0..3 {
            drop(send(&upstream).await.unwrap());
        }
        fleet.revive();
        sleep(60 * SECOND).await;
        let (gate, request) = occupy(&fleet, &upstream).await;
        upstream.remove_endpoint("a:1");
        gate.notify_waiters();
        text(request).await;
        sleep(5 * SECOND).await;
    });
    let changes = [
        ("idle", "ready"),
        ("ready", "ejected"),
        ("ejected", "ready"),
        ("ready", "draining"),
        ("draining", "gone"),
    ];
    let line = |(from, to)| {
        format!("message=life upstream=told subset= endpoint=a:1 from={from} to={to}\n")
    };
    assert_eq!(*log.0.lock().unwrap(), changes.map(line).concat());
}

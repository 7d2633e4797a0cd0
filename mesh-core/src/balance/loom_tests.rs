//! Every interleaving of a report and a look at it.

use std::time::Duration;

use loom::{sync::Arc, thread};

use super::{
    Since,
    report::{Config, Report, Reported},
};
use crate::{
    Timestamp,
    sync::{AtomicU64, Ordering},
};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

/// The first report after an expired one begins a new blackout: nobody sees the report without it.
#[test]
fn loom_no_report_is_used_in_its_blackout() {
    loom::model(|| {
        let config = Config::default()
            .with_blackout_period(Duration::from_secs(10))
            .with_weight_expiration_period(Duration::from_secs(60));
        let reported = Arc::new(Reported::new());
        reported.on_report(&config, at(0), &Report::new(1.0, 1.0));
        let other = reported.clone();
        let reporter =
            thread::spawn(move || other.on_report(&config, at(100), &Report::new(2.0, 1.0)));
        assert_eq!(reported.weight(&config, at(100)), None);
        assert!(reporter.join().expect("the other does not panic"));
        assert_eq!(reported.weight(&config, at(109)), None);
        assert_eq!(reported.weight(&config, at(110)), Some(2.0));
    });
}

/// The broken twin: the report is there before its blackout is.
#[test]
#[should_panic(expected = "a report without its blackout")]
fn loom_the_order_of_the_writes_matters() {
    loom::model(|| {
        let words = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let other = words.clone();
        let reporter = thread::spawn(move || {
            let [since, last] = &*other;
            last.store(100, Ordering::Release);
            since.store(100, Ordering::Relaxed);
        });
        let [since, last] = &*words;
        let is_old = last.load(Ordering::Acquire) < 100;
        let is_dark = since.load(Ordering::Relaxed) == 100;
        assert!(is_old || is_dark, "a report without its blackout");
        reporter.join().expect("the other does not panic");
    });
}

/// Two reports at once: one of them stays.
#[test]
fn loom_one_of_two_reports_stays() {
    loom::model(|| {
        let config = Config::default().with_blackout_period(Duration::ZERO);
        let reported = Arc::new(Reported::new());
        let other = reported.clone();
        let reporter =
            thread::spawn(move || other.on_report(&config, at(1), &Report::new(2.0, 1.0)));
        reported.on_report(&config, at(1), &Report::new(3.0, 1.0));
        reporter.join().expect("the other does not panic");
        assert!(matches!(reported.weight(&config, at(1)), Some(2.0 | 3.0)));
    });
}

#[test]
fn loom_who_comes_back_is_seen_as_old_or_new() {
    loom::model(|| {
        let since = Arc::new(Since::new(at(1)));
        let other = since.clone();
        let writer = thread::spawn(move || other.on_available(at(9)));
        assert!([Some(at(1)), Some(at(9))].contains(&since.get()));
        writer.join().expect("the other does not panic");
        assert_eq!(since.get(), Some(at(9)));
    });
}

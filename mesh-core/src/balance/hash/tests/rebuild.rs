//! How often a table is built, and how old it gets.

use std::time::Duration;

use super::*;

const INTERVAL: Duration = Duration::from_millis(100);

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Whoever decides, asked after each change and at each millisecond in between.
trait Decides {
    fn on_change(&mut self, now: Timestamp);
    fn on_timeout(&mut self, now: Timestamp) -> bool;
}

impl Decides for Rebuild {
    fn on_change(&mut self, now: Timestamp) {
        self.on_change(now);
    }

    fn on_timeout(&mut self, now: Timestamp) -> bool {
        let is_due = self.poll_timeout().is_some_and(|due| due <= now);
        let builds = self.on_timeout(now);
        assert_eq!(builds, is_due, "it says beforehand when");
        builds
    }
}

/// Waits until there is quiet: under a steady stream of changes it never builds.
struct Quiet(Option<Timestamp>);

impl Decides for Quiet {
    fn on_change(&mut self, now: Timestamp) {
        self.0 = Some(now + INTERVAL);
    }

    fn on_timeout(&mut self, now: Timestamp) -> bool {
        self.0.take_if(|due| *due <= now).is_some()
    }
}

/// A change in every `gap` milliseconds: nothing waits for longer than an interval, and no two builds are closer.
fn check(decides: &mut impl Decides, gap: u64) -> Result<u64, String> {
    let (mut waits_since, mut last, mut builds) = (None, None, 0);
    for now in 0..2_000 {
        if now % gap == 0 && now < 1_000 {
            decides.on_change(ms(now));
            waits_since = waits_since.or(Some(now));
        }
        if decides.on_timeout(ms(now)) {
            if last.is_some_and(|last| now - last < 100) {
                return Err(format!("built again at {now}"));
            }
            (waits_since, last) = (None, Some(now));
            builds += 1;
        }
        if waits_since.is_some_and(|since| now - since > 100) {
            return Err(format!("still waiting at {now}"));
        }
    }
    if waits_since.is_some() { Err("the last change is lost".to_owned()) } else { Ok(builds) }
}

#[test]
fn a_burst_builds_once_and_nothing_waits_for_long() {
    assert_eq!(check(&mut Rebuild::default(), 1).unwrap(), 11, "1,000 changes in a second");
    assert_eq!(check(&mut Rebuild::default(), 30).unwrap(), 11);
    assert_eq!(check(&mut Rebuild::new(INTERVAL), 200).unwrap(), 5, "one for each");
}

#[test]
fn the_check_catches_who_waits_for_quiet_or_builds_each_time() {
    check(&mut Quiet(None), 30).unwrap_err();
    check(&mut Rebuild::new(Duration::ZERO), 30).unwrap_err();
}

#[test]
fn a_clock_that_goes_backwards_delays_by_an_interval_at_most() {
    let mut rebuild = Rebuild::new(INTERVAL);
    rebuild.on_change(ms(5_000));
    assert!(rebuild.on_timeout(ms(5_000)));
    rebuild.on_change(ms(5_001));
    rebuild.on_change(ms(1_000));
    assert_eq!(rebuild.poll_timeout(), Some(ms(1_100)));
}

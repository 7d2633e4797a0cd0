//! Every interleaving of a few threads (up to loom's preemption bound) over the count of ejected hosts.

use ::loom::{model, sync::Arc, thread};

use super::*;
use crate::{Ratio, SplitMix64};

const START: Timestamp = Timestamp::from_secs(1_000);
const LATER: Timestamp = Timestamp::from_secs(2_000);

struct Set {
    detection: Detection,
    hosts: Vec<Host>,
}

impl Set {
    /// A set in which `cap` hosts may be out, and one failure is enough.
    fn new(hosts: u32, cap: u32) -> Arc<Self> {
        let share = Ratio::from_ppm((1_000_000 * cap).div_ceil(hosts));
        let config =
            Config::istio().with_consecutive_5xx(1).with_max_ejection_percent(share).unwrap();
        let detection = Detection::new(config, START);
        detection.set_hosts(hosts);
        assert_eq!(detection.cap(), cap);
        Arc::new(Self { detection, hosts: (0..hosts).map(|_| Host::new()).collect() })
    }

    fn fail(&self, host: usize) -> Option<Event> {
        let mut rng = SplitMix64::new(1);
        self.detection.on_outcome(START, &mut rng, &self.hosts[host], Outcome::ServerError).last()
    }

    fn out(&self) -> u32 {
        self.hosts.iter().filter(|host| host.is_ejected()).count() as u32
    }
}

fn spawn<T: 'static>(
    set: &Arc<Set>,
    act: impl FnOnce(&Set) -> T + 'static,
) -> thread::JoinHandle<T> {
    let set = Arc::clone(set);
    thread::spawn(move || act(&set))
}

fn is_ejected(event: Option<Event>) -> bool {
    matches!(event, Some(Event::Ejected { .. }))
}

#[test]
fn of_hosts_that_fail_at_once_no_more_than_the_cap_are_out() {
    model(|| {
        let set = Set::new(3, 1);
        let failing: Vec<_> = (0..3).map(|host| spawn(&set, move |set| set.fail(host))).collect();
        let told = failing.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(told.filter(|event| is_ejected(*event)).count(), 1);
        assert_eq!((set.detection.ejected(), set.out()), (1, 1));
    });
}

#[test]
fn a_host_detected_by_two_threads_is_ejected_once() {
    model(|| {
        let set = Set::new(2, 2);
        let other = spawn(&set, |set| set.fail(0));
        let told =
            u32::from(is_ejected(set.fail(0))) + u32::from(is_ejected(other.join().unwrap()));
        assert_eq!(told, 1);
        assert_eq!((set.detection.ejected(), set.out()), (1, 1));
        assert_eq!(set.hosts[0].ejections(), 1);
    });
}

/// A place is given back while another host takes one: the count is that of the flags, and never above the cap.
#[test]
fn a_return_and_an_ejection_at_once_keep_the_count() {
    model(|| {
        let set = Set::new(2, 1);
        assert!(is_ejected(set.fail(0)));
        let sweep = spawn(&set, |set| {
            let mut returned = 0;
            set.detection.sweep(LATER, &mut SplitMix64::new(1), &set.hosts, |_, _| returned += 1);
            returned
        });
        let back =
            spawn(&set, |set| u32::from(set.detection.uneject(LATER, &set.hosts[0]).is_some()));
        set.fail(1);
        assert!(set.detection.ejected() <= 1);
        let returned: u32 = sweep.join().unwrap() + back.join().unwrap();
        // Host 1 may have been out, and even be swept back, within the sweep.
        assert!((1..=2).contains(&returned));
        assert_eq!(set.detection.ejected(), set.out());
    });
}

/// However an ejection falls into a sweep, the next timeout still knows of its return.
#[test]
fn an_ejection_during_a_sweep_is_not_forgotten() {
    model(|| {
        let set = Set::new(2, 2);
        let sweep = spawn(&set, |set| {
            let due = START + set.detection.config().interval();
            set.detection.sweep(due, &mut SplitMix64::new(1), &set.hosts, |_, _| {});
        });
        set.fail(0);
        sweep.join().unwrap();
        let until = set.hosts[0].ejected_until().unwrap();
        assert!(set.detection.poll_timeout().unwrap() <= until);
        assert_eq!(set.detection.next_return.load(Relaxed), until.as_nanos());
    });
}

#[test]
fn a_removal_and_an_ejection_at_once_leave_no_count_behind() {
    model(|| {
        let set = Set::new(2, 2);
        let removal = spawn(&set, |set| _ = set.detection.on_host_removed(&set.hosts[0]));
        set.fail(0);
        removal.join().unwrap();
        assert_eq!((set.detection.ejected(), set.out()), (0, 0));
    });
}

/// Of answers that come while the interval ends, none is lost and none counts in two intervals.
#[test]
fn an_answer_at_the_end_of_an_interval_counts_once() {
    model(|| {
        let tallies = Arc::new(tally::Tallies::new());
        let answers = {
            let tallies = Arc::clone(&tallies);
            thread::spawn(move || {
                tallies.count(Origin::External, true);
                tallies.count(Origin::External, false);
            })
        };
        tallies.count(Origin::External, true);
        tallies.swap();
        let first = tallies.last(Origin::External);
        answers.join().unwrap();
        tallies.swap();
        let second = tallies.last(Origin::External);
        assert_eq!((first.good + second.good, first.bad + second.bad), (2, 1));
    });
}

/// The broken twin of the swap: reads, then clears.
#[test]
#[should_panic(expected = "an answer is lost")]
fn a_counter_that_is_read_and_then_cleared_would_be_caught() {
    model(|| {
        let counter = Arc::new(AtomicU32::new(0));
        let answer = {
            let counter = Arc::clone(&counter);
            thread::spawn(move || counter.fetch_add(1, Relaxed))
        };
        let first = counter.load(Relaxed);
        counter.swap(0, Relaxed);
        answer.join().unwrap();
        assert_eq!(first + counter.load(Relaxed), 1, "an answer is lost");
    });
}

/// The comparison ejects while an outcome does: one of the two, and the count is that of the flags.
#[test]
fn a_comparison_and_an_outcome_at_once_eject_once() {
    model(|| {
        let share = FailurePercentage::default().with_minimum_hosts(1).with_request_volume(1);
        let config = Config::istio()
            .with_consecutive_5xx(2)
            .with_failure_percentage(Some(share))
            .with_max_ejection_percent(Ratio::ONE)
            .unwrap();
        let detection = Detection::new(config, START);
        detection.set_hosts(1);
        let set = Arc::new(Set { detection, hosts: vec![Host::new()] });
        set.fail(0);
        let failure = spawn(&set, |set| u32::from(is_ejected(set.fail(0))));
        let mut told = 0;
        let due = START + config.interval();
        set.detection.sweep(due, &mut SplitMix64::new(1), &set.hosts, |_, event| {
            told += u32::from(is_ejected(Some(event)));
        });
        assert_eq!(told + failure.join().unwrap(), 1);
        assert_eq!((set.detection.ejected(), set.out()), (1, 1));
    });
}

/// The broken twin of the reservation: looks at the count, then raises it.
#[test]
#[should_panic(expected = "over the cap")]
fn a_cap_that_is_checked_before_it_is_taken_would_be_caught() {
    model(|| {
        let ejected = Arc::new(AtomicU32::new(0));
        let reserve = |ejected: &AtomicU32| {
            if ejected.load(Acquire) < 1 {
                ejected.fetch_add(1, AcqRel);
            }
        };
        let other = {
            let ejected = Arc::clone(&ejected);
            thread::spawn(move || reserve(&ejected))
        };
        reserve(&ejected);
        other.join().unwrap();
        assert!(ejected.load(Acquire) <= 1, "over the cap");
    });
}

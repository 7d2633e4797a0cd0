//! Every interleaving of small programs over the budget.

use std::time::Duration;

use loom::{sync::Arc, thread};

use super::{Budget, Config};
use crate::{
    Ratio, Timestamp,
    sync::{AtomicU64, Ordering},
};

const START: Timestamp = Timestamp::ZERO;

fn tokens(percent: u32, min_per_second: u32) -> Config {
    Config::tokens(Ratio::from_percent(percent), min_per_second, Duration::from_secs(1))
        .expect("within the bounds")
}

fn granted(results: impl IntoIterator<Item = bool>) -> usize {
    results.into_iter().filter(|granted| *granted).count()
}

/// Runs `try_withdraw` in two threads and counts the grants.
fn withdraw_twice(budget: &Arc<Budget>, now: Timestamp) -> usize {
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let budget = budget.clone();
            thread::spawn(move || budget.try_withdraw(now).is_ok())
        })
        .collect();
    granted(threads.into_iter().filter_map(|thread| thread.join().ok()))
}

#[test]
fn loom_one_token_is_spent_once() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(tokens(0, 1), START));
        assert_eq!(withdraw_twice(&budget, START), 1);
        assert_eq!(budget.balance(START), 0);
        assert_eq!(budget.retries_in_flight(), 1);
    });
}

#[test]
fn loom_one_concurrent_retry_is_granted_once() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(Config::concurrent(Ratio::ZERO, 1), START));
        assert_eq!(withdraw_twice(&budget, START), 1);
        assert_eq!(budget.retries_in_flight(), 1);
    });
}

/// A deposit that races with a withdrawal is spent or kept, never both and never neither.
#[test]
fn loom_no_deposit_is_lost() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(tokens(100, 1), START));
        let other = budget.clone();
        let depositor = thread::spawn(move || other.on_request(START));
        let spent = granted((0..2).map(|_| budget.try_withdraw(START).is_ok()));
        depositor.join().expect("the depositor does not panic");
        assert_eq!(budget.balance(START) + spent as u64, 2);
    });
}

/// The end of a slice, a deposit and a withdrawal at once: what is counted in the window stays exact, and the
/// slice that was rolled expires with what it holds.
#[test]
fn loom_a_slice_ends_under_load() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(tokens(100, 1), START));
        let next_slice = Timestamp::from_millis(100);
        let other = budget.clone();
        let depositor = thread::spawn(move || other.on_request(next_slice));
        let spent = granted([budget.try_withdraw(next_slice).is_ok()]);
        depositor.join().expect("the depositor does not panic");
        assert_eq!(spent, 1);
        assert_eq!(budget.balance(next_slice), 1);
        // Both belong to the second slice; the window forgets them together.
        assert_eq!(budget.balance(Timestamp::from_millis(1_099)), 1);
        assert_eq!(budget.balance(Timestamp::from_millis(1_100)), 1);
        assert!(budget.try_withdraw(Timestamp::from_millis(1_100)).is_ok());
        assert!(budget.try_withdraw(Timestamp::from_millis(1_100)).is_err());
    });
}

/// Two threads find the same slice over: it is rolled once.
#[test]
fn loom_a_slice_is_rolled_once() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(tokens(100, 0), START));
        budget.on_request(START);
        // The deposit's slice expires at 1 s; a second roll would subtract it twice, or a new one.
        let end = Timestamp::from_secs(1);
        let other = budget.clone();
        let roller = thread::spawn(move || other.on_request(end));
        budget.on_request(end);
        roller.join().expect("the roller does not panic");
        assert_eq!(budget.balance(end), 2);
    });
}

/// The broken twin: a balance that is read, tested and then written loses one of two withdrawals.
#[test]
#[should_panic(expected = "one token was spent twice")]
fn loom_catches_a_double_spend() {
    loom::model(|| {
        let balance = Arc::new(AtomicU64::new(1));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let balance = balance.clone();
                thread::spawn(move || {
                    let seen = balance.load(Ordering::SeqCst);
                    if seen > 0 {
                        balance.store(seen - 1, Ordering::SeqCst);
                    }
                    seen > 0
                })
            })
            .collect();
        let spent = granted(threads.into_iter().filter_map(|thread| thread.join().ok()));
        assert!(spent < 2, "one token was spent twice");
    });
}

/// A failure and a success at once, in a bucket that is neither full nor empty: both count.
#[test]
fn loom_no_answer_is_lost() {
    loom::model(|| {
        let config = Config::throttle(4, Ratio::from_percent(50)).expect("within the bounds");
        let budget = Arc::new(Budget::new(config, START));
        budget.on_failure();
        let other = budget.clone();
        let thread = thread::spawn(move || other.on_failure());
        budget.on_success();
        thread.join().expect("the other does not panic");
        assert_eq!(budget.tokens(START), Some(2_500_000));
    });
}

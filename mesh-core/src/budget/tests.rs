use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::*;

const START: Timestamp = Timestamp::ZERO;

fn tokens(ratio: &str, min_per_second: u32, ttl_secs: u64) -> Config {
    let ttl = Duration::from_secs(ttl_secs);
    Config::tokens(ratio.parse().unwrap(), min_per_second, ttl).unwrap()
}

/// Withdraws until refused.
fn drain(budget: &Budget, now: Timestamp) -> u64 {
    (0..).find(|_| budget.try_withdraw(now).is_err()).unwrap()
}

/// The ratios that tower rounds wrong are among these.
const RATIOS: [u32; 6] = [100_000, 300_000, 400_000, 600_000, 900_000, 1_500_000];

/// `retries(ppm, deposits)` must be exactly `⌊ratio · deposits⌋`.
fn check_fractions(retries: impl Fn(u32, u64) -> u64) -> Result<(), String> {
    for ppm in RATIOS {
        let (granted, exact) = (retries(ppm, 1_000), Ratio::from_ppm(ppm).of(1_000));
        if granted != exact {
            return Err(format!("{ppm} ppm of 1000: {granted} retries, not {exact}"));
        }
    }
    Ok(())
}

#[test]
fn fractions_are_exact() {
    let result = check_fractions(|ppm, deposits| {
        let ttl = Duration::from_secs(10);
        let config = Config::tokens(Ratio::from_ppm(ppm), 0, ttl).unwrap();
        let budget = Budget::new(config, START);
        (0..deposits).for_each(|_| budget.on_request(START));
        drain(&budget, START)
    });
    assert_eq!(result, Ok(()));
}

/// The broken twin: tower 0.5 keeps whole tokens, and cuts `1 / ratio` to a whole number.
#[test]
fn the_check_catches_truncated_fractions() {
    let error = check_fractions(|ppm, deposits| {
        let ratio = f64::from(ppm) / 1e6;
        let (deposit, withdraw) = if ratio <= 1.0 {
            (1, (1.0 / ratio) as u64)
        } else {
            (1_000, (1_000.0 / ratio) as u64)
        };
        deposits * deposit / withdraw
    })
    .unwrap_err();
    assert!(error.contains("not 300"), "{error}");
}

#[test]
fn the_reserve_is_there_without_traffic() {
    let budget = Budget::new(Config::default(), START);
    assert_eq!(budget.balance(START), 100);
    assert_eq!(drain(&budget, START), 100);
    assert_eq!(budget.retries_in_flight(), 100);
}

#[test]
fn finagles_figures() {
    for (ratio, min, ttl, retried) in [
        ("10%", 0, 60, 1_000),
        ("75%", 0, 60, 7_500),
        ("10%", 10, 1, 1_010),
        ("20%", 10, 10, 2_100),
    ] {
        let budget = Budget::new(tokens(ratio, min, ttl), START);
        let request = |_: &u32| {
            budget.on_request(START);
            budget.try_withdraw(START).is_ok()
        };
        assert_eq!((0..10_000).filter(request).count(), retried, "{ratio} {min}/s {ttl} s");
    }
}

#[test]
fn deposits_live_for_nine_to_ten_slices() {
    let deposit_at = |millis| {
        let budget = Budget::new(tokens("100%", 0, 1), START);
        budget.on_request(Timestamp::from_millis(millis));
        move |now| budget.balance(Timestamp::from_millis(now))
    };
    let early = deposit_at(0);
    assert_eq!((early(0), early(999), early(1_000), early(3_000)), (1, 1, 0, 0));
    let late = deposit_at(99);
    assert_eq!((late(99), late(999), late(1_000)), (1, 1, 0));
}

#[test]
fn withdrawals_expire_too() {
    let budget = Budget::new(tokens("0%", 1, 10), START);
    assert_eq!(drain(&budget, START), 10);
    assert_eq!(drain(&budget, Timestamp::from_millis(9_999)), 0);
    assert_eq!(drain(&budget, Timestamp::from_secs(10)), 10);
}

#[test]
fn a_late_look_does_not_stretch_the_window() {
    let budget = Budget::new(tokens("100%", 0, 1), START);
    budget.on_request(START);
    // Seen at odd moments, each slice would grow if it began where the look was late.
    for millis in [150, 290, 450, 590, 750, 890] {
        assert_eq!(budget.balance(Timestamp::from_millis(millis)), 1);
    }
    assert_eq!(budget.balance(Timestamp::from_millis(1_000)), 0);
}

#[test]
fn a_clock_that_stands_still_or_jumps_breaks_nothing() {
    let budget = Budget::new(tokens("50%", 1, 10), START);
    let far = Timestamp::from_secs(10 * 365 * 86_400);
    (0..4).for_each(|_| budget.on_request(START));
    assert_eq!(budget.balance(far), 10, "no burst beyond the reserve");
    assert_eq!(drain(&budget, START), 10, "back in time reads as no time");
    assert_eq!(drain(&budget, Timestamp::MAX), 10);
    assert_eq!(drain(&budget, Timestamp::MAX), 0);
}

#[test]
fn concurrent_follows_the_active_requests() {
    // Envoy RetryBudgetImpl: max(trunc(20 % of active), 3).
    for (active, allowed) in [(0, 3), (14, 3), (15, 3), (20, 4), (25, 5), (1_000, 200)] {
        let budget = Budget::new(Config::concurrent(Ratio::from_percent(20), 3), START);
        (0..active).for_each(|_| budget.on_request(START));
        assert_eq!(budget.balance(START), allowed, "{active} active");
        assert_eq!(drain(&budget, START), allowed, "{active} active");
        (0..active).for_each(|_| budget.on_request_end());
        assert_eq!(budget.balance(START), 0, "more in flight than allowed is no debt");
    }
}

#[test]
fn unlimited_counts_and_grants() {
    let budget = Budget::new(Config::unlimited(), START);
    let withdrawals: Vec<_> = (0..1_000).map(|_| budget.try_withdraw(START).unwrap()).collect();
    assert_eq!(budget.retries_in_flight(), 1_000);
    withdrawals.into_iter().for_each(|withdrawal| budget.on_retry_end(withdrawal));
    assert_eq!(budget.retries_in_flight(), 0);
}

#[test]
fn a_new_config_keeps_what_is_in_flight_and_in_the_window() {
    let budget = Budget::new(tokens("100%", 1, 10), START);
    budget.on_request(START);
    let withdrawal = budget.try_withdraw(START).unwrap();
    assert_eq!(budget.balance(START), 10);

    budget.set_config(tokens("100%", 2, 10), START);
    assert_eq!(budget.balance(START), 20, "the larger reserve counts at once, once");
    budget.set_config(tokens("100%", 0, 10), START);
    assert_eq!(budget.balance(START), 0);
    budget.on_request(START);
    assert_eq!(budget.balance(START), 1);
    assert_eq!(budget.balance(Timestamp::from_secs(10)), 0, "the reserve did not stay in a slice");

    budget.set_config(Config::concurrent(Ratio::ZERO, 1), START);
    assert!(budget.try_withdraw(START).is_err(), "the retry from before still runs");
    budget.on_retry_end(withdrawal);
    assert_eq!(drain(&budget, START), 1);
    assert_eq!(budget.active_requests(), 2);
    assert_eq!(budget.config(), Config::concurrent(Ratio::ZERO, 1));
}

#[test]
fn bounds_of_the_config() {
    let ttl = |secs| Config::tokens(Ratio::ONE, 0, Duration::from_secs(secs));
    assert!(ttl(1).is_ok() && ttl(60).is_ok());
    assert_eq!(ttl(0).unwrap_err().field(), "ttl");
    assert_eq!(ttl(61).unwrap_err().field(), "ttl");
    let ratio = |percent| {
        Config::tokens(Ratio::from_percent(percent), 0, Duration::from_secs(10)).map(|_| ())
    };
    assert!(ratio(100_000).is_ok());
    assert_eq!(ratio(100_001).unwrap_err().field(), "ratio");
}

#[test]
fn the_greatest_reserve_does_not_overflow() {
    let budget = Budget::new(tokens("100000%", u32::MAX, 60), START);
    assert_eq!(budget.balance(START), u64::from(u32::MAX) * 60);
    budget.on_request(START);
    assert_eq!(budget.balance(START), u64::from(u32::MAX) * 60 + 1_000);
}

/// Threads with a frozen clock: what is granted and what is left sum up to what was deposited, exactly.
#[test]
fn threads_lose_and_mint_nothing() {
    let budget = Budget::new(tokens("30%", 1, 10), START);
    let granted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    budget.on_request(START);
                    if let Ok(withdrawal) = budget.try_withdraw(START) {
                        granted.fetch_add(1, Ordering::Relaxed);
                        budget.on_retry_end(withdrawal);
                    }
                    budget.on_request_end();
                }
            });
        }
    });
    let left = drain(&budget, START);
    assert_eq!(granted.into_inner() + left, 20_000 * 3 / 10 + 10);
    assert_eq!(budget.active_requests(), 0);
    assert_eq!(budget.retries_in_flight(), left as u32);
}

/// Threads on a clock that runs through many slices: the bound of the module's docs holds.
#[test]
fn threads_hold_the_bound_while_slices_end() {
    const MILLIS: u64 = 20_000;
    let budget = Budget::new(tokens("0%", 10, 1), START);
    let (clock, granted) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while clock.load(Ordering::Relaxed) < MILLIS {
                    let now = Timestamp::from_millis(clock.fetch_add(1, Ordering::Relaxed));
                    granted.fetch_add(drain(&budget, now), Ordering::Relaxed);
                }
            });
        }
    });
    // 20 s of 1 s windows and the begin of one more; fewer where threads come late with an old moment.
    let granted = granted.into_inner();
    assert!((150..=220).contains(&granted), "{granted}");
}

/// Threads with the concurrent rule: never more at once than the rule allows.
#[test]
fn threads_never_exceed_the_concurrent_rule() {
    let budget = Budget::new(Config::concurrent(Ratio::ZERO, 2), START);
    let (running, peak) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let Ok(withdrawal) = budget.try_withdraw(START) else { continue };
                    peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    budget.on_retry_end(withdrawal);
                }
            });
        }
    });
    assert!(peak.into_inner() <= 2);
    assert_eq!(budget.retries_in_flight(), 0);
}

#[test]
fn a_throttle_stays_within_its_bounds() {
    let budget = Budget::new(Config::throttle(4, "1.5".parse().unwrap()).unwrap(), START);
    budget.on_success();
    assert_eq!(budget.tokens(START), Some(4_000_000));
    (0..10).for_each(|_| budget.on_failure());
    assert_eq!((budget.tokens(START), budget.balance(START)), (Some(0), 0));
    budget.on_success();
    assert!(budget.try_withdraw(START).is_err(), "1.5 of 4");
    budget.on_success();
    assert_eq!(budget.balance(START), u64::MAX, "3 of 4: a retry takes nothing");
    assert_eq!(drain_at_most(&budget, 1_000), 1_000);
    assert_eq!(budget.retries_in_flight(), 1_000);
}

fn drain_at_most(budget: &Budget, most: usize) -> usize {
    (0..most).filter(|_| budget.try_withdraw(START).is_ok()).count()
}

#[test]
fn a_throttle_keeps_three_decimals_and_its_share() {
    let config = |max, ratio: &str| Config::throttle(max, ratio.parse().unwrap());
    assert_eq!(config(10, "0.1239"), config(10, "0.123"));
    assert_eq!(config(0, "0.1").unwrap_err().field(), "max_tokens");
    assert_eq!(config(1_001, "0.1").unwrap_err().field(), "max_tokens");
    assert_eq!(config(10, "0.0009").unwrap_err().field(), "token_ratio");
    let budget = Budget::new(config(1_000, "4294").unwrap(), START);
    (0..250).for_each(|_| budget.on_failure());
    budget.set_config(config(4, "0.1").unwrap(), START);
    assert_eq!(budget.tokens(START), Some(3_000_000));
    budget.set_config(Config::default(), START);
    budget.on_failure();
    budget.set_config(config(4, "0.1").unwrap(), START);
    assert_eq!(budget.tokens(START), Some(4_000_000), "begins anew");
}

#[test]
fn only_a_throttle_counts_answers() {
    for config in [Config::default(), Config::finagle(), Config::envoy(), Config::unlimited()] {
        let budget = Budget::new(config, START);
        let before = (budget.balance(START), budget.tokens(START));
        budget.on_failure();
        budget.on_success();
        assert_eq!((budget.balance(START), budget.tokens(START)), before, "{config}");
    }
}

/// Threads that fail and succeed: nothing is lost, and no bound is passed.
#[test]
fn threads_lose_no_answer() {
    let budget = Budget::new(Config::throttle(1_000, "0.25".parse().unwrap()).unwrap(), START);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..250 {
                    budget.on_failure();
                    if round % 2 == 0 {
                        budget.on_success();
                    }
                }
            });
        }
    });
    // 1,000 failures and 500 successes; each thread fails first, so none met a full bucket.
    assert_eq!(budget.tokens(START), Some(125_000_000));
}

#[test]
fn every_rule_says_what_it_is() {
    let recent = Config::envoy().with_interval(Duration::from_secs(10)).unwrap();
    for (config, text) in [
        (Config::default(), "20% of the requests of the last 10s, and 10 a second"),
        (recent, "20% of the requests in flight and of the last 10s, 3 at least"),
        (Config::grpc(), "more than half of 10 tokens, 0.100 back for a success"),
        (Config::unlimited(), "unlimited"),
    ] {
        assert_eq!(config.to_string(), text);
    }
}

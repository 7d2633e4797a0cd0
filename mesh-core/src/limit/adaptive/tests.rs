use super::*;
use crate::{Ratio, SplitMix64};

const MILLI: Duration = Duration::from_millis(1);
const START: Timestamp = Timestamp::from_secs(1_000);

fn at(millis: u64) -> Timestamp {
    START + MILLI * millis as u32
}

fn rng() -> SplitMix64 {
    SplitMix64::new(1)
}

fn limiter(config: Config) -> Limiter {
    Limiter::new(config, START)
}

fn gradient() -> Gradient {
    Gradient::default().with_jitter(Ratio::ZERO).with_request_count(5)
}

/// `count` requests, one after the other, each of `rtt`; the clock stands still between them.
fn serve(limiter: &Limiter, now: Timestamp, rtt: Duration, count: u32) {
    for _ in 0..count {
        let permit = limiter.try_acquire(now - rtt, &mut rng()).unwrap();
        limiter.on_outcome(now, &mut rng(), permit, Outcome::Success);
    }
}

fn fill(limiter: &Limiter, now: Timestamp) -> Vec<Permit> {
    std::iter::from_fn(|| limiter.try_acquire(now, &mut rng()).ok()).collect()
}

// === admission ===

#[test]
fn a_slot_is_free_again_after_an_outcome_or_a_drop() {
    let limiter = limiter(Config::aimd());
    let mut permits = fill(&limiter, START);
    assert_eq!(permits.len(), 20);
    assert_eq!(limiter.try_acquire(START, &mut rng()).unwrap_err().limit(), 20);
    assert_eq!(permits.iter().map(Permit::in_flight).max(), Some(20));
    limiter.on_drop(permits.pop().unwrap());
    limiter.on_outcome(START, &mut rng(), permits.pop().unwrap(), Outcome::Cancelled);
    assert_eq!(limiter.in_flight(), 18);
    assert_eq!(fill(&limiter, START).len(), 2);
}

#[test]
fn a_limit_that_falls_takes_nothing_back() {
    let config = Aimd::default().with_min_limit(0).with_initial_limit(4).build().unwrap();
    let limiter = limiter(config.with_window(Window::EVERY_SAMPLE));
    let permits = fill(&limiter, START);
    for _ in 0..100 {
        limiter.on_sample(START, &mut rng(), Sample::new(MILLI, 1).with_dropped(true));
    }
    assert_eq!((limiter.limit(), limiter.in_flight()), (1, 4), "a limit of 0 would be for ever");
    assert!(limiter.try_acquire(START, &mut rng()).is_err());
    permits.into_iter().for_each(|permit| limiter.on_drop(permit));
    assert!(limiter.try_acquire(START, &mut rng()).is_ok());
}

// === outcomes ===

#[test]
fn each_outcome_is_a_sample_or_none() {
    use Outcome::*;
    let every =
        [Success, ServerError, GatewayError, ConnectFailed, Timeout, Reset, Throttled, Cancelled];
    // Netflix: one more, one tenth less, or as before.
    let aimd = every.map(|outcome| {
        let config = Aimd::default().with_min_limit(1).build().unwrap();
        let limiter = limiter(config.with_window(Window::EVERY_SAMPLE));
        let permit = fill(&limiter, START).pop().unwrap();
        limiter.on_outcome(at(1), &mut rng(), permit, outcome);
        limiter.limit()
    });
    assert_eq!(aimd, [21, 20, 18, 20, 18, 20, 18, 20]);
    // Envoy: all that is over.
    let envoy = every.map(|outcome| {
        let limiter = limiter(gradient().with_request_count(1).build().unwrap());
        let permit = limiter.try_acquire(START, &mut rng()).unwrap();
        limiter.on_outcome(at(1), &mut rng(), permit, outcome);
        limiter.min_rtt().is_some()
    });
    assert_eq!(envoy, [true, true, true, true, true, true, true, false]);
}

// === windows ===

#[test]
fn a_window_hands_on_the_mean_the_most_in_flight_and_any_drop() {
    // Vegas shows the mean as the best latency.
    let limiter = limiter(Config::vegas());
    let sample = |at, millis, in_flight| {
        limiter.on_sample(at, &mut rng(), Sample::new(MILLI * millis, in_flight));
    };
    // The first sample begins the window, and is forgotten.
    sample(at(1), 500, 1);
    for millis in 1..=10 {
        sample(at(100), millis, millis);
    }
    assert_eq!(limiter.min_rtt(), None);
    sample(at(1_001), 6, 1);
    assert_eq!(limiter.min_rtt(), None, "not before a second has passed");
    sample(at(1_002), 5, 1);
    assert_eq!(limiter.min_rtt(), Some(Duration::from_micros(5_500)));
    // The first of these ends a window of its own; one of the others is dropped, one among 20.
    for index in 0..10 {
        let dropped = Sample::new(MILLI * 6, 1).with_dropped(index == 3);
        limiter.on_sample(at(2_100), &mut rng(), dropped);
    }
    sample(at(3_200), 6, 1);
    assert_eq!(limiter.limit(), 19, "any drop is a drop");
    for index in 0..10 {
        let crowd = if index == 7 { 10 } else { 1 };
        sample(at(3_300), 6, crowd);
    }
    sample(at(4_300), 6, 1);
    assert_eq!(limiter.limit(), 20, "by alpha: a queue of two, and not idle");
}

#[test]
fn too_few_samples_and_too_fast_ones_are_forgotten() {
    let config = Aimd::default().with_initial_limit(50).build().unwrap();
    let limiter = limiter(config);
    let drop = |now, rtt| {
        limiter.on_sample(now, &mut rng(), Sample::new(rtt, 50).with_dropped(true));
    };
    drop(at(1), MILLI);
    (0..100).for_each(|_| drop(at(10), MILLI / 20));
    (0..8).for_each(|_| drop(at(10), MILLI));
    drop(at(2_000), MILLI);
    assert_eq!(limiter.limit(), 50, "nine of a millisecond");
    (0..9).for_each(|_| drop(at(2_500), MILLI));
    drop(at(4_000), MILLI);
    assert_eq!(limiter.limit(), 45, "ten of a millisecond");
}

#[test]
fn the_next_window_takes_twice_the_least_latency() {
    let window = Window::new(MILLI * 100, MILLI * 1_000).unwrap();
    let config = Aimd::default().with_initial_limit(50).build().unwrap().with_window(window);
    let ended = |least: u32, after: u64| {
        let limiter = limiter(config);
        let sample = |now, millis| {
            let sample = Sample::new(MILLI * millis, 50).with_dropped(true);
            limiter.on_sample(now, &mut rng(), sample);
        };
        sample(at(1), least);
        (0..9).for_each(|_| sample(at(2), 5_000));
        sample(at(1 + after), 5_000);
        limiter.limit() < 50
    };
    for (least, time) in [(1, 100), (50, 100), (200, 400), (700, 1_000)] {
        assert!(!ended(least, time), "{least}: not with {time} ms, Netflix asks for more");
        assert!(ended(least, time + 1), "{least}: {time} ms are over");
    }
}

// === Netflix's algorithms ===

#[test]
fn vegas_probes_after_so_many_samples_for_each_slot() {
    let limiter = limiter(Config::vegas().with_window(Window::EVERY_SAMPLE));
    let sample = |millis| limiter.on_sample(START, &mut rng(), Sample::new(MILLI * millis, 1));
    sample(10);
    let mut probed_after = 1;
    while limiter.min_rtt() == Some(MILLI * 10) {
        probed_after += 1;
        sample(15);
    }
    // Half to the whole of 30 × 20.
    assert!((300..=600).contains(&probed_after), "{probed_after}");
    assert_eq!(limiter.min_rtt(), Some(MILLI * 15));
    assert_eq!(limiter.limit(), 20);
}

#[test]
fn gradient2_forgets_a_slow_past_faster_than_its_average() {
    let limiter = limiter(Config::gradient2().with_window(Window::EVERY_SAMPLE));
    let sample = |millis| {
        limiter.on_sample(START, &mut rng(), Sample::new(MILLI * millis, 20));
        limiter.min_rtt().unwrap()
    };
    (0..20).for_each(|_| assert_eq!(sample(100), MILLI * 100));
    let after = sample(10);
    // The average alone would be at 99.7 ms.
    assert!(after < MILLI * 95 && after > MILLI * 94, "{after:?}");
}

#[test]
fn a_latency_of_nothing_or_of_ages_is_survived() {
    for config in [Config::aimd(), Config::vegas(), Config::gradient2(), Config::envoy()] {
        let limiter = limiter(config.with_window(Window::EVERY_SAMPLE));
        for round in 0..1_000 {
            let rtt = [Duration::ZERO, Duration::MAX, MILLI][round % 3];
            let in_flight = [0, u32::MAX][round % 2];
            limiter.on_sample(at(round as u64 * 100), &mut rng(), Sample::new(rtt, in_flight));
            let (least, most) = (config.min_limit(), config.max_limit());
            assert!((least..=most).contains(&limiter.limit()), "{config:?}");
            assert!(limiter.estimate().is_finite());
        }
    }
}

// === Envoy's controller ===

#[test]
fn it_begins_by_measuring_and_restores_the_limit() {
    let limiter = limiter(gradient().build().unwrap());
    assert!(limiter.is_measuring());
    assert_eq!((limiter.limit(), limiter.poll_timeout()), (3, None));
    for millis in 1..=4 {
        serve(&limiter, at(10), MILLI * millis, 1);
    }
    assert!(limiter.is_measuring());
    serve(&limiter, at(10), MILLI * 5, 1);
    assert!(!limiter.is_measuring());
    assert_eq!(limiter.min_rtt(), Some(MILLI * 3), "the median");
    assert_eq!(limiter.limit(), 3);
    assert_eq!(limiter.poll_timeout(), Some(at(110)));
    assert_eq!(limiter.next_measurement(), Some(at(60_010)));

    // The limit grows, the next measurement lowers it, and its end brings it back.
    for tick in 0..5 {
        serve(&limiter, at(20 + 100 * tick), MILLI * 3, 5);
        limiter.on_timeout(at(110 + 100 * tick), &mut rng());
    }
    let grown = limiter.limit();
    assert!(grown > 20, "{grown}");
    limiter.on_timeout(at(60_010), &mut rng());
    assert!(limiter.is_measuring());
    assert_eq!(limiter.limit(), 3);
    assert_eq!(limiter.learned().limit(), grown);
    serve(&limiter, at(70_000), MILLI * 2, 5);
    assert_eq!((limiter.limit(), limiter.min_rtt()), (grown, Some(MILLI * 2)));
}

#[test]
fn requests_of_before_a_measurement_are_no_part_of_it() {
    let learned = Learned::new(10).with_min_rtt(MILLI);
    let limiter = Limiter::resume(gradient().build().unwrap(), START, learned);
    let mut old = fill(&limiter, at(59_999));
    let refused = limiter.try_acquire(at(60_000), &mut rng());
    assert!(refused.is_err(), "ten are in flight, and three would do");
    assert!(limiter.is_measuring());
    old.drain(..9).for_each(|permit| {
        limiter.on_outcome(at(60_001), &mut rng(), permit, Outcome::Success);
    });
    assert!(limiter.is_measuring(), "nine samples, none of which counts");
    serve(&limiter, at(60_100), MILLI * 7, 5);
    assert_eq!(limiter.min_rtt(), Some(MILLI * 7));
    // One from before the last measurement is void for good.
    limiter.on_outcome(at(60_150), &mut rng(), old.pop().unwrap(), Outcome::Success);
    limiter.on_timeout(at(60_200), &mut rng());
    assert_eq!((limiter.gradient(), limiter.in_flight()), (None, 0));
}

#[test]
fn a_late_request_does_what_a_timer_would_have_done() {
    let run = |timers: bool| {
        let learned = Learned::new(10).with_min_rtt(MILLI * 5);
        let limiter = Limiter::resume(gradient().build().unwrap(), START, learned);
        let mut limits = Vec::new();
        for (begin, millis) in [(10, 4), (250, 6), (253, 9), (999, 5), (1_000, 20), (1_100, 2)] {
            let now = at(begin + 20);
            if timers {
                while let Some(due) = limiter.poll_timeout().filter(|due| *due <= now) {
                    limiter.on_timeout(due, &mut rng());
                }
            }
            serve(&limiter, now, MILLI * millis, 3);
            limits.push(limiter.limit());
        }
        limits
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn the_limit_of_an_idle_server_climbs_and_comes_down_by_half_an_update() {
    let learned = Learned::new(3).with_min_rtt(MILLI * 5);
    let limiter = Limiter::resume(Config::default(), START, learned);
    let mut tick = 0;
    let mut updates = |millis: u32, done: fn(u32) -> bool| {
        let before = tick;
        while !done(limiter.limit()) {
            tick += 1;
            serve(&limiter, at(tick * 500 - 50), MILLI * millis, 1);
            limiter.on_timeout(at(tick * 500), &mut rng());
        }
        tick - before
    };
    assert!(updates(5, |limit| limit == 1_000) < 20);
    assert_eq!(updates(50, |limit| limit <= 20), 7);
}

#[test]
fn a_known_latency_is_never_measured() {
    let config = gradient().with_fixed_min_rtt(Some(MILLI * 5)).with_max_limit(50);
    let limiter = limiter(config.build().unwrap());
    assert!(!limiter.is_measuring());
    for tick in 1..2_000 {
        serve(&limiter, at(tick * 100 - 50), MILLI * 50, 1);
        assert_eq!(limiter.next_measurement(), None);
    }
    assert_eq!((limiter.limit(), limiter.min_rtt()), (3, Some(MILLI * 5)));
}

#[test]
fn five_updates_at_the_least_limit_measure_anew() {
    let learned = Learned::new(3).with_min_rtt(MILLI);
    let limiter = Limiter::resume(gradient().build().unwrap(), START, learned);
    for tick in 1..=5 {
        assert!(!limiter.is_measuring(), "update {tick}");
        serve(&limiter, at(tick * 100 - 10), MILLI * 9, 1);
        limiter.on_timeout(at(tick * 100), &mut rng());
    }
    assert!(limiter.is_measuring());
    // A limit that rises in between begins the count anew.
    let limiter = Limiter::resume(gradient().build().unwrap(), START, learned);
    for (tick, millis) in [(1, 9), (2, 9), (3, 9), (4, 1), (5, 9), (6, 9), (7, 9), (8, 9)] {
        serve(&limiter, at(tick * 100 - 10), MILLI * millis, 1);
        limiter.on_timeout(at(tick * 100), &mut rng());
        assert!(!limiter.is_measuring(), "update {tick}");
    }
}

#[test]
fn jitter_only_lengthens_and_stays_below_its_share() {
    for seed in 0..200 {
        let config = Gradient::default().with_request_count(1).build().unwrap();
        let limiter = limiter(config);
        let mut rng = SplitMix64::new(seed);
        let permit = limiter.try_acquire(START, &mut rng).unwrap();
        limiter.on_outcome(START, &mut rng, permit, Outcome::Success);
        let wait = limiter.next_measurement().unwrap().since(START);
        assert!((MILLI * 60_000..MILLI * 69_000).contains(&wait), "{wait:?}");
    }
}

#[test]
fn a_clock_that_goes_backwards_breaks_nothing() {
    for config in [Config::aimd(), Config::vegas(), Config::gradient2(), Config::envoy()] {
        let limiter = limiter(config.with_window(Window::EVERY_SAMPLE));
        for now in [at(5_000), Timestamp::ZERO, Timestamp::MAX, START, Timestamp::ZERO] {
            let permit = limiter.try_acquire(now, &mut rng()).unwrap();
            limiter.on_outcome(START, &mut rng(), permit, Outcome::Success);
            limiter.on_timeout(now, &mut rng());
        }
        assert_eq!(limiter.in_flight(), 0);
        assert!((config.min_limit()..=config.max_limit()).contains(&limiter.limit()));
    }
}

// === configuration ===

#[test]
fn presets_are_their_peers_defaults() {
    let bounds = |config: Config| (config.initial_limit(), config.min_limit(), config.max_limit());
    assert_eq!(bounds(Config::aimd()), (20, 20, 200));
    assert_eq!(bounds(Config::vegas()), (20, 1, 1_000));
    assert_eq!(bounds(Config::gradient2()), (20, 20, 200));
    assert_eq!(bounds(Config::envoy()), (3, 3, 1_000));
}

#[test]
fn each_field_out_of_bounds_is_named() {
    let percent = Ratio::from_percent;
    let fields = [
        Aimd::default().with_initial_limit(0).build(),
        Aimd::default().with_max_limit(0).build(),
        Aimd::default().with_min_limit(201).build(),
        Aimd::default().with_backoff_ratio(percent(100)).build(),
        Aimd::default().with_timeout(Duration::ZERO).build(),
        Vegas::default().with_max_limit(0).build(),
        Vegas::default().with_smoothing(Ratio::ZERO).build(),
        Vegas::default().with_probe_multiplier(0).build(),
        Vegas::default().with_alpha(2).with_beta(1).build(),
        Vegas::default().with_decrease_to(percent(100)).build(),
        Gradient2::default().with_min_limit(201).build(),
        Gradient2::default().with_smoothing(percent(101)).build(),
        Gradient2::default().with_long_window(0).build(),
        Gradient2::default().with_rtt_tolerance(percent(99)).build(),
        Gradient::default().with_update_interval(MILLI / 2).build(),
        Gradient::default().with_min_rtt_interval(Duration::ZERO).build(),
        Gradient::default().with_percentile(percent(101)).build(),
        Gradient::default().with_jitter(percent(101)).build(),
        Gradient::default().with_request_count(0).build(),
        Gradient::default().with_min_concurrency(0).build(),
        Gradient::default().with_max_limit(2).build(),
        Gradient::default().with_fixed_min_rtt(Some(Duration::ZERO)).build(),
        Window::new(MILLI * 99, MILLI * 200).map(|_| Config::default()),
        Window::new(MILLI * 200, MILLI * 199).map(|_| Config::default()),
        Window::default().with_min_samples(9).map(|_| Config::default()),
    ]
    .map(|result| result.unwrap_err().field());
    let expected = [
        "initial_limit",
        "max_limit",
        "min_limit",
        "backoff_ratio",
        "timeout",
        "max_limit",
        "smoothing",
        "probe_multiplier",
        "alpha",
        "decrease_to",
        "min_limit",
        "smoothing",
        "long_window",
        "rtt_tolerance",
        "update_interval",
        "min_rtt_interval",
        "percentile",
        "jitter",
        "request_count",
        "min_concurrency",
        "max_limit",
        "min_rtt",
        "min_time",
        "max_time",
        "min_samples",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn a_new_configuration_keeps_what_was_learnt() {
    let learned = Learned::new(80).with_min_rtt(MILLI * 4);
    let limiter = Limiter::resume(gradient().build().unwrap(), START, learned);
    let permit = limiter.try_acquire(START, &mut rng()).unwrap();
    for config in [Config::vegas(), Config::gradient2(), Config::envoy(), Config::vegas()] {
        limiter.set_config(config.with_window(Window::EVERY_SAMPLE), START);
        assert_eq!(limiter.learned(), learned, "{config:?}");
        assert!(!limiter.is_measuring());
    }
    // A request that began under another configuration is no sample, but its slot is one.
    limiter.on_outcome(at(1), &mut rng(), permit, Outcome::Success);
    assert_eq!((limiter.min_rtt(), limiter.in_flight()), (Some(MILLI * 4), 0));
    serve(&limiter, at(10), MILLI, 1);
    assert_eq!(limiter.min_rtt(), Some(MILLI), "and a new one is");
    limiter.set_config(gradient().with_max_limit(7).build().unwrap(), START);
    assert_eq!(limiter.limit(), 7);
}

#[test]
fn bounds_that_the_learnt_limit_does_not_fit_hold_at_once() {
    let limiter = Limiter::resume(Config::aimd(), START, Learned::new(5));
    limiter.set_config(Config::aimd(), START);
    assert_eq!(limiter.limit(), 20);
}

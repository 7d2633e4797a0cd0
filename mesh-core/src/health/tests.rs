use std::time::Duration;

use super::*;
use crate::SplitMix64;

/// A checker on a clock of its own.
struct Probe {
    config: Config,
    checker: Checker,
    rng: SplitMix64,
    now: Timestamp,
}

impl Probe {
    fn new(config: Config) -> Self {
        let mut rng = SplitMix64::new(7);
        let now = Timestamp::from_secs(100);
        Self { config, checker: Checker::new(&config, now, &mut rng), rng, now }
    }

    /// One check that ends at once.
    fn check(&mut self, verdict: Verdict) -> Option<Transition> {
        self.now = self.checker.poll_timeout();
        let check = self.checker.try_start(&self.config, self.now).unwrap();
        self.checker.on_verdict(&self.config, self.now, &mut self.rng, check, verdict)
    }

    fn wait(&self) -> Duration {
        self.checker.poll_timeout().since(self.now)
    }
}

fn steady() -> Config {
    Config::default().with_interval_jitter(Ratio::ZERO).with_initial_jitter(Duration::ZERO)
}

/// The table of the module's docs, written a second time, without counters that carry over.
fn model(config: &Config, verdicts: &[Verdict]) -> State {
    let mut state = State::Unchecked;
    let mut begin = 0;
    for end in 1..=verdicts.len() {
        let run = |good: fn(&Verdict) -> bool| {
            verdicts[begin..end].iter().rev().take_while(|verdict| good(verdict)).count() as u32
        };
        let last = verdicts[end - 1];
        let next = match state {
            State::Unchecked if last == Verdict::Passed => State::Healthy,
            State::Unchecked => State::Unhealthy,
            State::Healthy
                if last == Verdict::Unhealthy
                    || run(|v| *v != Verdict::Passed) >= config.unhealthy_threshold() =>
            {
                State::Unhealthy
            }
            State::Unhealthy if run(|v| *v == Verdict::Passed) >= config.healthy_threshold() => {
                State::Healthy
            }
            State::Healthy | State::Unhealthy => state,
        };
        if next != state {
            (state, begin) = (next, end);
        }
    }
    state
}

fn agrees(decide: impl Fn(&Config, &[Verdict]) -> State) -> bool {
    let all = [Verdict::Passed, Verdict::Failed, Verdict::Unhealthy];
    (0..3_u32.pow(7)).all(|word| {
        let verdicts: Vec<_> =
            (0..7).map(|digit| all[(word / 3_u32.pow(digit) % 3) as usize]).collect();
        (1..=3).all(|threshold| {
            let config = steady()
                .with_unhealthy_threshold(threshold)
                .and_then(|config| config.with_healthy_threshold(4 - threshold))
                .unwrap();
            let mut probe = Probe::new(config);
            for verdict in &verdicts {
                probe.check(*verdict);
            }
            probe.checker.state() == decide(&config, &verdicts)
        })
    })
}

#[test]
fn it_decides_as_the_table_says() {
    assert!(agrees(model));
    // The broken twin: "unhealthy" is taken for no answer.
    assert!(!agrees(|config, verdicts| {
        let heard: Vec<_> = verdicts
            .iter()
            .map(|verdict| match verdict {
                Verdict::Unhealthy => Verdict::Failed,
                Verdict::Passed | Verdict::Failed => *verdict,
            })
            .collect();
        model(config, &heard)
    }));
}

#[test]
fn a_transition_is_told_once() {
    let mut probe = Probe::new(steady().with_unhealthy_threshold(2).unwrap());
    assert_eq!(probe.check(Verdict::Passed), Some(Transition::BecameHealthy));
    assert_eq!(probe.check(Verdict::Passed), None);
    assert_eq!(probe.check(Verdict::Failed), None);
    assert_eq!(probe.check(Verdict::Failed), Some(Transition::BecameUnhealthy));
    assert_eq!(probe.check(Verdict::Failed), None);
}

#[test]
fn trust_before_the_first_check_is_a_setting() {
    let trusting = steady();
    let strict = trusting.with_trust_until_checked(false);
    let checker = Probe::new(trusting).checker;
    assert!(checker.is_available(&trusting));
    assert!(!checker.is_available(&strict));
}

#[test]
fn checks_do_not_overlap_and_a_silent_one_has_failed() {
    let mut probe = Probe::new(steady().with_unhealthy_threshold(1).unwrap());
    probe.check(Verdict::Passed);
    let Probe { config, checker, rng, .. } = &mut probe;
    let start = checker.poll_timeout();
    assert_eq!(checker.try_start(config, start - Duration::from_nanos(1)), None, "not due yet");
    let late = checker.try_start(config, start).unwrap();
    assert_eq!(checker.try_start(config, start + Duration::from_secs(1)), None, "one is under way");

    let end = checker.poll_timeout();
    assert_eq!(end, start + config.timeout());
    assert_eq!(checker.on_timeout(config, end - Duration::from_nanos(1), rng), None);
    assert_eq!(checker.on_timeout(config, end, rng), Some(Transition::BecameUnhealthy));
    assert_eq!(checker.on_timeout(config, end, rng), None, "idempotent");

    // What comes after its time says nothing, even while the next check is under way.
    let next = checker.poll_timeout();
    let check = checker.try_start(config, next).unwrap();
    assert_eq!(checker.on_verdict(config, next, rng, late, Verdict::Passed), None);
    assert_eq!(
        checker.on_verdict(config, next, rng, check, Verdict::Passed),
        Some(Transition::BecameHealthy)
    );
}

#[test]
fn the_next_check_comes_when_it_should() {
    let seconds = Duration::from_secs;
    let config = steady()
        .with_interval(seconds(10))
        .and_then(|config| config.with_unhealthy_interval(seconds(4)))
        .and_then(|config| config.with_unhealthy_edge_interval(seconds(1)))
        .and_then(|config| config.with_healthy_edge_interval(seconds(2)))
        .and_then(|config| config.with_unhealthy_threshold(1))
        .unwrap();
    let mut probe = Probe::new(config);
    for (verdict, wait) in [
        (Verdict::Passed, 2),
        (Verdict::Passed, 10),
        (Verdict::Failed, 1),
        (Verdict::Failed, 4),
        (Verdict::Passed, 2),
    ] {
        probe.check(verdict);
        assert_eq!(probe.wait(), seconds(wait), "{verdict:?}");
    }
}

#[test]
fn jitter_spreads_and_has_its_bounds() {
    let config = Config::default().with_interval_jitter(Ratio::from_percent(50));
    let mut probe = Probe::new(config);
    let waits: Vec<_> = (0..1_000)
        .map(|_| {
            probe.check(Verdict::Passed);
            probe.wait()
        })
        .collect();
    assert!(waits.iter().all(|w| (10_000..15_000).contains(&w.as_millis())), "{waits:?}");
    let mean = waits.iter().sum::<Duration>() / 1_000;
    assert!((12_300..12_700).contains(&mean.as_millis()), "{mean:?}");

    let first = |seed| {
        let checker = Checker::new(&config, Timestamp::ZERO, &mut SplitMix64::new(seed));
        checker.poll_timeout().since(Timestamp::ZERO)
    };
    assert!((0..1_000).all(|seed| first(seed) < config.initial_jitter()));
    assert!((0..1_000).any(|seed| first(seed) > config.initial_jitter() / 2));
}

#[test]
fn time_that_runs_backwards_and_long_times_wedge_nothing() {
    let config = steady().with_interval(Duration::MAX).unwrap();
    let mut probe = Probe::new(config);
    probe.check(Verdict::Passed);
    assert!(probe.checker.poll_timeout() > probe.now);

    let mut probe = Probe::new(steady());
    let Probe { config, checker, rng, .. } = &mut probe;
    let check = checker.try_start(config, Timestamp::MAX).unwrap();
    assert_eq!(
        checker.on_verdict(config, Timestamp::ZERO, rng, check, Verdict::Failed),
        Some(Transition::BecameUnhealthy)
    );
    assert_eq!(checker.poll_timeout(), Timestamp::ZERO + config.interval());
}

#[test]
fn what_is_out_of_bounds_is_named() {
    let short = Duration::from_millis(9);
    let config = Config::default();
    assert_eq!(config.with_interval(short).unwrap_err().field(), "interval");
    assert_eq!(config.with_timeout(Duration::ZERO).unwrap_err().field(), "timeout");
    let errors = [
        config.with_unhealthy_interval(short),
        config.with_unhealthy_edge_interval(short),
        config.with_healthy_edge_interval(short),
        config.with_unhealthy_threshold(0),
        config.with_healthy_threshold(0),
    ];
    let fields = errors.map(|error| error.unwrap_err().field());
    assert_eq!(
        fields,
        [
            "unhealthy_interval",
            "unhealthy_edge_interval",
            "healthy_edge_interval",
            "unhealthy_threshold",
            "healthy_threshold"
        ]
    );
}

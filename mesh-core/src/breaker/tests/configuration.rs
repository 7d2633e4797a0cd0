//! What a new configuration keeps, and which one is refused.

use super::*;

#[test]
fn a_new_threshold_below_a_standing_run_opens_at_the_next_failure() {
    let mut rig = Rig::new(in_a_row(10));
    for _ in 0..5 {
        rig.call(Outcome::ServerError);
    }
    rig.breaker.set_config(in_a_row(3).build().unwrap(), rig.now);
    assert_eq!(rig.call(Outcome::ServerError).unwrap().reason, Reason::ConsecutiveFailures(6));
}

#[test]
fn a_new_window_starts_empty_and_the_run_stays() {
    let mut rig = Rig::new(by_ratio(50, 4, Window::Count(4)).with_consecutive_failures(Some(6)));
    let permit = rig.acquire().unwrap();
    for window in [Window::Count(100), Window::Time(SECOND), Window::Count(4)] {
        rig.call(Outcome::ServerError);
        let config = by_ratio(50, 4, window).with_consecutive_failures(Some(6)).build().unwrap();
        rig.breaker.set_config(config, rig.now);
        assert_eq!(rig.breaker.config(), config);
    }
    assert_eq!(rig.answer(permit, Outcome::Success), None, "no longer counts");
    assert_eq!(rig.call(Outcome::ServerError), None);
    assert_eq!(rig.call(Outcome::ServerError), None);
    assert_eq!(rig.call(Outcome::ServerError).unwrap().reason, Reason::ConsecutiveFailures(6));
}

#[test]
fn the_same_window_survives_a_new_configuration() {
    let mut rig = Rig::new(by_ratio(50, 4, Window::Count(10)));
    for _ in 0..3 {
        rig.call(Outcome::ServerError);
    }
    let longer = by_ratio(50, 4, Window::Count(10)).with_open_for(SECOND * 99);
    rig.breaker.set_config(longer.build().unwrap(), rig.now);
    let opened = rig.call(Outcome::ServerError).unwrap();
    assert_eq!(opened.to, State::Open { until: rig.now + SECOND * 99 });
}

#[test]
fn a_shorter_bound_cuts_an_open_phase() {
    let mut rig = Rig::new(in_a_row(1).with_open_for(SECOND * 1_000));
    rig.call(Outcome::ServerError);
    rig.breaker.set_config(in_a_row(1).with_max_open_for(SECOND * 20).build().unwrap(), rig.now);
    assert_eq!(rig.state(), State::Open { until: rig.now + SECOND * 20 });
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let config = Config::default();
    assert_eq!(config.consecutive_failures(), Some(5));
    assert_eq!((config.failure_ratio(), config.slow_calls()), (None, None));
    assert_eq!((config.open_for(), config.max_open_for()), (SECOND * 30, SECOND * 300));
    assert_eq!(config.open_growth(), Ratio::from_percent(200));
    assert_eq!(config.jitter(), Ratio::from_percent(10));
    assert_eq!((config.half_open_permits(), config.half_open_successes()), (1, 1));
    assert_eq!(config.probe_deadline(), SECOND * 30);
    assert_eq!(Config::builder().build(), Ok(config));
    assert_eq!(config.to_builder().with_half_open_permits(1).build(), Ok(config));
}

#[test]
fn what_cannot_work_is_refused_with_the_name_of_the_field() {
    let ratio = |percent| by_ratio(percent, 1, Window::Count(1));
    let window = |window| by_ratio(50, 1, window);
    let cases = [
        (in_a_row(0), "consecutive_failures"),
        (ratio(101), "failure_ratio"),
        (by_ratio(50, 0, Window::Count(1)), "minimum_calls"),
        (window(Window::Count(0)), "window"),
        (window(Window::Count(10_001)), "window"),
        (window(Window::Time(Duration::from_micros(9_999))), "window"),
        (window(Window::Time(Duration::from_secs(86_401))), "window"),
        (steady().with_slow_calls(SECOND, Ratio::ONE), "slow_calls"),
        (ratio(50).with_slow_calls(SECOND, Ratio::ZERO), "slow_calls"),
        (steady().with_open_for(Duration::ZERO), "open_for"),
        (steady().with_max_open_for(SECOND), "max_open_for"),
        (steady().with_open_growth(Ratio::from_percent(99)), "open_growth"),
        (steady().with_jitter(Ratio::from_percent(10_001)), "jitter"),
        (steady().with_half_open_permits(0), "half_open_permits"),
        (steady().with_half_open_permits(1_001), "half_open_permits"),
        (steady().with_half_open_successes(0), "half_open_successes"),
        (steady().with_half_open_successes(2), "half_open_successes"),
        (steady().with_probe_deadline(Duration::ZERO), "probe_deadline"),
    ];
    for (builder, field) in cases {
        let error: InvalidConfig = builder.build().unwrap_err();
        assert_eq!(error.field(), field, "{error}");
    }
    for window in [Window::Count(10_000), Window::Time(Duration::from_millis(10))] {
        assert!(by_ratio(100, 1, window).build().is_ok());
    }
}

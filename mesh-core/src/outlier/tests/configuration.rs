//! What a new configuration keeps, and which one is refused.

use super::*;

#[test]
fn a_threshold_lowered_below_a_standing_run_detects_at_the_next_failure() {
    let mut rig = Rig::new(all().with_consecutive_5xx(10), 2);
    rig.calls(0, Outcome::ServerError, 5);
    rig.detection.set_config(all().with_consecutive_5xx(3), rig.now);
    assert!(is_ejected(rig.call(0, Outcome::ServerError)));
}

#[test]
fn a_new_configuration_keeps_who_is_out_and_when_they_return() {
    let mut rig = Rig::new(all(), 4);
    rig.calls(0, Outcome::ServerError, 5);
    let config = Config::off().with_interval(SECOND * 1_000).unwrap();
    rig.detection.set_config(config, rig.now);
    assert_eq!(rig.detection.config(), config);
    assert_eq!(rig.drive(START + SECOND * 60), [(START + SECOND * 30, 0)]);
    assert_eq!(rig.detection.poll_timeout(), None);
}

#[test]
fn a_configuration_replaced_every_second_does_not_put_the_sweep_off() {
    let rig = Rig::new(all(), 2);
    for second in 0..20 {
        rig.detection.set_config(all(), START + SECOND * second);
    }
    assert_eq!(rig.detection.poll_timeout(), Some(START + SECOND * 10));
}

#[test]
fn the_defaults_are_those_of_envoy_but_for_the_one_host() {
    let config = Config::default();
    assert_eq!(config.consecutive_5xx(), 5);
    assert_eq!(config.consecutive_gateway_errors(), 0);
    assert_eq!(config.consecutive_local_origin(), 5);
    assert!(!config.split_local_origin());
    assert_eq!(config.interval(), SECOND * 10);
    assert_eq!(config.base_ejection_time(), SECOND * 30);
    assert_eq!(config.max_ejection_time(), SECOND * 300);
    assert_eq!(config.max_ejection_jitter(), Duration::ZERO);
    assert_eq!(config.max_ejection_percent(), Ratio::from_percent(10));
    assert!(config.always_eject_one());
    assert_eq!((config.success_rate(), config.failure_percentage()), (None, None));
    assert!(config.uneject_on_health_check());
    assert!(Detector::ALL.iter().all(|detector| config.enforcing(*detector) == Ratio::ONE));
    assert_eq!(Config::istio(), config.with_always_eject_one(false));
    // An unset limit follows a longer base.
    let long = config.with_base_ejection_time(SECOND * 900).unwrap();
    assert_eq!(long.max_ejection_time(), SECOND * 900);
}

#[test]
fn what_cannot_work_is_refused_with_the_name_of_the_field() {
    let config = Config::default();
    let limited = config.with_max_ejection_time(SECOND * 60).unwrap();
    let cases = [
        (config.with_interval(Duration::ZERO), "interval"),
        (config.with_base_ejection_time(Duration::ZERO), "base_ejection_time"),
        (config.with_max_ejection_time(SECOND * 29), "max_ejection_time"),
        (limited.with_base_ejection_time(SECOND * 61), "max_ejection_time"),
        (config.with_max_ejection_percent(Ratio::from_percent(101)), "max_ejection_percent"),
        (config.with_enforcing(Detector::SuccessRate, Ratio::from_percent(101)), "enforcing"),
        (
            FailurePercentage::default()
                .with_threshold(Ratio::from_percent(101))
                .map(|share| config.with_failure_percentage(Some(share))),
            "failure_percentage_threshold",
        ),
    ];
    for (result, field) in cases {
        assert_eq!(result.unwrap_err().field(), field);
    }
    assert!(config.with_max_ejection_time(SECOND * 30).is_ok());
}

use proptest::prelude::*;

use super::{
    header::{format_grpc_timeout, parse_grpc_timeout, parse_millis},
    *,
};

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_deadline_fits_an_atomic() {
    assert_eq!(size_of::<Deadline>(), 8);
}

#[test]
fn the_moment_itself_is_too_late() {
    let deadline = Deadline::at(Timestamp::from_millis(10));
    assert_eq!(deadline.remaining(Timestamp::from_millis(9)), Some(MS(1)));
    assert!(!deadline.has_passed(Timestamp::from_millis(9)));
    assert!(deadline.has_passed(Timestamp::from_millis(10)));
    assert_eq!(deadline.remaining(Timestamp::from_millis(11)), Some(Duration::ZERO));
}

#[test]
fn none_never_passes_and_is_later_than_all() {
    let some = Deadline::at(Timestamp::from_secs(1));
    assert_eq!(Deadline::NONE.earlier(some), some);
    assert_eq!(some.earlier(Deadline::NONE), some);
    assert_eq!(Deadline::NONE.remaining(Timestamp::MAX), None);
    assert!(Deadline::after(Timestamp::from_secs(1), Duration::MAX).is_none());
    assert!(Deadline::default().is_none());
}

#[test]
fn a_deadline_of_no_time_has_passed_at_once() {
    let now = Timestamp::from_secs(1);
    assert!(Deadline::after(now, Duration::ZERO).has_passed(now));
    assert_eq!(
        Deadline::after(now, Duration::ZERO).attempt_timeout(now, None),
        Some(Duration::ZERO)
    );
}

#[test]
fn an_attempt_gets_the_lesser_of_both() {
    let now = Timestamp::from_secs(1);
    let deadline = Deadline::after(now, MS(100));
    assert_eq!(deadline.attempt_timeout(now, None), Some(MS(100)));
    assert_eq!(deadline.attempt_timeout(now, Some(MS(20))), Some(MS(20)));
    assert_eq!(deadline.attempt_timeout(now, Some(MS(500))), Some(MS(100)));
    assert_eq!(Deadline::NONE.attempt_timeout(now, Some(MS(20))), Some(MS(20)));
    assert_eq!(Deadline::NONE.attempt_timeout(now, None), None);
}

#[test]
fn grpc_timeout_is_read_as_grpc_writes_it() {
    let cases = [
        ("1H", Some(Duration::from_secs(3_600))),
        ("1M", Some(Duration::from_secs(60))),
        ("1S", Some(Duration::from_secs(1))),
        ("12345678m", Some(MS(12_345_678))),
        ("5u", Some(Duration::from_micros(5))),
        ("7n", Some(Duration::from_nanos(7))),
        ("0m", Some(Duration::ZERO)),
        ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_grpc_timeout(text), expected, "{text}");
    }
    for text in ["", "m", "1", "123", "123456789m", "-1m", "+1m", "1.5S", " 1S", "1S ", "1s", "1h"]
    {
        assert_eq!(parse_grpc_timeout(text), None, "{text:?}");
    }
    assert_eq!(parse_grpc_timeout("1é"), None);
}

#[test]
fn grpc_timeout_takes_the_finest_unit_that_fits() {
    let cases = [
        (MS(0), "0m"),
        (MS(90), "90m"),
        (MS(99_999_999), "99999999m"),
        (MS(100_000_000), "100000S"),
        (Duration::from_secs(99_999_999), "99999999S"),
        (Duration::from_secs(100_000_000), "1666666M"),
        (MS(360_000_000_000_000), "99999999H"),
        (Duration::MAX, "99999999H"),
        (Duration::from_micros(1_999), "1m"),
    ];
    for (left, expected) in cases {
        assert_eq!(format_grpc_timeout(left).as_ref(), expected);
    }
    assert_eq!(format!("{:?}", format_grpc_timeout(MS(1))), "\"1m\"");
}

#[test]
fn millis_are_digits_only() {
    assert_eq!(parse_millis("0"), Some(Duration::ZERO));
    assert_eq!(parse_millis("18446744073709551615"), Some(MS(u64::MAX)));
    for text in ["", "18446744073709551616", "-1", "+1", "1 ", "abc", "1.0", "١"] {
        assert_eq!(parse_millis(text), None, "{text:?}");
    }
}

/// What is written reads back as at most what is left, and more than zero if anything is left.
fn check_written(format: impl Fn(Duration) -> String, left: Duration) -> Result<(), String> {
    let text = format(left);
    let read = parse_grpc_timeout(&text).ok_or_else(|| format!("{text} cannot be read"))?;
    if read > left.max(MS(1)) || read.is_zero() != left.is_zero() {
        return Err(format!("{left:?} written as {text}"));
    }
    Ok(())
}

fn any_duration() -> impl Strategy<Value = Duration> {
    // Each order of magnitude as likely as the next.
    (any::<u64>(), 0..64u32).prop_map(|(nanos, shift)| Duration::from_nanos(nanos >> shift))
}

proptest! {
    #[test]
    fn the_next_hop_never_gets_more_than_is_left(left in any_duration()) {
        prop_assert_eq!(check_written(|left| format_grpc_timeout(left).to_string(), left), Ok(()));
    }

    #[test]
    fn no_text_panics(text in ".{0,12}", digits in "[0-9]{0,22}[HMSmunx]?") {
        for text in [text, digits] {
            let _ = (parse_grpc_timeout(&text), parse_millis(&text));
        }
    }

    #[test]
    fn what_is_left_and_what_has_passed_agree(at in any_duration(), now in any_duration()) {
        let (deadline, now) = (Deadline::at(Timestamp::ZERO + at), Timestamp::ZERO + now);
        prop_assert_eq!(deadline.has_passed(now), deadline.remaining(now) == Some(Duration::ZERO));
        prop_assert_eq!(deadline.attempt_timeout(now, None), deadline.remaining(now));
    }
}

#[test]
fn the_check_catches_each_broken_twin() {
    let left = Duration::from_micros(2_500);
    let tiny = Duration::from_nanos(1);
    let rounds_up = |left: Duration| format!("{}m", left.as_micros().div_ceil(1_000));
    assert!(check_written(rounds_up, left).is_err());
    let rounds_to_zero = |left: Duration| format!("{}m", left.as_millis());
    assert!(check_written(rounds_to_zero, tiny).is_err());
    let nine_digits = |_| "100000000m".to_owned();
    assert!(check_written(nine_digits, Duration::from_secs(100_000)).is_err());
}

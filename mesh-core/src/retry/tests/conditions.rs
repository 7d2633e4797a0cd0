//! Envoy's conditions, one by one.

use super::*;

fn on(text: &str) -> RetryOn {
    text.parse().unwrap()
}

#[test]
fn which_reset_meets_which_condition() {
    use Reset::{AfterRequest, BeforeRequest, ConnectFailure, Overflow, RefusedStream};
    let all = [ConnectFailure, BeforeRequest, RefusedStream, AfterRequest];
    let table: [(&str, &[Reset]); 9] = [
        ("5xx", &all),
        ("gateway-error", &all),
        ("reset", &all),
        ("connect-failure", &[ConnectFailure]),
        ("reset-before-request", &[ConnectFailure, BeforeRequest]),
        ("refused-stream", &[RefusedStream]),
        ("retriable-4xx,retriable-status-codes,503", &[]),
        ("unavailable,cancelled", &[]),
        ("connect-failure,refused-stream", &[ConnectFailure, RefusedStream]),
    ];
    for (text, retried) in table {
        for reset in all.into_iter().chain([Overflow]) {
            let matched = Answer::reset(reset).matches(&on(text));
            assert_eq!(matched, retried.contains(&reset), "{text}: {reset:?}");
        }
    }
}

#[test]
fn which_status_meets_which_condition() {
    let table: [(&str, &[u16]); 7] = [
        ("5xx", &[500, 501, 502, 503, 504, 599]),
        ("gateway-error", &[502, 503, 504]),
        ("retriable-4xx", &[409]),
        ("429,503", &[429, 503]),
        ("retriable-status-codes", &[]),
        ("reset,connect-failure,refused-stream,unavailable", &[]),
        ("", &[]),
    ];
    for (text, retried) in table {
        for status in [100, 200, 404, 409, 429, 499, 500, 501, 502, 503, 504, 599, 600, 999] {
            let matched = Answer::status(status).matches(&on(text));
            assert_eq!(matched, retried.contains(&status), "{text}: {status}");
        }
    }
}

#[test]
fn which_grpc_status_meets_which_condition() {
    let table = [
        ("cancelled", 1),
        ("deadline-exceeded", 4),
        ("resource-exhausted", 8),
        ("internal", 13),
        ("unavailable", 14),
    ];
    for (text, retried) in table {
        for code in 0..=16 {
            assert_eq!(
                Answer::grpc(code, true).matches(&on(text)),
                code == retried,
                "{text} {code}"
            );
            assert!(!Answer::grpc(code, false).matches(&on(text)), "in the trailers");
            assert_eq!(Answer::status(200).with_grpc(code).matches(&on(text)), code == retried);
        }
    }
    assert!(!Answer::grpc(14, true).matches(&on("5xx")), "its HTTP status is 200");
}

#[test]
fn a_rate_limited_answer_meets_its_own_condition_only() {
    let limited = Answer::status(503).with_rate_limited(true);
    assert!(!limited.matches(&on("5xx,gateway-error,503")));
    assert!(limited.matches(&on("envoy-ratelimited")));
    assert!(!Answer::status(503).matches(&on("envoy-ratelimited")));
}

#[test]
fn too_early_is_tried_again_at_once_unless_it_came_so() {
    let codes = on("425");
    assert_eq!(Answer::status(425).meets(&codes), Meets::ConditionAtOnce);
    assert!(!Answer::status(425).with_early_data(true).matches(&codes));
    assert_eq!(Answer::status(503).meets(&on("503")), Meets::Condition);
}

#[test]
fn http3_falls_back_at_once() {
    let over = |reset| Answer::reset(reset).with_http3(true);
    assert_eq!(over(Reset::ConnectFailure).meets(&RetryOn::NONE), Meets::ConditionAtOnce);
    assert!(!over(Reset::AfterRequest).matches(&RetryOn::NONE));
    let later = on("http3-post-connect-failure");
    assert_eq!(over(Reset::AfterRequest).meets(&later), Meets::ConditionAtOnce);
    assert!(!Answer::reset(Reset::AfterRequest).matches(&later));
    assert!(!over(Reset::Overflow).matches(&later));
}

#[test]
fn a_request_may_have_wishes_of_its_own() {
    let asked = Overrides::NONE
        .with_retry_on(Some("reset, unavailable, nonsense"))
        .with_grpc_on(Some("internal,5xx"))
        .with_status_codes(Some("418, x, 99"))
        .with_max_retries(Some("99999999999"));
    let config = Config::envoy().with_retry_on(RetryOn::REFUSED_STREAM).with_overrides(&asked);
    assert_eq!(config.retry_on().to_string(), "refused-stream,reset,internal,418");
    assert_eq!(config.retries(), u32::MAX);
    let off = asked.with_request_match(false);
    assert!(Config::istio().with_overrides(&off).retry_on().is_empty());
    assert_eq!(Config::istio().with_overrides(&off).retries(), 2);
}

#[test]
fn retriable_headers_are_the_callers_match() {
    let matched = Answer::status(200).with_header_match(true);
    assert!(matched.matches(&on("retriable-headers")));
    assert!(!matched.matches(&on("5xx")));
    assert!(!Answer::status(200).matches(&on("retriable-headers")));
}

#[test]
fn unknown_words_are_named() {
    for word in ["sometimes", "5XX", "99", "1000", "+503", "503.0", "99999999"] {
        let error = format!("reset, {word} ,503").parse::<RetryOn>().unwrap_err();
        assert_eq!((error.field(), error.value()), ("retry_on", word));
    }
    assert_eq!(on(" , ,").to_string(), "");
}

proptest! {
    #[test]
    fn text_round_trips(
        bits in prop::collection::vec(0..16usize, 0..6),
        codes in prop::collection::vec(100..=999u16, 0..6),
    ) {
        let names = on(ALL_NAMES).to_string();
        let words: Vec<_> = names.split(',').collect();
        let mut set = RetryOn::NONE;
        for bit in &bits {
            set |= on(words[*bit]);
        }
        for code in &codes {
            set = set.with_status_code(*code).unwrap();
        }
        prop_assert_eq!(on(&set.to_string()), set);
        prop_assert!(codes.iter().all(|code| set.status_codes().any(|listed| listed == *code)));
    }

    #[test]
    fn no_text_panics(text in ".{0,30}") {
        drop(text.parse::<RetryOn>());
    }
}

const ALL_NAMES: &str = "5xx,gateway-error,connect-failure,refused-stream,reset,reset-before-request,\
    retriable-4xx,retriable-status-codes,retriable-headers,envoy-ratelimited,cancelled,\
    deadline-exceeded,resource-exhausted,internal,unavailable,http3-post-connect-failure";

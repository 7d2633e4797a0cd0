use std::time::SystemTime;

use super::*;

fn verdict(head: http::response::Builder) -> Verdict {
    Standard.classify(Ok(&head.body(()).unwrap()))
}

fn status(code: u16) -> http::response::Builder {
    Response::builder().status(code)
}

fn grpc(code: &str) -> http::response::Builder {
    status(200).header("content-type", "application/grpc").header("grpc-status", code)
}

#[test]
fn http_by_status() {
    for (code, outcome) in [
        (200, Outcome::Success),
        (404, Outcome::Success),
        (429, Outcome::Throttled),
        (500, Outcome::ServerError),
        (501, Outcome::ServerError),
        (502, Outcome::GatewayError),
        (503, Outcome::GatewayError),
        (504, Outcome::GatewayError),
        (505, Outcome::ServerError),
    ] {
        assert_eq!(verdict(status(code)).outcome(), Some(outcome), "{code}");
    }
}

#[test]
fn grpc_by_header_when_there_is_no_body() {
    for (code, outcome) in [
        ("0", Outcome::Success),
        ("3", Outcome::Success),
        ("12", Outcome::Success),
        ("2", Outcome::ServerError),
        ("4", Outcome::GatewayError),
        ("8", Outcome::Throttled),
        ("14", Outcome::GatewayError),
        ("fourteen", Outcome::ServerError),
    ] {
        assert_eq!(verdict(grpc(code)).outcome(), Some(outcome), "{code}");
    }
}

#[test]
fn grpc_by_trailers_at_the_end() {
    let head = status(200).header("content-type", "application/grpc");
    assert_eq!(verdict(head).outcome(), None);

    let mut trailers = HeaderMap::new();
    assert_eq!(end_of_stream(None), Outcome::Reset);
    assert_eq!(end_of_stream(Some(&trailers)), Outcome::Reset);
    trailers.insert("grpc-status", "14".parse().unwrap());
    assert_eq!(end_of_stream(Some(&trailers)), Outcome::GatewayError);
}

#[test]
fn grpc_web_is_judged_as_http() {
    let head =
        status(200).header("content-type", "application/grpc-web").header("grpc-status", "14");
    assert_eq!(verdict(head).outcome(), Some(Outcome::Success));
}

#[test]
fn retry_after_in_seconds_and_as_a_date() {
    let after = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers)
    };
    let past = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH);
    assert_eq!(after("120"), Some(Pushback::After(Duration::from_secs(120))));
    assert_eq!(after(&past), Some(Pushback::After(Duration::ZERO)));
    assert_eq!(after("soon"), None);
    assert_eq!(after("-1"), None);
}

#[test]
fn what_an_envoy_has_turned_away_is_retried_on_its_own_condition_only() {
    use mesh_core::retry::RetryOn;

    let limited = verdict(status(429).header("x-envoy-ratelimited", "true")).answer();
    let throttled = verdict(status(429)).answer();
    let (envoys, by_code): (RetryOn, RetryOn) =
        ("envoy-ratelimited".parse().unwrap(), "retriable-status-codes,429".parse().unwrap());
    assert_eq!((limited.matches(&envoys), limited.matches(&by_code)), (true, false));
    assert_eq!((throttled.matches(&envoys), throttled.matches(&by_code)), (false, true));
}

#[test]
fn grpc_pushback_is_a_number_or_a_stop() {
    let push = |value: &str| {
        verdict(grpc("14").header("grpc-retry-pushback-ms", value)).answer().retry_after()
    };
    assert_eq!(push("250"), Some(Pushback::After(Duration::from_millis(250))));
    assert_eq!(push("-1"), Some(Pushback::Stop));
    assert_eq!(push("later"), Some(Pushback::Stop));
}

#[test]
fn an_error_of_the_mesh_keeps_its_meaning_through_a_chain() {
    #[derive(Debug)]
    struct Wrapped(MeshError);
    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("wrapped")
        }
    }
    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let error: BoxError = Box::new(Wrapped(MeshError::new(Reason::ConnectFailed)));
    assert_eq!(of_error(&error).outcome(), Some(Outcome::ConnectFailed));
    let foreign: BoxError = "boom".into();
    assert_eq!(of_error(&foreign).outcome(), Some(Outcome::Reset));
}

#[test]
fn a_peers_reading_reads_as_the_peer_does_and_leaves_the_retry_alone() {
    use mesh_core::{breaker::Reading, retry::RetryOn};

    let read = |reading: Reading, head: http::response::Builder| {
        reading.classify(Ok(&head.body(()).unwrap()))
    };
    for (reading, code, outcome) in [
        (Reading::Linkerd, 429, Outcome::Throttled),
        (Reading::Linkerd, 503, Outcome::GatewayError),
        (Reading::HaproxyLayer4, 503, Outcome::Success),
        (Reading::HaproxyLayer7, 501, Outcome::Success),
        (Reading::HaproxyLayer7, 500, Outcome::ServerError),
    ] {
        assert_eq!(read(reading, status(code)).outcome(), Some(outcome), "{reading:?} {code}");
    }
    for (reading, code, outcome) in [
        (Reading::Linkerd, "7", Outcome::ServerError),
        (Reading::Linkerd, "2", Outcome::Success),
        (Reading::HaproxyLayer7, "14", Outcome::Success),
    ] {
        assert_eq!(read(reading, grpc(code)).outcome(), Some(outcome), "{reading:?} {code}");
    }
    // What HAProxy calls good may be tried again all the same.
    let good = read(Reading::HaproxyLayer4, status(503).header("retry-after", "2"));
    assert!(good.answer().matches(&RetryOn::GATEWAY_ERROR));
    assert_eq!(good.answer().retry_after(), Some(Pushback::After(Duration::from_secs(2))));

    let foreign: BoxError = "boom".into();
    let verdict = Classify::<Response<()>>::classify(&Reading::HaproxyLayer4, Err(&foreign));
    assert_eq!(verdict.outcome(), Some(Outcome::Reset), "no answer is a failure to all");
}

#[test]
fn each_reading_has_trailers_of_its_own() {
    use mesh_core::breaker::Reading;

    let head = || status(200).header("content-type", "application/grpc").body(()).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "7".parse().unwrap());
    let (ours, linkerd) = (Standard.classify(Ok(&head())), Reading::Linkerd.classify(Ok(&head())));
    assert_eq!((ours.outcome(), linkerd.outcome()), (None, None));
    assert_eq!(ours.at_end()(Some(&trailers)), Outcome::Success);
    assert_eq!(linkerd.at_end()(Some(&trailers)), Outcome::ServerError);
    assert_eq!(linkerd.at_end()(None), Outcome::Reset);
    let haproxy = Reading::HaproxyLayer7.classify(Ok(&head()));
    assert_eq!(haproxy.outcome(), Some(Outcome::Success), "it does not wait for trailers");
}

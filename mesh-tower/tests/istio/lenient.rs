//! What is read and not carried out: it is an error, or it is there for whoever can.

use std::time::Duration;

use mesh_core::{
    Ratio, retry,
    route::{AbortStatus, Mirror},
};
use mesh_tower::istio::{
    self, Cause, Destination, Documents, Retries, Severity, Unsupported, VirtualService,
};

use super::{read, refused, rule, service};

fn lenient(text: &str) -> Documents {
    istio::read(text, "t", Unsupported::Warn).unwrap_or_else(|errors| panic!("{errors}"))
}

fn route(rest: &str) -> String {
    service(&format!("route: [{{destination: {{host: shop}}}}], {rest}"))
}

fn retries_of(fields: &str) -> Retries {
    lenient(&route(&format!("retries: {{attempts: 2, {fields}}}"))).virtual_services()[0].retries()
}

#[test]
fn words_and_codes_are_parted_as_in_istio() {
    for (text, words, codes) in [
        (" some,\\t,fake ,\\tconditions, ,", "some,fake,conditions", &[][..]),
        ("some,5xx,404,503", "some,5xx,retriable-status-codes", &[404, 503]),
        (
            "gateway-error,retriable-status-codes,503",
            "gateway-error,retriable-status-codes",
            &[503],
        ),
        // A number without a name is a word.
        ("1000,99,599,306,-503", "1000,99,599,306,-503", &[]),
        // Go's parser of numbers takes these.
        ("+503,0504", ",retriable-status-codes", &[503, 504]),
        (" , ", "", &[]),
        ("", "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", &[]),
    ] {
        let retries = retries_of(&format!("retryOn: \"{text}\""));
        assert_eq!((retries.retry_on(), retries.status_codes()), (words, codes), "{text}");
    }
}

/// As in Istio: not even an error, but nothing is done.
#[test]
fn a_deprecated_count_is_only_advised_against() {
    let text =
        rule("trafficPolicy: {outlierDetection: {consecutiveErrors: 1, maxEjectionPercent: 100}}");
    let documents = read(&text);
    let [problem, ..] = documents.warnings() else { panic!("nothing was said") };
    assert_eq!((problem.severity(), problem.cause()), (Severity::Warning, Cause::Advice));
    assert!(problem.message().contains("consecutive5xxErrors"), "{problem}");
    let outlier = *documents.upstream("shop").unwrap().policy().outlier();
    assert_eq!(outlier.consecutive_5xx(), 5);
}

#[test]
fn only_what_means_something_reaches_the_machine() {
    let conditions =
        |text: &str| *retries_of(&format!("retryOn: \"{text}\"")).to_config(false).retry_on();
    assert_eq!(conditions("some,5xx,404"), "5xx,404".parse().unwrap());
    assert_eq!(conditions("some,599"), retry::RetryOn::NONE, "Envoy would not know them either");
    assert_eq!(conditions(""), *retry::Config::istio().retry_on());

    let text = route("retries: {attempts: 2, retryOn: \"some,5xx,599\"}");
    let errors = istio::read(&text, "t", Unsupported::Error).unwrap_err();
    let found: Vec<_> = errors.problems().iter().map(|problem| problem.message()).collect();
    assert_eq!(
        found,
        [
            "\"some\" is not a condition, expected Envoy's conditions or HTTP codes",
            "\"599\" is not a condition, expected Envoy's conditions or HTTP codes",
        ]
    );
    let warnings = lenient(&text).warnings().to_vec();
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings.iter().all(|problem| {
            (problem.cause(), problem.severity(), problem.path())
                == (Cause::Unsupported, Severity::Warning, "spec.http[0].retries.retryOn")
        }),
        "{warnings:?}"
    );
}

#[test]
fn a_hash_keeps_a_retry_where_it_was() {
    let avoids = |balance: &str, subset: &str, retries: &str| {
        let rule = rule(&format!(
            "trafficPolicy: {{loadBalancer: {balance}}}, \
             subsets: [{{name: v1, trafficPolicy: {{loadBalancer: {subset}}}}}]"
        ));
        let to = "route: [{destination: {host: shop, subset: v1}}]";
        let service = service(&format!("{to}, retries: {{attempts: 1{retries}}}"));
        lenient(&[rule, service].concat()).upstream("shop").unwrap().retry().avoid_previous()
    };
    let hash = "{consistentHash: {useSourceIp: true}}";
    assert!(avoids("{}", "{}", ""));
    assert!(!avoids(hash, "{}", ""));
    assert!(!avoids("{}", hash, ""), "of the subset that the route leads to");
    assert!(avoids(hash, hash, ", retryIgnorePreviousHosts: true"));
    assert!(!avoids("{}", "{}", ", retryIgnorePreviousHosts: false"));
}

#[test]
fn a_retry_may_turn_to_remote_localities() {
    for (on, after) in [(true, 2), (false, 0)] {
        let retries = retries_of(&format!("retryRemoteLocalities: {on}"));
        assert_eq!(retries.previous_priorities(), on.then_some(2));
        assert_eq!(retries.to_config(false).previous_priorities(), after);
        let text = route(&format!("retries: {{attempts: 2, retryRemoteLocalities: {on}}}"));
        assert_eq!(read(&text).warnings(), []);
    }
}

fn service_of(rest: &str) -> VirtualService {
    lenient(&route(rest)).virtual_services()[0].clone()
}

#[test]
fn faults_are_read() {
    let of = |fault: &str| service_of(&format!("fault: {{{fault}}}")).fault().unwrap().clone();
    let abort = |percentage: &str| {
        let fault = of(&format!("abort: {{httpStatus: 503{percentage}}}"));
        let abort = fault.abort().unwrap();
        assert_eq!(abort.status(), AbortStatus::http(503).unwrap());
        abort.share()
    };
    assert_eq!(abort(""), Ratio::ZERO, "no percentage is none");
    assert_eq!(abort(", percentage: {}"), Ratio::ZERO);
    assert_eq!(abort(", percentage: {value: 50}"), Ratio::from_percent(50));
    assert_eq!(abort(", percentage: {value: 0.1}"), Ratio::from_ppm(1_000));
    assert_eq!(abort(", percentage: {value: 9e-05}"), Ratio::ZERO, "less than a millionth");
    assert_eq!(abort(", percentage: {value: 1e-4}"), Ratio::from_ppm(1));
    assert_eq!(abort(", percentage: {value: 12.3456}"), Ratio::from_ppm(123_456));
    assert_eq!(abort(", percentage: {value: 100}"), Ratio::ONE);
    let both =
        of("abort: {grpcStatus: UNAVAILABLE}, delay: {fixedDelay: 5s, percentage: {value: 10}}");
    assert_eq!(both.abort().unwrap().status().grpc_code(), Some(14));
    let delay = both.delay().unwrap();
    assert_eq!((delay.fixed(), delay.share()), (Duration::from_secs(5), Ratio::from_percent(10)));
}

#[test]
fn mirrors_are_read() {
    let mirrors = |rest: &str| -> Vec<(String, Option<String>, u32)> {
        let service = service_of(rest);
        let of = |mirror: &Mirror<Destination>| {
            let to = mirror.destination();
            (to.host().to_owned(), to.subset().map(str::to_owned), mirror.share().as_ppm())
        };
        service.mirrors().iter().map(of).collect()
    };
    let copy = |ppm| ("copy".to_owned(), None, ppm);
    assert_eq!(mirrors(""), []);
    assert_eq!(mirrors("mirror: {host: copy}"), [copy(1_000_000)], "no percentage is all");
    assert_eq!(mirrors("mirror: {host: copy}, mirrorPercentage: {value: 0}"), [copy(0)]);
    assert_eq!(mirrors("mirror: {host: copy}, mirrorPercentage: {value: 12.5}"), [copy(125_000)]);
    assert_eq!(
        mirrors(
            "mirrors: [{destination: {host: copy}}, \
             {destination: {host: other, subset: v1, port: {number: 80}}, percentage: {value: 1}}]"
        ),
        [copy(1_000_000), ("other".into(), Some("v1".into()), 10_000)]
    );
}

#[test]
fn faults_and_mirrors_that_are_none() {
    let error = |rest: &str| refused(&route(rest));
    for (rest, expected) in [
        ("fault: {abort: {}}", "fault.abort: a mapping needs either httpStatus or grpcStatus"),
        ("fault: {abort: {httpStatus: 199}}", "199 is not allowed, expected 200 to 600"),
        ("fault: {abort: {httpStatus: 601}}", "expected a whole number from 0 to 600"),
        ("fault: {delay: {percentage: {value: 1}}}", "fault.delay.fixedDelay: is missing"),
        ("fault: {delay: {fixedDelay: 1s, percent: 5}}", "fault.delay.percent: is not supported"),
        (
            "fault: {abort: {httpStatus: 500, percentage: {value: 101}}}",
            "percentage.value: 101 is not allowed, expected a number from 0 to 100",
        ),
        ("fault: {abort: {httpStatus: 500, percentage: {value: -1}}}", "-1 is not allowed"),
        ("fault: {abort: {httpStatus: 500, percentage: 50}}", "percentage: 50 is not a mapping"),
        ("mirror: {}", "mirror.host: is missing"),
        ("mirrors: [{percentage: {value: 1}}]", "mirrors[0].destination: is missing"),
        ("mirror: {host: a}, mirrorPercent: 5", "mirrorPercent: is not supported"),
    ] {
        let error = error(rest);
        assert!(error.contains(expected), "{error}");
    }
}

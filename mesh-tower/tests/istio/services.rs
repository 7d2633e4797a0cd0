//! `VirtualService`: shares, timeouts and retries.

use std::time::Duration;

use mesh_core::{Labels, backoff, retry};
use mesh_tower::{
    istio::{self, Unsupported},
    upstream,
};

use super::{SUBSETS, config, read, refused, rule, service};

#[track_caller]
fn upstream_of(http: &str) -> upstream::Config {
    read(&format!("{}{}", rule(SUBSETS), service(http))).upstream("shop").unwrap()
}

#[track_caller]
fn split(route: &str) -> Vec<(String, u32)> {
    upstream_of(&format!("route: [{route}]")).split().to_vec()
}

fn to(subset: &str, weight: &str) -> String {
    format!("{{destination: {{host: shop, subset: {subset}}}, weight: {weight}}}")
}

#[test]
fn a_share_is_weight_over_sum() {
    let (v1, v2) = (|weight| ("v1".to_owned(), weight), |weight| ("v2".to_owned(), weight));
    assert_eq!(split(&[to("v1", "1"), to("v2", "3")].join(", ")), [v1(1), v2(3)]);
    assert_eq!(split(&[to("v1", "0"), to("v2", "100")].join(", ")), [v2(100)], "0 is removed");
    assert_eq!(
        split(&[to("v1", "null"), to("v2", "7")].join(", ")),
        [v2(7)],
        "no weight is 0 among several"
    );
    assert_eq!(split(&to("v1", "0")), [v1(1)], "one alone gets everything");
    assert_eq!(split("{destination: {host: shop}}"), []);
    assert_eq!(split("{destination: {host: shop.default.svc.cluster.local, subset: \"\"}}"), []);
}

#[test]
fn a_share_of_the_whole_host() {
    let config = upstream_of(
        "route: [{destination: {host: shop}, weight: 9}, {destination: {host: shop, subset: v2}, weight: 1}]",
    );
    assert_eq!(config.split(), [("*".to_owned(), 9), ("v2".to_owned(), 1)]);
    assert_eq!(config.subset("*").unwrap().labels(), &Labels::default());
}

#[test]
fn weights_that_are_none() {
    let error = |route: &str| refused(&service(&format!("route: [{route}]")));
    let zeros = error(&[to("v1", "0"), to("v2", "0")].join(", "));
    assert!(
        zeros
            .contains("spec.http[0].route: weight: 0 is not allowed, expected a sum of at least 1"),
        "{zeros}"
    );
    let sum = [to("v1", "2147483647"), to("v2", "2147483647"), to("v2", "2147483647")].join(", ");
    assert!(error(&sum).contains("a sum of at most 4294967295"));
    assert!(
        error(&to("v1", "-1"))
            .contains("route[0].weight: -1 is not allowed, expected a whole number from 0 to")
    );
    assert!(error("").contains("a sum of at least 1"));
}

#[test]
fn timeout_and_retries() {
    let of = |rest: &str| upstream_of(&format!("route: [{{destination: {{host: shop}}}}], {rest}"));
    let expected = config("shop");
    assert_eq!(of("").timeout(), None);
    assert_eq!(of("timeout: 0s").timeout(), None);
    assert_eq!(of("timeout: 1m30s").timeout(), Some(Duration::from_secs(90)));
    assert_eq!(of("").retry(), expected.retry(), "2 retries unless told otherwise");
    assert_eq!(of("retries: {attempts: 0}").retry(), &retry::Config::none());
    assert_eq!(of("retries: {attempts: 5}").retry(), &retry::Config::istio().with_retries(5));
    let all = of(
        "retries: {attempts: 3, perTryTimeout: 2s, retryOn: \" gateway-error,\\t,503\", backoff: 50ms, \
         retryIgnorePreviousHosts: false}",
    );
    let expected = retry::Config::istio()
        .with_retries(3)
        .with_per_try_timeout(Some(Duration::from_secs(2)))
        .with_retry_on("gateway-error,retriable-status-codes,503".parse().unwrap())
        .with_backoff(backoff::Config::from_base(Duration::from_millis(50)).unwrap())
        .with_avoid_previous(false);
    assert_eq!(all.retry(), &expected);
}

#[test]
fn retries_that_are_none() {
    let error = |retries: &str| {
        refused(&service(&format!(
            "retries: {{{retries}}}, route: [{{destination: {{host: shop}}}}]"
        )))
    };
    assert!(error("perTryTimeout: 1s").contains("spec.http[0].retries.attempts: is missing"));
    assert!(error("attempts: 0, retryOn: 5xx").contains("attempts: 0 turns retries off"));
    assert!(
        error("attempts: 1, retryOn: \"5xx,sometimes\"")
            .contains("retries.retryOn: \"sometimes\" is not a condition")
    );
    assert!(error("attempts: 1, retryOn: \"1000\"").contains("\"1000\" is not a condition"));
    assert!(
        error("attempts: 1, perTryTimeout: 0s")
            .contains("\"0s\" is not allowed, expected 1ms or more")
    );
}

#[test]
fn a_rule_with_a_match_never_takes_what_it_was_not_meant_for() {
    let text = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: service}
spec:
  hosts: [shop]
  http:
    - match: [{headers: {beta: {exact: \"1\"}}}]
      timeout: 9s
      route: [{destination: {host: shop, subset: beta}}]
    - timeout: 1s
      route: [{destination: {host: shop}}]
    - timeout: 2s
      route: [{destination: {host: shop}}]
";
    let strict = istio::read(text, "t", Unsupported::Error).unwrap();
    let errors = strict.upstream("shop").unwrap_err();
    assert_eq!(errors.problems()[0].path(), "spec.http[0].match");
    let documents = istio::read(text, "t", Unsupported::Warn).unwrap();
    let config = documents.upstream("shop").unwrap();
    assert_eq!((config.timeout(), config.split().len()), (Some(Duration::from_secs(1)), 0));
    let warnings: Vec<_> = documents.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("t:7:7: warning: VirtualService service: spec.http[0].match: is not carried out by an upstream alone; the rule is left out there"), "{warnings:?}");
    assert!(warnings[1].contains("spec.http[2]: is never reached"), "{warnings:?}");
}

#[test]
fn a_redirect_needs_no_route_to_be_reported_once() {
    let documents = read(&service("redirect: {uri: /}"));
    let errors = documents.upstream("shop").unwrap_err().to_string();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(refused(&service("timeout: 1s")).contains("spec.http[0].route: is missing"));
}

#[test]
fn a_virtual_service_may_lead_to_another_host() {
    let text = format!(
        "{}apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: alias}}\n\
         spec: {{hosts: [api.example.com, \"*.example.org\"], http: [{{route: [{{destination: {{host: shop, subset: v2}}}}]}}]}}\n",
        rule(SUBSETS)
    );
    let documents = read(&text);
    for host in ["api.example.com", "www.example.org"] {
        let config = documents.upstream(host).unwrap();
        assert_eq!((config.name(), config.split()), (host, [("v2".to_owned(), 1)].as_slice()));
    }
    assert!(documents.upstream("shop").unwrap().split().is_empty());
    let two = read(&service(
        "route: [{destination: {host: shop}, weight: 1}, {destination: {host: cart}, weight: 1}]",
    ));
    let two = two.upstream("shop").unwrap_err().to_string();
    assert!(
        two.contains(
            "spec.http[0].route: shop and cart: shares of several hosts are not carried out by an upstream alone"
        ),
        "{two}"
    );
}

#[test]
fn the_first_virtual_service_of_a_host_counts() {
    let documents = read(
        &[
            service("timeout: 1s, route: [{destination: {host: shop}}]"),
            service("timeout: 2s, route: [{destination: {host: shop}}]"),
        ]
        .concat(),
    );
    assert_eq!(documents.upstream("shop").unwrap().timeout(), Some(Duration::from_secs(1)));
    assert!(documents.warnings()[0].message().contains("shop has VirtualService service already"));
    let again = read(&service("route: [{destination: {host: shop}}]"));
    assert_eq!(documents.and(again).warnings().len(), 2);
}

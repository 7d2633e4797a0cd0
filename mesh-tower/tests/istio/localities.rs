//! `localityLbSetting`, of a rule and of the mesh.

use mesh_core::balance::locality::{Config, Distribute};
use mesh_tower::istio::{self, Cause, MeshConfig, Unsupported};

use super::{read, refused, rule};

const OUTLIER: &str = "outlierDetection: {maxEjectionPercent: 50}";

/// What counts for `shop`, by a rule and a mesh.
#[track_caller]
fn locality(setting: &str, outlier: &str, mesh: &str) -> Option<Config> {
    let balancer = match setting {
        "" => String::new(),
        setting => format!("loadBalancer: {{localityLbSetting: {setting}}}, "),
    };
    let documents = read(&rule(&format!("trafficPolicy: {{{balancer}{outlier}}}")));
    let mesh = MeshConfig::read(mesh, "mesh.yaml", Unsupported::Error).unwrap();
    let config = documents.with_mesh_config(mesh).upstream("shop").unwrap();
    config.policy().locality().cloned()
}

fn given(setting: &str) -> Option<Config> {
    locality(setting, OUTLIER, "")
}

#[test]
fn what_is_written_is_what_the_machine_gets() {
    assert_eq!(given("{enabled: true}"), Some(Config::failover()));
    assert_eq!(given("{}"), Some(Config::failover()));
    assert_eq!(given("{enabled: false}"), None);
    let regions = Config::failover().with_failover("eu", "us").unwrap();
    let regions = regions.with_failover("us", "eu").unwrap();
    assert_eq!(given("{failover: [{from: eu, to: us}, {from: us, to: eu}]}"), Some(regions));
    let labels = ["topology.istio.io/network", "version=v1"];
    let by_labels = Config::failover().with_labels(labels).unwrap();
    let text = "{failoverPriority: [\"topology.istio.io/network\", \"version=v1\"], failover: []}";
    assert_eq!(given(text), Some(by_labels));
    let entry = |from, to: [(&'static str, u32); 2]| Distribute::new(from, to).unwrap();
    let shares = Config::distribute(vec![
        entry("eu/a/*", [("eu/a/*", 80), ("eu/b/*", 20)]),
        entry("eu/b/*", [("eu/b/*", 90), ("eu/a/*", 10)]),
    ]);
    let text = "{distribute: [\
        {from: eu/a/*, to: {\"eu/a/*\": 80, \"eu/b/*\": 20}}, \
        {from: eu/b/*, to: {\"eu/b/*\": 90, \"eu/a/*\": 10}}]}";
    assert_eq!(given(text), Some(shares.unwrap()));
}

#[test]
fn the_rule_counts_before_the_mesh_and_the_mesh_is_on() {
    let (on, off) = ("localityLbSetting: {enabled: true}", "localityLbSetting: {enabled: false}");
    assert_eq!(locality("", OUTLIER, ""), Some(Config::failover()), "Istio's default");
    assert_eq!(locality("", "", ""), None, "nobody would ever fail over");
    assert_eq!(locality("", OUTLIER, off), None);
    assert_eq!(locality("{enabled: true}", OUTLIER, off), Some(Config::failover()));
    assert_eq!(locality("{enabled: false}", OUTLIER, on), None);
    let wide = "localityLbSetting: {failover: [{from: eu, to: us}]}";
    let regions = Config::failover().with_failover("eu", "us").unwrap();
    assert_eq!(locality("", OUTLIER, wide), Some(regions));
    assert_eq!(locality("{}", OUTLIER, wide), Some(Config::failover()), "nothing is mixed");
}

#[test]
fn mistakes_are_told_where_they_are() {
    let error = |setting: &str| {
        let text =
            format!("trafficPolicy: {{{OUTLIER}, loadBalancer: {{localityLbSetting: {setting}}}}}");
        let message = refused(&rule(&text));
        let path = "spec.trafficPolicy.loadBalancer.localityLbSetting";
        assert!(message.contains(path) && message.starts_with("test.yaml:4:"), "{message}");
        message
    };
    for (setting, expected) in [
        ("{failover: [{from: eu}]}", "failover[0].to: is missing"),
        ("{failover: [{from: eu, to: eu}]}", "expected two different regions"),
        ("{failover: [{from: eu/a, to: us}]}", "expected regions without zone or wildcard"),
        ("{failover: {}}", "is not a list"),
        ("{distribute: [{from: eu, to: {eu: 50, us: 49}}]}", "expected weights with a sum of 100"),
        ("{distribute: [{from: eu, to: {eu: 101}}]}", "expected weights of 1 to 100"),
        ("{distribute: [{from: \"*/a\", to: {eu: 100}}]}", "with a * only at its end"),
        ("{distribute: [{from: eu, to: {eu: x}}]}", "distribute[0].to.eu: \"x\" is not"),
        (
            "{distribute: [{from: eu, to: {eu: 100}}], failover: [{from: eu, to: us}]}",
            "expected distribute or failover, not both",
        ),
        (
            "{distribute: [{from: eu, to: {eu: 100}}], failoverPriority: [version]}",
            "expected distribute or failover_priority, not both",
        ),
        ("{failoverPriority: [\"a=b=c\"]}", "expected a label, or label=value"),
        ("{enabled: 1}", "localityLbSetting.enabled"),
        ("{enabeld: true}", "is enabled meant?"),
    ] {
        let message = error(setting);
        assert!(message.contains(expected), "{setting}: {message}");
    }
}

#[test]
fn failover_without_detection_is_worth_a_warning() {
    let of = |policy: &str| {
        let documents = istio::read(
            &rule(&format!("trafficPolicy: {{{policy}}}")),
            "test.yaml",
            Unsupported::Error,
        );
        let warnings = documents.unwrap().warnings().to_vec();
        let ours = warnings.into_iter().filter(|one| one.path().ends_with("localityLbSetting"));
        ours.map(|one| one.cause()).collect::<Vec<_>>()
    };
    let failover = "loadBalancer: {localityLbSetting: {failover: [{from: eu, to: us}]}}";
    assert_eq!(of(failover), [Cause::Advice]);
    assert_eq!(of(&format!("{failover}, {OUTLIER}")), []);
    assert_eq!(of("loadBalancer: {localityLbSetting: {enabled: true}}"), []);
}

//! Which policy is in force: ports, subsets, the mesh; and documents in lists.

use std::time::Duration;

use mesh_core::{Ratio, balance, budget, limit, outlier, retry};
use mesh_tower::{
    istio::{self, Documents, MeshConfig, Unsupported},
    pool::Protocol,
    upstream::Policy,
};

use super::{SUBSETS, policy, read, refused, rule, service};

fn connections(policy: &Policy) -> u32 {
    policy.limits().max_connections()
}

#[track_caller]
fn mesh(text: &str) -> MeshConfig {
    MeshConfig::read(text, "mesh.yaml", Unsupported::Error)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[track_caller]
fn effective(documents: &Documents, host: &str, subset: Option<&str>) -> String {
    let policy = documents.effective_policy(host, subset).unwrap();
    policy.map_or_else(|| "none".to_owned(), |policy| policy.to_string())
}

/// A rule and a subset, both with a policy and with one of the port 8080.
fn ports() -> Documents {
    read(&rule(
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}, retryBudget: {percent: 5}, \
         loadBalancer: {simple: ROUND_ROBIN}, \
         portLevelSettings: [{port: {number: 8080}, connectionPool: {tcp: {maxConnections: 2}}}, \
         {port: {number: 9090}, loadBalancer: {simple: ROUND_ROBIN}}]}, \
         subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {\
         connectionPool: {tcp: {maxConnections: 3}}, \
         portLevelSettings: [{port: {number: 8080}, outlierDetection: {maxEjectionPercent: 50}}]}}, \
         {name: v2, labels: {version: v2}}]",
    ))
}

#[test]
fn a_port_has_its_own_policy_which_inherits_nothing() {
    let documents = ports();
    let of = |host: &str| documents.upstream(host).unwrap();
    let whole = of("shop");
    assert_eq!(connections(whole.policy()), 1);
    assert_eq!(whole.policy().budget(), &budget::Config::concurrent(Ratio::from_percent(5), 3));

    let port = of("shop:8080");
    assert_eq!(port.name(), "shop:8080");
    let expected = policy().with_limits(limit::Config::unlimited().with_max_connections(2));
    assert_eq!(port.policy(), &expected, "neither the balance nor the budget of the host");
    assert_eq!(of("shop:9090").policy(), &policy().with_balance(balance::Config::round_robin()));
    // A port without settings of its own is the host.
    assert_eq!(of("shop:1").policy(), whole.policy());
    assert_eq!(of("shop.default.svc.cluster.local:8080").policy(), port.policy());
}

#[test]
fn a_port_of_a_subset_too() {
    let documents = ports();
    let v1 = |host: &str| documents.upstream(host).unwrap().subset("v1").unwrap().policy().cloned();
    let whole = v1("shop").unwrap();
    assert_eq!((connections(&whole), whole.outlier().is_off()), (3, true));
    assert_eq!(whole.balance(), &balance::Config::round_robin(), "the host's");
    let port = v1("shop:8080").unwrap();
    assert_eq!((connections(&port), port.outlier().is_off()), (limit::Config::UNLIMITED, false));
    // The subset's own over the port of the host.
    let other = v1("shop:9090").unwrap();
    assert_eq!((connections(&other), other.balance()), (3, &balance::Config::round_robin()));
    assert_eq!(
        effective(&documents, "shop:8080", Some("v1")),
        r#"{"outlierDetection": {"maxEjectionPercent": 50}}"#
    );
    assert_eq!(
        effective(&documents, "shop:8080", Some("v2")),
        effective(&documents, "shop:8080", None)
    );
}

/// `tunnel`, `proxyProtocol` and `retryBudget` cannot be said of a port: a subset's port leaves the host's in place, the
/// host's own port does not.
#[test]
fn what_a_port_cannot_name_is_the_hosts_for_a_subset() {
    let documents = read(&rule(
        "trafficPolicy: {retryBudget: {percent: 5}}, \
         subsets: [{name: v1, trafficPolicy: {retryBudget: {percent: 9}, \
         portLevelSettings: [{port: {number: 8080}, loadBalancer: {}}]}}]",
    ));
    assert_eq!(
        effective(&documents, "shop:8080", Some("v1")),
        r#"{"loadBalancer": {}, "retryBudget": {"percent": 5}}"#
    );
}

#[test]
fn a_destination_may_name_the_port() {
    let to = |port: u32| {
        service(&format!("route: [{{destination: {{host: shop, port: {{number: {port}}}}}}}]"))
    };
    let documents = ports().and(read(&to(8080)));
    for host in ["shop", "shop:9090"] {
        assert_eq!(connections(documents.upstream(host).unwrap().policy()), 2, "{host}");
    }
    assert!(refused(&to(0)).contains("port.number: 0 is not a port, expected 1 to 65535"));
    assert!(refused(&to(65_536)).contains("expected a whole number from 0 to 65535"));
    let two = "{destination: {host: shop, port: {number: 1}}, weight: 1}, \
               {destination: {host: shop, port: {number: 2}}, weight: 1}";
    assert!(
        read(&service(&format!("route: [{two}]")))
            .upstream("shop")
            .unwrap_err()
            .to_string()
            .contains(
                "shop:1 and shop:2: shares of several hosts are not carried out by an upstream"
            )
    );
}

#[test]
fn all_upstreams_are_those_of_ports_too() {
    let names = |documents: &Documents| -> Vec<String> {
        let configs = documents.upstreams().unwrap();
        configs.iter().map(|config| config.name().to_owned()).collect()
    };
    assert_eq!(names(&ports()), ["shop", "shop:8080", "shop:9090"]);
    // A route that leads to a port leaves no choice.
    let route = service("route: [{destination: {host: shop, port: {number: 8080}}}]");
    assert_eq!(names(&ports().and(read(&route))), ["shop"]);
}

#[test]
fn ports_that_are_none() {
    let of = |entries: &str| rule(&format!("trafficPolicy: {{portLevelSettings: [{entries}]}}"));
    assert!(refused(&of("{}")).contains("portLevelSettings[0].port: is missing"));
    assert!(refused(&of("{port: 80}")).contains("portLevelSettings[0].port: 80 is not a mapping"));
    assert!(refused(&of("{port: {name: http}}")).contains("port.name: is not supported"));
    let twice = "{port: {number: 80}, loadBalancer: {}}, {port: {number: 80}}";
    let documents = read(&of(twice));
    assert!(documents.warnings()[0].message().contains("the port has an entry"));
    assert_eq!(effective(&documents, "shop:80", None), r#"{"loadBalancer": {}}"#, "the first");
    for asked in ["shop:0", "shop:x", "shop:65536", "shop:", ":80", "other:80"] {
        let error = documents.upstream(asked).unwrap_err().to_string();
        assert!(error.contains("is no host of the documents"), "{error}");
    }
}

#[test]
fn what_is_not_carried_out_takes_part_in_the_merge() {
    let text = rule(
        "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}, tunnel: {targetHost: a}}, \
         subsets: [{name: v1, trafficPolicy: {tls: {mode: SIMPLE}, proxyProtocol: {version: V2}}}]",
    );
    assert!(istio::read(&text, "t", Unsupported::Error).is_err());
    let documents = istio::read(&text, "t", Unsupported::Warn).unwrap();
    assert_eq!(
        effective(&documents, "shop", Some("v1")),
        r#"{"tls": {"mode": "SIMPLE"}, "tunnel": {"targetHost": "a"}, "proxyProtocol": {"version": "V2"}}"#
    );
    let error = documents.effective_policy("shop", Some("v2")).unwrap_err().to_string();
    assert!(error.contains("\"v2\" is no subset of a DestinationRule for shop"), "{error}");
}

#[test]
fn nothing_said_is_no_policy_and_an_empty_one_is_empty() {
    assert_eq!(effective(&read(&rule("")), "shop", None), "none");
    assert_eq!(effective(&read(&rule("trafficPolicy: {}")), "shop", None), "{}");
    let services = read(&service("route: [{destination: {host: shop}}]"));
    assert_eq!(effective(&services, "shop", None), "none");
    let text = "defaultTrafficPolicy: {loadBalancer: {}}";
    let services = services.with_mesh_config(mesh(text));
    assert_eq!(effective(&services, "shop", None), r#"{"loadBalancer": {}}"#);
}

#[test]
fn the_mesh_fills_the_gaps() {
    let text = "
defaultTrafficPolicy:
  connectionPool: {tcp: {maxConnections: 100}, http: {maxRetries: 7}}
  outlierDetection: {consecutive5xxErrors: 9, maxEjectionPercent: 50}
";
    let documents = ports().with_mesh_config(mesh(text));
    let of = |host: &str| documents.upstream(host).unwrap().policy().clone();
    let whole = of("shop");
    assert_eq!(connections(&whole), 1);
    assert_eq!(whole.limits().max_retries(), limit::Config::UNLIMITED, "a block is never mixed");
    assert_eq!(whole.outlier().consecutive_5xx(), 9);
    // What a port does not name is the default, and that is the mesh's.
    assert_eq!((connections(&of("shop:9090")), of("shop:9090").limits().max_retries()), (100, 7));
    assert_eq!(connections(&of("shop:8080")), 2);
}

#[test]
fn the_mesh_speaks_of_connections_and_retries() {
    let text = "
connectTimeout: 3s
tcpKeepalive: {probes: 5, time: 60s}
h2UpgradePolicy: UPGRADE
rootNamespace: root
defaultHttpRetryPolicy: {attempts: 7, retryOn: 5xx}
";
    let documents = read(
        &[
            rule("trafficPolicy: {connectionPool: {tcp: {tcpKeepalive: {time: 9s}}}}"),
            rule("").replace("host: shop", "host: cart"),
            service("route: [{destination: {host: shop}}], retries: {attempts: 1}"),
        ]
        .concat(),
    )
    .with_mesh_config(mesh(text));
    let cart = documents.upstream("cart").unwrap();
    assert_eq!(cart.policy().pool().connect_timeout(), Duration::from_secs(3));
    assert_eq!(cart.policy().pool().protocol(), Protocol::Http2);
    assert_eq!((cart.retry().retries(), cart.retry().retry_on().to_string()), (7, "5xx".into()));
    let shop = documents.upstream("shop").unwrap();
    let keepalive = shop.policy().pool().tcp_keepalive().unwrap();
    assert_eq!(
        (keepalive.probes(), keepalive.time(), keepalive.interval()),
        (Some(5), Some(Duration::from_secs(9)), None),
        "attribute by attribute"
    );
    assert_eq!(shop.retry(), &retry::Config::istio().with_retries(1));
}

#[test]
fn the_budget_of_those_who_name_none() {
    let bare = || read(&rule(""));
    assert_eq!(bare().upstream("shop").unwrap().policy().budget(), &budget::Config::default());
    let off = MeshConfig::default().with_retry_budget(budget::Config::unlimited());
    let documents = bare().with_mesh_config(off);
    assert_eq!(documents.upstream("shop").unwrap().policy().budget(), &budget::Config::unlimited());
}

#[test]
fn mistakes_in_a_mesh_have_a_place() {
    let error =
        |text: &str| MeshConfig::read(text, "m", Unsupported::Error).unwrap_err().to_string();
    assert_eq!(
        error("defaultTrafficPolicy:\n  tunnel: {}\n"),
        "m:2:3: error: MeshConfig: defaultTrafficPolicy.tunnel: is not supported"
    );
    assert_eq!(
        error("connectTimeout: 1s\n---\nconnectTimeout: 2s\n"),
        "m:3:1: error: MeshConfig: a second document"
    );
    assert!(error("- 1\n").contains("a list is not a mapping"));
    assert!(error("h2UpgradePolicy: yes").contains("expected DEFAULT, UPGRADE or DO_NOT_UPGRADE"));
    assert!(error("a: [").starts_with("m:1:"));
    let lenient = MeshConfig::read("accessLogFile: a\n", "m", Unsupported::Warn).unwrap();
    assert_eq!(lenient.warnings().len(), 1);
    assert_eq!(read("").with_mesh_config(lenient).warnings().len(), 1);
    assert!(mesh("").warnings().is_empty());
}

#[test]
fn a_list_is_its_items() {
    let one = |text: String| format!("- {}", text.trim_end_matches("---\n").replace('\n', "\n  "));
    let list = |items: &[String]| {
        let items: Vec<_> = items.iter().cloned().map(one).collect();
        let head = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n";
        format!("{head}{}\n", items.join("\n").trim_end())
    };
    let text = list(&[rule(SUBSETS), service("timeout: 1s, route: [{destination: {host: shop}}]")]);
    let config = read(&text).upstream("shop").unwrap();
    assert_eq!((config.subsets().len(), config.timeout()), (2, Some(Duration::from_secs(1))));
    assert!(read("apiVersion: v1\nkind: List\nitems: []\n").destination_rules().is_empty());

    let error = refused(&list(&[rule(""), rule("trafficPolicy: {tunnel: {}}")]));
    assert!(
        error.starts_with("test.yaml:13:")
            && error.ends_with(
                "DestinationRule rule: items[1].spec.trafficPolicy.tunnel: is not supported"
            ),
        "{error}"
    );
    let missing = refused("apiVersion: v1\nkind: List\n");
    assert_eq!(missing, "test.yaml:1:1: error: List: items: is missing");
    let nested = "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: []}]\n";
    assert!(refused(nested).contains("items[0].kind: \"List\" is not supported"));
    assert!(refused("apiVersion: v2\nkind: List\n").contains("expected v1"));
    assert!(refused("apiVersion: v1\nkind: List\nitems: []\nspec: {}\n").contains("spec: is not"));
    let spec = list(&[rule("")]).replace("spec:", "status:");
    assert!(refused(&spec).contains("items[0].spec: is missing"), "{}", refused(&spec));
}

#[test]
fn a_panic_threshold_is_istios_own() {
    let of = |block: &str| {
        let text = rule(&format!("trafficPolicy: {{outlierDetection: {{{block}}}}}"));
        read(&text).upstream("shop").unwrap().policy().clone()
    };
    assert_eq!(of("minHealthPercent: 30").panic_threshold(), Ratio::from_percent(30));
    assert_eq!(of("").panic_threshold(), Ratio::ZERO, "not Envoy's 50 %");
    assert_eq!(of("minHealthPercent: 30").outlier(), &outlier::Config::istio());
}

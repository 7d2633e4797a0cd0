//! `DestinationRule`: what each value means, and how rules come together.

use std::time::Duration;

use mesh_core::{
    Ratio,
    balance::{
        self, SlowStart,
        hash::{self, Cookie, Part},
    },
    budget, limit, outlier,
};
use mesh_tower::{
    pool::{self, Http2KeepAlive, Protocol, TcpKeepalive},
    upstream::{ConsistentHash, Policy},
};

use super::{config, labels, policy, read, refused, rule, service};

#[track_caller]
fn policy_of(traffic_policy: &str) -> Policy {
    let documents = read(&rule(&format!("trafficPolicy: {{{traffic_policy}}}")));
    documents.upstream("shop").unwrap().policy().clone()
}

#[test]
fn a_bare_rule_is_istios_defaults() {
    assert_eq!(read(&rule("")).upstream("shop").unwrap(), config("shop").build().unwrap());
    assert_eq!(policy_of("connectionPool: {tcp: {}, http: null}"), policy());
    assert_eq!(policy().limits().max_retries(), limit::Config::UNLIMITED);
    assert_eq!(policy().budget(), &budget::Config::default(), "the budget stays on");
}

#[test]
fn connection_pool() {
    let all = policy_of(
        "connectionPool: {tcp: {maxConnections: 100, connectTimeout: 30ms, idleTimeout: 10s}, \
         http: {http1MaxPendingRequests: 50, http2MaxRequests: 1000, maxRequestsPerConnection: 10, maxRetries: 5, \
         idleTimeout: 22s}}",
    );
    let expected = policy()
        .with_limits(
            limit::Config::unlimited()
                .with_max_connections(100)
                .with_max_pending(50)
                .with_max_requests(1_000)
                .with_max_retries(5),
        )
        .with_pool(
            pool::Config::default()
                .with_connect_timeout(Duration::from_millis(30))
                .with_idle_timeout(Some(Duration::from_secs(22)))
                .with_max_requests_per_connection(Some(10)),
        );
    assert_eq!(all, expected);
    let idle =
        |block: &str| policy_of(&format!("connectionPool: {{{block}}}")).pool().idle_timeout();
    assert_eq!(idle("tcp: {idleTimeout: 10s}, http: {}"), Some(Duration::from_secs(10)));
    assert_eq!(
        idle("http: {idleTimeout: 20s}, tcp: {idleTimeout: 10s}"),
        Some(Duration::from_secs(20))
    );
    assert_eq!(idle("tcp: {idleTimeout: 0s}"), None);
    assert_eq!(idle("tcp: {}"), Some(Duration::from_secs(3_600)));
}

#[test]
fn how_connections_are_kept() {
    let of = |block: &str| policy_of(&format!("connectionPool: {{{block}}}")).pool().clone();
    let seconds = Duration::from_secs;
    assert_eq!(
        of("tcp: {maxConnectionDuration: 500s}").max_connection_duration(),
        Some(seconds(500))
    );
    assert_eq!(of("tcp: {}").max_connection_duration(), None);
    assert_eq!(of("tcp: {}").tcp_keepalive(), None);
    let keepalive = TcpKeepalive::default();
    assert_eq!(of("tcp: {tcpKeepalive: {probes: 0}}").tcp_keepalive(), Some(keepalive));
    assert_eq!(
        of("tcp: {tcpKeepalive: {probes: 3, time: 1m, interval: 9s}}").tcp_keepalive(),
        Some(keepalive.with_probes(3).with_time(seconds(60)).with_interval(seconds(9)))
    );
    assert_eq!(
        of("http: {http2KeepAlive: {interval: 30s, timeout: 1s}}").http2_keep_alive(),
        Some(Http2KeepAlive::new(seconds(30), seconds(1)).unwrap())
    );
    for (http, protocol) in [
        ("", Protocol::Auto),
        ("h2UpgradePolicy: DEFAULT", Protocol::Auto),
        ("h2UpgradePolicy: DO_NOT_UPGRADE", Protocol::Auto),
        ("h2UpgradePolicy: UPGRADE", Protocol::Http2),
        ("useClientProtocol: true", Protocol::Auto),
        ("useClientProtocol: true, h2UpgradePolicy: UPGRADE", Protocol::Auto),
    ] {
        assert_eq!(of(&format!("http: {{{http}}}")).protocol(), protocol, "{http}");
    }
    let error =
        |block: &str| refused(&rule(&format!("trafficPolicy: {{connectionPool: {{{block}}}}}")));
    assert!(
        error("tcp: {tcpKeepalive: {time: 0.5s}}")
            .contains("tcpKeepalive.time: \"0.5s\" is not allowed, expected 1s or more")
    );
    assert!(
        error("http: {http2KeepAlive: {interval: 1s}}")
            .contains("http2KeepAlive.timeout: is missing")
    );
    assert!(
        error("http: {h2UpgradePolicy: MAYBE}")
            .contains("expected DEFAULT, UPGRADE or DO_NOT_UPGRADE")
    );
    assert_eq!(of("http: {maxConcurrentStreams: 7}").max_concurrent_streams(), Some(7));
    assert_eq!(of("http: {maxConcurrentStreams: 0}").max_concurrent_streams(), None);
}

#[test]
fn a_limit_of_zero_is_none() {
    let zeros = policy_of(
        "connectionPool: {tcp: {maxConnections: 0}, \
         http: {http2MaxRequests: 0, http1MaxPendingRequests: 0, maxRetries: 0, maxRequestsPerConnection: 0}}",
    );
    assert_eq!(zeros, policy());
}

#[test]
fn outlier_detection() {
    let of = |block: &str| *policy_of(&format!("outlierDetection: {{{block}}}")).outlier();
    assert_eq!(of(""), outlier::Config::istio());
    assert!(!of("").always_eject_one());
    assert_eq!(of("consecutive5xxErrors: 0").consecutive_5xx(), 0);
    assert_eq!(of("consecutiveGatewayErrors: 3").consecutive_gateway_errors(), 3);
    assert_eq!(of("maxEjectionPercent: 0").max_ejection_percent(), Ratio::from_percent(10));
    assert_eq!(
        of("maxEjectionPercent: 35, minHealthPercent: 0").max_ejection_percent(),
        Ratio::from_percent(35)
    );
    let long = of("interval: 5m, baseEjectionTime: 15m");
    assert_eq!(
        (long.interval(), long.base_ejection_time()),
        (Duration::from_secs(300), Duration::from_secs(900))
    );
    assert_eq!(long.max_ejection_time(), Duration::from_secs(900), "Envoy: at least the base");
    let split = of("splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 7");
    assert!(split.split_local_origin());
    assert_eq!(split.consecutive_local_origin(), 7);
    assert_eq!(
        of("splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 0")
            .consecutive_local_origin(),
        5
    );
}

#[test]
fn what_probably_was_not_meant_is_a_warning() {
    let warnings = |block: &str| {
        let documents = read(&rule(&format!("trafficPolicy: {{outlierDetection: {{{block}}}}}")));
        documents.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let few = warnings("interval: 1s");
    assert!(
        few[0].contains("spec.trafficPolicy.outlierDetection: maxEjectionPercent is 10"),
        "{few:?}"
    );
    assert!(
        few[0].starts_with("test.yaml:4:") && few[0].contains("warning: DestinationRule rule: "),
        "{few:?}"
    );
    assert_eq!(warnings("maxEjectionPercent: 10"), Vec::<String>::new(), "said on purpose");
    let local = warnings("maxEjectionPercent: 100, consecutiveLocalOriginFailures: 7");
    assert!(local[0].contains("no effect without splitExternalLocalOriginErrors"), "{local:?}");
}

#[test]
fn load_balancer() {
    let of = |simple: &str| *policy_of(&format!("loadBalancer: {{simple: {simple}}}")).balance();
    for simple in ["LEAST_REQUEST", "LEAST_CONN", "UNSPECIFIED", "null"] {
        assert_eq!(of(simple), balance::Config::least_request(), "{simple}");
    }
    assert_eq!(of("ROUND_ROBIN"), balance::Config::round_robin());
}

#[test]
fn retry_budget() {
    let of = |block: &str| *policy_of(&format!("retryBudget: {{{block}}}")).budget();
    let percent = Ratio::from_percent;
    assert_eq!(of(""), budget::Config::concurrent(percent(20), 3));
    assert_eq!(
        of("percent: 12.5, minRetryConcurrency: 0"),
        budget::Config::concurrent(Ratio::from_ppm(125_000), 3)
    );
    assert_eq!(
        of("percent: 0, minRetryConcurrency: 10"),
        budget::Config::concurrent(percent(0), 10)
    );
    let second = Duration::from_secs(1);
    assert_eq!(
        of("budgetInterval: 1s"),
        budget::Config::concurrent(percent(20), 3).with_interval(second).unwrap()
    );
    assert!(
        refused(&rule("trafficPolicy: {retryBudget: {budgetInterval: 61s}}"))
            .contains("budgetInterval: \"61s\" is not allowed, expected 0, or 1 ms to 60 s")
    );
    let both = policy_of("retryBudget: {}, connectionPool: {http: {maxRetries: 1}}");
    assert_eq!(
        both.limits().max_retries(),
        limit::Config::UNLIMITED,
        "Envoy: the budget takes its place"
    );
}

#[test]
fn a_subsets_block_replaces_the_whole_block() {
    let documents = read(&rule(
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 100}, http: {maxRetries: 10}}, \
         retryBudget: {minRetryConcurrency: 5}, loadBalancer: {simple: ROUND_ROBIN}}, \
         subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 7}}}}, \
         {name: v2, labels: {version: v2}}]",
    ));
    let config = documents.upstream("shop").unwrap();
    let v1 = config.subset("v1").unwrap().policy().unwrap();
    assert_eq!(
        v1.limits(),
        &limit::Config::unlimited().with_max_requests(7),
        "nothing left of maxConnections"
    );
    assert_eq!(v1.budget(), &budget::Config::concurrent(Ratio::from_percent(20), 5));
    assert_eq!(v1.balance(), &balance::Config::round_robin());
    assert_eq!(config.subset("v1").unwrap().labels(), &labels("v1"));
    assert_eq!(config.subset("v2").unwrap().policy(), None);
    assert_eq!(config.policy().limits().max_connections(), 100);
}

/// A rule of namespace `ns` that allows `max` connections.
fn max(host: &str, ns: &str, max: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: DestinationRule\nmetadata: {{name: r{max}, namespace: {ns}}}\n\
         spec: {{host: \"{host}\", trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {max}}}}}}}, \
         subsets: [{{name: s{max}}}, {{name: all}}]}}\n---\n"
    )
}

#[test]
fn the_most_specific_host_wins_and_equals_are_merged() {
    let text = [
        max("*", "default", 1),
        max("*.sales.svc.cluster.local", "default", 2),
        max("shop", "sales", 3),
        max("shop.sales.svc.cluster.local", "other", 4),
        max("cart", "default", 5),
    ]
    .concat();
    let documents = read(&text);
    let connections = |host| documents.upstream(host).unwrap().policy().limits().max_connections();
    for host in ["shop", "shop.sales", "shop.sales.svc", "shop.sales.svc.cluster.local"] {
        assert_eq!(connections(host), 3, "{host}");
    }
    assert_eq!(connections("cart"), 5);
    assert_eq!(connections("bank.sales.svc.cluster.local"), 2);
    assert_eq!(connections("anything.else"), 1);
    let shop = documents.upstream("shop").unwrap();
    let subsets: Vec<_> = shop.subsets().iter().map(|subset| subset.name()).collect();
    assert_eq!(subsets, ["s3", "all", "s4"]);
    let names: Vec<_> =
        documents.upstreams().unwrap().iter().map(|config| config.name().to_owned()).collect();
    assert_eq!(names, ["cart", "shop"]);
}

/// Otherwise a rule that only names subsets would silently switch the limits and the ejection of the other one off.
#[test]
fn a_rule_without_a_policy_takes_none_from_the_next() {
    let subsets = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: subsets}\n\
                   spec: {host: shop, subsets: [{name: v1, labels: {version: v1}}]}\n---\n";
    for text in [
        [subsets, &max("shop", "default", 7)].concat(),
        [&max("shop", "default", 7), subsets].concat(),
    ] {
        let config = read(&text).upstream("shop").unwrap();
        assert_eq!(config.policy().limits().max_connections(), 7);
        assert!(config.subset("v1").is_some());
    }
}

#[test]
fn a_short_name_must_be_clear() {
    let documents = read(&[max("shop", "sales", 1), max("shop", "test", 2)].concat());
    assert_eq!(
        documents.upstream("shop").unwrap_err().to_string(),
        "error: \"shop\" may be shop.sales.svc.cluster.local or shop.test.svc.cluster.local"
    );
    assert_eq!(documents.upstream("shop.test").unwrap().policy().limits().max_connections(), 2);
    let names: Vec<_> =
        documents.upstreams().unwrap().iter().map(|config| config.name().to_owned()).collect();
    assert_eq!(names, ["shop.sales.svc.cluster.local", "shop.test.svc.cluster.local"]);
}

#[test]
fn an_unknown_host_is_no_upstream_without_protection() {
    let error = read(&rule("")).upstream("shopp").unwrap_err().to_string();
    assert_eq!(
        error,
        "error: \"shopp\" is no host of the documents, which are about shop.default.svc.cluster.local"
    );
    assert!(read("").upstream("shop").unwrap_err().to_string().ends_with("about no host by name"));
    // A host of a virtual service alone is known.
    let alone = read(&service("timeout: 1s, route: [{destination: {host: shop}}]"));
    assert_eq!(alone.upstream("shop").unwrap().timeout(), Some(Duration::from_secs(1)));
}

#[test]
fn warmup_is_slow_start() {
    let of = |block: &str| *policy_of(&format!("loadBalancer: {{{block}}}")).balance();
    let minute = SlowStart::new(Duration::from_secs(60)).unwrap();
    let slow = |balance: balance::Config, slow_start| balance.with_slow_start(Some(slow_start));
    assert_eq!(of("warmupDurationSecs: 60s"), slow(balance::Config::least_request(), minute));
    assert_eq!(
        of("simple: ROUND_ROBIN, warmupDurationSecs: 1s, warmup: {duration: 60s}"),
        slow(balance::Config::round_robin(), minute),
        "the new field counts"
    );
    let bent = minute
        .with_aggression(Ratio::from_percent(150))
        .and_then(|bent| bent.with_min_weight(Ratio::from_percent(5)))
        .unwrap();
    assert_eq!(
        of("warmup: {duration: 1m, minimumPercent: 5, aggression: 1.5}"),
        slow(balance::Config::least_request(), bent)
    );
    assert_eq!(of("simple: RANDOM"), balance::Config::random());

    for without in ["simple: RANDOM", "consistentHash: {useSourceIp: true}"] {
        let text =
            format!("trafficPolicy: {{loadBalancer: {{{without}, warmup: {{duration: 60s}}}}}}");
        let documents = read(&rule(&text));
        assert_eq!(documents.warnings().len(), 1, "{without}: it has no effect");
        assert_eq!(documents.upstream("shop").unwrap().policy().balance().slow_start(), None);
    }
}

#[test]
fn consistent_hash() {
    let of = |block: &str| {
        let policy = policy_of(&format!("loadBalancer: {{consistentHash: {{{block}}}}}"));
        policy.hash().cloned().unwrap()
    };
    let hashed = |table, part| ConsistentHash::new(table, hash::Policy::new([part]));
    let ring = hash::Config::ring();
    assert_eq!(of("httpHeaderName: X-User"), hashed(ring, Part::header("x-user").unwrap()));
    assert_eq!(of("useSourceIp: true"), hashed(ring, Part::source_address()));
    assert_eq!(
        of("httpQueryParameterName: id"),
        hashed(ring, Part::query_parameter("id").unwrap())
    );
    let cookie = || Cookie::new("user").unwrap();
    assert_eq!(of("httpCookie: {name: user}"), hashed(ring, Part::cookie(cookie())));
    let given = cookie().with_path("/cart").unwrap().with_ttl(Duration::ZERO);
    assert_eq!(
        of("httpCookie: {name: user, path: /cart, ttl: 0s}"),
        hashed(ring, Part::cookie(given))
    );

    let table = |shape: &str| *of(&format!("useSourceIp: true, {shape}")).table();
    let sized = |size| ring.with_ring_size(size, hash::Config::MAX_RING_SIZE).unwrap();
    assert_eq!(table("minimumRingSize: 2048"), sized(2_048));
    assert_eq!(table("minimumRingSize: 0"), ring);
    assert_eq!(table("ringHash: {}"), ring);
    assert_eq!(table("ringHash: {minimumRingSize: 4096}, minimumRingSize: 2048"), sized(4_096));
    assert_eq!(table("maglev: {tableSize: 65537}, minimumRingSize: 2048"), hash::Config::maglev());
    assert_eq!(policy_of("loadBalancer: {}").hash(), None);
}

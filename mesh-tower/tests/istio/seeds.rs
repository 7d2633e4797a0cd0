//! Real policies, field by field.

use std::time::Duration;

use mesh_core::{Labels, Ratio, balance::locality, limit, outlier};
use mesh_tower::{istio::MtlsMode, pool};

use super::{config, labels, policy, read};

const BREAKER: &str = include_str!("../../../tests/istio/destination-rule-circuit-breaker.yaml");
const STRICT: &str = include_str!("../../../tests/istio/peer-authentication-strict.yaml");
const CANARY_10: &str = include_str!("../../../tests/istio/virtual-service-canary-90-10.yaml");
const CANARY_5: &str = include_str!("../../../tests/istio/virtual-service-canary-95-5.yaml");

#[test]
fn circuit_breaker() {
    let documents = read(BREAKER);
    let expected = config("payment-service")
        .with_policy(
            policy()
                .with_limits(
                    limit::Config::unlimited().with_max_connections(100).with_max_pending(1),
                )
                .with_pool(pool::Config::default().with_max_requests_per_connection(Some(1)))
                .with_outlier(
                    outlier::Config::istio()
                        .with_consecutive_5xx(3)
                        .with_interval(Duration::from_secs(10))
                        .and_then(|config| config.with_base_ejection_time(Duration::from_secs(30)))
                        .and_then(|config| config.with_max_ejection_percent(Ratio::ONE))
                        .unwrap(),
                )
                // Istio's default, which the mesh may change.
                .with_locality(Some(locality::Config::failover())),
        )
        .build()
        .unwrap();
    assert_eq!(documents.upstream("payment-service").unwrap(), expected);
    assert_eq!(documents.upstreams().unwrap(), [expected]);
    assert_eq!(documents.warnings(), []);
    assert_eq!(documents.destination_rules()[0].name(), "payment-service-cb");
}

#[test]
fn strict_peers() {
    let documents = read(STRICT);
    let mode = |namespace| documents.mtls_mode(namespace, &Labels::default(), None);
    assert_eq!(mode("secure-payment"), MtlsMode::Strict);
    assert_eq!(mode("default"), MtlsMode::Permissive);
    assert_eq!(documents.warnings(), []);
    assert!(documents.upstreams().unwrap().is_empty());
}

#[test]
fn canaries() {
    for (text, host, weights) in
        [(CANARY_10, "my-app", (90, 10)), (CANARY_5, "my-service", (95, 5))]
    {
        let alone = read(text);
        let destinations: Vec<_> = alone.virtual_services()[0].destinations().collect();
        assert_eq!(destinations, [(Some("v1"), weights.0), (Some("v2"), weights.1)]);
        let error = alone.upstream(host).unwrap_err().to_string();
        assert!(
            error.contains(&format!("\"v1\" is no subset of a DestinationRule for {host}")),
            "{error}"
        );
        assert!(error.contains("spec.http[0].route[1].destination.subset: \"v2\""), "{error}");

        let subsets = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: subsets}}\n\
             spec: {{host: {host}, subsets: [{{name: v1, labels: {{version: v1}}}}, \
             {{name: v2, labels: {{version: v2}}}}]}}\n"
        );
        let expected = config(host)
            .with_subset("v1", labels("v1"), None)
            .with_subset("v2", labels("v2"), None)
            .with_split(vec![("v1".into(), weights.0), ("v2".into(), weights.1)])
            .build()
            .unwrap();
        // From two texts, or from two documents of one.
        assert_eq!(alone.and(read(&subsets)).upstream(host).unwrap(), expected);
        assert_eq!(read(&format!("{subsets}---\n{text}")).upstreams().unwrap(), [expected]);
    }
}

#[test]
fn all_together() {
    let text = [BREAKER, STRICT, CANARY_10, CANARY_5].join("\n---\n");
    let documents = read(&text);
    assert_eq!(documents.destination_rules().len(), 1);
    assert_eq!(documents.virtual_services().len(), 2);
    assert_eq!(documents.peer_authentications().len(), 1);
}

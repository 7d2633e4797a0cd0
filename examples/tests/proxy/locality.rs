//! Where the proxy runs decides which endpoints are near.

use std::{net::SocketAddr, time::Duration};

use crate::support::{Directory, PROXY, Proxy, application, ask, closed_port, until};

const RULE: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: shop }
spec:
  host: shop
  trafficPolicy:
    outlierDetection: { consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100 }
    loadBalancer: { localityLbSetting: { enabled: true } }
";

fn directory(locality: &str, near: SocketAddr, far: SocketAddr, rule: &str) -> Directory {
    let workload = format!("workload: {{ labels: {{ rack: r1 }}{locality} }}\n");
    let endpoints = format!(
        "upstreams:\n  shop:\n    tls: plaintext\n    endpoints:\n      \
         - {{ address: '{near}', locality: eu/a, labels: {{ rack: r1 }} }}\n      \
         - {{ address: '{far}', locality: us/b, labels: {{ rack: r2 }} }}\n"
    );
    Directory::new()
        .with("proxy.yaml", &format!("{PROXY}{workload}"))
        .with("endpoints.yaml", &endpoints)
        .with("rule.yaml", rule)
}

/// Of 40 answers, those of the endpoint of that name.
async fn answers(proxy: &Proxy, name: &str) -> usize {
    let mut count = 0;
    for _ in 0..40 {
        let answer = ask(proxy.address("outbound"), "shop", "/").await.unwrap();
        assert_eq!(answer.status, 200);
        count += usize::from(answer.headers["x-app"] == *name);
    }
    count
}

#[tokio::test]
async fn requests_stay_near_until_nobody_is_there() {
    let (near, far) =
        (application("near", Duration::ZERO).await, application("far", Duration::ZERO).await);
    for (locality, of_near) in
        [(", locality: eu/a", 40..=40), (", locality: us/b", 0..=0), ("", 1..=39)]
    {
        let files = directory(locality, near, far, RULE);
        let proxy = Proxy::start(&files).await;
        let count = answers(&proxy, "near").await;
        assert!(of_near.contains(&count), "{locality:?}: {count} of 40");
    }

    // Nobody listens there: it is ejected, and the other region is asked.
    let closed = closed_port();
    let files = directory(", locality: eu/a", closed.address, far, RULE);
    let proxy = Proxy::start(&files).await;
    until("it fails over", async || {
        let answer = ask(proxy.address("outbound"), "shop", "/").await.unwrap();
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(answers(&proxy, "far").await, 40);
}

#[tokio::test]
async fn labels_of_the_workload_decide_where_a_rule_asks_for_them() {
    let (near, far) =
        (application("near", Duration::ZERO).await, application("far", Duration::ZERO).await);
    let by_rack = RULE.replace("enabled: true", "failoverPriority: [rack]");
    // In the region of the one, in the rack of the other.
    let files = directory(", locality: us/b", near, far, &by_rack);
    let proxy = Proxy::start(&files).await;
    assert_eq!(answers(&proxy, "near").await, 40);
}

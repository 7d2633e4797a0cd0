//! Files that change while the proxy runs, and SIGHUP.

use std::time::Duration;

use crate::support::{Directory, PROXY, Proxy, application, ask, canary, endpoints, until};

const RELOADS: &str = "mesh_config_reloads_total";
const REJECTED: &str = "mesh_config_rejected_total";

#[tokio::test]
async fn a_change_is_followed_without_a_lost_request() {
    let one = application("one", Duration::ZERO).await;
    let two = application("two", Duration::ZERO).await;
    let directory = Directory::of_shop(&[(one, "v1")]).with("canary.yaml", &canary("shop", 1, 0));
    let proxy = Proxy::start(&directory).await;
    let outbound = proxy.address("outbound");
    let answered = async || {
        let answer = ask(outbound, "shop", "/").await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.headers["x-app"].to_str().unwrap().to_owned()
    };
    assert_eq!(answered().await, "one");

    // A new version appears and gets everything: endpoints and shares change, in two files.
    directory.write("endpoints.yaml", &endpoints("shop", "", &[(one, "v1"), (two, "v2")]));
    directory.write("canary.yaml", &canary("shop", 0, 1));
    until("v2 answers", async || (answered().await == "two").then_some(())).await;
    for _ in 0..50 {
        assert_eq!(answered().await, "two");
    }

    // A bad file changes nothing, and is told of.
    directory.write("canary.yaml", "kind: [");
    until("it is rejected", async || (proxy.metric(REJECTED).await == Some(1.0)).then_some(()))
        .await;
    assert_eq!(answered().await, "two");
    assert!(proxy.log().contains("configuration rejected"), "{}", proxy.log());

    // The next good one is taken. The old version is gone altogether.
    directory.write("endpoints.yaml", &endpoints("shop", "", &[(one, "v1")]));
    directory.write("canary.yaml", &canary("shop", 1, 0));
    until("v1 answers", async || (answered().await == "one").then_some(())).await;
    assert_eq!(proxy.metric(REJECTED).await, Some(1.0));
}

#[tokio::test]
async fn listeners_do_not_change_while_it_runs() {
    let one = application("one", Duration::ZERO).await;
    let directory = Directory::of_shop(&[(one, "v1")]);
    let proxy = Proxy::start(&directory).await;
    directory.write("proxy.yaml", &PROXY.replace("10s", "20s"));
    until("it is rejected", async || proxy.log().contains("restart it").then_some(())).await;
    assert_eq!(ask(proxy.address("outbound"), "shop", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_hangup_asks_for_an_answer_and_ends_nothing() {
    let one = application("one", Duration::ZERO).await;
    let directory = Directory::of_shop(&[(one, "v1")]);
    let proxy = Proxy::start(&directory).await;
    assert_eq!(proxy.metric(RELOADS).await, Some(0.0));
    // Nothing has changed, and it is said that it was read.
    proxy.signal("HUP");
    until("it is read again", async || (proxy.metric(RELOADS).await == Some(1.0)).then_some(()))
        .await;
    assert!(proxy.log().contains("configuration reloaded"), "{}", proxy.log());
    assert_eq!(ask(proxy.address("outbound"), "shop", "/").await.unwrap().status, 200);

    // A mistake is said each time that somebody asks, and is one.
    directory.write("endpoints.yaml", "upstreams: [");
    let told = || proxy.log().matches("configuration rejected").count();
    until("it is rejected", async || (told() >= 1).then_some(())).await;
    let before = told();
    proxy.signal("HUP");
    until("it is told again", async || (told() > before).then_some(())).await;
    assert_eq!(proxy.metric(REJECTED).await, Some(1.0));
    assert_eq!(ask(proxy.address("outbound"), "shop", "/").await.unwrap().status, 200);
}

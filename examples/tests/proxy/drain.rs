use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;

use crate::support::{Directory, PROXY, Proxy, application, ask, endpoints, send, until};

#[tokio::test]
async fn requests_in_flight_end_well_and_nothing_new_begins() {
    let app = application("slow", Duration::from_millis(1_500)).await;
    let directory = Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &endpoints("shop", "", &[(app, "v1")]));
    let mut proxy = Proxy::start(&directory).await;
    let outbound = proxy.address("outbound");
    let http1 = tokio::spawn(async move { ask(outbound, "shop", "/").await });
    let http2 = tokio::spawn(async move {
        let request = Request::get("http://shop/").version(Version::HTTP_2);
        send(outbound, request.body(Full::<Bytes>::default()).unwrap()).await
    });
    until("both are in flight", async || {
        let (_, clusters) = proxy.admin("/clusters").await;
        clusters.contains("active::2").then_some(())
    })
    .await;

    proxy.terminate();
    until("it is not ready", async || (proxy.admin("/ready").await.0 == 503).then_some(())).await;
    until("nothing is accepted", async || {
        tokio::net::TcpStream::connect(outbound).await.is_err().then_some(())
    })
    .await;
    assert!(!http1.is_finished(), "what is in flight goes on");

    let http1 = http1.await.unwrap().unwrap();
    assert_eq!(http1.status, 200);
    assert_eq!(http1.headers["connection"], "close");
    assert_eq!(http2.await.unwrap().unwrap().status, 200);
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn what_does_not_end_is_given_up_in_time() {
    let app = application("stuck", Duration::from_secs(600)).await;
    let directory = Directory::new()
        .with("proxy.yaml", &PROXY.replace("10s", "300ms"))
        .with("endpoints.yaml", &endpoints("shop", "", &[(app, "v1")]));
    let mut proxy = Proxy::start(&directory).await;
    let outbound = proxy.address("outbound");
    let request = tokio::spawn(async move { ask(outbound, "shop", "/").await });
    until("it is in flight", async || {
        proxy.admin("/clusters").await.1.contains("active::1").then_some(())
    })
    .await;
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert!(proxy.log().contains("the time to drain is over"), "{}", proxy.log());
    assert!(request.await.unwrap().is_err());
}

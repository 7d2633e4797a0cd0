//! SIGTERM: what is in flight is finished, and what does not end is given up in time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use tokio::sync::Semaphore;

use crate::support::{Directory, PROXY, Proxy, application, ask, closed_port, send, serve, until};

#[tokio::test]
async fn requests_in_flight_end_well_and_nothing_new_begins() {
    // It answers when it is let go, so a busy machine has time for what is to be seen until then.
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let app = serve(move |_| {
        let gate = Arc::clone(&held);
        async move {
            gate.acquire().await.unwrap().forget();
            Response::new(Full::new(Bytes::from_static(b"slow")))
        }
    })
    .await;
    // Nobody else gets the port when the proxy leaves it.
    let port = closed_port();
    let config = PROXY.replacen("127.0.0.1:0", &port.address.to_string(), 1);
    let directory =
        Directory::of_shop(&[(app, "v1")]).with("proxy.yaml", &config.replace("10s", "60s"));
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
    gate.add_permits(2);

    let http1 = http1.await.unwrap().unwrap();
    assert_eq!(http1.status, 200);
    assert_eq!(http1.headers["connection"], "close");
    assert_eq!(http2.await.unwrap().unwrap().status, 200);
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn what_does_not_end_is_given_up_in_time() {
    let app = application("stuck", Duration::from_secs(600)).await;
    let directory =
        Directory::of_shop(&[(app, "v1")]).with("proxy.yaml", &PROXY.replace("10s", "300ms"));
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

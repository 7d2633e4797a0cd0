//! Endpoints that leave the list, and those that stay on it though nobody is there.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use mesh_tower::{
    BoxError, Clock,
    pool::{HttpEndpoints, Protocol},
    upstream::Life,
};
use tokio::{sync::Semaphore, time::sleep};
use tower::ServiceExt;

use super::*;

/// A slow answer of a removed endpoint arrives whole, and the endpoint gets nothing more.
#[tokio::test]
async fn a_removed_endpoint_finishes_what_it_has_begun() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let gate = Arc::new(Semaphore::new(0));
        let held = gate.clone();
        let slow = Server::http(move |_| slowly(held.clone())).await;
        let other = Server::http(async |_| Response::new(full("other"))).await;
        let shop: Shop = plain(&[slow.address])
            .no_timeout()
            .pool(pool(protocol))
            .spawn(HttpEndpoints::plain())
            .unwrap();
        let get = || shop.clone().oneshot(Request::get("/").body(Empty::new()).unwrap());
        let drains = || shop.status().iter().any(|status| status.life == Life::Draining);

        let response = get().await.unwrap();
        shop.set_endpoints([other.endpoint()]);
        assert!(drains());
        for _ in 0..10 {
            assert_eq!(bytes(get().await.unwrap()).await.unwrap(), "other");
        }
        assert!(drains(), "it is slow, and still at it");
        gate.add_permits(2);
        assert_eq!(bytes(response).await.unwrap().len(), 3 * PIECE.len());
        assert!(!drains());
        assert_eq!((slow.requests(), other.requests()), (1, 10));
    }
}

const PIECE: &str = "a piece of an answer";

/// A head and a piece at once, and two more pieces when the gate lets them through.
async fn slowly(gate: Arc<Semaphore>) -> Response<Body> {
    let pieces = stream::unfold((0, gate), async |(number, gate)| {
        match number {
            0 => {}
            1 | 2 => gate.acquire().await.unwrap().forget(),
            _ => return None,
        }
        let frame: Result<_, BoxError> = Ok(Frame::data(Bytes::from_static(PIECE.as_bytes())));
        Some((frame, (number + 1, gate)))
    });
    Response::new(StreamBody::new(pieces).boxed_unsync())
}

/// A dead address is asked in vain until somebody listens there again; nothing has to be told or restarted.
#[tokio::test]
async fn a_dead_address_comes_back_by_itself() {
    let port = closed_port();
    let shop: Shop = protected(&[port.address])
        .pool(pool(Protocol::Auto))
        .spawn(HttpEndpoints::plain())
        .unwrap();
    let get = || shop.clone().oneshot(Request::get("/").body(Empty::new()).unwrap());
    for _ in 0..5 {
        get().await.unwrap_err();
    }
    assert_eq!(shop.status()[0].life, Life::Ejected);
    let _process = Process::start(&port).await;
    let from = Clock.now();
    while get().await.is_err() {
        sleep(10 * MS).await;
    }
    let back = Clock.now().since(from);
    assert!(back <= BACK, "{back:?}");
    assert_eq!(shop.status()[0].life, Life::Ready);
}

//! Connections that go silent.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use mesh_tower::pool::{Config, HttpEndpoints, Protocol};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::*;

/// A way to an endpoint on which bytes get lost: what goes over it while it is cut never arrives, and the connections of
/// that time stay silent for ever, as they do behind a middlebox that has forgotten them.
struct Way {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Way {
    async fn to(endpoint: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = cut.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, endpoint, is_cut.clone()));
            }
        });
        Self { address, cut }
    }
}

async fn carry(mut near: TcpStream, endpoint: SocketAddr, cut: Arc<AtomicBool>) {
    let mut far = TcpStream::connect(endpoint).await.unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let lost = async {
        while !cut.load(SeqCst) {
            sleep(MS).await;
        }
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        () = lost => std::future::pending().await,
    }
}

/// How long it takes an endpoint to be back after its connections have gone silent, if it is within `patience`.
async fn back_after_silence(pool: Config, patience: Duration) -> (Arc<Seen>, Option<Duration>) {
    let ports = [(); 2].map(|()| closed_port());
    let all = [Process::start(&ports[0]).await, Process::start(&ports[1]).await];
    let way = Way::to(all[0].address).await;
    let build = protected(&[way.address, all[1].address]).pool(pool);
    let shop: Shop = build.spawn(HttpEndpoints::plain()).unwrap();
    let load = Load::on(&shop);
    load.seen.requests(1_000).await;
    way.cut.store(true, SeqCst);
    sleep(1_500 * MS).await;
    way.cut.store(false, SeqCst);
    let back = tokio::time::timeout(patience, load.seen.back(all[0].address)).await.ok();
    (load.end().await, back)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_left() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (seen, back) = back_after_silence(pool(protocol), BACK_FROM_SILENCE).await;
        seen.is_good(protocol, back);
        assert!(back.is_some(), "{protocol:?}");
    }
    // The twin that keeps its connection never sees the endpoint again: the kernel would, in a quarter of an hour.
    let (_, back) =
        back_after_silence(pool(Protocol::Http2).with_max_silence(None), BACK_FROM_SILENCE).await;
    assert_eq!(back, None);
}

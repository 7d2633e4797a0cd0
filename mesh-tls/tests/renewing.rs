//! reqwest keeps connections where nobody can judge them, so its client is given up when trust changes.

#![cfg(feature = "dev-ca")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh_tls::{Material, MaterialHandle, MeshTls, Renewing};
use reqwest::Client;
use support::{ca, material_trusting, mesh_of, only, rotate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn client(config: rustls::ClientConfig) -> Result<Client, reqwest::Error> {
    Client::builder().tls_backend_preconfigured(config).https_only(true).no_proxy().build()
}

/// A server that keeps its connections, whatever becomes of trust; and how many it has had.
async fn server(mesh: &MeshTls) -> (SocketAddr, Arc<AtomicU64>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&count);
    let mut listener = mesh.acceptor(only("/client")).with_alpn(["http/1.1"]).listener(tcp);
    tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await;
            seen.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buf = [0; 4096];
                while let Ok(1..) = stream.read(&mut buf).await {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (addr, count)
}

async fn get(client: &Client, addr: SocketAddr) -> Result<String, reqwest::Error> {
    client.get(format!("https://{addr}/")).send().await?.text().await
}

struct World {
    addr: SocketAddr,
    connections: Arc<AtomicU64>,
    mesh: MeshTls,
    handle: MaterialHandle,
    /// The identity again, trusting the server's authority or not.
    material: Box<dyn Fn(bool) -> Material>,
}

impl World {
    async fn new() -> Self {
        let (ours, theirs) = (ca(), ca());
        let (serving, _handle) =
            mesh_of(material_trusting(&theirs, "/server", &[&ours, &theirs])).await;
        let (addr, connections) = server(&serving).await;
        let material = Box::new(move |trusting: bool| match trusting {
            true => material_trusting(&ours, "/client", &[&ours, &theirs]),
            false => material_trusting(&ours, "/client", &[&ours]),
        });
        let (mesh, handle) = mesh_of(material(true)).await;
        Self { addr, connections, mesh, handle, material }
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    async fn rotate(&self, trusting: bool) {
        rotate(&self.mesh, &self.handle, (self.material)(trusting)).await;
    }

    fn renewing(&self) -> Renewing<Client> {
        self.mesh.renewing(only("/server"), client).unwrap()
    }
}

#[tokio::test]
async fn a_pooled_connection_is_not_used_behind_a_change_of_trust() {
    let world = World::new().await;
    let clients = world.renewing();
    // The twin: a client that is built once.
    let kept = client(world.mesh.reqwest_config(&only("/server")).unwrap()).unwrap();
    for client in [&*clients.current().unwrap(), &kept] {
        assert_eq!(get(client, world.addr).await.unwrap(), "ok");
    }
    assert_eq!(world.connections(), 2);

    world.rotate(false).await;
    get(&clients.current().unwrap(), world.addr).await.unwrap_err();
    assert_eq!(get(&kept, world.addr).await.unwrap(), "ok", "what it is against");

    world.rotate(true).await;
    assert_eq!(get(&clients.current().unwrap(), world.addr).await.unwrap(), "ok");
    assert_eq!(world.connections(), 3, "a new connection");
}

#[tokio::test]
async fn a_new_certificate_of_our_own_keeps_client_and_connection() {
    let world = World::new().await;
    let clients = world.renewing();
    let first = clients.current().unwrap();
    for _ in 0..5 {
        assert_eq!(get(&clients.current().unwrap(), world.addr).await.unwrap(), "ok");
        world.rotate(true).await;
        assert!(Arc::ptr_eq(&first, &clients.clone().current().unwrap()));
    }
    assert_eq!(world.connections(), 1);
}

#[tokio::test]
async fn an_identity_that_was_withdrawn_leaves_no_client_of_before() {
    let world = World::new().await;
    let clients = world.renewing();
    get(&clients.current().unwrap(), world.addr).await.unwrap();
    world.handle.withdraw();
    let mesh = world.mesh.clone();
    support::eventually("it is withdrawn", || mesh.status().generation == 0).await;
    get(&clients.current().unwrap(), world.addr).await.unwrap_err();
    world.handle.set((world.material)(true));
    world.mesh.reached(2).await;
    get(&clients.current().unwrap(), world.addr).await.unwrap();
    assert_eq!(world.connections(), 2, "the one of before is not used");
}

#[tokio::test]
async fn a_client_that_cannot_be_built_is_told_and_the_old_one_is_not_handed_out() {
    let world = World::new().await;
    let builds = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&builds);
    let numbers =
        world.mesh.renewing(only("/server"), move |_| match count.fetch_add(1, Ordering::SeqCst) {
            1 => Err("not now"),
            number => Ok(number),
        });
    let numbers = numbers.unwrap();
    assert_eq!(*numbers.current().unwrap(), 0);
    world.rotate(false).await;
    assert_eq!(numbers.current().unwrap_err().to_string(), "not now");
    assert_eq!(*numbers.current().unwrap(), 2, "it is tried again");
    assert_eq!(builds.load(Ordering::SeqCst), 3);
}

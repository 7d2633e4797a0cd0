//! A thousand clients that do nothing, a thousand that stop in the middle of their hello, and a thousand whose hello is as
//! long as TLS allows and never ends, against one honest one.
//!
//! What is measured is compared with an idle server of the same process in turn with the other, so that a busy machine
//! makes both slow.
#![allow(clippy::disallowed_methods, reason = "time is what is measured")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "dev-ca")]

mod support;

use std::{net::SocketAddr, time::Duration};

use mesh_tls::{MeshTls, MtlsAcceptor, ServerMode};
use support::{Echo, PATIENCE, ca, eventually, may_open, mesh, only, ping, tcp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

const CROWD: usize = 1000;
/// How much memory a connection may cost before it has proved anything; both ends of it live in this process.
const SILENT_BYTES: usize = 6 * 1024;
const HALF_HELLO_BYTES: usize = 32 * 1024;
const ENDLESS_HELLO_BYTES: usize = 96 * 1024;

/// How long an honest client takes until its first answer.
async fn honest(client: &MeshTls, addr: SocketAddr) -> Duration {
    let begun = Instant::now();
    let socket = tcp(addr).await;
    // Or Nagle's algorithm and a delayed acknowledgement are all that is measured.
    socket.set_nodelay(true).unwrap();
    let mut stream = client.connect(socket, only("/server")).await.unwrap();
    ping(&mut stream).await.unwrap();
    begun.elapsed()
}

/// Medians of the idle server and of the crowded one.
async fn compare(client: &MeshTls, idle: SocketAddr, crowded: SocketAddr) -> (Duration, Duration) {
    let (mut of_idle, mut of_crowded) = (Vec::new(), Vec::new());
    for _ in 0..31 {
        of_idle.push(honest(client, idle).await);
        of_crowded.push(honest(client, crowded).await);
    }
    of_idle.sort();
    of_crowded.sort();
    (of_idle[15], of_crowded[15])
}

/// The memory of this process that is in use, in bytes; `None` where the system does not say.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// The first record of a real client.
async fn hello(client: &MeshTls) -> Vec<u8> {
    let (near, mut far) = tokio::io::duplex(16 * 1024);
    let connecting = client.connect(near, only("/server"));
    let mut hello = vec![0; 16 * 1024];
    let read = tokio::select! {
        _ = connecting => unreachable!("nobody answers"),
        read = far.read(&mut hello) => read.unwrap(),
    };
    hello.truncate(read);
    hello
}

/// About the longest hello that rustls reads (64 KiB), in whole records, but for its last bytes.
fn endless_hello() -> Vec<u8> {
    let mut message = vec![0; 0xF000];
    // A ClientHello that says how long it is, of TLS 1.2 as they all say.
    message[..6].copy_from_slice(&[1, 0, 0xF0, 0, 3, 3]);
    let record = |piece: &[u8]| {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1][..], &length, piece].concat()
    };
    message.chunks(16 * 1024).flat_map(record).collect()
}

async fn crowd(addr: SocketAddr, first: &[u8]) -> Vec<TcpStream> {
    let mut sockets = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        let mut socket = tcp(addr).await;
        socket.write_all(first).await.unwrap();
        sockets.push(socket);
    }
    sockets
}

fn assert_cost(what: &str, before: Option<usize>, after: Option<usize>, limit: usize) {
    let (Some(before), Some(after)) = (before, after) else {
        return eprintln!("skipped: the system does not say how much memory is in use");
    };
    let each = after.saturating_sub(before) / CROWD;
    eprintln!("{what}: {each} bytes each");
    assert!(each <= limit, "{what} cost {each} bytes each");
}

/// What else the machine does may slow the one down and not the other, so once is enough: whoever had to wait for a time limit
/// would wait each time.
async fn assert_served(what: &str, client: &MeshTls, idle: SocketAddr, crowded: SocketAddr) {
    let mut measured = Vec::new();
    for _ in 0..3 {
        let (idle, crowded) = compare(client, idle, crowded).await;
        eprintln!("{what}: served in {crowded:?}, an idle server in {idle:?}");
        if crowded <= idle * 4 + Duration::from_millis(10) {
            return;
        }
        measured.push((idle, crowded));
    }
    panic!("{what}: idle and crowded, three times: {measured:?}");
}

#[tokio::test]
async fn an_honest_client_is_served_beside_two_thousand_others() {
    // Both ends of all of them.
    if !may_open(6 * CROWD as u64 + 500).await {
        return;
    }
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    // Time limits that do not help within this test.
    let patient = |acceptor: MtlsAcceptor| {
        acceptor.with_handshake_timeout(PATIENCE * 10).with_detect_timeout(PATIENCE * 10)
    };
    let half_hello = hello(&client).await;
    let half_hello = &half_hello[..half_hello.len() / 2];
    for mode in [ServerMode::Strict, ServerMode::Permissive] {
        let acceptor = patient(server.acceptor(only("/client")).with_mode(mode));
        let (idle, crowded) = (Echo::start(&acceptor).await, Echo::start(&acceptor).await);
        // What is made once is made.
        let _warm = compare(&client, idle.addr, crowded.addr).await;

        let before = resident();
        let silent = crowd(crowded.addr, b"").await;
        assert_served("a thousand silent", &client, idle.addr, crowded.addr).await;
        assert_cost("a silent client", before, resident(), SILENT_BYTES);

        let before = resident();
        let others = server.stats().refused_other;
        let crowded_out = server.stats().refused_crowded_out;
        let halfway = crowd(crowded.addr, half_hello).await;
        assert_served("a thousand more, halfway", &client, idle.addr, crowded.addr).await;
        assert_cost("half a hello", before, resident(), HALF_HELLO_BYTES);
        // 1,024 places for 2,000: the oldest made room.
        eventually("they made room", || server.stats().refused_crowded_out > crowded_out).await;
        drop(halfway);

        let gone = others + CROWD as u64;
        eventually("they are gone", || server.stats().refused_other == gone).await;
        let before = resident();
        let endless = crowd(crowded.addr, &endless_hello()).await;
        assert_served("a thousand endless", &client, idle.addr, crowded.addr).await;
        assert_eq!(server.stats().refused_other, gone, "they are not told apart from the slow");
        assert_cost("an endless hello", before, resident(), ENDLESS_HELLO_BYTES);
        for mut socket in silent.into_iter().take(10) {
            let end = timeout(PATIENCE, socket.read(&mut [0; 1])).await.expect("closed");
            assert!(matches!(end, Ok(0) | Err(_)));
        }
        drop(endless);
    }
}

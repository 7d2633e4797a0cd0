//! Connections that their server asks to end while requests set out.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use mesh_core::Endpoint;
use mesh_tower::{
    BoxError,
    error::{Reason, find_cause},
    pool::{Config, HttpEndpoints, Pool, Protocol},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use tower::{Service, util::BoxCloneSyncService};

use crate::support::*;

/// Enough for some hundred requests that set out in the very moment in which GOAWAY is read.
const REQUESTS: usize = 5_000;
const TASKS: usize = 8;
/// So many requests, and the server says GOAWAY.
const EACH: usize = 8;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// A server that answers each request, and asks for an end by a GOAWAY that leaves no request out (RFC 9113, 6.8). By
/// hand, because h2's own says another one, a round trip later, which does leave some out.
async fn short_of_breath() -> Server {
    Server::raw(|socket, _| async move {
        let _ended = serve(socket).await;
    })
    .await
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.read_exact(&mut [0; 24]).await?;
    socket.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await?;
    let mut served = 0;
    loop {
        match frame(&mut socket).await? {
            (HEADERS, _, stream) => {
                socket.write_all(&answer(stream)).await?;
                served += 1;
                if served == EACH {
                    socket.write_all(&GOAWAY).await?;
                }
            }
            (SETTINGS, false, _) => {
                socket.write_all(&[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0]).await?;
            }
            _ => {}
        }
    }
}

/// Its kind, whether its first flag is set, and its stream.
async fn frame(socket: &mut TcpStream) -> io::Result<(u8, bool, [u8; 4])> {
    let mut frame = [0; 9];
    socket.read_exact(&mut frame).await?;
    let [high, middle, low, kind, flags, stream @ ..] = frame;
    let length = u32::from_be_bytes([0, high, middle, low]);
    socket.read_exact(&mut vec![0; length as usize]).await?;
    Ok((kind, flags & 1 == 1, stream))
}

/// `:status: 200`, and no more of it.
fn answer([one, two, three, four]: [u8; 4]) -> [u8; 10] {
    [0, 0, 1, HEADERS, 5, one, two, three, four, 0x88]
}

/// All these requests, several at a time: how many are answered. No other may fail, and none may hang.
async fn answered(pool: &Pool<Body>, may_fail: fn(Reason) -> bool) -> usize {
    let tasks = (0..TASKS).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut answered = 0;
            for _ in 0..REQUESTS {
                match with_limit(get(&pool, "/")).await {
                    Ok(_) => answered += 1,
                    Err(error) => assert!(may_fail(reason(&error)), "{error:?}"),
                }
            }
            answered
        })
    });
    let mut answered = 0;
    for task in tasks.collect::<Vec<_>>() {
        answered += task.await.unwrap();
    }
    answered
}

/// Such a GOAWAY leaves no request out, and who is asked to end has time: each request is answered, or was not sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_to_a_gentle_goodbye() {
    let server = short_of_breath().await;
    let pool = server.pool(&unlimited(Config::default().with_protocol(Protocol::Http2)));
    // One comes back when its connection is new, or has come back three times already.
    let answered = answered(&pool, |reason| reason == Reason::Unsent).await;
    assert!(answered > TASKS * REQUESTS / 2, "{answered}");
    assert!(server.counts.accepted() > REQUESTS / EACH, "connections must end");
}

/// As many requests of hyper-util's own client: how many it gives up for a GOAWAY, and how many stay without an answer.
async fn hyper_alone(server: &Server) -> (usize, usize) {
    let mut builder = Client::builder(TokioExecutor::new());
    let client = builder.http2_only(true).build_http::<Body>();
    let tasks = (0..TASKS).map(|_| {
        let client = client.clone();
        let uri = Uri::try_from(format!("http://{}/", server.address)).unwrap();
        tokio::spawn(async move {
            let (mut given_up, mut unanswered) = (0, 0);
            for _ in 0..REQUESTS {
                let sent = tokio::time::timeout(Duration::from_secs(1), client.get(uri.clone()));
                match sent.await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        let cause = find_cause::<h2::Error>(&error);
                        given_up += usize::from(cause.is_some_and(h2::Error::is_go_away));
                    }
                    Err(_) => unanswered += 1,
                }
            }
            (given_up, unanswered)
        })
    });
    let mut all = (0, 0);
    for task in tasks.collect::<Vec<_>>() {
        let (given_up, unanswered) = task.await.unwrap();
        all = (all.0 + given_up, all.1 + unanswered);
    }
    all
}

/// As the pool would, if it had hyper drive its connections as hyper's own clients do. When this fails, hyper has learned it
/// and `pool::turns` may go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_hyper_alone_gives_requests_up() {
    if std::thread::available_parallelism().is_ok_and(|threads| threads.get() == 1) {
        return eprintln!("skipped: two threads that never run at once do not meet");
    }
    let server = short_of_breath().await;
    // One in a thousand, so the first round nearly always has some.
    for _ in 0..20 {
        let (given_up, unanswered) = hyper_alone(&server).await;
        println!("of {}: {given_up} given up, {unanswered} unanswered", TASKS * REQUESTS);
        if given_up > 0 {
            return;
        }
    }
    panic!("hyper has learned it");
}

/// Over HTTP/1.1 a request that sets out as the connection ends may be lost. But its sender hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_waits_on_a_connection_that_has_ended() {
    let server = Server::raw(|mut socket, _| async move {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        for _ in 0..EACH {
            let mut request = [0; 1024];
            if socket.read(&mut request).await.is_err() || socket.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    })
    .await;
    let pool = server.pool(&unlimited(Config::default()));
    let may_be_lost = |reason| matches!(reason, Reason::Unsent | Reason::Reset);
    let answered = answered(&pool, may_be_lost).await;
    assert!(answered > TASKS * REQUESTS / 2, "{answered}");
    assert!(server.counts.accepted() > REQUESTS / EACH, "connections must end");
}

/// hyper holds the one request for which the endpoint has no stream left, and drops it with the connection. It is nobody's
/// mistake, so another try may help.
#[tokio::test]
async fn who_waits_for_a_stream_is_not_blamed_for_the_goodbye() {
    let (is_full, goodbye) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = Server::raw({
        let (is_full, goodbye) = (Arc::clone(&is_full), Arc::clone(&goodbye));
        move |mut socket, _| {
            let (is_full, goodbye) = (Arc::clone(&is_full), Arc::clone(&goodbye));
            async move {
                const ONE_STREAM: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
                socket.read_exact(&mut [0; 24]).await.unwrap();
                socket.write_all(&ONE_STREAM).await.unwrap();
                let (mut is_asked, mut is_known) = (false, false);
                while !is_asked || !is_known {
                    let (kind, is_flagged, _) = frame(&mut socket).await.unwrap();
                    is_asked |= kind == HEADERS;
                    is_known |= kind == SETTINGS && is_flagged;
                }
                is_full.notify_one();
                goodbye.notified().await;
                socket.write_all(&GOAWAY).await.unwrap();
                socket.write_all(&answer([0, 0, 0, 1])).await.unwrap();
                while frame(&mut socket).await.is_ok() {}
            }
        }
    })
    .await;
    let group = unlimited(Config::default().with_protocol(Protocol::Http2));
    let pool = server.pool(&group);
    let first = tokio::spawn(get_from(pool.clone()));
    with_limit(is_full.notified()).await;
    let second = tokio::spawn(get_from(pool));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    goodbye.notify_one();
    with_limit(first).await.unwrap().unwrap();
    let error = with_limit(second).await.unwrap().unwrap_err();
    assert_eq!(reason(&error), Reason::Reset, "{error:?}");
}

/// Makes a connection, and gives it away when the server has hung up.
fn belated() -> BoxCloneSyncService<Uri, TokioIo<TcpStream>, BoxError> {
    BoxCloneSyncService::new(tower::service_fn(async |uri| {
        let socket = HttpConnector::new().call(uri).await?;
        socket.inner().readable().await?;
        Ok(socket)
    }))
}

/// Its connections end before they take a request, each and every one.
#[tokio::test]
async fn who_hangs_up_at_once_is_not_called_for_ever() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let server = Server::raw(|socket, _| async move { drop(socket) }).await;
        let group = unlimited(Config::default().with_protocol(protocol));
        let endpoint = Endpoint::new(server.address.to_string());
        let pool = HttpEndpoints::new(belated()).pool(&"shop".into(), &endpoint, &group);
        let error = with_limit(get_from(pool)).await.unwrap_err();
        assert_eq!(reason(&error), Reason::Unsent, "{error:?}");
        assert_eq!(server.counts.accepted(), 1, "{protocol:?}");
    }
}

async fn get_from(pool: Pool<Body>) -> Result<String, BoxError> {
    get(&pool, "/").await
}

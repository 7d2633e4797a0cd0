//! Connections that never rest: the transport is always ready, so no timer is ever waited for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use mesh_tls::{MeshStream, MtlsAcceptor, ServerMode};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time,
};

use super::{pair, plain};
use crate::support::{ca, mesh, only};

/// A peer that sends without end and takes whatever it is sent.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buf.put_slice(&b"GET / HTTP/1.1\r\n"[..buf.remaining().min(16)]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn permissive() -> MtlsAcceptor {
    mesh(&ca(), "/server").await.acceptor(only("/client")).with_mode(ServerMode::Permissive)
}

/// How many seconds the stream goes on, if it is used once in each.
async fn seconds_until_cut(
    stream: &mut MeshStream<Endless>,
    use_it: impl AsyncFn(&mut MeshStream<Endless>) -> io::Result<()>,
) -> Option<u64> {
    for second in 0..60 {
        if use_it(stream).await.is_err() {
            return Some(second);
        }
        time::advance(Duration::from_secs(1)).await;
    }
    None
}

async fn read(stream: &mut MeshStream<Endless>) -> io::Result<()> {
    stream.read_u8().await.map(drop)
}

async fn write(stream: &mut MeshStream<Endless>) -> io::Result<()> {
    stream.write_u8(b'x').await
}

/// What axum does: many pieces in one call.
async fn write_vectored(stream: &mut MeshStream<Endless>) -> io::Result<()> {
    let pieces = [io::IoSlice::new(b"x"), io::IoSlice::new(b"y")];
    stream.write_vectored(&pieces).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn who_is_always_ready_does_not_outlast_the_grace() {
    for way in 0..4 {
        let acceptor = permissive().await.with_drain_grace(Duration::from_secs(5));
        let mut stream = acceptor.accept_io(Endless).await.unwrap();
        read(&mut stream).await.unwrap();
        acceptor.mode_handle().set(ServerMode::Strict);
        let seconds = match way {
            0 => seconds_until_cut(&mut stream, read).await,
            1 => seconds_until_cut(&mut stream, write).await,
            2 => seconds_until_cut(&mut stream, write_vectored).await,
            // An endless response to a client that sends on.
            _ => {
                let both = async |stream: &mut MeshStream<Endless>| {
                    write(stream).await?;
                    read(stream).await
                };
                seconds_until_cut(&mut stream, both).await
            }
        };
        assert!(seconds.is_some_and(|seconds| (5..=6).contains(&seconds)), "{way}: {seconds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_always_ready_reaches_its_age() {
    let acceptor = permissive().await.with_max_connection_age(Duration::from_secs(20));
    let mut stream = acceptor.accept_io(Endless).await.unwrap();
    let seconds = seconds_until_cut(&mut stream, read).await;
    assert!(stream.info().is_draining());
    // Its age and a tenth at most, then the grace.
    assert!(seconds.is_some_and(|seconds| (27..=33).contains(&seconds)), "{seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_reaches_its_age() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    let acceptor = server.acceptor(only("/client"));
    let (mut near, mut far) =
        pair(&client, &acceptor.with_max_connection_age(Duration::from_secs(1000))).await;
    let mut asked = None;
    for second in (0..2000).step_by(10) {
        // What comes is there before it is read: nobody ever waits.
        near.write_u8(b'x').await.unwrap();
        near.flush().await.unwrap();
        if far.read_u8().await.is_err() {
            break;
        }
        if far.info().is_draining() {
            asked.get_or_insert(second);
        }
        time::advance(Duration::from_secs(10)).await;
    }
    assert!(asked.is_some_and(|asked| (900..=1110).contains(&asked)), "{asked:?}");
    assert_eq!(server.stats().drained_age, 1);
}

#[tokio::test(start_paused = true)]
async fn a_flush_to_a_peer_that_does_not_read_ends_with_the_grace() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    for shuts_down in [false, true] {
        let acceptor = server.acceptor(only("/client"));
        let aging = acceptor.with_max_connection_age(Duration::from_secs(10));
        let (_near, mut far) = pair(&client, &aging).await;
        // More than the transport holds, less than TLS keeps back: it is written, and waits.
        far.write_all(&[7; 100 * 1024]).await.unwrap();
        let ending = async { if shuts_down { far.shutdown().await } else { far.flush().await } };
        let ended = time::timeout(Duration::from_secs(60), ending).await;
        let error = ended.expect("not for ever").expect_err("nor as if it had arrived");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_flushed_in_time_arrives() {
    let acceptor = permissive().await;
    let (mut near, mut far) = plain(&acceptor, b"GET").await;
    far.read_exact(&mut [0; 3]).await.unwrap();
    acceptor.mode_handle().set(ServerMode::Strict);
    // The response has ended, and with it the connection; but what it has written goes out.
    far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    far.flush().await.unwrap();
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0, "a clean end");
    far.shutdown().await.unwrap();
    let mut seen = String::new();
    near.read_to_string(&mut seen).await.unwrap();
    assert_eq!(seen, "HTTP/1.1 204 No Content\r\n\r\n");
}

//! GOAWAY: not behind one that was said, in pieces, and never at the cost of who waits for the other half.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use mesh_tls::{MeshStream, MeshTls, ServerMode};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    time,
};

use super::{is_asked_to_end, pair, plain};
use crate::support::{ca, material_trusting, mesh, mesh_of, only, rotate};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0";
/// Nothing behind stream 1.
const LAST: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0";

/// A client whose server is not trusted any more, in the middle of HTTP/2; the client first. Who judges must live.
async fn distrusted() -> (MeshStream<DuplexStream>, MeshStream<DuplexStream>, MeshTls) {
    let (a, b) = (ca(), ca());
    let server = mesh_of(material_trusting(&a, "/server", &[&a, &b])).await.0;
    let (client, hand) = mesh_of(material_trusting(&b, "/client", &[&a, &b])).await;
    let (mut near, mut far) = pair(&client, &server.acceptor(only("/client"))).await;
    near.write_all(PREFACE).await.unwrap();
    far.write_all(SETTINGS).await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut [0; 9]).await.unwrap();
    rotate(&client, &hand, material_trusting(&b, "/client", &[&b])).await;
    (near, far, client)
}

#[tokio::test(start_paused = true)]
async fn a_goaway_of_the_application_is_not_taken_back() {
    for said in [LAST, GOAWAY] {
        let server = mesh(&ca(), "/server").await;
        let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
        let (mut near, mut far) = plain(&acceptor, PREFACE).await;
        far.read_exact(&mut [0; 24]).await.unwrap();
        far.write_all(&[SETTINGS, said].concat()).await.unwrap();
        acceptor.mode_handle().set(ServerMode::Strict);
        assert!(is_asked_to_end(&mut far).await);
        far.write_all(SETTINGS).await.unwrap();
        far.flush().await.unwrap();
        drop(far);
        let mut seen = Vec::new();
        near.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [SETTINGS, said, SETTINGS].concat(), "an identifier must not rise");
    }
}

#[tokio::test(start_paused = true)]
async fn a_goaway_of_the_server_is_not_taken_back_on_its_client() {
    let (mut near, mut far, _judge) = distrusted().await;
    far.write_all(&[LAST, SETTINGS].concat()).await.unwrap();
    far.flush().await.unwrap();
    // Read before the client knows that it drains would be too easy: ours comes first, theirs lowers it.
    let mut seen = [0; 17 + 17 + 9];
    near.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen[..], [GOAWAY, LAST, SETTINGS].concat());

    let (a, b) = (ca(), ca());
    let server = mesh_of(material_trusting(&a, "/server", &[&a, &b])).await.0;
    let (client, hand) = mesh_of(material_trusting(&b, "/client", &[&a, &b])).await;
    let (mut near, mut far) = pair(&client, &server.acceptor(only("/client"))).await;
    near.write_all(PREFACE).await.unwrap();
    far.write_all(&[SETTINGS, LAST].concat()).await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut [0; 26]).await.unwrap();
    rotate(&client, &hand, material_trusting(&b, "/client", &[&b])).await;
    far.write_all(SETTINGS).await.unwrap();
    far.flush().await.unwrap();
    let mut seen = [0; 9];
    near.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen[..], SETTINGS);
}

#[tokio::test(start_paused = true)]
async fn a_client_reads_its_goaway_in_pieces_of_any_size() {
    for size in [1, 2, 5, 16, 17, 18, 64] {
        let (mut near, mut far, _judge) = distrusted().await;
        far.write_all(SETTINGS).await.unwrap();
        far.flush().await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 26 {
            let mut piece = vec![0; size];
            let read = near.read(&mut piece).await.unwrap();
            seen.extend_from_slice(&piece[..read]);
        }
        assert_eq!(seen, [GOAWAY, SETTINGS].concat(), "in pieces of {size}");
    }
}

/// Notes what is written to it, also behind the end.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Notes {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().extend_from_slice(b"end");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_goaway_is_not_written_behind_the_end() {
    for shuts_down in [true, false] {
        let server = mesh(&ca(), "/server").await;
        let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
        let (mut near, far) = tokio::io::duplex(1024);
        near.write_all(PREFACE).await.unwrap();
        let notes = Notes::default();
        let mut far = acceptor.accept_io(tokio::io::join(far, notes.clone())).await.unwrap();
        far.read_exact(&mut [0; 24]).await.unwrap();
        far.write_all(SETTINGS).await.unwrap();
        if shuts_down {
            far.shutdown().await.unwrap();
        }
        acceptor.mode_handle().set(ServerMode::Strict);
        near.write_u8(7).await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), 7, "the other half goes on");
        assert!(far.info().is_draining());
        let last = if shuts_down { b"end" } else { GOAWAY };
        assert_eq!(*notes.0.lock().unwrap(), [SETTINGS, last].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn a_goaway_from_the_reading_half_leaves_the_writing_half_its_waker() {
    for shuts_down in [false, true] {
        let (a, b) = (ca(), ca());
        let (server, hand) = mesh_of(material_trusting(&b, "/server", &[&a, &b])).await;
        let of_a = mesh_of(material_trusting(&a, "/client", &[&a, &b])).await.0;
        let (mut near, mut far) = pair(&of_a, &server.acceptor(only("/client"))).await;
        near.write_all(PREFACE).await.unwrap();
        near.flush().await.unwrap();
        far.read_exact(&mut [0; 24]).await.unwrap();
        // Whole frames, more than the transport holds: the flush waits, and a GOAWAY may follow.
        let data = [b"\0\x3f\xf7\0\0\0\0\0\x01".as_slice(), &[7; 0x3ff7]].concat();
        let frames = [SETTINGS, &data, &data, &data, &data, &data].concat();
        far.write_all(&frames).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(far);
        let writing = tokio::spawn(async move {
            if shuts_down { writer.shutdown().await } else { writer.flush().await }
        });
        let reading = tokio::spawn(async move { reader.read_u8().await });
        tokio::task::yield_now().await;
        rotate(&server, &hand, material_trusting(&b, "/server", &[&b])).await;
        time::sleep(Duration::from_secs(1)).await;
        let mut seen = vec![0; frames.len()];
        near.read_exact(&mut seen).await.unwrap();
        assert!(seen == frames, "in order");
        let flushed = time::timeout(Duration::from_secs(1), writing).await;
        flushed.expect("who waits is woken").unwrap().unwrap();
        reading.abort();
    }
}

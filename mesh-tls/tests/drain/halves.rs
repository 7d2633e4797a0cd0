//! GOAWAY: not behind one that was said, in pieces, and never at the cost of who waits for the other half.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use mesh_tls::{MeshStream, MeshTls, PeerPolicy, ServerMode};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
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
        let reading = tokio::spawn(async move { while reader.read_u8().await.is_ok() {} });
        tokio::task::yield_now().await;
        rotate(&server, &hand, material_trusting(&b, "/server", &[&b])).await;
        time::sleep(Duration::from_secs(1)).await;
        // The reading half is the last to try, whoever was the first.
        near.write_u8(0).await.unwrap();
        near.flush().await.unwrap();
        time::sleep(Duration::from_secs(1)).await;
        let mut seen = vec![0; frames.len()];
        near.read_exact(&mut seen).await.unwrap();
        assert!(seen == frames, "in order");
        let flushed = time::timeout(Duration::from_secs(1), writing).await;
        flushed.expect("who waits is woken").unwrap().unwrap();
        reading.abort();
    }
}

/// Xorshift: the same numbers each time, and a failure names its seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Frames of a server, and the places behind which a GOAWAY may stand.
fn conversation(chance: &mut Chance) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut places) = (SETTINGS.to_vec(), vec![9]);
    let frame = |bytes: &mut Vec<u8>, kind: u8, flags: u8, length: usize| {
        bytes.extend_from_slice(&[0, 0, length as u8, kind, flags, 0, 0, 0, 1]);
        // Octets that would be frames themselves.
        bytes.extend(GOAWAY.iter().cycle().take(length));
    };
    for _ in 0..1 + chance.below(12) {
        match chance.below(4) {
            0 => {
                frame(&mut bytes, 1, 0, chance.below(40));
                (0..chance.below(3)).for_each(|_| frame(&mut bytes, 9, 0, 5));
                frame(&mut bytes, 9, 4, chance.below(40));
            }
            1 => frame(&mut bytes, 1, 4, chance.below(100)),
            2 => frame(&mut bytes, 6, 0, 8),
            _ => frame(&mut bytes, 0, 0, chance.below(200)),
        }
        places.push(bytes.len());
    }
    (bytes, places)
}

/// Where the GOAWAY stands; `None` where there is none, and an error where the frames did not come through.
fn place_of_goaway(seen: &[u8], frames: &[u8], places: &[usize]) -> Result<Option<usize>, ()> {
    if seen == frames {
        return Ok(None);
    }
    let fits = |at: &&usize| {
        seen.len() == frames.len() + GOAWAY.len()
            && seen[..**at] == frames[..**at]
            && seen[**at..].starts_with(GOAWAY)
            && seen[**at + GOAWAY.len()..] == frames[**at..]
    };
    places.iter().find(fits).map(|at| Some(*at)).ok_or(())
}

/// What a client sees of these frames, if its server is told to end somewhere among them.
async fn seen_of<S>(
    chance: &mut Chance,
    frames: &[u8],
    mut near: S,
    far: MeshStream<DuplexStream>,
    tell: impl Fn(),
) -> Vec<u8>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let told_at = chance.below(frames.len());
    let mut pauses = Chance(1 + chance.below(1 << 30) as u64);
    let (mut reader, mut writer) = tokio::io::split(far);
    let write = async {
        let mut at = 0;
        while at < frames.len() {
            if at >= told_at {
                tell();
            }
            let end = (at + 1 + chance.below(50)).min(frames.len());
            let middle = at + chance.below(end - at + 1);
            let pieces = [&frames[at..middle], &frames[middle..end]].map(io::IoSlice::new);
            match chance.below(3) {
                0 => tokio::task::yield_now().await,
                1 => writer.flush().await.unwrap(),
                _ => {}
            }
            at += match chance.below(2) {
                0 => writer.write_vectored(&pieces).await.unwrap(),
                _ => writer.write(&frames[at..end]).await.unwrap(),
            };
        }
        writer.shutdown().await.unwrap();
    };
    // Each half in a task of its own: who is woken matters.
    let read = tokio::spawn(async move {
        let mut scratch = [0; 7];
        while matches!(reader.read(&mut scratch).await, Ok(1..)) {}
    });
    let peer = async {
        near.write_all(&PREFACE[1..]).await.unwrap();
        near.flush().await.unwrap();
        let (mut seen, mut scratch) = (Vec::new(), [0; 40]);
        loop {
            let size = 1 + pauses.below(40);
            match near.read(&mut scratch[..size]).await.unwrap() {
                0 => break,
                read => seen.extend_from_slice(&scratch[..read]),
            }
            if pauses.below(4) == 0 {
                // The reading half looks again, while the writing one waits.
                let _gone = near.write_u8(0).await;
                let _gone = near.flush().await;
                time::sleep(Duration::from_millis(1)).await;
            }
        }
        drop(near);
        seen
    };
    let all = async {
        let (seen, ()) = tokio::join!(peer, write);
        read.await.unwrap();
        seen
    };
    time::timeout(Duration::from_secs(5), all).await.expect("nobody waits for ever")
}

#[tokio::test(start_paused = true)]
async fn however_halves_and_pieces_fall_frames_stay_whole() {
    let ours = ca();
    let (server, client) = (mesh(&ours, "/server").await, mesh(&ours, "/client").await);
    let mut said = 0;
    for seed in 1..=500 {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (frames, places) = conversation(&mut chance);
        // A handshake does not get through fewer than six octets at a time, whoever makes it.
        let room = if seed % 5 == 0 { 6 } else { 1 };
        let (mut near, far) = tokio::io::duplex(room + chance.below(60));
        let acceptor = server.acceptor(only("/client"));
        let seen = if seed % 5 == 0 {
            let policy = acceptor.policy_handle();
            let tell = || policy.set(PeerPolicy::nobody());
            let (near, far) =
                tokio::join!(client.connect(near, only("/server")), acceptor.accept_io(far));
            let mut near = near.unwrap();
            near.write_all(&PREFACE[..1]).await.unwrap();
            seen_of(&mut chance, &frames, near, far.unwrap(), tell).await
        } else {
            let acceptor = acceptor.with_mode(ServerMode::Permissive);
            let mode = acceptor.mode_handle();
            let tell = || mode.set(ServerMode::Strict);
            let hello = near.write_all(&PREFACE[..1]);
            let (far, hello) = tokio::join!(acceptor.accept_io(far), hello);
            hello.unwrap();
            seen_of(&mut chance, &frames, near, far.unwrap(), tell).await
        };
        let place = place_of_goaway(&seen, &frames, &places);
        let place = place.unwrap_or_else(|()| panic!("seed {seed}: {seen:?}"));
        said += usize::from(place.is_some());
        if let Some(at) = place {
            // The broken twin says it an octet later.
            let mut late = seen.clone();
            late.drain(at..at + GOAWAY.len());
            late.splice(at + 1..at + 1, GOAWAY.iter().copied());
            let twin = place_of_goaway(&late, &frames, &places);
            assert!(at == frames.len() || twin != Ok(Some(at)), "seed {seed}");
        }
    }
    assert!(said > 250, "{said}");
}

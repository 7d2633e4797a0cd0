//! The first bytes of a connection, and the last ones: what is told from them, and what is put among them.

use std::sync::OnceLock;

use mesh_tls::{
    AcceptErrorKind, Material, MeshTls, MtlsAcceptor, PeerPolicy, ServerMode, StaticSource,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

/// As much as a pipe holds here, so that nobody waits for the other end.
const PIPE: usize = 64 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0";

/// A permissive server. What begins like TLS never reaches a handler as plaintext; what does not reaches it to the last
/// byte; nothing at all is neither; and in how many pieces it comes plays no part. A strict server lets none of it in.
pub(super) fn first_bytes(data: &[u8]) -> Result<(), String> {
    let data = data.get(..PIPE / 2).unwrap_or(data);
    let whole = knock(data, ServerMode::Permissive, PIPE);
    let expected = match data.first() {
        // There is no identity, so TLS is not answered; but it is known for TLS.
        Some(0x16) => Err(AcceptErrorKind::NotReady),
        Some(_) => Ok(data.to_vec()),
        None => Err(AcceptErrorKind::Io),
    };
    if whole != expected {
        return Err(format!("{whole:?} in place of {expected:?}"));
    }
    let pieces = knock(data, ServerMode::Permissive, 1);
    if pieces != expected {
        return Err(format!("in single bytes it is {pieces:?}"));
    }
    match knock(data, ServerMode::Strict, PIPE) {
        Ok(read) => Err(format!("strict, and let in with {read:?}")),
        Err(_) => Ok(()),
    }
}

/// A server that writes while it is told to end. Over HTTP/2 its bytes come through whole and in order, with one GOAWAY
/// between them or none; over anything else they come through up to some point, and nothing is put in.
pub(super) fn drained(data: &[u8]) -> Result<(), String> {
    let [how, at, written @ ..] = data else { return Ok(()) };
    let written = written.get(..PIPE / 2).unwrap_or(written);
    let is_http2 = how & 1 == 1;
    let hello = if is_http2 { PREFACE } else { b"GET / HTTP/1.1\r\n\r\n" };
    let received = runtime().block_on(async {
        let acceptor = acceptor(ServerMode::Permissive);
        let (mut near, far) = tokio::io::duplex(PIPE);
        near.write_all(hello).await.map_err(|error| error.to_string())?;
        let mut far = acceptor.accept_io(far).await.map_err(|error| error.to_string())?;
        let mut read = vec![0; hello.len()];
        far.read_exact(&mut read).await.map_err(|error| error.to_string())?;
        let size = usize::from(how >> 1).max(1);
        for (number, piece) in written.chunks(size).enumerate() {
            if number == usize::from(*at) {
                acceptor.mode_handle().set(ServerMode::Strict);
            }
            if far.write_all(piece).await.is_err() {
                break;
            }
        }
        drop(far);
        let mut received = Vec::new();
        near.read_to_end(&mut received).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(received)
    })?;
    let fits = if is_http2 {
        received == written || has_one_goaway(&received, written)
    } else {
        written.starts_with(&received)
    };
    if fits { Ok(()) } else { Err(format!("{written:?} came through as {received:?}")) }
}

fn has_one_goaway(received: &[u8], written: &[u8]) -> bool {
    if received.len() != written.len() + GOAWAY.len() {
        return false;
    }
    (0..=written.len()).any(|at| {
        let (before, after) = written.split_at(at);
        received == [before, GOAWAY, after].concat()
    })
}

/// What a handler reads of these bytes, or why it does not see them.
fn knock(data: &[u8], mode: ServerMode, pipe: usize) -> Result<Vec<u8>, AcceptErrorKind> {
    runtime().block_on(async {
        let (mut near, far) = tokio::io::duplex(pipe);
        let write = async move {
            // Whoever is refused is cut off.
            let _cut = near.write_all(data).await;
        };
        let read = async {
            let mut stream =
                acceptor(mode).accept_io(far).await.map_err(|error| error.kind().clone())?;
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.map_err(|_| AcceptErrorKind::Io)?;
            Ok(read)
        };
        tokio::join!(write, read).1
    })
}

/// Of a mesh that has no identity yet.
fn acceptor(mode: ServerMode) -> MtlsAcceptor {
    static MESH: OnceLock<MeshTls> = OnceLock::new();
    let mesh = MESH.get_or_init(|| {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(Vec::new()));
        let (source, _handle) = StaticSource::new(Material::new(Vec::new(), key));
        let built = MeshTls::builder(source).build_lazy();
        built.expect("some cryptography is compiled in").0
    });
    mesh.acceptor(PeerPolicy::nobody()).with_mode(mode)
}

fn runtime() -> &'static Runtime {
    thread_local! {
        static RUNTIME: &'static Runtime = Box::leak(Box::new(
            Builder::new_current_thread().enable_time().build().expect("a clock is all it needs"),
        ));
    }
    RUNTIME.with(|runtime| *runtime)
}

//! One connection from its first byte to its stream.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time,
};
use tokio_rustls::TlsAcceptor;

use super::{MtlsAcceptor, ServerMode};
use crate::{
    backend::{capture, classify, tls_info},
    error::{AcceptError, AcceptErrorKind, Untrusted},
    info::ConnInfo,
    mesh::Counter,
    policy::PeerPolicy,
    prefixed::Prefixed,
    stream::MeshStream,
    svid,
};

/// The content type of a TLS handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// How long a refused client has to read its alert, and how much of what it still sends is read away.
const LINGER: Duration = Duration::from_millis(200);
const LINGER_BYTES: usize = 64 * 1024;

type Addresses = (Option<SocketAddr>, Option<SocketAddr>);

/// The whole way of one connection, counted and logged.
pub(super) async fn run<IO>(
    acceptor: &MtlsAcceptor,
    io: IO,
    addresses: Addresses,
) -> Result<MeshStream<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mode = acceptor.mode.get();
    let io = Prefixed::new(io);
    let result = match mode {
        ServerMode::Strict => tls(acceptor, io, addresses, mode).await,
        ServerMode::Permissive => detect(acceptor, io, addresses).await,
        ServerMode::Disabled => Ok(plain(io, addresses)),
    };
    // A client may take its time, and the mode may have become strict meanwhile.
    let result = result.and_then(|stream| held_to(acceptor.mode.get(), stream));
    let counters = &acceptor.mesh.shared().counters;
    match &result {
        Ok(stream) if stream.info().tls().is_some() => counters.add(Counter::Accepted),
        Ok(_) => counters.add(Counter::AcceptedPlaintext),
        Err(error) => {
            counters.add(error.kind().into());
            tracing::debug!(remote = ?addresses.0, %error, "connection refused");
        }
    }
    result
}

/// What strict promises, checked last and for every way in: no stream without a peer.
fn held_to<IO>(mode: ServerMode, stream: MeshStream<IO>) -> Result<MeshStream<IO>, AcceptError> {
    let (peer, tls) = (stream.info().peer(), stream.info().tls());
    let refusal = match (mode, peer, tls) {
        (ServerMode::Strict, None, None) => AcceptErrorKind::PlaintextRefused,
        (ServerMode::Strict, None, Some(_)) => {
            AcceptErrorKind::PeerUntrusted(Untrusted::NoCertificate)
        }
        (ServerMode::Strict, Some(_), _)
        | (ServerMode::Permissive | ServerMode::Disabled, _, _) => return Ok(stream),
    };
    Err(AcceptError::new(refusal))
}

async fn detect<IO>(
    acceptor: &MtlsAcceptor,
    mut io: Prefixed<IO>,
    addresses: Addresses,
) -> Result<MeshStream<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let first = match time::timeout(acceptor.detect_timeout, io.first()).await {
        Ok(first) => first.map_err(AcceptError::io)?,
        Err(_) => return Err(AcceptError::new(AcceptErrorKind::DetectTimeout)),
    };
    match first {
        Some(TLS_HANDSHAKE) => tls(acceptor, io, addresses, ServerMode::Permissive).await,
        Some(_) => Ok(plain(io, addresses)),
        None => Err(AcceptError::io(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))),
    }
}

fn plain<IO>(io: Prefixed<IO>, (remote, local): Addresses) -> MeshStream<IO> {
    MeshStream::plain(io, ConnInfo::plain(remote, local))
}

async fn tls<IO>(
    acceptor: &MtlsAcceptor,
    io: Prefixed<IO>,
    addresses: Addresses,
    mode: ServerMode,
) -> Result<MeshStream<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let generation = acceptor.current()?;
    let config = acceptor.config(&generation, mode)?;
    let handshake = handshake(config, io, addresses, generation.number, &acceptor.policy);
    match time::timeout(acceptor.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err((error, mut io))) => {
            linger(&mut io).await;
            Err(error)
        }
        Err(_) => Err(AcceptError::new(AcceptErrorKind::HandshakeTimeout)),
    }
}

async fn handshake<IO>(
    config: Arc<ServerConfig>,
    io: Prefixed<IO>,
    (remote, local): Addresses,
    generation: u64,
    policy: &PeerPolicy,
) -> Result<MeshStream<IO>, (AcceptError, Prefixed<IO>)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let accept = TlsAcceptor::from(config).accept(io).into_fallible();
    let (result, refusal) = capture(accept).await;
    let io =
        result.map_err(|(error, io)| (AcceptError::from_failure(classify(error, refusal)), io))?;
    let state = io.get_ref().1;
    // The verifier has judged this certificate a moment ago, in this handshake: there is no resumption.
    let leaf = state.peer_certificates().and_then(|chain| chain.first());
    let peer = leaf.and_then(|leaf| svid::check_peer(leaf, policy).ok());
    let info = ConnInfo::tls_of(remote, local, peer, tls_info(state), generation);
    Ok(MeshStream::server(io.into(), info))
}

/// Lets a refused client read its alert: closing a socket with unread bytes resets the connection, and a reset
/// throws the alert away on the other side.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut Prefixed<IO>) {
    let read_away = async {
        io.shutdown().await?;
        let mut scratch = [0; 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match io.read(&mut scratch).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        std::io::Result::Ok(())
    };
    // However it ends, the connection is closed next.
    let _ended = time::timeout(LINGER, read_away).await;
}

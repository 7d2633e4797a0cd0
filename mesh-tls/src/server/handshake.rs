//! One connection from its first byte to its stream.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{MtlsAcceptor, ServerMode};
use crate::{
    backend::{capture, classify, proved, tls_info},
    error::{AcceptError, AcceptErrorKind, Untrusted},
    info::{ConnInfo, PeerIdentity},
    live::{Judge, Watch, Why},
    mesh::Counter,
    prefixed::Prefixed,
    stream::{MeshStream, Transport},
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
    let io = Prefixed::new(io);
    let result = match acceptor.mode.get() {
        mode @ (ServerMode::Strict | ServerMode::Permissive) => {
            detect(acceptor, io, addresses, mode).await
        }
        ServerMode::Disabled => Ok(plain(acceptor, io, addresses)),
    };
    // A client may take its time, and mode, policy or trust may have changed meanwhile.
    let result = result.and_then(|stream| held_to_what_is_true_now(acceptor, stream));
    let shared = acceptor.mesh.shared();
    match &result {
        Ok(stream) if stream.info().tls().is_some() => shared.counters.add(Counter::Accepted),
        Ok(_) => {
            shared.counters.add(Counter::AcceptedPlaintext);
            shared.plaintext.seen(addresses.0, addresses.1, shared.provider.clock.now());
        }
        Err(error) => {
            shared.counters.add(error.kind().into());
            tracing::debug!(remote = ?addresses.0, %error, "connection refused");
            let now = shared.provider.clock.now();
            shared.refused.seen(addresses.0, addresses.1, error.to_string(), now);
        }
    }
    result
}

fn held_to_what_is_true_now<IO>(
    acceptor: &MtlsAcceptor,
    mut stream: MeshStream<IO>,
) -> Result<MeshStream<IO>, AcceptError> {
    let is_tls = stream.info().tls().is_some();
    stream.confirm().map_err(|why| {
        AcceptError::new(match why {
            Why::NoProof if !is_tls => AcceptErrorKind::PlaintextRefused,
            Why::NoProof => AcceptErrorKind::PeerUntrusted(Untrusted::NoCertificate),
            Why::NotTrusted(why) => AcceptErrorKind::PeerUntrusted(why),
            Why::NotAuthorized(id) => AcceptErrorKind::PeerNotAuthorized(id),
            Why::TooOld | Why::Expired => AcceptErrorKind::HandshakeTimeout,
        })
    })?;
    if is_tls {
        // An identity that was withdrawn meanwhile is ours no more.
        drop(acceptor.current()?);
    }
    Ok(stream)
}

/// Waits for the first byte, in the strict mode too: until then there is no need for any TLS state.
async fn detect<IO>(
    acceptor: &MtlsAcceptor,
    mut io: Prefixed<IO>,
    addresses: Addresses,
    mode: ServerMode,
) -> Result<MeshStream<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let too_late = |kind| move |_| AcceptError::new(kind);
    let first = async {
        let first = io.first().await.map_err(AcceptError::io)?;
        let ended = || AcceptError::io(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        Ok((first.ok_or_else(ended)?, io))
    };
    // Boxed: what waits for its first byte does not carry the room for a handshake.
    match mode {
        ServerMode::Strict => {
            // Nobody waits for what cannot come.
            drop(acceptor.current()?);
            // One limit for both: a handshake is everything that comes before it is proved who is there.
            let proof = async { Box::pin(tls(acceptor, first.await?.1, addresses, mode)).await };
            time::timeout(acceptor.handshake_timeout, proof)
                .await
                .map_err(too_late(AcceptErrorKind::HandshakeTimeout))?
        }
        ServerMode::Permissive | ServerMode::Disabled => {
            let (first, io) = time::timeout(acceptor.detect_timeout, first)
                .await
                .map_err(too_late(AcceptErrorKind::DetectTimeout))??;
            if first != TLS_HANDSHAKE {
                return Ok(plain(acceptor, io, addresses));
            }
            let proof = Box::pin(tls(acceptor, io, addresses, mode));
            time::timeout(acceptor.handshake_timeout, proof)
                .await
                .map_err(too_late(AcceptErrorKind::HandshakeTimeout))?
        }
    }
}

fn plain<IO>(acceptor: &MtlsAcceptor, io: Prefixed<IO>, addresses: Addresses) -> MeshStream<IO> {
    let shared = acceptor.mesh.shared();
    let live = shared.live.register();
    let (policy, mode) = (acceptor.policy.clone(), acceptor.mode.clone());
    let judge = Judge::server(shared, (0, policy.load()), None, policy, mode);
    let info = ConnInfo::plain(addresses, Arc::clone(&live));
    let watch = Watch::server(live, judge, acceptor.ending, None);
    MeshStream::server(Transport::Plain(io), info, watch)
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
    let policy = acceptor.policy.load();
    let config = acceptor.config(&generation, &policy, mode)?;
    let (io, peer) = match handshake(config, io, mode).await {
        Ok(proved) => proved,
        Err((error, mut io)) => {
            linger(&mut io).await;
            return Err(error);
        }
    };
    let state = io.get_ref().1;
    let shared = acceptor.mesh.shared();
    let live = shared.live.register();
    let now = shared.provider.clock.now().as_secs();
    let left = peer.as_ref().map(|peer| peer.not_after().as_secs().saturating_sub(now));
    let (handle, mode) = (acceptor.policy.clone(), acceptor.mode.clone());
    let judge = Judge::server(shared, (generation.number, policy), peer.clone(), handle, mode);
    let (number, of_live) = (generation.number, Arc::clone(&live));
    let tls = tls_info(state).asked_for(state.server_name());
    let info = ConnInfo::tls_of(addresses, peer, tls, number, of_live);
    let watch = Watch::server(live, judge, acceptor.ending, left.map(Duration::from_secs));
    Ok(MeshStream::server(Transport::Tls(Box::new(io.into())), info, watch))
}

/// A session, and who is at its other end, if anybody has shown a certificate.
type Proved<IO> = (TlsStream<Prefixed<IO>>, Option<PeerIdentity>);

async fn handshake<IO>(
    config: Arc<ServerConfig>,
    io: Prefixed<IO>,
    mode: ServerMode,
) -> Result<Proved<IO>, (AcceptError, Prefixed<IO>)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let accept = TlsAcceptor::from(config).accept(io).into_fallible();
    let (result, verdict) = capture(accept).await;
    match result {
        Ok(io) if verdict.is_none() && mode == ServerMode::Permissive => Ok((io, None)),
        Ok(io) => match proved(verdict) {
            Ok(peer) => Ok((io, Some(peer))),
            Err(refused) => Err((AcceptError::from_failure(refused), io.into_inner().0)),
        },
        Err((error, io)) => Err((AcceptError::from_failure(classify(error, verdict)), io)),
    }
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

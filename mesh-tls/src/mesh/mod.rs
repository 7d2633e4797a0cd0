//! The handle: one identity that rotates, and everything that is made from it.
//!
//! # Generations
//!
//! Each complete [`Material`] that passes the checks becomes a *generation*: an immutable snapshot of own key and
//! trust, with a number. A handshake reads the snapshot that is current when it starts, and its rustls
//! configuration is made from that snapshot alone. The obvious alternative, one long-lived configuration whose
//! verifier looks up the current roots, is how access survives the removal of a certificate authority: a resumed
//! session never asks the verifier.
//!
//! New material changes new handshakes. TLS has no second authentication, so the connections that exist are judged again
//! by the new trust: those whose peer it no longer covers are [drained](crate::stream), the others are not touched. A new
//! certificate of our own alone ends no connection.
//!
//! # What is checked before a generation is published
//!
//! | check | when it fails |
//! | --- | --- |
//! | the key belongs to the leaf | refused |
//! | the leaf is an X.509-SVID with the [expected](MeshTlsBuilder::expect_id) ID | refused |
//! | the leaf is within its dates (30 s of grace for clocks at the start) | refused |
//! | every root can be a root | refused |
//! | the leaf leads to our own bundle | refused, unless only the bundle changed: less trust must take effect at once |
//!
//! What was refused is counted and shown by [`MeshTls::status`], and the last good generation stays. A certificate from
//! the future is tried again every 5 s, and counted each time.
//!
//! An identity that is not renewed is a warning in the log when 80 % of its life are over, another at 95 %, and an error when
//! it has expired. From then on a connector fails at once ([`IdentityExpired`](crate::ConnectErrorKind::IdentityExpired)); an
//! acceptor goes on to show what it has, because its peers decide.
//!
//! # Trust is taken back at once
//!
//! | of the new state | what becomes of trust |
//! | --- | --- |
//! | the own certificate or key is bad, the bundles are good | the roots that are gone are gone, none is added; the identity stays |
//! | a bundle is empty, or its trust domain is not there any more | nobody of that trust domain is trusted: it revokes |
//! | a bundle, map or revocation list is unreadable or has a bad root | all stays: unreadable is not empty |

mod builder;
mod driver;
mod expiry;
mod generation;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
mod plaintext;
mod refused;
mod stats;
#[cfg(all(test, feature = "dev-ca", any(feature = "aws-lc-rs", feature = "ring")))]
pub(crate) mod testing;
#[cfg(all(test, feature = "dev-ca", any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

pub use builder::MeshTlsBuilder;
pub use driver::Driver;
#[cfg(feature = "metrics")]
pub use metrics::describe_metrics;
pub use plaintext::PlaintextSource;
pub use refused::RefusedCaller;
pub use stats::Stats;

use driver::PAUSE;
#[cfg(feature = "origination")]
pub(crate) use expiry::{Expiry, LOOK, Name};
pub(crate) use generation::{Demands, Generation};
use plaintext::Plaintext;
use refused::Refused;
pub(crate) use stats::{Counter, Counters};

use crate::{
    backend::{ClientSettings, LiveConfig, Provider},
    client::{HttpConnector, MtlsConnector},
    error::{BoxError, ConnectError, MaterialError, MaterialErrorKind},
    info::PeerIdentity,
    live::Registry,
    material::{Material, Trust},
    policy::PeerPolicy,
    renewing::Renewing,
    server::MtlsAcceptor,
    source::IdentitySource,
    stream::MeshStream,
};

/// A mesh identity in use. Cloning is one reference count; all clones are one identity.
///
/// ```no_run
/// use mesh_tls::{FileSource, MeshTls, PeerPolicy};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = MeshTls::builder(FileSource::in_directory("/var/run/secrets/mesh")).spawn().await?;
/// let pay = PeerPolicy::exact("spiffe://cluster.local/ns/shop/sa/pay".parse()?);
/// let connector = mesh.connector(pay);
/// # let _ = connector; Ok(()) }
/// ```
#[derive(Clone)]
pub struct MeshTls {
    shared: Arc<Shared>,
}

/// What the identity looks like now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The number of the current generation; 0 before the first and after a withdrawal.
    pub generation: u64,
    /// Our own identity, where there is one.
    pub identity: Option<PeerIdentity>,
    /// Why the last update was refused or could not be read; `None` after a good one.
    pub last_error: Option<String>,
}

/// What the handle, its driver and everything made from it share.
pub(crate) struct Shared {
    pub(crate) provider: Provider,
    pub(crate) counters: Counters,
    /// The connections that exist.
    pub(crate) live: Registry,
    pub(crate) plaintext: Plaintext,
    pub(crate) refused: Refused,
    demands: Demands,
    current: ArcSwapOption<Generation>,
    /// The number of the last generation published. Its sender living here tells the driver when to stop.
    published: watch::Sender<u64>,
    last_error: Mutex<Option<String>>,
    /// The driver has ended before us, and nobody has been warned.
    unwarned: AtomicBool,
}

// === impl MeshTls ===

impl MeshTls {
    /// Starts to build a handle on the identity that `source` delivers.
    #[must_use]
    pub fn builder<S: IdentitySource>(source: S) -> MeshTlsBuilder<S> {
        MeshTlsBuilder::new(source)
    }

    /// A connector for HTTP clients: TCP by hyper-util, then mutual TLS to a server that `policy` allows.
    #[must_use]
    pub fn connector(&self, policy: PeerPolicy) -> MtlsConnector<HttpConnector> {
        MtlsConnector::new(self.clone(), policy)
    }

    /// An acceptor for servers, strict until told otherwise, that lets in clients that `policy` allows.
    #[must_use]
    pub fn acceptor(&self, policy: PeerPolicy) -> MtlsAcceptor {
        MtlsAcceptor::new(self.clone(), policy)
    }

    /// A client's handshake over a transport of your own, with the connector's defaults.
    ///
    /// # Errors
    ///
    /// See [`ConnectErrorKind`](crate::ConnectErrorKind).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `io`.
    pub async fn connect<IO>(
        &self,
        io: IO,
        policy: PeerPolicy,
    ) -> Result<MeshStream<IO>, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.connector(policy).connect(io).await
    }

    /// A rustls configuration for `reqwest::ClientBuilder::tls_backend_preconfigured`, which takes one only once.
    ///
    /// It follows rotations: each handshake verifies against, and presents, what is current then. Session
    /// resumption is off and must stay off, or a session would outlive the trust that it was made under. The host
    /// name of the URL plays no part; `policy` decides.
    ///
    /// What reqwest keeps in its pool is out of reach here: such a connection is not judged again when trust changes on
    /// this side. [`MeshTls::renewing`] gives up the whole pool then; use that, unless the client lives for one request.
    ///
    /// Build the client with `https_only(true)`. To an `http://` URL, also one that a server redirects to, reqwest
    /// speaks plaintext, and this configuration is never asked.
    ///
    /// # Errors
    ///
    /// When the cryptography provider does not do TLS 1.3.
    pub fn reqwest_config(
        &self,
        policy: &PeerPolicy,
    ) -> Result<rustls::ClientConfig, MaterialError> {
        let settings = ClientSettings { alpn: crate::client::default_alpn(), sni: None };
        LiveConfig::build(&self.shared, policy, &settings)
            .map_err(|e| MaterialError::new(MaterialErrorKind::Provider(e.to_string())))
    }

    /// A client that is built anew when trust changes, so that no connection of the old one's pool is used again; a new
    /// certificate of our own alone changes nothing. For clients that take a configuration once and keep connections
    /// where nobody can judge them: reqwest. See [`renewing`](crate::renewing) for an example.
    ///
    /// `build` is given a fresh [`MeshTls::reqwest_config`] each time, the first time now. One builds at a time, so it must not
    /// ask the same [`Renewing`] for its client.
    ///
    /// # Errors
    ///
    /// When `build` fails, or the cryptography provider does not do TLS 1.3.
    pub fn renewing<T, E, F>(&self, policy: PeerPolicy, build: F) -> Result<Renewing<T>, BoxError>
    where
        F: Fn(rustls::ClientConfig) -> Result<T, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        Renewing::new(self.clone(), policy, move |config| build(config).map_err(Into::into))
    }

    /// Counters and dates, read at once.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let current = self.shared.current();
        self.shared.counters.snapshot(current.as_deref())
    }

    /// The networks that have made plaintext connections to our acceptors, those with the most first; at most 256.
    ///
    /// ```no_run
    /// # fn report(mesh: &mesh_tls::MeshTls) {
    /// for source in mesh.plaintext_sources() {
    ///     println!("{source}"); // 10.2.7.0/24 to 10.2.9.14:8080: 120
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn plaintext_sources(&self) -> Vec<PlaintextSource> {
        self.shared.plaintext.sources()
    }

    /// The callers that our acceptors have turned away, those that came last first; at most 64, each once for a reason. How
    /// many there were in all, [`stats`](Self::stats) has.
    ///
    /// ```no_run
    /// # fn report(mesh: &mesh_tls::MeshTls) {
    /// for caller in mesh.refused_callers() {
    ///     // 10.2.7.31 to 10.2.9.14:8443: the client spoke plaintext, and the mode is strict (3 ×)
    ///     println!("{caller}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn refused_callers(&self) -> Vec<RefusedCaller> {
        self.shared.refused.callers()
    }

    /// What the identity looks like now.
    #[must_use]
    pub fn status(&self) -> Status {
        let current = self.shared.current();
        let last_error = self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            generation: current.as_ref().map_or(0, |generation| generation.number),
            identity: current.map(|generation| generation.own.clone()),
            last_error: last_error.clone(),
        }
    }

    /// Waits until a generation with this number or a later one has been published.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping it.
    pub async fn reached(&self, generation: u64) {
        let mut published = self.shared.published.subscribe();
        // The sender lives in `shared`, which `self` keeps: the wait cannot fail.
        let _seen = published.wait_for(|number| *number >= generation).await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Debug for MeshTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshTls").field("status", &self.status()).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(provider: Provider, demands: Demands) -> Arc<Self> {
        Self::counting(Counters::default(), provider, demands)
    }

    /// Of servers outside the mesh, by the name that they have together.
    #[cfg(feature = "origination")]
    pub(crate) fn outside(provider: Provider, upstream: String) -> Arc<Self> {
        Self::counting(Counters::outside(upstream), provider, Demands::default())
    }

    fn counting(counters: Counters, provider: Provider, demands: Demands) -> Arc<Self> {
        Arc::new(Self {
            provider,
            counters,
            live: Registry::default(),
            plaintext: Plaintext::default(),
            refused: Refused::default(),
            demands,
            current: ArcSwapOption::empty(),
            published: watch::Sender::new(0),
            last_error: Mutex::new(None),
            unwarned: AtomicBool::new(false),
        })
    }

    pub(crate) fn current(&self) -> Option<Arc<Generation>> {
        self.current.load_full()
    }

    /// The current generation, for a handshake.
    pub(crate) fn in_use(&self) -> Option<Arc<Generation>> {
        if self.unwarned.load(Ordering::Relaxed) && self.unwarned.swap(false, Ordering::Relaxed) {
            let error = MaterialError::new(MaterialErrorKind::DriverEnded);
            tracing::warn!(%error, "an identity that nobody renews is still in use");
        }
        self.current()
    }

    /// The generation with which the trust of the current one began; 0 when there is none.
    pub(crate) fn trusted_since(&self) -> u64 {
        self.current.load().as_ref().map_or(0, |generation| generation.trusted_since)
    }

    /// Makes `material` the current generation, or says why not and changes nothing.
    ///
    /// Only the driver calls it, one update after another.
    pub(crate) fn publish(&self, material: Material) -> Result<(), MaterialError> {
        let previous = self.current();
        let (origin, trust) = (material.origin.clone(), material.trust.clone());
        let number = *self.published.borrow() + 1;
        let built =
            Generation::build(material, number, &self.provider, &self.demands, previous.as_deref());
        let generation = built.map_err(|error| {
            let error = origin.into_iter().fold(error, |error, origin| origin.blame(error));
            self.counters.add(Counter::UpdatesRefused);
            self.report(&error);
            // The bundle of another trust domain, beside a certificate of another one, takes nothing from ours.
            let is_ours = |known: &Arc<Generation>| {
                trust.bundles.contains_key(&known.own.id().trust_domain())
            };
            if error.kind().is_about_the_own_certificate() && previous.as_ref().is_some_and(is_ours)
            {
                self.narrow(&trust);
            }
            error
        })?;
        tracing::info!(
            generation = number,
            id = %generation.own.id(),
            not_after = generation.own.not_after().as_secs(),
            trust = ?generation.trust,
            "identity published"
        );
        self.set_last_error(None);
        self.use_from_now_on(generation);
        Ok(())
    }

    /// Takes back what `trust` does not trust any more, with the identity in use: a root that was removed must not
    /// wait for the next good certificate.
    pub(crate) fn narrow(&self, trust: &Trust) {
        let number = *self.published.borrow() + 1;
        let Some(current) = self.current() else { return };
        match current.narrowed(trust, number, &self.demands) {
            Ok(Some(generation)) => {
                tracing::warn!(
                    generation = number,
                    trust = ?generation.trust,
                    "trust was taken back; the identity stays the last good one"
                );
                self.use_from_now_on(generation);
            }
            Ok(None) => {}
            Err(error) => self.report(&error),
        }
    }

    fn use_from_now_on(&self, generation: Generation) {
        let number = generation.number;
        #[cfg(feature = "metrics")]
        self.counters.published(&generation);
        self.current.store(Some(Arc::new(generation)));
        self.counters.add(Counter::Rotations);
        self.published.send_replace(number);
        self.live.changed();
    }

    /// Stops using the identity: every handshake that starts from now on fails.
    pub(crate) fn withdraw(&self) {
        self.current.store(None);
        #[cfg(feature = "metrics")]
        self.counters.withdrawn();
        self.report(&MaterialError::new(MaterialErrorKind::Withdrawn));
    }

    /// Notes an error. The same one again is noted once: a source repeats itself at every poll.
    pub(crate) fn report(&self, error: &MaterialError) {
        let text = match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        if self.set_last_error(Some(text.clone())).as_deref() != Some(&*text) {
            if self.current().is_some() {
                tracing::warn!(error = %text, "identity not updated; the last good one stays in use");
            } else {
                tracing::warn!(error = %text, "no identity; every handshake fails");
            }
        }
    }

    pub(crate) fn driver_ended(&self) {
        let error = MaterialError::new(MaterialErrorKind::DriverEnded);
        self.set_last_error(Some(error.to_string()));
        self.unwarned.store(true, Ordering::Relaxed);
    }

    fn set_last_error(&self, text: Option<String>) -> Option<String> {
        let mut slot = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut slot, text)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("current", &self.current).finish_non_exhaustive()
    }
}

//! TLS to servers outside the mesh: a bank, a database of the cloud, a service that has no identity of ours.
//!
//! Why not [`MtlsConnector`](crate::MtlsConnector): such a server has no SPIFFE ID and trusts none. It has a certificate for
//! its name, from an authority that is none of the mesh, and often speaks TLS 1.2 only. To take it for a peer of the mesh
//! would be to trust its authority with the identities of workloads. So there is another connector, with roots of its own,
//! and a connection of it has no [`peer`](crate::ConnInfo::peer).
//!
//! # What is asked of a server
//!
//! | | |
//! | --- | --- |
//! | chain | to one of the [`Roots`], within its dates, for servers where it has an extended key usage |
//! | name | one of [`with_subject_alt_names`](Config::with_subject_alt_names), else [`with_server_name`](Config::with_server_name), else the host that is dialled |
//! | a DNS name | as in RFC 9525: without regard to case; `*` in the certificate is one whole label, the first |
//! | an IP address, a URI | the same |
//! | version | TLS 1.3, else 1.2 |
//!
//! The names are those in the subject alternative name; a common name is not looked at. Envoy's
//! `match_typed_subject_alt_names` decides the same way, and so given names replace the one that was dialled.
//!
//! As a [`Config`] it is what Istio says by `DestinationRule` `tls`: `SIMPLE`, and with
//! [`with_certificate`](Config::with_certificate) `MUTUAL`. Where `sni` is given without names, Istio compares no name; here
//! it is the `sni`. No way is left to believe any server.
//!
//! # When files change
//!
//! They are read as a [`FileSource`](crate::FileSource) reads them: whole, settled, by content. Roots and certificate are
//! taken each for itself: where one of them is bad the last good one stays, [`Origination::status`] names the file, and the
//! other is in use. What is new is a generation, for new handshakes. Connections that exist are judged again, and those
//! whose server the new roots do not cover are [drained](crate::stream); a new certificate of our own ends none. Sessions
//! are never resumed, so that none outlives what it was made under.
//!
//! A certificate of our own that is not renewed is told of in the log as [the identity of a mesh](crate::mesh) is; once it
//! has expired, a connector fails at once.
//!
//! An error in the roots does not take trust back, as Envoy does not; a file without a certificate is one.
//!
//! What it does not do: revocation is not asked for, and never is plaintext used instead.
//!
//! ```no_run
//! use http_body_util::Empty;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use mesh_tls::{Origination, origination::{Config, Roots}};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let bank = Origination::spawn(Config::new(Roots::file("/etc/bank/ca.pem")))?;
//! let client: Client<_, Empty<bytes::Bytes>> =
//!     Client::builder(TokioExecutor::new()).build(bank.connector());
//! let response = client.get("https://api.bank.example/rates".parse()?).await?;
//! # let _ = response; Ok(()) }
//! ```

mod config;
mod connector;
mod generation;
mod name;
#[cfg(all(test, feature = "dev-ca", any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::CryptoProvider;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{self, MissedTickBehavior},
};

pub use config::{Config, Roots};
pub use connector::Connector;
pub use name::InvalidName;

use connector::Handshake;
pub(crate) use connector::Outside;
use generation::Generation;
pub(crate) use name::SubjectName;

#[cfg(unix)]
use crate::source::warn_of_an_open_key;
use crate::{
    backend::{Provider, default_provider},
    clock::SystemClock,
    error::{ConnectError, ConnectErrorKind, MaterialError, MaterialErrorKind},
    mesh::{Counter, Demands, Expiry, LOOK, Name, Shared, Stats, Status},
    source::{Bytes, Watched},
    stream::MeshStream,
};

/// Between an error of reading and the next look.
const PAUSE: Duration = Duration::from_millis(100);

/// TLS to servers outside the mesh, as a [`Config`] says. Cloning is one reference count.
#[derive(Clone)]
pub struct Origination {
    inner: Arc<Inner>,
}

/// The job of an [`Origination`]: without it, changed files are not noticed.
///
/// It is a future for the caller to spawn. It ends when the last handle and connector are gone.
#[must_use = "without its driver changed files are not noticed; spawn it"]
pub struct Driver {
    job: Pin<Box<dyn Future<Output = ()> + Send>>,
}

pub(crate) struct Inner {
    config: Config,
    /// Cryptography, counters, and the connections that exist.
    shared: Arc<Shared>,
    current: ArcSwap<Generation>,
    /// The number of the current generation. Its sender living here tells the driver when to stop.
    published: watch::Sender<u64>,
    last_error: Mutex<Option<String>>,
}

// === impl Origination ===

impl Origination {
    /// Reads the files, on this thread, and makes the handle, and the [`Driver`] that the caller must run.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not what it should be; a key that belongs to another certificate; a certificate
    /// that has expired.
    pub fn load(config: Config) -> Result<(Self, Driver), MaterialError> {
        let crypto = default_provider().ok_or_else(|| {
            MaterialError::new(MaterialErrorKind::Provider("none is compiled in".into()))
        })?;
        Self::load_with(config, Arc::new(crypto))
    }

    /// As [`Origination::load`], with this cryptography. Without, it is aws-lc-rs where that feature is on, else ring.
    ///
    /// # Errors
    ///
    /// As [`Origination::load`].
    pub fn load_with(
        config: Config,
        crypto: Arc<CryptoProvider>,
    ) -> Result<(Self, Driver), MaterialError> {
        Self::load_by(config, Provider { crypto, clock: Arc::new(SystemClock::new()) })
    }

    fn load_by(config: Config, provider: Provider) -> Result<(Self, Driver), MaterialError> {
        let mut files = Watched::new(config.paths().cloned());
        files.set_poll_interval(config.poll_interval);
        #[cfg(unix)]
        config.certificate().into_iter().for_each(|(_, key)| warn_of_an_open_key(key));
        let contents = &files.first()?.0;
        let anchors = Arc::new(generation::anchors(&config, contents)?);
        let own = generation::own(&config, contents, &provider)?;
        let first = Generation::build(1, anchors, own, &config, &provider)?;
        let inner = Arc::new(Inner {
            config,
            shared: Shared::new(provider, Demands::default()),
            current: ArcSwap::from_pointee(first),
            published: watch::Sender::new(1),
            last_error: Mutex::default(),
        });
        let gone = inner.published.subscribe();
        let job = Box::pin(follow(Arc::downgrade(&inner), gone, files));
        Ok((Self { inner }, Driver { job }))
    }

    /// Spawns a task on the current tokio runtime, the [`Driver`], besides [`Origination::load`].
    ///
    /// # Errors
    ///
    /// As [`Origination::load`]. Here is one:
    ///
    /// ```
    /// use mesh_tls::{Origination, origination::{Config, Roots}};
    ///
    /// let error = Origination::spawn(Config::new(Roots::file("/nowhere/ca.pem"))).unwrap_err();
    /// assert!(error.to_string().starts_with("/nowhere/ca.pem: cannot be read"), "{error}");
    /// ```
    pub fn spawn(config: Config) -> Result<Self, MaterialError> {
        let (handle, driver) = Self::load(config)?;
        drop(tokio::spawn(driver));
        Ok(handle)
    }

    /// A connector for HTTP clients: TCP by hyper-util, then TLS.
    #[must_use]
    pub fn connector(&self) -> Connector<HttpConnector> {
        Connector::new(self.clone())
    }

    /// A handshake over a transport of your own with a server that is called `host`, unless the configuration calls it
    /// otherwise.
    ///
    /// # Errors
    ///
    /// See [`ConnectErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `io`.
    pub async fn connect<IO>(&self, io: IO, host: &str) -> Result<MeshStream<IO>, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let result = match Handshake::new(self, host) {
            Ok(handshake) => handshake.run(io, None).await,
            Err(error) => Err(error),
        };
        self.inner.counted(result)
    }

    /// The number of the generation in use, from 1, and why the last change of the files was not taken. There is never an
    /// identity.
    #[must_use]
    pub fn status(&self) -> Status {
        let last_error = self.inner.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            generation: self.inner.current.load().number,
            identity: None,
            last_error: last_error.clone(),
        }
    }

    /// Counters and dates, read at once. What servers do (`accepted` and `refused`) stays 0.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let current = self.inner.current.load();
        let dates = current.own.as_ref().and_then(|own| own.dates);
        Stats {
            generation: current.number,
            not_after: dates.map_or(0, |(_, end)| end.as_secs()),
            ..self.inner.shared.counters.snapshot(None)
        }
    }

    /// Waits until this generation or a later one is in use.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping it.
    pub async fn reached(&self, generation: u64) {
        let mut published = self.inner.published.subscribe();
        // The sender lives in what `self` keeps: the wait cannot fail.
        let _seen = published.wait_for(|number| *number >= generation).await;
    }
}

impl fmt::Debug for Origination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origination").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    /// Whether what we have to show is still good.
    fn check(&self) -> Result<(), ConnectError> {
        match self.current.load().has_expired(self.shared.provider.clock.now()) {
            true => Err(ConnectError::new(ConnectErrorKind::IdentityExpired)),
            false => Ok(()),
        }
    }

    fn counted<T>(&self, result: Result<T, ConnectError>) -> Result<T, ConnectError> {
        result.inspect_err(|error| {
            self.shared.counters.add(error.kind().into());
            tracing::debug!(%error, "no connection");
        })
    }

    /// Says aloud when our own certificate comes to its end.
    fn look(&self, expiry: &mut Expiry) {
        let current = self.current.load();
        let dates = current.own.as_ref().and_then(|own| own.dates);
        if let Some((dates, (file, _))) = dates.zip(self.config.certificate()) {
            expiry.look(Name::File(file), dates, self.shared.provider.clock.now());
        }
    }

    /// Puts to use what is good of these files.
    fn update(&self, files: &[Bytes]) {
        let current = self.current.load_full();
        let (known, provider) = (current.verifier.anchors(), &self.shared.provider);
        let mut refused = None;
        // Of two errors the first is told: to mend it shows the other.
        let mut refuse = |error| {
            let _first = refused.get_or_insert(error);
        };
        let anchors = match self.config.roots.path() {
            Some(_) => generation::anchors(&self.config, files).map_err(&mut refuse).ok(),
            None => None,
        };
        let anchors = anchors.filter(|anchors| *anchors != **known).map(Arc::new);
        let own = generation::own(&self.config, files, provider).map_err(&mut refuse);
        let own = own.ok().flatten().filter(|own| own.is_other_than(current.own.as_ref()));
        if anchors.is_some() || own.is_some() {
            let anchors = anchors.unwrap_or_else(|| Arc::clone(known));
            let own = own.or_else(|| current.own.clone());
            match Generation::build(current.number + 1, anchors, own, &self.config, provider) {
                Ok(generation) => self.publish(generation),
                Err(error) => refused = Some(error),
            }
        }
        self.report(refused.as_ref());
    }

    fn publish(&self, generation: Generation) {
        let number = generation.number;
        tracing::info!(generation = number, roots = ?self.config.roots, "roots and certificate read");
        self.current.store(Arc::new(generation));
        self.shared.counters.add(Counter::Rotations);
        self.published.send_replace(number);
        self.shared.live.changed();
    }

    /// Notes why the files are not in use as they are, or that they are.
    fn report(&self, error: Option<&MaterialError>) {
        let text = error.map(|error| match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        });
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = text.as_deref().filter(|_| *last != text) {
            self.shared.counters.add(Counter::UpdatesRefused);
            tracing::warn!(%error, "not updated; the last good one stays in use");
        }
        *last = text;
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

// === impl Driver ===

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.job.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// Holds the handle weakly: a job that kept its own handle alive would never end.
async fn follow(inner: Weak<Inner>, mut handles: watch::Receiver<u64>, mut files: Watched) {
    let mut gone = pin!(async move { while handles.changed().await.is_ok() {} });
    let (mut expiry, mut look) = (Expiry::default(), time::interval(LOOK));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changed = {
            // Pinned, because a look at the dates must not drop it: it would begin its pause again.
            let mut next = pin!(files.changed());
            loop {
                tokio::select! {
                    changed = &mut next => break changed,
                    () = &mut gone => return,
                    _ = look.tick() => {
                        let Some(inner) = inner.upgrade() else { return };
                        inner.look(&mut expiry);
                    }
                }
            }
        };
        let Some(inner) = inner.upgrade() else { return };
        match changed {
            Ok(contents) => inner.update(&contents.0),
            Err(error) => {
                inner.report(Some(&error));
                drop(inner);
                time::sleep(PAUSE).await;
            }
        }
    }
}

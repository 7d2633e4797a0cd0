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
//! | revocation | nothing; with [`with_crl`](Config::with_crl), no list names it or an issuer above it, by the table of [`Revocation`](crate::revocation) |
//! | version | TLS 1.3, else 1.2 |
//!
//! The names are those in the subject alternative name; a common name is not looked at. Envoy's
//! `match_typed_subject_alt_names` decides the same way, and so given names replace the one that was dialled.
//!
//! As a [`Config`] it is what Istio says by `DestinationRule` `tls`: `SIMPLE`, and with
//! [`with_certificate`](Config::with_certificate) `MUTUAL`; `caCrl` is [`with_crl`](Config::with_crl). Where `sni` is given without names, Istio compares no name; here
//! it is the `sni`. No way is left to believe any server.
//!
//! # When files change
//!
//! They are read as a [`FileSource`](crate::FileSource) reads them: whole, settled, by content. Roots, revocation lists and
//! certificate are taken each for itself: where one of them is bad the last good one stays, [`Origination::status`] names the
//! file, and the others are in use. What is new is a generation, for new handshakes. Connections that exist are judged again,
//! and those whose server the new roots do not cover, or the new lists name, are [drained](crate::stream); a new certificate of
//! our own ends none. Sessions are never resumed, so that none outlives what it was made under.
//!
//! The [roots of the operating system](Roots) are read again every ten minutes, and are a new generation where they are
//! others.
//!
//! An error in the roots does not take trust back, as Envoy does not; a file without a certificate is one. Neither does an
//! error in the lists forget whom they named.
//!
//! # What people see
//!
//! | | |
//! | --- | --- |
//! | [`Origination::status`] | the roots, how many, from where, and which expires next; the lists, and when they are out of date; our own certificate; why the last change was not taken. `Serialize` with feature `serde` |
//! | [`Origination::stats`] | handshakes by result and reason, connections drained, generations and changes that were not taken |
//! | metrics, feature `metrics` | those of the mesh and two more, by the label `upstream`, which is [`with_name`](Config::with_name): see `describe_metrics` |
//!
//! A certificate of our own that is not renewed is told of in the log as [the identity of a mesh](crate::mesh) is; once it
//! has expired, a connector fails at once. A root, and a revocation list, is told of when 95 % of its time are over and at its
//! end; not so the roots of the operating system, many of which nobody needs.
//!
//! # What it does not do
//!
//! Plaintext is never used instead. Revocation lists are not fetched, and OCSP is not asked. A root that has expired is
//! believed, as by rustls and unlike by OpenSSL: its dates are shown and not held against it.
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
mod driver;
mod ends;
mod generation;
mod inner;
#[cfg(feature = "metrics")]
mod metrics;
mod name;
mod status;
#[cfg(feature = "system-roots")]
mod system;
#[cfg(all(test, feature = "dev-ca", any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;

use std::{fmt, sync::Arc};

use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::CryptoProvider;
use tokio::io::{AsyncRead, AsyncWrite};

pub use config::{Config, Roots};
pub use connector::Connector;
pub use driver::Driver;
pub use name::InvalidName;
pub use status::{CertificateStatus, CrlStatus, RootsStatus, Status};

use connector::Handshake;
pub(crate) use connector::Outside;
use inner::Inner;
pub(crate) use name::SubjectName;

#[cfg(unix)]
use crate::source::warn_of_an_open_key;
use crate::{
    backend::{Provider, default_provider},
    clock::SystemClock,
    error::{ConnectError, MaterialError, MaterialErrorKind},
    mesh::Stats,
    source::Watched,
    stream::MeshStream,
};

/// TLS to servers outside the mesh, as a [`Config`] says. Cloning is one reference count.
#[derive(Clone)]
pub struct Origination {
    inner: Arc<Inner>,
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
        let inner = Arc::new(Inner::new(config, provider, &files.first()?.0)?);
        let driver = Driver::new(&inner, files);
        Ok((Self { inner }, driver))
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
    /// See [`ConnectErrorKind`](crate::ConnectErrorKind).
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

    /// What is in use now, and why the last change of the files was not taken.
    ///
    /// ```no_run
    /// # fn report(bank: &mesh_tls::Origination) {
    /// let status = bank.status();
    /// if let Some(own) = &status.certificate {
    ///     println!("{} until {}", own.names.join(", "), own.not_after.as_secs());
    /// }
    /// println!("{} roots from {}", status.roots.count, status.roots.from); // 1 roots from /etc/bank/ca.pem
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Counters and dates, read at once: handshakes that succeeded (`connected`), those that did not by their reason
    /// (`connect_*`), connections drained, generations, and changes of the files that were not taken. What servers do
    /// (`accepted` and `refused`) stays 0.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
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

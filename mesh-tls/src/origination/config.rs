use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls_pki_types::{CertificateDer, ServerName};

use super::name::{InvalidName, SubjectName, host};
use crate::{
    client::{HANDSHAKE_TIMEOUT, default_alpn},
    error::MaterialError,
    live::Ending,
    material::certificates,
    revocation::Revocation,
    source::Watched,
};

#[cfg(feature = "system-roots")]
const SYSTEM_INTERVAL: Duration = Duration::from_secs(600);

/// Which servers are believed, and what is shown to them.
///
/// ```
/// use mesh_tls::origination::{Config, Roots};
///
/// let bank = Config::new(Roots::file("/etc/bank/ca.pem"))
///     .with_name("bank")
///     .with_server_name("api.bank.example")?
///     .with_crl("/etc/bank/crl.pem")
///     .with_certificate("/etc/bank/tls.crt", "/etc/bank/tls.key");
/// # let _ = bank;
/// # Ok::<_, mesh_tls::origination::InvalidName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    pub(super) name: Option<String>,
    pub(super) roots: Roots,
    pub(super) crl: Option<PathBuf>,
    pub(super) revocation: Revocation,
    /// `None`: the host of the URI that is dialled.
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) names: Arc<[SubjectName]>,
    pub(super) certificate: Option<(PathBuf, PathBuf)>,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) handshake_timeout: Duration,
    pub(super) drain_grace: Duration,
    pub(super) poll_interval: Duration,
    #[cfg(feature = "system-roots")]
    pub(super) system_interval: Duration,
}

/// The authorities whose word is taken for who a server is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Roots(pub(super) RootsOf);

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum RootsOf {
    File(PathBuf),
    Given(Arc<[CertificateDer<'static>]>),
    #[cfg(feature = "system-roots")]
    System,
}

// === impl Config ===

impl Config {
    /// Servers whose certificate leads to one of these roots and has the host that is dialled as its name. There is no
    /// default for the roots, and no way to do without.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self {
            name: None,
            roots,
            crl: None,
            revocation: Revocation::default(),
            server_name: None,
            names: Arc::default(),
            certificate: None,
            alpn: default_alpn(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            drain_grace: Ending::default().grace,
            poll_interval: Watched::POLL_INTERVAL,
            #[cfg(feature = "system-roots")]
            system_interval: SYSTEM_INTERVAL,
        }
    }

    /// What the servers are called together, as in the name of an upstream: metrics and [`Status`](super::Status) have it.
    /// Default: the [server name](Self::with_server_name), where one is set, else an empty one. It decides nothing.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Asks for this name, a DNS name or an IP address, whatever host is dialled: where endpoints are addresses. A DNS name
    /// is sent in clear text (SNI), so that a server with several certificates knows which; an address is not.
    ///
    /// # Errors
    ///
    /// Any other text: a wildcard, a URI, a name with a port.
    pub fn with_server_name(self, name: &str) -> Result<Self, InvalidName> {
        Ok(Self { server_name: Some(host(name)?), ..self })
    }

    /// Wants one of these names, DNS names, IP addresses or URIs, in the certificate, in place of the name that is asked
    /// for. None at all leave it at that name.
    ///
    /// # Errors
    ///
    /// A text that is none of these. A wildcard is not one: it stands in certificates, where `*.bank.example` is
    /// `api.bank.example` too.
    pub fn with_subject_alt_names<I>(self, names: I) -> Result<Self, InvalidName>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let names = names.into_iter().map(|name| SubjectName::parse(name.as_ref()));
        Ok(Self { names: names.collect::<Result<_, _>>()?, ..self })
    }

    /// Holds every server's chain against the revocation lists in this file (PEM, Istio's `caCrl`; at least one), which is
    /// read again when it changes. Default: revocation is not asked for.
    #[must_use]
    pub fn with_crl(self, file: impl Into<PathBuf>) -> Self {
        Self { crl: Some(file.into()), ..self }
    }

    /// What is made of those lists. Default: what is not known to be good is refused, as in Envoy.
    #[must_use]
    pub fn with_revocation(self, revocation: Revocation) -> Self {
        Self { revocation, ..self }
    }

    /// Shows the certificate chain of the one file to servers that want one, with the key in the other (both PEM; they may
    /// be one file). Both are read again when they change.
    #[must_use]
    pub fn with_certificate(self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: Some((cert.into(), key.into())), ..self }
    }

    /// The protocols offered by ALPN, best first. Default: `h2`, `http/1.1`. A server that does not know ALPN is let pass,
    /// and is spoken to in HTTP/1.1.
    #[must_use]
    pub fn with_alpn<I>(self, protocols: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Vec<u8>>,
    {
        Self { alpn: protocols.into_iter().map(Into::into).collect(), ..self }
    }

    /// How long a handshake may take, beyond the transport's own time. Default: 5 s.
    #[must_use]
    pub fn with_handshake_timeout(self, timeout: Duration) -> Self {
        Self { handshake_timeout: timeout, ..self }
    }

    /// How long a connection may go on once its server is no longer trusted, for what is in flight to end. Default: 10 s.
    #[must_use]
    pub fn with_drain_grace(self, grace: Duration) -> Self {
        Self { drain_grace: grace, ..self }
    }

    /// How often the files are looked at. Default: 5 s.
    #[must_use]
    pub fn with_poll_interval(self, interval: Duration) -> Self {
        Self { poll_interval: interval, ..self }
    }

    /// How often the roots of the operating system are read again, where [they](Roots::system) are used. Default: 10 min: a
    /// package brings them, a few times a year.
    #[cfg(feature = "system-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "system-roots")))]
    #[must_use]
    pub fn with_system_interval(self, interval: Duration) -> Self {
        Self { system_interval: interval, ..self }
    }

    /// The file of revocation lists, if there is one.
    #[must_use]
    pub fn crl(&self) -> Option<&Path> {
        self.crl.as_deref()
    }

    /// The files of our own certificate and its key, if it is to be shown.
    #[must_use]
    pub fn certificate(&self) -> Option<(&Path, &Path)> {
        self.certificate.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()))
    }

    /// The name that [`Config::with_name`] tells of.
    pub(super) fn name(&self) -> String {
        let server = || self.server_name.as_ref().map(|name| name.to_str().into_owned());
        self.name.clone().or_else(server).unwrap_or_default()
    }

    /// Whether anything can change while it is in use.
    pub(super) fn changes(&self) -> bool {
        self.paths().next().is_some() || self.roots.is_of_the_system()
    }

    /// The files, in the order in which they are read: roots, revocation lists, certificate, key.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let own = self.certificate.iter().flat_map(|(cert, key)| [cert, key]);
        self.roots.path().into_iter().chain(&self.crl).chain(own)
    }
}

// === impl Roots ===

impl Roots {
    /// Those in this file (PEM, Istio's `caCertificates`), which is read again when it changes.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(RootsOf::File(path.into()))
    }

    /// Those in this PEM.
    ///
    /// # Errors
    ///
    /// When there is no certificate in it.
    pub fn pem(pem: &[u8]) -> Result<Self, MaterialError> {
        Ok(Self(RootsOf::Given(certificates(pem)?.into())))
    }

    /// Those of the operating system, as curl and openssl use them, read [from time to time](Config::with_system_interval). The
    /// variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
    #[cfg(feature = "system-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "system-roots")))]
    #[must_use]
    pub fn system() -> Self {
        Self(RootsOf::System)
    }

    pub(super) fn is_of_the_system(&self) -> bool {
        match &self.0 {
            RootsOf::File(_) | RootsOf::Given(_) => false,
            #[cfg(feature = "system-roots")]
            RootsOf::System => true,
        }
    }

    pub(super) fn path(&self) -> Option<&PathBuf> {
        match &self.0 {
            RootsOf::File(path) => Some(path),
            RootsOf::Given(_) => None,
            #[cfg(feature = "system-roots")]
            RootsOf::System => None,
        }
    }
}

/// The file, `given` or `system`.
impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            RootsOf::File(path) => path.display().fmt(f),
            RootsOf::Given(_) => f.write_str("given"),
            #[cfg(feature = "system-roots")]
            RootsOf::System => f.write_str("system"),
        }
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            RootsOf::File(path) => path.fmt(f),
            RootsOf::Given(roots) => write!(f, "{} certificates", roots.len()),
            #[cfg(feature = "system-roots")]
            RootsOf::System => f.write_str("of the system"),
        }
    }
}

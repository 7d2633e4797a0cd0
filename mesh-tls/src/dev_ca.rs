//! A certificate authority for development and tests. **Never for production**: its key lives in this process.
//!
//! It signs X.509-SVIDs with P-256 keys for one trust domain. Two authorities for one trust domain are two
//! strangers: that is how a test makes a rogue.
//!
//! ```
//! use mesh_tls::{DevCa, MeshTls, StaticSource};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let ca = DevCa::new("dev.local".parse()?)?;
//! let (source, _handle) = StaticSource::new(ca.issue("/ns/shop/sa/orders")?.material()?);
//! let mesh = MeshTls::builder(source).spawn().await?;
//! # let _ = mesh; Ok(()) }
//! ```

use std::{fmt, fs, io, path::Path, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::UnixTime;
use tokio::time;
use zeroize::Zeroizing;

use crate::{
    chance::Chance,
    clock::{Clock, SystemClock},
    error::MaterialError,
    id::{SpiffeId, TrustDomain},
    material::Material,
    source::{IdentitySource, SourceEvent},
};

/// SPIRE's default life of a workload's certificate.
const LEAF_LIFE: Duration = Duration::from_secs(3600);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// SPIRE dates certificates back by this, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(10);

/// A certificate authority in memory.
pub struct DevCa {
    domain: TrustDomain,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate issued by a [`DevCa`], with its key and the authority's bundle, as PEM.
pub struct DevIdentity {
    cert: String,
    key: Zeroizing<String>,
    bundle: String,
}

/// An identity that its [`DevCa`] renews in time: a source for [`MeshTls`](crate::MeshTls).
///
/// Each certificate is renewed after half of its life and up to a tenth of that half more or less, as SPIRE does it. A
/// fleet that was started together does not stay together.
#[derive(Debug)]
pub struct DevCaSource {
    ca: Arc<DevCa>,
    path: String,
    life: Duration,
    clock: Arc<dyn Clock>,
    chance: Chance,
    /// How long to wait before the next one; `None` before the first.
    renew_in: Option<Duration>,
}

/// A certificate authority could not make a certificate: a path that is none, or a key that would not sign.
#[derive(Debug)]
pub struct DevCaError(Box<dyn std::error::Error + Send + Sync>);

// === impl DevCa ===

impl DevCa {
    /// A new authority for a trust domain, with a key of its own.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn new(domain: TrustDomain) -> Result<Self, DevCaError> {
        let mut params = params("mesh-tls development CA", SystemClock::new().now(), CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&domain.id())?];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?);
        Ok(Self { domain, issuer: issuer.map_err(failed)? })
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The authority's own certificate: the whole bundle.
    #[must_use]
    pub fn bundle_pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `path` that is valid for an hour from now.
    ///
    /// # Errors
    ///
    /// When `path` is not the path of a SPIFFE ID.
    pub fn issue(&self, path: &str) -> Result<DevIdentity, DevCaError> {
        self.issue_for(path, SystemClock::new().now(), LEAF_LIFE)
    }

    /// A certificate for `path`, valid from `from` (less ten seconds) for `life`. Both may lie in the past.
    ///
    /// # Errors
    ///
    /// When `path` is not the path of a SPIFFE ID.
    pub fn issue_for(
        &self,
        path: &str,
        from: UnixTime,
        life: Duration,
    ) -> Result<DevIdentity, DevCaError> {
        let id = SpiffeId::new(&self.domain, path).map_err(failed)?;
        let mut params = params("mesh-tls development workload", from, life);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(&id)?];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(DevIdentity {
            cert: cert.pem(),
            key: Zeroizing::new(key.serialize_pem()),
            bundle: self.bundle_pem(),
        })
    }
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa").field("domain", &self.domain).finish_non_exhaustive()
    }
}

// === impl DevCaSource ===

impl DevCaSource {
    /// An identity for `path`, whose certificates live for an hour.
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use mesh_tls::{DevCa, DevCaSource, MeshTls};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let ca = Arc::new(DevCa::new("dev.local".parse()?)?);
    /// let source = DevCaSource::new(&ca, "/ns/shop/sa/orders")?.life(Duration::from_secs(600));
    /// let mesh = MeshTls::builder(source).spawn().await?;
    /// # let _ = mesh; Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When `path` is not the path of a SPIFFE ID.
    pub fn new(ca: &Arc<DevCa>, path: impl Into<String>) -> Result<Self, DevCaError> {
        let path = path.into();
        SpiffeId::new(&ca.domain, &path).map_err(failed)?;
        Ok(Self {
            ca: Arc::clone(ca),
            path,
            life: LEAF_LIFE,
            clock: Arc::new(SystemClock::new()),
            chance: Chance::new(),
            renew_in: None,
        })
    }

    /// How long each certificate lives. Default: an hour.
    #[must_use]
    pub fn life(self, life: Duration) -> Self {
        Self { life, ..self }
    }

    /// Dates certificates by this clock. Default: the system's. The waits are the runtime's all the same.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Draws the times of renewal from this seed, so that they can be repeated. Default: a new one each time.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { chance: Chance::seeded(seed), ..self }
    }
}

impl IdentitySource for DevCaSource {
    async fn next(&mut self) -> Result<SourceEvent, MaterialError> {
        if let Some(wait) = self.renew_in {
            time::sleep(wait).await;
        }
        let (half, spread) = (self.life / 2, self.life / 20);
        self.renew_in = Some(self.chance.between(half - spread, half + spread));
        let identity = self.ca.issue_for(&self.path, self.clock.now(), self.life);
        identity.map_err(MaterialError::from_source)?.material().map(SourceEvent::Update)
    }
}

// === impl DevIdentity ===

impl DevIdentity {
    /// Trusts these roots instead of the issuing authority's: both bundles during a change of roots, a stranger's
    /// for a test, none at all to revoke.
    #[must_use]
    pub fn with_bundle_pem(self, bundle: impl Into<String>) -> Self {
        Self { bundle: bundle.into(), ..self }
    }

    /// The material for a [`StaticSource`](crate::StaticSource).
    ///
    /// # Errors
    ///
    /// When the bundle set by [`DevIdentity::with_bundle_pem`] is no PEM.
    pub fn material(&self) -> Result<Material, MaterialError> {
        Material::from_pem(self.cert.as_bytes(), self.key.as_bytes(), self.bundle.as_bytes())
    }

    /// The certificate chain.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert
    }

    /// The private key, in PKCS#8. A secret.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// The bundle.
    #[must_use]
    pub fn bundle_pem(&self) -> &str {
        &self.bundle
    }

    /// Writes `tls.crt`, `tls.key` and `ca.crt` into a directory, which is made where there is none. Each file is
    /// replaced at once, by a rename; on Unix the key is readable by its owner only.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or a file cannot be written.
    pub fn write_to(&self, directory: impl AsRef<Path>) -> io::Result<()> {
        let directory = directory.as_ref();
        fs::create_dir_all(directory)?;
        for (name, text) in
            [("tls.crt", &*self.cert), ("tls.key", &*self.key), ("ca.crt", &*self.bundle)]
        {
            let fresh = directory.join(format!(".{name}.new"));
            write_private(&fresh, text)?;
            fs::rename(&fresh, directory.join(name))?;
        }
        Ok(())
    }
}

impl fmt::Debug for DevIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DevIdentity(redacted)")
    }
}

// === impl DevCaError ===

impl fmt::Display for DevCaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the development CA could not issue a certificate")
    }
}

impl std::error::Error for DevCaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

fn failed(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DevCaError {
    DevCaError(cause.into())
}

fn params(name: &str, from: UnixTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let epoch = date_time_ymd(1970, 1, 1);
    let from = Duration::from_secs(from.as_secs());
    params.not_before = epoch + from.saturating_sub(BACKDATE);
    params.not_after = epoch + from.saturating_add(life);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn uri(id: &SpiffeId) -> Result<SanType, DevCaError> {
    Ok(SanType::URI(id.as_str().try_into().map_err(failed)?))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(path)?, text.as_bytes())
}

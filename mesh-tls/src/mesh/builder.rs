//! What can be chosen before the first identity is loaded.

use std::{sync::Arc, time::Duration};

use rustls::crypto::CryptoProvider;
use tokio::time;

use super::{Demands, Driver, MeshTls, PAUSE, Shared};
use crate::{
    backend::{Provider, default_provider},
    clock::{Clock, SystemClock},
    error::{MaterialError, MaterialErrorKind},
    id::SpiffeId,
    revocation::Revocation,
    source::{IdentitySource, SourceEvent},
};

/// Long enough for a secret to be mounted beside a starting process, as SPIRE agents and CSI drivers do.
const FIRST_MATERIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Builds a [`MeshTls`].
#[derive(Debug)]
pub struct MeshTlsBuilder<S> {
    source: S,
    demands: Demands,
    crypto: Option<Arc<CryptoProvider>>,
    clock: Arc<dyn Clock>,
    first_material_timeout: Duration,
}

impl<S: IdentitySource> MeshTlsBuilder<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            source,
            demands: Demands::default(),
            crypto: None,
            clock: Arc::new(SystemClock::new()),
            first_material_timeout: FIRST_MATERIAL_TIMEOUT,
        }
    }

    /// Refuses own certificates with any other SPIFFE ID. Without it, whatever the source delivers is taken.
    #[must_use]
    pub fn expect_id(mut self, id: SpiffeId) -> Self {
        self.demands.expected = Some(id);
        self
    }

    /// What is made of revocation lists, where the material has any. Default: what is not known to be good is refused.
    #[must_use]
    pub fn revocation(mut self, revocation: Revocation) -> Self {
        self.demands.revocation = revocation;
        self
    }

    /// Refuses certificates without the key usage extension, of peers and, where we have roots of its trust domain, our
    /// own. Default: off. X509-SVID 4.3 has issuers set it, but does not have verifiers ask for it, and go-spiffe and Envoy
    /// do not; where it is there, it is obeyed in any case. Turn it on where every issuer is known to set it, as SPIRE,
    /// Istio and the development CA do: without it, a certificate that was made for something else may pass for an SVID.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use mesh_tls::{FileSource, MeshTls};
    ///
    /// let source = FileSource::in_directory("/var/run/secrets/mesh");
    /// let strict = MeshTls::builder(source).require_key_usage(true).spawn().await?;
    /// # drop(strict); Ok(()) }
    /// ```
    #[must_use]
    pub fn require_key_usage(mut self, require: bool) -> Self {
        self.demands.key_usage = require;
        self
    }

    /// Uses this cryptography. Default: aws-lc-rs where that feature is on, else ring; never the process default.
    #[must_use]
    pub fn crypto_provider(self, provider: Arc<CryptoProvider>) -> Self {
        Self { crypto: Some(provider), ..self }
    }

    /// Reads the time of day from this clock. Default: the system's.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// How long [`MeshTlsBuilder::build`] waits for a first good identity. Default: 10 s. With zero, the first
    /// error is the last word.
    #[must_use]
    pub fn first_material_timeout(self, timeout: Duration) -> Self {
        Self { first_material_timeout: timeout, ..self }
    }

    /// Waits for the first good identity; then hands over the handle, and the [`Driver`] that the caller must run.
    ///
    /// # Errors
    ///
    /// The last refusal, when no good identity came in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the source.
    pub async fn build(mut self) -> Result<(MeshTls, Driver), MaterialError> {
        let shared = self.shared()?;
        let mut last = None;
        let patience = time::sleep(self.first_material_timeout);
        tokio::pin!(patience);
        loop {
            let event = tokio::select! {
                biased;
                event = self.source.next() => event,
                () = &mut patience, if !self.first_material_timeout.is_zero() => {
                    return Err(last.unwrap_or_else(|| MaterialError::new(MaterialErrorKind::Timeout)));
                }
            };
            let result = match event {
                Ok(SourceEvent::Update(material)) => shared.publish(material),
                Ok(SourceEvent::Withdrawn) => Err(MaterialError::new(MaterialErrorKind::Withdrawn)),
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => break,
                Err(error) if self.first_material_timeout.is_zero() => return Err(error),
                Err(error) => last = Some(error),
            }
            // Patience is asked here too: a source that always has an answer would be heard first for ever.
            tokio::select! {
                biased;
                () = &mut patience => {
                    return Err(last.unwrap_or_else(|| MaterialError::new(MaterialErrorKind::Timeout)));
                }
                () = time::sleep(PAUSE) => {}
            }
        }
        let driver = Driver::new(&shared, self.source);
        Ok((MeshTls { shared }, driver))
    }

    /// As [`MeshTlsBuilder::build`], but does not wait: until the driver has loaded an identity, every handshake
    /// fails with `NotReady`.
    ///
    /// # Errors
    ///
    /// When there is no cryptography provider.
    pub fn build_lazy(self) -> Result<(MeshTls, Driver), MaterialError> {
        let shared = self.shared()?;
        let driver = Driver::new(&shared, self.source);
        Ok((MeshTls { shared }, driver))
    }

    /// As [`MeshTlsBuilder::build`], and spawns the driver on the current tokio runtime.
    ///
    /// The task ends by itself when the last handle, connector and acceptor are gone.
    ///
    /// # Errors
    ///
    /// As [`MeshTlsBuilder::build`].
    pub async fn spawn(self) -> Result<MeshTls, MaterialError> {
        let (mesh, driver) = self.build().await?;
        drop(tokio::spawn(driver));
        Ok(mesh)
    }

    fn shared(&self) -> Result<Arc<Shared>, MaterialError> {
        let unusable = |why: &str| MaterialError::new(MaterialErrorKind::Provider(why.into()));
        let crypto = match &self.crypto {
            Some(given) => Arc::clone(given),
            None => Arc::new(default_provider().ok_or_else(|| unusable("none is compiled in"))?),
        };
        if !crypto.cipher_suites.iter().any(|suite| suite.tls13().is_some()) {
            return Err(unusable("it has no TLS 1.3 cipher suite"));
        }
        let provider = Provider { crypto, clock: Arc::clone(&self.clock) };
        Ok(Shared::new(provider, self.demands.clone()))
    }
}

//! What the files say at one moment, put to use.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::UnixTime;

use super::config::{Config, RootsOf};
use crate::{
    backend::{Anchors, OutsideVerifier, OwnKey, Provider, outside_client},
    error::{MaterialError, MaterialErrorKind, Untrusted},
    material::{certificates, private_key},
    source::{Bytes, text},
    svid,
};

/// Immutable: other roots or another certificate of our own are another one.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) verifier: Arc<OutsideVerifier>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) own: Option<Own>,
}

/// Our own certificate.
#[derive(Debug, Clone)]
pub(super) struct Own {
    key: OwnKey,
    /// The first and the last moment at which it is valid.
    pub(super) dates: Option<(UnixTime, UnixTime)>,
}

impl Own {
    pub(super) fn is_other_than(&self, known: Option<&Self>) -> bool {
        known.is_none_or(|known| !known.key.shows_as(&self.key))
    }
}

impl Generation {
    pub(super) fn build(
        number: u64,
        anchors: Arc<Anchors>,
        own: Option<Own>,
        config: &Config,
        provider: &Provider,
    ) -> Result<Self, MaterialError> {
        let verifier = OutsideVerifier::new(anchors, Arc::clone(&config.names), provider);
        let verifier = Arc::new(verifier);
        let key = own.as_ref().map(|own| &own.key);
        let client = outside_client(provider, key, Arc::clone(&verifier), &config.alpn);
        let client = client
            .map_err(|error| MaterialError::new(MaterialErrorKind::Provider(error.to_string())))?;
        Ok(Self { number, verifier, client: Arc::new(client), own })
    }

    pub(super) fn has_expired(&self, now: UnixTime) -> bool {
        self.own.as_ref().and_then(|own| own.dates).is_some_and(|(_, end)| now > end)
    }
}

/// The roots; `files` begins with their file, if they have one.
pub(super) fn anchors(config: &Config, files: &[Bytes]) -> Result<Anchors, MaterialError> {
    match (&config.roots.0, files) {
        (RootsOf::File(path), [bytes, ..]) => {
            let in_file = |error: MaterialError| error.in_file(path);
            let roots = certificates(text(bytes, path)?).map_err(in_file)?;
            Anchors::new(&roots).map_err(in_file)
        }
        (RootsOf::File(path), []) => {
            Err(MaterialError::new(MaterialErrorKind::Unsettled).in_file(path))
        }
        (RootsOf::Given(roots), _) => Anchors::new(roots),
        #[cfg(feature = "system-roots")]
        (RootsOf::System, _) => of_the_system(),
    }
}

#[cfg(feature = "system-roots")]
fn of_the_system() -> Result<Anchors, MaterialError> {
    let found = rustls_native_certs::load_native_certs();
    let anchors = Anchors::usable(&found.certs);
    if anchors.is_empty() {
        let why = found.errors.first().map_or_else(|| "none found".into(), ToString::to_string);
        return Err(MaterialError::new(MaterialErrorKind::NoSystemRoots(why)));
    }
    Ok(anchors)
}

/// Our own certificate, if there is to be one; its two files are the last.
pub(super) fn own(
    config: &Config,
    files: &[Bytes],
    provider: &Provider,
) -> Result<Option<Own>, MaterialError> {
    let Some((cert_file, key_file)) = &config.certificate else { return Ok(None) };
    let [.., cert, key] = files else {
        return Err(MaterialError::new(MaterialErrorKind::Unsettled).in_file(cert_file));
    };
    let of_cert = |error: MaterialError| error.in_file(cert_file);
    let chain = certificates(text(cert, cert_file)?).map_err(of_cert)?;
    let key = private_key(text(key, key_file)?).map_err(|error| error.in_file(key_file))?;
    let dates = chain.first().and_then(svid::dates);
    if dates.is_some_and(|(_, end)| end < provider.clock.now()) {
        let expired = MaterialErrorKind::OwnCertificate(Untrusted::Expired);
        return Err(of_cert(MaterialError::new(expired)));
    }
    let key = OwnKey::new(chain, key, provider).map_err(|error| error.in_file(key_file))?;
    Ok(Some(Own { key, dates }))
}

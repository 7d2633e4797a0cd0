//! What the files say at one moment, put to use.

use std::{path::Path, sync::Arc};

use rustls::ClientConfig;
use rustls_pki_types::UnixTime;

use super::config::{Config, RootsOf};
use crate::{
    backend::{About, Anchors, OutsideVerifier, OwnKey, Provider, Revoked, outside_client},
    error::{MaterialError, MaterialErrorKind, Untrusted},
    material::{certificates, crls, private_key},
    source::{Bytes, text},
};

/// Immutable: other roots, other revocation lists or another certificate of our own are another one.
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
    pub(super) key: OwnKey,
    pub(super) about: Option<About>,
}

/// Whom to believe.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) anchors: Arc<Anchors>,
    pub(super) revoked: Arc<Revoked>,
}

/// The files by what they hold; those that are not asked for are not there.
struct Files<'a> {
    roots: Option<&'a Bytes>,
    lists: Option<&'a Bytes>,
    cert: Option<&'a Bytes>,
    key: Option<&'a Bytes>,
}

// === impl Own ===

impl Own {
    /// The first and the last moment at which it is valid.
    pub(super) fn dates(&self) -> Option<(UnixTime, UnixTime)> {
        self.about.as_ref().map(|about| about.dates)
    }

    pub(super) fn is_other_than(&self, known: Option<&Self>) -> bool {
        known.is_none_or(|known| !known.key.shows_as(&self.key))
    }
}

// === impl Generation ===

impl Generation {
    pub(super) fn build(
        number: u64,
        trust: Trust,
        own: Option<Own>,
        config: &Config,
        provider: &Provider,
    ) -> Result<Self, MaterialError> {
        let Trust { anchors, revoked } = trust;
        let names = Arc::clone(&config.names);
        let verifier = Arc::new(OutsideVerifier::new(anchors, revoked, names, provider));
        let key = own.as_ref().map(|own| &own.key);
        let client = outside_client(provider, key, Arc::clone(&verifier), &config.alpn);
        let client = client
            .map_err(|error| MaterialError::new(MaterialErrorKind::Provider(error.to_string())))?;
        Ok(Self { number, verifier, client: Arc::new(client), own })
    }

    pub(super) fn trust(&self) -> Trust {
        let (anchors, revoked) = (self.verifier.anchors(), self.verifier.revoked());
        Trust { anchors: Arc::clone(anchors), revoked: Arc::clone(revoked) }
    }

    /// When our own certificate expires, in seconds since 1970; 0 when there is none.
    pub(super) fn not_after(&self) -> u64 {
        let dates = self.own.as_ref().and_then(Own::dates);
        dates.map_or(0, |(_, end)| end.as_secs())
    }

    pub(super) fn has_expired(&self, now: UnixTime) -> bool {
        self.own.as_ref().and_then(Own::dates).is_some_and(|(_, end)| now > end)
    }
}

// === impl Files ===

impl<'a> Files<'a> {
    /// `files` are those of [`Config::paths`].
    fn of(config: &Config, files: &'a [Bytes]) -> Self {
        let mut files = files.iter();
        let mut next = |is_there: bool| if is_there { files.next() } else { None };
        let own = config.certificate.is_some();
        Self {
            roots: next(config.roots.path().is_some()),
            lists: next(config.crl.is_some()),
            cert: next(own),
            key: next(own),
        }
    }
}

fn read<'a>(file: Option<&'a Bytes>, path: &Path) -> Result<&'a [u8], MaterialError> {
    let unsettled = || MaterialError::new(MaterialErrorKind::Unsettled).in_file(path);
    text(file.ok_or_else(unsettled)?, path)
}

/// The roots, wherever they are from.
pub(super) fn anchors(config: &Config, files: &[Bytes]) -> Result<Anchors, MaterialError> {
    match &config.roots.0 {
        RootsOf::File(path) => {
            let in_file = |error: MaterialError| error.in_file(path);
            let roots = read(Files::of(config, files).roots, path)?;
            Anchors::new(&certificates(roots).map_err(in_file)?).map_err(in_file)
        }
        RootsOf::Given(roots) => Anchors::new(roots),
        #[cfg(feature = "system-roots")]
        RootsOf::System => of_the_system(),
    }
}

#[cfg(feature = "system-roots")]
pub(super) fn of_the_system() -> Result<Anchors, MaterialError> {
    let found = rustls_native_certs::load_native_certs();
    let anchors = Anchors::usable(&found.certs);
    if anchors.is_empty() {
        let why = found.errors.first().map_or_else(|| "none found".into(), ToString::to_string);
        return Err(MaterialError::new(MaterialErrorKind::NoSystemRoots(why)));
    }
    Ok(anchors)
}

/// The revocation lists; none where no file is to hold any.
pub(super) fn revoked(config: &Config, files: &[Bytes]) -> Result<Revoked, MaterialError> {
    let Some(path) = &config.crl else { return Revoked::new(Vec::new(), config.revocation) };
    let in_file = |error: MaterialError| error.in_file(path);
    let lists = crls(read(Files::of(config, files).lists, path)?).map_err(in_file)?;
    Revoked::new(lists, config.revocation).map_err(in_file)
}

/// Our own certificate, if there is to be one.
pub(super) fn own(
    config: &Config,
    files: &[Bytes],
    provider: &Provider,
) -> Result<Option<Own>, MaterialError> {
    let Some((cert_file, key_file)) = &config.certificate else { return Ok(None) };
    let Files { cert, key, .. } = Files::of(config, files);
    let of_cert = |error: MaterialError| error.in_file(cert_file);
    let chain = certificates(read(cert, cert_file)?).map_err(of_cert)?;
    let key = private_key(read(key, key_file)?).map_err(|error| error.in_file(key_file))?;
    let about = chain.first().and_then(About::of);
    if about.as_ref().is_some_and(|about| about.dates.1 < provider.clock.now()) {
        let expired = MaterialErrorKind::OwnCertificate(Untrusted::Expired);
        return Err(of_cert(MaterialError::new(expired)));
    }
    let key = OwnKey::new(chain, key, provider).map_err(|error| error.in_file(key_file))?;
    Ok(Some(Own { key, about }))
}

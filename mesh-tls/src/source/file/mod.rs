//! An identity in PEM files, read again when they change.
//!
//! # Why polling
//!
//! A file watcher sees the file that was there when it was placed. Kubernetes replaces a symbolic link two levels
//! above it, and some volumes send no event at all. To read a few kilobytes every few seconds is right on all of
//! them. Contents are compared, not dates: two writes within one tick of a file system's clock have one date.
//!
//! # How it decides
//!
//! 1. Resolve every path to a real one, read all, resolve again. A swap of directories in between shows as a
//!    different result, and the reading starts over. So a pair never comes from two directories.
//! 2. New contents must be the same in two readings, 100 ms apart: a file that is being overwritten in place
//!    looks empty, or whole but short, for a moment.
//! 3. A bundle or list of no bytes at all must be the same at the next poll too: to overwrite a file is to empty it
//!    first, and an empty bundle revokes.
//! 4. What is unreadable or missing is an error, and the last good identity stays. A bundle that can be read and
//!    is empty revokes: it is delivered as it is. So does a bundle map that does not name a trust domain any more.
//! 5. Where only the own certificate or key is bad, the bundles and revocation lists beside it are told with the
//!    error, and what they do not trust any more is [taken back](crate::mesh).
//!
//! Whether the key belongs to the certificate is checked by [`MeshTls`](crate::MeshTls) before it is used. A pair
//! written one after the other is refused until the second file is there too. To never be refused, write one file that
//! holds both and rename it into place, or swap directories as Kubernetes does.
//!
//! A key file that others than its owner and group may read or write is a warning at the start, and no more: Kubernetes mounts
//! secrets so unless told otherwise (`defaultMode`).
//!
//! Every buffer that held a file is wiped when it is dropped, for one of them is the key.
//!
//! What it does not see: a Kubernetes `subPath` mount never changes. Mount the whole directory.

mod parse;
mod read;
#[cfg(all(test, unix, feature = "dev-ca", any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;
mod watched;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

#[cfg(unix)]
pub(crate) use self::read::warn_of_an_open_key;
#[cfg(feature = "origination")]
pub(crate) use self::read::{Bytes, text};
pub(crate) use self::watched::Watched;
use super::{IdentitySource, SourceEvent};
use crate::{error::MaterialError, id::TrustDomain};

/// Reads a certificate chain, its key and whom to trust from files.
///
/// ```
/// use std::time::Duration;
/// use mesh_tls::FileSource;
///
/// let source = FileSource::new("/etc/mesh/tls.crt", "/etc/mesh/tls.key", "/etc/mesh/ca.crt")
///     .crls("/etc/mesh/revoked.crl")
///     .poll_interval(Duration::from_secs(1));
/// # let _ = source;
/// ```
#[derive(Debug)]
pub struct FileSource {
    files: Arc<Files>,
    watched: Watched,
    /// Our own trust domain as of the last good certificate, for a bundle beside a bad one.
    own: Option<TrustDomain>,
}

/// Which files there are: certificate and key, then the others, which is the order of their contents too.
#[derive(Debug, Clone)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    trust: Vec<(Holds, PathBuf)>,
}

/// What a file besides certificate and key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holds {
    /// The bundle of our own trust domain.
    OwnBundle,
    Bundle(TrustDomain),
    #[cfg(feature = "bundle-map")]
    Map,
    Lists,
}

// === impl FileSource ===

impl FileSource {
    /// A source that reads these three files: the chain with its leaf first, the key, and the bundle of the leaf's
    /// own trust domain. Certificate and key may be one file; so may all three.
    #[must_use]
    pub fn new(
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        bundle: impl Into<PathBuf>,
    ) -> Self {
        Self::without_bundle(cert.into(), key.into()).also(Holds::OwnBundle, bundle.into())
    }

    /// As [`FileSource::new`], with the bundles of all trust domains, our own among them, in one
    /// [SPIFFE bundle map](crate::bundle_map), as gRPC's `spiffe_trust_bundle_map_file` (gRFC A87).
    #[cfg(feature = "bundle-map")]
    #[cfg_attr(docsrs, doc(cfg(feature = "bundle-map")))]
    #[must_use]
    pub fn with_bundle_map(
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        map: impl Into<PathBuf>,
    ) -> Self {
        Self::without_bundle(cert.into(), key.into()).bundle_map(map)
    }

    /// As [`FileSource::new`] with `tls.crt`, `tls.key` and `ca.crt`, the names of cert-manager and Kubernetes.
    #[must_use]
    pub fn in_directory(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref();
        Self::new(directory.join("tls.crt"), directory.join("tls.key"), directory.join("ca.crt"))
    }

    /// Also trusts the roots in this file for another trust domain. A second bundle for one domain, our own included,
    /// is an error at every update: to remove a root from one of two files would change nothing.
    #[must_use]
    pub fn federated_bundle(self, domain: TrustDomain, file: impl Into<PathBuf>) -> Self {
        self.also(Holds::Bundle(domain), file.into())
    }

    /// Also trusts, each for its own trust domain, the roots in this [SPIFFE bundle map](crate::bundle_map). A trust
    /// domain in it that has a bundle in another file is an error.
    #[cfg(feature = "bundle-map")]
    #[cfg_attr(docsrs, doc(cfg(feature = "bundle-map")))]
    #[must_use]
    pub fn bundle_map(self, file: impl Into<PathBuf>) -> Self {
        self.also(Holds::Map, file.into())
    }

    /// Holds every peer against the revocation lists in this file. It must hold at least one.
    #[must_use]
    pub fn crls(self, file: impl Into<PathBuf>) -> Self {
        self.also(Holds::Lists, file.into())
    }

    /// How often the files are read. Default: 5 s.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.watched.set_poll_interval(interval);
        self
    }

    /// How far apart the two readings are that must agree. Default: 100 ms.
    #[must_use]
    pub fn settle(mut self, settle: Duration) -> Self {
        self.watched.set_settle(settle);
        self
    }

    fn without_bundle(cert: PathBuf, key: PathBuf) -> Self {
        let watched = Watched::new([cert.clone(), key.clone()]);
        let files = Arc::new(Files { cert, key, trust: Vec::new() });
        Self { files, watched, own: None }
    }

    fn also(mut self, holds: Holds, file: PathBuf) -> Self {
        self.watched.also(file.clone());
        let mut files = Files::clone(&self.files);
        files.trust.push((holds, file));
        self.files = Arc::new(files);
        self
    }
}

impl IdentitySource for FileSource {
    async fn next(&mut self) -> Result<SourceEvent, MaterialError> {
        #[cfg(unix)]
        let is_first = !self.watched.has_told();
        let contents = self.watched.changed().await?;
        #[cfg(unix)]
        if is_first {
            warn_of_an_open_key(&self.files.key);
        }
        let (own, material) = self.files.parse(contents, self.own.as_ref())?;
        self.own = Some(own);
        Ok(SourceEvent::Update(material))
    }
}

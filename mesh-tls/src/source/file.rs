//! An identity in three PEM files, read again when they change.
//!
//! # Why polling
//!
//! A file watcher sees the file that was there when it was placed. Kubernetes replaces a symbolic link two levels
//! above it, and some volumes send no event at all. To read a few kilobytes every few seconds is right on all of
//! them. Contents are compared, not dates: two writes within one tick of a file system's clock have one date.
//!
//! # How it decides
//!
//! 1. Resolve the three paths to real ones, read all three, resolve again. A swap of directories in between shows
//!    as a different result, and the reading starts over. So a pair never comes from two directories.
//! 2. New contents must be the same in two readings, 100 ms apart: a file that is being overwritten in place
//!    looks empty, or whole but short, for a moment.
//! 3. An unreadable or missing file is an error, and the last good identity stays. A bundle that can be read and
//!    is empty revokes: it is delivered as it is.
//!
//! Whether the key belongs to the certificate is checked by [`MeshTls`](crate::MeshTls) before it is used. A pair
//! written one after the other is refused until the second file is there too.
//!
//! What it does not see: a Kubernetes `subPath` mount never changes. Mount the whole directory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{task, time};
use zeroize::Zeroizing;

use super::{IdentitySource, SourceEvent};
use crate::{
    error::{MaterialError, MaterialErrorKind},
    id::TrustDomain,
    material::{Material, Origin, bundle, certificates, private_key},
    svid,
};

/// A rotation is announced hours ahead; a few seconds later is soon.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Between the two readings that must agree.
const SETTLE: Duration = Duration::from_millis(100);
/// How often one reading starts over when directories are swapped under it.
const ATTEMPTS: usize = 3;

/// Reads a certificate chain, its key and a trust bundle from files.
///
/// ```
/// use std::time::Duration;
/// use mesh_tls::FileSource;
///
/// let source = FileSource::new("/etc/mesh/tls.crt", "/etc/mesh/tls.key", "/etc/mesh/ca.crt")
///     .poll_interval(Duration::from_secs(1));
/// # let _ = source;
/// ```
#[derive(Debug)]
pub struct FileSource {
    files: Arc<Files>,
    poll_interval: Duration,
    settle: Duration,
    started: bool,
    /// The last contents delivered.
    delivered: Option<Contents>,
}

#[derive(Debug, Clone)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    federated: Vec<(TrustDomain, PathBuf)>,
}

/// The bytes of all files, in the order of [`Files::paths`]. Wiped when dropped: one of them is the key.
#[derive(PartialEq, Eq)]
struct Contents(Vec<Zeroizing<Vec<u8>>>);

// === impl FileSource ===

impl FileSource {
    /// A source that reads these three files: the chain with its leaf first, the key, and the bundle of the leaf's
    /// own trust domain. Certificate and key may be one file.
    #[must_use]
    pub fn new(
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        bundle: impl Into<PathBuf>,
    ) -> Self {
        let (cert, key, bundle) = (cert.into(), key.into(), bundle.into());
        Self {
            files: Arc::new(Files { cert, key, bundle, federated: Vec::new() }),
            poll_interval: POLL_INTERVAL,
            settle: SETTLE,
            started: false,
            delivered: None,
        }
    }

    /// As [`FileSource::new`] with `tls.crt`, `tls.key` and `ca.crt`, the names of cert-manager and Kubernetes.
    #[must_use]
    pub fn in_directory(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref();
        Self::new(directory.join("tls.crt"), directory.join("tls.key"), directory.join("ca.crt"))
    }

    /// Also trusts the roots in this file for another trust domain. A second file for one domain, our own included,
    /// is an error at every update: to remove a root from one of two files would change nothing.
    #[must_use]
    pub fn federated_bundle(mut self, domain: TrustDomain, file: impl Into<PathBuf>) -> Self {
        let mut files = Files::clone(&self.files);
        files.federated.push((domain, file.into()));
        self.files = Arc::new(files);
        self
    }

    /// How often the files are read. Default: 5 s.
    #[must_use]
    pub fn poll_interval(self, interval: Duration) -> Self {
        Self { poll_interval: interval, ..self }
    }

    /// How far apart the two readings are that must agree. Default: 100 ms.
    #[must_use]
    pub fn settle(self, settle: Duration) -> Self {
        Self { settle, ..self }
    }

    async fn read(&mut self) -> Result<Contents, MaterialError> {
        let files = Arc::clone(&self.files);
        let reading = task::spawn_blocking(move || files.read());
        let read =
            reading.await.unwrap_or_else(|panicked| Err(MaterialError::from_source(panicked)));
        if read.is_err() {
            // What can be read again is delivered again, so that the error is known to be over.
            self.delivered = None;
        }
        read
    }
}

impl IdentitySource for FileSource {
    async fn next(&mut self) -> Result<SourceEvent, MaterialError> {
        loop {
            if std::mem::replace(&mut self.started, true) {
                time::sleep(self.poll_interval).await;
            }
            let contents = self.read().await?;
            if self.delivered.as_ref() == Some(&contents) {
                continue;
            }
            time::sleep(self.settle).await;
            if self.read().await? != contents {
                // Somebody is still writing. The next poll looks again.
                continue;
            }
            let material = self.files.parse(&contents);
            // Contents that do not parse are remembered too: they are worth one error, not one at every poll.
            self.delivered = Some(contents);
            return material.map(SourceEvent::Update);
        }
    }
}

// === impl Files ===

impl Files {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let federated = self.federated.iter().map(|(_, path)| path);
        [&self.cert, &self.key, &self.bundle].into_iter().chain(federated)
    }

    fn read(&self) -> Result<Contents, MaterialError> {
        for _ in 0..ATTEMPTS {
            let before = self.resolve()?;
            let contents: Result<Vec<_>, _> = before.iter().map(|path| read(path)).collect();
            if self.resolve()? == before {
                return contents.map(Contents);
            }
        }
        Err(MaterialError::new(MaterialErrorKind::Unsettled).in_file(&self.cert))
    }

    fn resolve(&self) -> Result<Vec<PathBuf>, MaterialError> {
        let resolve = |path: &PathBuf| {
            fs::canonicalize(path).map_err(|e| MaterialError::unreadable(path.clone(), e))
        };
        self.paths().map(resolve).collect()
    }

    fn parse(&self, contents: &Contents) -> Result<Material, MaterialError> {
        let [cert, key, roots, federated @ ..] = contents.0.as_slice() else {
            return Err(MaterialError::new(MaterialErrorKind::Unsettled));
        };
        let chain = certificates(cert).map_err(|e| e.in_file(&self.cert))?;
        let key = private_key(key).map_err(|e| e.in_file(&self.key))?;
        let leaf = chain.first().map(svid::check_leaf);
        let own = match leaf {
            Some(Ok(own)) => own,
            Some(Err(why)) => {
                let kind = MaterialErrorKind::OwnCertificate(why);
                return Err(MaterialError::new(kind).in_file(&self.cert));
            }
            None => {
                let kind = MaterialErrorKind::NoCertificate;
                return Err(MaterialError::new(kind).in_file(&self.cert));
            }
        };
        let roots = bundle(roots).map_err(|e| e.in_file(&self.bundle))?;
        let mut material = Material::new(chain, key).with_bundle(own.id().trust_domain(), roots);
        for ((domain, path), pem) in self.federated.iter().zip(federated) {
            if material.bundles.contains_key(domain) {
                let kind = MaterialErrorKind::TwoBundles(domain.clone());
                return Err(MaterialError::new(kind).in_file(path));
            }
            let roots = bundle(pem).map_err(|e| e.in_file(path))?;
            material = material.with_bundle(domain.clone(), roots);
        }
        material.origin = Some(Origin {
            cert: self.cert.clone(),
            key: self.key.clone(),
            bundle: self.bundle.clone(),
        });
        Ok(material)
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, MaterialError> {
    fs::read(path).map(Zeroizing::new).map_err(|e| MaterialError::unreadable(path.into(), e))
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents(redacted)")
    }
}

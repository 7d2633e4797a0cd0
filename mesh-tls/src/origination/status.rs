//! What is in use now, to be shown.

use std::path::PathBuf;

use rustls_pki_types::UnixTime;

use super::{
    config::{Config, Roots},
    generation::{Generation, Own},
};
use crate::backend::names_of;

/// What an [`Origination`](super::Origination) has in use now. Nothing secret: names, numbers and dates.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// [`Config::with_name`], or its default.
    pub name: String,
    /// The number of the generation in use, from 1.
    pub generation: u64,
    /// Whose word is taken for who a server is.
    pub roots: RootsStatus,
    /// The revocation lists, where there is a [file](Config::with_crl) of them.
    pub crl: Option<CrlStatus>,
    /// Our own certificate, where one is [shown](Config::with_certificate).
    pub certificate: Option<CertificateStatus>,
    /// Why the last change was not taken; `None` when all is in use as it stands.
    pub last_error: Option<String>,
}

/// The roots in use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootsStatus {
    /// Where they are from: a file, given, or the system.
    pub from: Roots,
    /// How many there are.
    pub count: usize,
    /// How many of them have expired. They are believed all the same.
    pub expired: usize,
    /// The subject of the one that expires next.
    pub next_subject: Option<String>,
    /// When that is.
    pub next_not_after: Option<UnixTime>,
}

/// The revocation lists in use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrlStatus {
    /// The file.
    pub file: PathBuf,
    /// How many lists are in it.
    pub count: usize,
    /// When the first of them is out of date; `None` where none says.
    pub next_update: Option<UnixTime>,
}

/// Our own certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateStatus {
    /// The file.
    pub file: PathBuf,
    /// Its subject, as `CN=client.shop.example`; often empty.
    pub subject: String,
    /// Its DNS names, IP addresses and URIs, at most 16.
    pub names: Vec<String>,
    /// Its serial number, in hexadecimal with colons.
    pub serial: String,
    /// When it becomes valid.
    pub not_before: UnixTime,
    /// When it expires.
    pub not_after: UnixTime,
}

// === impl Status ===

impl Status {
    pub(super) fn of(
        config: &Config,
        current: &Generation,
        now: UnixTime,
        last_error: Option<String>,
    ) -> Self {
        let (anchors, revoked) = (current.verifier.anchors(), current.verifier.revoked());
        let ended = |end: UnixTime| end < now;
        let next = anchors.about().iter().filter(|root| !ended(root.dates.1));
        let next = next.min_by_key(|root| root.dates.1);
        let roots = RootsStatus {
            from: config.roots.clone(),
            count: anchors.len(),
            expired: anchors.about().iter().filter(|root| ended(root.dates.1)).count(),
            next_subject: next.map(|root| root.subject.clone()),
            next_not_after: next.map(|root| root.dates.1),
        };
        let crl = config.crl().map(|file| CrlStatus {
            file: file.into(),
            count: revoked.len(),
            next_update: revoked.dates().map(|(_, next)| next),
        });
        let own = config.certificate().zip(current.own.as_ref());
        let certificate = own.and_then(|((file, _), own)| CertificateStatus::of(file.into(), own));
        Self {
            name: config.name(),
            generation: current.number,
            roots,
            crl,
            certificate,
            last_error,
        }
    }
}

impl CertificateStatus {
    fn of(file: PathBuf, own: &Own) -> Option<Self> {
        let about = own.about.as_ref()?;
        Some(Self {
            file,
            subject: about.subject.clone(),
            names: own.key.leaf().map(names_of).unwrap_or_default(),
            serial: about.serial.clone(),
            not_before: about.dates.0,
            not_after: about.dates.1,
        })
    }
}

//! What a certificate or a revocation list says of itself, read to be shown and told of; nothing is decided by it.
//!
//! Not the reader of SVIDs, which takes only what decodes to the last extension: a root of the year 1998 is shown too.

use std::net::IpAddr;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer, GeneralName, X509Certificate};

use crate::svid::{serial, unix, validity};

/// No honest certificate has more that are worth reading.
const MAX_NAMES: usize = 16;
const MAX_NAME: usize = 253;

/// A certificate in words. They are its issuer's, so they are escaped and cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) subject: String,
    pub(crate) serial: String,
    /// The first and the last moment at which it is valid.
    pub(crate) dates: (UnixTime, UnixTime),
}

// === impl About ===

impl About {
    pub(crate) fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let subject = shown(&cert.subject().to_string());
        Some(Self { subject, serial: serial(&cert), dates: validity(&cert) })
    }
}

/// The DNS names, IP addresses and URIs in a certificate, at most 16.
pub(crate) fn names_of(der: &CertificateDer<'_>) -> Vec<String> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds are nobody's name here")]
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) => Some(shown(text)),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    with_names(der, |names| names.iter().filter_map(name).take(MAX_NAMES).collect())
        .unwrap_or_default()
}

pub(crate) fn has_uri(der: &CertificateDer<'_>, wanted: &str) -> bool {
    with_names(der, |names| {
        names.iter().any(|name| matches!(name, GeneralName::URI(uri) if *uri == wanted))
    })
    .unwrap_or(false)
}

/// From when to when a list speaks; `None` where it does not say until when.
pub(crate) fn list_dates(der: &CertificateRevocationListDer<'_>) -> Option<(UnixTime, UnixTime)> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    let next = list.next_update()?;
    Some((unix(list.last_update().timestamp()), unix(next.timestamp())))
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_NAME).flat_map(char::escape_debug).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(ip.to_string())
}

fn with_names<T>(
    der: &CertificateDer<'_>,
    read: impl FnOnce(&[GeneralName<'_>]) -> T,
) -> Option<T> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let names = cert.subject_alternative_name().ok()??;
    Some(read(&names.value.general_names))
}

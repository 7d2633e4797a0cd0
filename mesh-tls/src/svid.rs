//! What makes a certificate an X.509-SVID, beyond a chain that leads to a root.
//!
//! webpki builds the path and checks dates, signatures and purposes, but it does not look at key usage at all, and
//! a name check by DNS is the wrong one. These are the rules left to us, each with its clause of X509-SVID:
//!
//! | rule | clause |
//! | --- | --- |
//! | exactly one URI in the subject alternative name; other kinds may stand beside it | 2 |
//! | that URI is a SPIFFE ID with a path | 2, 5.2 |
//! | no certificate authority: cA is false or absent | 4.1, 5.2 |
//! | key usage, where present: digital signature, and neither certificate nor CRL signing | 4.3, 5.2 |
//! | an issuer is a certificate authority and, where it has a key usage, may sign certificates | 3.2 |
//!
//! A certificate without the key usage or basic constraints extension is accepted, as go-spiffe and Envoy do; a
//! present one that does not decode is refused.

use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use x509_parser::prelude::{
    FromDer, GeneralName, KeyUsage, ParsedExtension, X509Certificate, X509Version,
};

use crate::{error::Untrusted, id::SpiffeId, info::PeerIdentity};

/// Reads the identity out of an end-entity certificate and holds it against the rules of the [module](self).
///
/// It does not build the chain: the caller must.
pub(crate) fn check_leaf(der: &CertificateDer<'_>) -> Result<PeerIdentity, Untrusted> {
    let cert = parse(der)?;
    let id = spiffe_id(&cert)?;
    if id.path().is_empty() {
        return Err(Untrusted::NotAnSvid("its SPIFFE ID has no path"));
    }
    if is_ca(&cert)? {
        return Err(Untrusted::NotAnSvid("it is a certificate authority"));
    }
    if let Some(usage) = key_usage(&cert)? {
        if usage.key_cert_sign() || usage.crl_sign() {
            return Err(Untrusted::NotAnSvid("it may sign certificates or revocation lists"));
        }
        if !usage.digital_signature() {
            return Err(Untrusted::NotAnSvid("its key usage lacks digitalSignature"));
        }
    }
    let (not_before, not_after) = validity(&cert);
    Ok(PeerIdentity::new(id, cert.raw_serial_as_string(), not_before, not_after))
}

/// The rules for a certificate that signs others: an intermediate, or a root in a bundle.
pub(crate) fn check_issuer(der: &CertificateDer<'_>) -> Result<(), Untrusted> {
    let cert = parse(der)?;
    if !is_ca(&cert)? {
        return Err(Untrusted::BadIssuer("it is not a certificate authority"));
    }
    if key_usage(&cert)?.is_some_and(|usage| !usage.key_cert_sign()) {
        return Err(Untrusted::BadIssuer("its key usage lacks keyCertSign"));
    }
    Ok(())
}

/// Whether the certificate constrains URI names. No SVID could ever be valid under it: webpki refuses what it
/// cannot check.
pub(crate) fn constrains_uris(der: &CertificateDer<'_>) -> bool {
    let Ok(cert) = parse(der) else { return false };
    let Ok(Some(constraints)) = cert.name_constraints() else { return false };
    let lists = [&constraints.value.permitted_subtrees, &constraints.value.excluded_subtrees];
    lists.into_iter().flatten().flatten().any(|tree| matches!(tree.base, GeneralName::URI(_)))
}

/// How many intermediates may stand below this issuer; `None` is any number.
pub(crate) fn path_length(der: &CertificateDer<'_>) -> Option<u32> {
    let cert = parse(der).ok()?;
    cert.basic_constraints().ok()??.value.path_len_constraint
}

/// The last moment at which the certificate is valid; `None` when it does not parse.
pub(crate) fn not_after(der: &CertificateDer<'_>) -> Option<UnixTime> {
    parse(der).ok().map(|cert| validity(&cert).1)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Untrusted> {
    const BAD: Untrusted = Untrusted::NotAnSvid("it does not decode");
    let (rest, cert) = X509Certificate::from_der(der).map_err(|_| BAD)?;
    let decodes = cert.extensions().iter().all(|extension| {
        !matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. })
    });
    // A second extension of the same kind would let two readers see two certificates.
    let unique = cert.extensions_map().is_ok();
    if rest.is_empty() && decodes && unique && cert.version() == X509Version::V3 {
        Ok(cert)
    } else {
        Err(BAD)
    }
}

fn spiffe_id(cert: &X509Certificate<'_>) -> Result<SpiffeId, Untrusted> {
    const NONE: Untrusted = Untrusted::NotAnSvid("it has no URI in its subject alternative name");
    let names = cert.subject_alternative_name().map_err(|_| NONE)?.ok_or(NONE)?;
    let mut uri = None;
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(text) if uri.is_none() => uri = Some(*text),
            GeneralName::URI(_) => return Err(Untrusted::NotAnSvid("it has more than one URI")),
            GeneralName::Invalid(..) => {
                return Err(Untrusted::NotAnSvid("an alternative name does not decode"));
            }
            // A SPIFFE string in another kind of name is no identity; it is not even looked at.
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::DNSName(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => {}
        }
    }
    uri.ok_or(NONE)?.parse().map_err(|_| Untrusted::NotAnSvid("its URI is not a SPIFFE ID"))
}

fn is_ca(cert: &X509Certificate<'_>) -> Result<bool, Untrusted> {
    let constraints = cert.basic_constraints();
    let constraints =
        constraints.map_err(|_| Untrusted::NotAnSvid("its basic constraints do not decode"))?;
    Ok(constraints.is_some_and(|extension| extension.value.ca))
}

fn key_usage<'a>(cert: &'a X509Certificate<'_>) -> Result<Option<&'a KeyUsage>, Untrusted> {
    let usage = cert.key_usage();
    let usage = usage.map_err(|_| Untrusted::NotAnSvid("its key usage does not decode"))?;
    Ok(usage.map(|extension| extension.value))
}

fn validity(cert: &X509Certificate<'_>) -> (UnixTime, UnixTime) {
    let unix = |secs: i64| {
        let secs = u64::try_from(secs).unwrap_or_default();
        UnixTime::since_unix_epoch(Duration::from_secs(secs))
    };
    let validity = cert.validity();
    (unix(validity.not_before.timestamp()), unix(validity.not_after.timestamp()))
}

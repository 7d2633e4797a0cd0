//! What makes a certificate an X.509-SVID, beyond a chain that leads to a root.
//!
//! webpki builds the path and checks dates, signatures and purposes, but it does not look at the key usage of a
//! chain, and a name check by DNS is the wrong one. These are the rules left to us, each with its clause of X509-SVID:
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
//! present one that does not decode is refused. One that is not critical is accepted too: 4.3 binds the
//! issuer, and to refuse its certificates would protect nobody. Who knows his issuers may ask for the key usage
//! (`MeshTlsBuilder::require_key_usage`). Absent basic constraints mean "no authority" (RFC 5280, 4.2.1.9), and nothing is
//! gained by asking for them.
//!
//! A peer of another mesh (Linkerd) has a DNS name and no URI. It is looked at only where the policy names it, and the
//! same rules hold for it, but those of the URI. A name may be listed under several trust domains, and the certificate does
//! not say which: each whose bundle could vouch for it is tried.
//!
//! It runs in every handshake, so a certificate is parsed once, and what is read is what the peer is known by ever after.

use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use x509_parser::prelude::{
    FromDer, GeneralName, KeyUsage, ParsedExtension, X509Certificate, X509Version,
};

use crate::{
    error::{IssuerRule, SvidRule, Untrusted},
    id::SpiffeId,
    info::PeerIdentity,
    policy::PeerPolicy,
};

/// Reads the identity out of an end-entity certificate and holds it against the rules of the [module](self).
///
/// It does not build the chain: the caller must.
pub(crate) fn check_leaf(der: &CertificateDer<'_>) -> Result<PeerIdentity, Untrusted> {
    let cert = parse(der).ok_or(Untrusted::NotAnSvid(SvidRule::Decodes))?;
    spiffe_id(&cert).and_then(|id| svid(&cert, id, false)).map_err(Untrusted::NotAnSvid)
}

/// Who the certificate says its holder is, by the rules of [`check_leaf`]. One without a URI is taken for each trust
/// domain's peer of that DNS name, where the policy asks for it; the caller finds out which, if any, vouches for it.
pub(crate) fn check_peer(
    der: &CertificateDer<'_>,
    policy: &PeerPolicy,
    usage_required: bool,
) -> Result<Claims, Untrusted> {
    let claims = || {
        let cert = parse(der).ok_or(SvidRule::Decodes)?;
        match spiffe_id(&cert) {
            Ok(id) => svid(&cert, id, usage_required)
                .map(|peer| Claims { first: peer, others: Vec::new() }),
            Err(SvidRule::HasUri) => named(&cert, policy, usage_required),
            Err(rule) => Err(rule),
        }
    };
    claims().map_err(Untrusted::NotAnSvid)
}

/// Who a certificate may be for. More than one only where a policy lists its DNS name under several trust domains.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) first: PeerIdentity,
    pub(crate) others: Vec<PeerIdentity>,
}

fn svid(
    cert: &X509Certificate<'_>,
    id: SpiffeId,
    usage_required: bool,
) -> Result<PeerIdentity, SvidRule> {
    if id.path().is_empty() {
        return Err(SvidRule::IdHasPath);
    }
    authenticates(cert, usage_required)?;
    let (not_before, not_after) = validity(cert);
    Ok(PeerIdentity::new(id, serial(cert), not_before, not_after))
}

/// The DNS names that stand in the certificate and that the policy asks for. A wildcard is no identity.
fn named(
    cert: &X509Certificate<'_>,
    policy: &PeerPolicy,
    usage_required: bool,
) -> Result<Claims, SvidRule> {
    let mut wanted = policy.dns_names().filter(|(_, name)| has_dns_name(cert, name)).peekable();
    if wanted.peek().is_none() {
        return Err(SvidRule::HasUri);
    }
    authenticates(cert, usage_required)?;
    let (not_before, not_after) = validity(cert);
    let serial = serial(cert);
    let mut claims = wanted.map(|(domain, name)| {
        PeerIdentity::with_dns_name(domain, name, serial.clone(), not_before, not_after)
    });
    let first = claims.next().ok_or(SvidRule::HasUri)?;
    // A path is built for each, so the same one is not tried twice.
    let mut others: Vec<PeerIdentity> = Vec::new();
    for other in claims {
        if other.id() != first.id() && others.iter().all(|one| one.id() != other.id()) {
            others.push(other);
        }
    }
    Ok(Claims { first, others })
}

/// The rules for a certificate that proves who somebody is, whatever its name. `usage_required`: a key usage must be there.
fn authenticates(cert: &X509Certificate<'_>, usage_required: bool) -> Result<(), SvidRule> {
    if is_ca(cert) {
        return Err(SvidRule::NoAuthority);
    }
    let Some(usage) = key_usage(cert) else {
        return if usage_required { Err(SvidRule::HasKeyUsage) } else { Ok(()) };
    };
    if usage.key_cert_sign() {
        return Err(SvidRule::NoCertSign);
    }
    if usage.crl_sign() {
        return Err(SvidRule::NoCrlSign);
    }
    if !usage.digital_signature() {
        return Err(SvidRule::DigitalSignature);
    }
    Ok(())
}

/// The rules for a certificate that signs others: an intermediate, or a root in a bundle.
pub(crate) fn check_issuer(der: &CertificateDer<'_>) -> Result<(), IssuerRule> {
    let cert = parse(der).ok_or(IssuerRule::Decodes)?;
    if !is_ca(&cert) {
        return Err(IssuerRule::IsAuthority);
    }
    if key_usage(&cert).is_some_and(|usage| !usage.key_cert_sign()) {
        return Err(IssuerRule::CertSign);
    }
    Ok(())
}

/// Whether the key usage of an issuer, where it has one, lets it sign revocation lists.
pub(crate) fn may_sign_lists(der: &CertificateDer<'_>) -> bool {
    let Some(cert) = parse(der) else { return false };
    key_usage(&cert).is_none_or(KeyUsage::crl_sign)
}

/// The SPIFFE ID of a certificate that signs others, where it has one and the ID has a path. It must not (3.2), but no
/// verifier refuses it, so the loader warns.
pub(crate) fn issuer_with_path(der: &CertificateDer<'_>) -> Option<SpiffeId> {
    let id = spiffe_id(&parse(der)?).ok()?;
    (!id.path().is_empty()).then_some(id)
}

/// Whether the certificate constrains URI names. No SVID could ever be valid under it: webpki refuses what it
/// cannot check.
pub(crate) fn constrains_uris(der: &CertificateDer<'_>) -> bool {
    let Some(cert) = parse(der) else { return false };
    let Ok(Some(constraints)) = cert.name_constraints() else { return false };
    let lists = [&constraints.value.permitted_subtrees, &constraints.value.excluded_subtrees];
    lists.into_iter().flatten().flatten().any(|tree| matches!(tree.base, GeneralName::URI(_)))
}

/// The algorithm of the certificate's key, as an object identifier.
#[cfg(feature = "bundle-map")]
pub(crate) fn key_algorithm(der: &CertificateDer<'_>) -> Option<String> {
    parse(der).map(|cert| cert.public_key().algorithm.algorithm.to_id_string())
}

/// How many intermediates may stand below this issuer; `None` is any number.
pub(crate) fn path_length(der: &CertificateDer<'_>) -> Option<u32> {
    let cert = parse(der)?;
    cert.basic_constraints().ok()??.value.path_len_constraint
}

/// The last moment at which the certificate is valid; `None` when it does not parse.
pub(crate) fn not_after(der: &CertificateDer<'_>) -> Option<UnixTime> {
    parse(der).map(|cert| validity(&cert).1)
}

/// The whole certificate, if all of it decodes. The readers below lean on that: what does not decode is not there.
fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, cert) = X509Certificate::from_der(der).ok()?;
    let decodes = cert.extensions().iter().all(|extension| {
        !matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. })
    });
    // A second extension of the same kind would let two readers see two certificates.
    let mut kinds: Vec<_> = cert.extensions().iter().map(|one| one.oid.as_bytes()).collect();
    kinds.sort_unstable();
    let unique = kinds.windows(2).all(|pair| pair.first() != pair.last());
    (rest.is_empty() && decodes && unique && cert.version() == X509Version::V3).then_some(cert)
}

fn spiffe_id(cert: &X509Certificate<'_>) -> Result<SpiffeId, SvidRule> {
    let names = cert.subject_alternative_name().ok().flatten().ok_or(SvidRule::HasUri)?;
    let mut uri = None;
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(text) if uri.is_none() => uri = Some(*text),
            GeneralName::URI(_) => return Err(SvidRule::OneUri),
            GeneralName::Invalid(..) => return Err(SvidRule::Decodes),
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
    uri.ok_or(SvidRule::HasUri)?.parse().map_err(|_| SvidRule::UriIsSpiffeId)
}

fn has_dns_name(cert: &X509Certificate<'_>, wanted: &str) -> bool {
    let Ok(Some(names)) = cert.subject_alternative_name() else { return false };
    names
        .value
        .general_names
        .iter()
        .any(|name| matches!(name, GeneralName::DNSName(name) if name.eq_ignore_ascii_case(wanted)))
}

fn is_ca(cert: &X509Certificate<'_>) -> bool {
    cert.basic_constraints().ok().flatten().is_some_and(|extension| extension.value.ca)
}

fn key_usage<'a>(cert: &'a X509Certificate<'_>) -> Option<&'a KeyUsage> {
    cert.key_usage().ok().flatten().map(|extension| extension.value)
}

/// In hexadecimal with colons. Written by hand, because x509-parser's own way costs a tenth of all the rest.
pub(crate) fn serial(cert: &X509Certificate<'_>) -> String {
    let bytes = cert.raw_serial();
    let mut text = String::with_capacity(3 * bytes.len());
    for byte in bytes {
        if !text.is_empty() {
            text.push(':');
        }
        let digits = [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
        text.extend(digits.into_iter().flatten());
    }
    text
}

pub(crate) fn validity(cert: &X509Certificate<'_>) -> (UnixTime, UnixTime) {
    let validity = cert.validity();
    (unix(validity.not_before.timestamp()), unix(validity.not_after.timestamp()))
}

/// What is before 1970 is 1970.
pub(crate) fn unix(secs: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(secs).unwrap_or_default()))
}

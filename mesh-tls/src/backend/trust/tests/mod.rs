//! Each rule for an X.509-SVID and its chain, against a certificate that breaks just that rule.
//!
//! The names are those of the conditions in `X509-SVID.md` and of go-spiffe's test data.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose as Eku,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose as Ku, NameConstraints, SanType,
};
use rustls_pki_types::UnixTime;

use super::*;
use crate::{backend::default_provider, error::SvidRule as Rule};

mod crl;
mod dns;
mod limbo;
mod strange;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn day(year: i32) -> UnixTime {
    let date = rcgen::date_time_ymd(year, 1, 1).unix_timestamp();
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(date).unwrap()))
}

fn now() -> UnixTime {
    day(2030)
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2029, 1, 1);
    params.not_after = rcgen::date_time_ymd(2031, 1, 1);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn leaf() -> CertificateParams {
    let mut params = params("leaf");
    params.subject_alt_names = vec![uri("spiffe://td/workload")];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Ku::DigitalSignature];
    params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Ku::KeyCertSign];
    params
}

fn root(params: CertificateParams) -> Issuer {
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn below(params: CertificateParams, issuer: &Issuer) -> Issuer {
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
}

fn issue(params: &CertificateParams, issuer: &Issuer) -> CertificateDer<'static> {
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

/// A constraint on DNS names.
fn permitting(name: &str) -> NameConstraints {
    let permitted_subtrees = vec![GeneralSubtree::DnsName(name.into())];
    NameConstraints { permitted_subtrees, excluded_subtrees: vec![] }
}

fn trusting(bundles: &[(&str, &[&Issuer])]) -> Result<TrustStore, MaterialError> {
    let bundle = |(domain, roots): &(&str, &[&Issuer])| {
        let roots = roots.iter().map(|root| root.der().clone()).collect();
        (domain.parse().unwrap(), roots)
    };
    let bundles = bundles.iter().map(bundle).collect();
    TrustStore::new(&Trust { bundles, crls: Vec::new() }, Revocation::default())
}

fn verify_chain(
    store: &TrustStore,
    leaf: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    role: Role,
) -> Result<PeerIdentity, Untrusted> {
    let algorithms = default_provider().unwrap().signature_verification_algorithms;
    store.verify(leaf, chain, now(), role, algorithms)
}

/// A leaf changed by `change`, straight below a trusted root, as a client.
fn check(change: impl FnOnce(&mut CertificateParams)) -> Result<PeerIdentity, Untrusted> {
    let root = root(authority("root"));
    let mut params = leaf();
    change(&mut params);
    let store = trusting(&[("td", &[&root])]).unwrap();
    verify_chain(&store, &issue(&params, &root), &[], Role::Client)
}

fn not_an_svid(result: Result<PeerIdentity, Untrusted>, rule: Rule) {
    assert_eq!(result.err(), Some(Untrusted::NotAnSvid(rule)));
}

#[test]
fn the_serial_number_is_written_as_openssl_writes_it() {
    let with = |serial: &[u8]| {
        let peer = check(|leaf| leaf.serial_number = Some(serial.to_vec().into())).unwrap();
        peer.serial().to_owned()
    };
    assert_eq!(with(&[0x0a, 0x00, 0xf9]), "0a:00:f9");
    assert_eq!(with(&[0x7f]), "7f");
    assert_eq!(with(&[0x80, 0x01]), "00:80:01", "the sign is kept");
}

#[test]
fn a_key_usage_is_asked_for_only_where_that_is_wanted() {
    let root = root(authority("root"));
    let strict = trusting(&[("td", &[&root])]).unwrap().requiring_key_usage(true);
    let lax = trusting(&[("td", &[&root])]).unwrap().requiring_key_usage(false);
    let mut without = leaf();
    without.key_usages.clear();
    let mut by_name = without.clone();
    by_name.subject_alt_names = vec![dns("web.test")];
    let policy = PeerPolicy::dns_name("td".parse().unwrap(), "web.test").unwrap();
    let algorithms = default_provider().unwrap().signature_verification_algorithms;
    for role in [Role::Server, Role::Client] {
        let verify = |store: &TrustStore, params: &CertificateParams| {
            store.verify_peer(&issue(params, &root), &[], now(), role, algorithms, &policy)
        };
        for bare in [&without, &by_name] {
            assert!(verify(&lax, bare).is_ok());
            not_an_svid(verify(&strict, bare), Rule::HasKeyUsage);
        }
        assert!(verify(&strict, &leaf()).is_ok());
    }
}

#[test]
fn leaf_ok() {
    assert_eq!(check(|_| {}).unwrap().id().as_str(), "spiffe://td/workload");
    let other_names = check(|leaf| {
        leaf.subject_alt_names.push(dns("workload.test"));
        leaf.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    });
    assert!(other_names.is_ok(), "other kinds of names may stand beside the URI: {other_names:?}");
    assert!(check(|leaf| leaf.extended_key_usages.clear()).is_ok(), "no extended key usage");
    assert!(check(|leaf| leaf.key_usages.clear()).is_ok(), "no key usage");
    assert!(check(|leaf| leaf.is_ca = IsCa::NoCa).is_ok(), "no basic constraints");
    assert!(check(|leaf| leaf.key_usages.push(Ku::KeyAgreement)).is_ok());
    assert!(check(|leaf| leaf.distinguished_name = rcgen::DistinguishedName::new()).is_ok());
}

#[test]
fn leaf_uri() {
    let with = |names: Vec<SanType>| check(|leaf| leaf.subject_alt_names = names);
    not_an_svid(with(vec![]), Rule::HasUri);
    not_an_svid(with(vec![dns("workload.test")]), Rule::HasUri);
    let good = || uri("spiffe://td/workload");
    not_an_svid(with(vec![good(), good()]), Rule::OneUri);
    not_an_svid(with(vec![good(), uri("https://example.test/")]), Rule::OneUri);
    not_an_svid(with(vec![uri("https://td/workload")]), Rule::UriIsSpiffeId);
    not_an_svid(with(vec![uri("spiffe://TD/workload")]), Rule::UriIsSpiffeId);
    not_an_svid(with(vec![uri("spiffe://td/work%20load")]), Rule::UriIsSpiffeId);
    not_an_svid(with(vec![uri(&format!("spiffe://td/{}", "a".repeat(2048)))]), Rule::UriIsSpiffeId);
    not_an_svid(with(vec![uri("spiffe://td")]), Rule::IdHasPath);
    let email = SanType::Rfc822Name("spiffe://td/workload".try_into().unwrap());
    not_an_svid(with(vec![email, dns("spiffe.td.workload")]), Rule::HasUri);
    let in_the_name = check(|leaf| {
        leaf.subject_alt_names.clear();
        leaf.distinguished_name.push(DnType::CommonName, "spiffe://td/workload");
    });
    not_an_svid(in_the_name, Rule::HasUri);
}

#[test]
fn leaf_is_no_authority() {
    let ca = check(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    not_an_svid(ca, Rule::NoAuthority);
    not_an_svid(check(|leaf| leaf.key_usages.push(Ku::KeyCertSign)), Rule::NoCertSign);
    not_an_svid(check(|leaf| leaf.key_usages.push(Ku::CrlSign)), Rule::NoCrlSign);
    not_an_svid(check(|leaf| leaf.key_usages = vec![Ku::KeyAgreement]), Rule::DigitalSignature);
    // The root itself, presented as a leaf.
    let mut params = authority("root");
    params.subject_alt_names = vec![uri("spiffe://td/workload")];
    let root = root(params);
    let store = trusting(&[("td", &[&root])]).unwrap();
    not_an_svid(verify_chain(&store, root.der(), &[], Role::Server), Rule::NoAuthority);
}

#[test]
fn leaf_malformed_extension() {
    // basicConstraints (2.5.29.19) that is no sequence.
    let bad = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x04, 0x01, 0x00]);
    let result = check(|leaf| {
        leaf.is_ca = IsCa::NoCa;
        leaf.custom_extensions.push(bad);
    });
    not_an_svid(result, Rule::Decodes);
    // Two of one kind.
    let again = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0x00]);
    not_an_svid(check(|leaf| leaf.custom_extensions.push(again)), Rule::Decodes);
}

#[test]
fn leaf_purpose() {
    let root = root(authority("root"));
    let store = trusting(&[("td", &[&root])]).unwrap();
    for (usage, role, ok) in [
        (Eku::ClientAuth, Role::Client, true),
        (Eku::ClientAuth, Role::Server, false),
        (Eku::ServerAuth, Role::Client, false),
        (Eku::Any, Role::Client, false),
        (Eku::EmailProtection, Role::Client, false),
    ] {
        let mut params = leaf();
        params.extended_key_usages = vec![usage.clone()];
        let result = verify_chain(&store, &issue(&params, &root), &[], role);
        let expected = if ok { None } else { Some(Untrusted::WrongPurpose) };
        assert_eq!(result.err(), expected, "{usage:?} as {role:?}");
    }
}

#[test]
fn leaf_dates() {
    let expired = check(|leaf| leaf.not_after = rcgen::date_time_ymd(2029, 6, 1));
    assert_eq!(expired.unwrap_err(), Untrusted::Expired);
    let future = check(|leaf| leaf.not_before = rcgen::date_time_ymd(2030, 6, 1));
    assert_eq!(future.unwrap_err(), Untrusted::NotYetValid);
}

#[test]
fn leaf_self_signed() {
    let root = root(authority("root"));
    let store = trusting(&[("td", &[&root])]).unwrap();
    let own = CertifiedIssuer::self_signed(leaf(), KeyPair::generate().unwrap()).unwrap();
    let result = verify_chain(&store, own.der(), &[], Role::Client);
    assert_eq!(result.unwrap_err(), Untrusted::UnknownIssuer);
    // ... and it cannot be made a root by listing it.
    let error = trusting(&[("td", &[&root, &own])]).unwrap_err();
    assert!(error.to_string().contains("certificate 2"), "{error}");
}

#[test]
fn the_bundle_is_the_one_of_the_leafs_own_trust_domain() {
    let (ours, theirs) = (root(authority("ours")), root(authority("theirs")));
    let store = trusting(&[("td", &[&ours]), ("other", &[&theirs])]).unwrap();
    let forged = issue(&leaf(), &theirs);
    let refused = verify_chain(&store, &forged, &[], Role::Client);
    assert_eq!(refused.unwrap_err(), Untrusted::UnknownIssuer);
    // The broken twin: all roots in one bundle let their authority speak for us.
    let merged = trusting(&[("td", &[&ours, &theirs])]).unwrap();
    assert!(verify_chain(&merged, &forged, &[], Role::Client).is_ok(), "the twin must be fooled");

    let mut params = leaf();
    params.subject_alt_names = vec![uri("spiffe://other/workload")];
    assert!(verify_chain(&store, &issue(&params, &theirs), &[], Role::Client).is_ok());
    params.subject_alt_names = vec![uri("spiffe://unknown/workload")];
    let unknown = verify_chain(&store, &issue(&params, &ours), &[], Role::Client);
    assert_eq!(unknown.unwrap_err(), Untrusted::UnknownTrustDomain("unknown".parse().unwrap()));
    let empty = trusting(&[("td", &[])]).unwrap();
    let revoked = verify_chain(&empty, &issue(&leaf(), &ours), &[], Role::Client);
    assert_eq!(revoked.unwrap_err(), Untrusted::UnknownIssuer);
}

/// A leaf below an intermediate below a trusted root.
fn through(
    change_root: impl FnOnce(&mut CertificateParams),
    change: impl FnOnce(&mut CertificateParams),
) -> Result<PeerIdentity, Untrusted> {
    let (mut top, mut middle) = (authority("root"), authority("intermediate"));
    change_root(&mut top);
    change(&mut middle);
    let top = root(top);
    let middle = below(middle, &top);
    let store = trusting(&[("td", &[&top])]).unwrap();
    verify_chain(&store, &issue(&leaf(), &middle), &[middle.der().clone()], Role::Client)
}

#[test]
fn chain_through_an_intermediate() {
    assert!(through(|_| {}, |_| {}).is_ok());
    let unlisted = through(|_| {}, |ca| ca.key_usages = vec![Ku::DigitalSignature]);
    assert_eq!(unlisted.unwrap_err(), Untrusted::BadIssuer(IssuerRule::CertSign));
    let no_ca = through(|_| {}, |ca| ca.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(no_ca.unwrap_err(), Untrusted::BadIssuer(IssuerRule::IsAuthority));
    let email = through(|_| {}, |ca| ca.extended_key_usages = vec![Eku::EmailProtection]);
    assert_eq!(email.unwrap_err(), Untrusted::WrongPurpose);
    let short = through(|ca| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)), |_| {});
    assert_eq!(short.unwrap_err(), Untrusted::BadIssuer(IssuerRule::PathLength));
    let elsewhere = through(|_| {}, |ca| ca.name_constraints = Some(permitting("other.test")));
    assert!(elsewhere.is_ok(), "a constraint on DNS names says nothing of a URI: {elsewhere:?}");
}

#[test]
fn chain_missing_shuffled_and_too_long() {
    let top = root(authority("root"));
    let upper = below(authority("upper"), &top);
    let lower = below(authority("lower"), &upper);
    let stranger = root(authority("stranger"));
    let leaf = issue(&leaf(), &lower);
    let store = trusting(&[("td", &[&top])]).unwrap();
    let ders = |certs: &[&Issuer]| certs.iter().map(|cert| cert.der().clone()).collect::<Vec<_>>();
    let verify = |chain: &[CertificateDer<'_>]| verify_chain(&store, &leaf, chain, Role::Client);
    assert!(verify(&ders(&[&lower, &upper])).is_ok());
    assert!(verify(&ders(&[&upper, &stranger, &lower])).is_ok(), "any order, with a stranger");
    assert_eq!(verify(&ders(&[&lower])).unwrap_err(), Untrusted::UnknownIssuer);
    let mut long = ders(&[&lower, &upper]);
    long.resize(16, stranger.der().clone());
    assert_eq!(verify(&long).unwrap_err(), Untrusted::ChainTooLong);
    long.truncate(15);
    assert!(verify(&long).is_ok(), "sixteen in all are let through");
}

#[test]
fn roots_are_checked_when_they_are_loaded() {
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = authority("root");
        change(&mut params);
        let root = root(params);
        trusting(&[("td", &[&root])]).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert!(with(|ca| ca.is_ca = IsCa::NoCa).unwrap_err().contains("not a certificate authority"));
    let wrong_usage = with(|ca| ca.key_usages = vec![Ku::DigitalSignature]);
    assert!(wrong_usage.unwrap_err().contains("keyCertSign"));
    let dns_only = with(|ca| ca.name_constraints = Some(permitting("td.test")));
    assert_eq!(dns_only, Ok(()), "constraints on other kinds of names do no harm");
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    let root = root(authority("root"));
    let store = trusting(&[("td", &[&root])]).unwrap();
    let good = issue(&leaf(), &root);
    assert!(verify_chain(&store, &good, &[], Role::Client).is_ok());
    for cut in [0, 1, 7, good.len() / 2, good.len() - 1] {
        let short = CertificateDer::from(good[..cut].to_vec());
        assert!(verify_chain(&store, &short, &[], Role::Client).is_err(), "cut at {cut}");
    }
    // Any changed bit is refused: it is in the signed part, or in the signature.
    for at in (0..good.len()).step_by(3) {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x04;
        let changed = CertificateDer::from(bytes);
        assert!(verify_chain(&store, &changed, &[], Role::Client).is_err(), "changed at {at}");
    }
}

//! x509-limbo: chains of every kind, against webpki alone and against this verifier.
//!
//! The data are third-party and read in place: the file that `MESH_LIMBO` names, or else the x509-limbo data beside the
//! checkout. Where there are none, this says so and passes.
//!
//! Their peers have DNS names, so the policy asks for those. No chain is let in that webpki alone refuses; and wherever
//! this verifier and the suite disagree, the case is on a reviewed list.

use std::path::PathBuf;

use rustls_pki_types::{CertificateRevocationListDer, ServerName, pem::PemObject};
use serde_json::Value;
use webpki::{CertRevocationList, OwnedCertRevocationList, RevocationOptionsBuilder};

use super::*;

/// Cases without a time of their own are of this one.
const TODAY: &str = "2026-03-01T00:00:00";

/// What the suite refuses and is let in here, by how its name begins, with the reason.
const LET_IN: &[(&str, &str)] = &[
    ("crl::crlnumber-", FORM),
    ("rfc5280::aki::", FORM),
    ("rfc5280::ski::", FORM),
    ("rfc5280::serial::", FORM),
    ("rfc5280::san::noncritical-with-empty-subject", FORM),
    ("rfc5280::ca-empty-subject", FORM),
    ("rfc5280::nc::permitted-dns-match-noncritical", "a constraint is held to, critical or not"),
    (
        "rfc5280::nc::invalid-dnsname-leading-period",
        "a constraint of `.name` is read as one of `name`",
    ),
    ("rfc5280::nc::not-allowed-in-ee-", "a leaf issues nothing that it could constrain"),
    (
        "rfc5280::pc::ica-noncritical-pc",
        "policies are not looked at, and a critical one is refused",
    ),
    ("rfc5280::san::underscore-dns", "names of services do have underscores"),
    ("rfc5280::validity::expired-root", ROOT),
    ("rfc5280::unknown-critical-extension-root", ROOT),
    ("rfc5280::root-non-critical-basic-constraints", ROOT),
    (
        "pathlen::max-chain-depth-",
        "a setting that there is none of here: 16 certificates is the limit",
    ),
    ("webpki::aki::root-", ROOT),
    ("webpki::eku::root-has-eku", ROOT),
    (
        "webpki::eku::ee-",
        "of browsers: X509-SVID 4.4 leaves the extension out or asks for both purposes",
    ),
    ("webpki::cn::", "of browsers: the common name is never read"),
    ("webpki::san::san-critical-with-nonempty-subject", "of browsers: X509-SVID allows it"),
    ("webpki::nc::intermediate-permitted-excluded-subtrees-both-", FORM),
    (
        "webpki::forbidden-rsa-not-divisible-by-8-in-root",
        "of browsers: the size is within the limits",
    ),
    (
        "webpki::forbidden-",
        "the leaf's key is judged in the handshake, and TLS 1.3 cannot sign with these",
    ),
];

/// What the suite lets in and is refused here.
const REFUSED: &[(&str, &str)] = &[
    ("pathlen::validation-ignores-pathlen-in-leaf", AUTHORITY),
    ("rfc5280::ca-as-leaf", AUTHORITY),
    (
        "pathlen::self-issued-certs-pathlen",
        "webpki counts an issuer that renews itself, which is stricter",
    ),
    ("rfc5280::nc::permitted-ipv", NO_DNS_NAME),
    ("webpki::san::exact-localhost-ip-san", NO_DNS_NAME),
    ("rfc5280::nc::nc-permits-email-", NO_DNS_NAME),
    ("rfc5280::nc::permitted-dn-match", NO_DNS_NAME),
    (
        "rfc5280::nc::permitted-self-issued",
        "webpki holds an issuer that renews itself to the constraint too, which is stricter",
    ),
    ("webpki::nc::nc-permits-dns-san-pattern", WILDCARD),
    ("webpki::san::leftmost-wildcard-san", WILDCARD),
    ("online::docs.python.org", WILDCARD),
];

const FORM: &str = "how a certificate is written down: to refuse it would protect nobody";
const ROOT: &str =
    "a root is trusted for being in the bundle: an operator put it there, and takes it out";
const AUTHORITY: &str = "a leaf that is an authority is no SVID (X509-SVID 4.1)";
const NO_DNS_NAME: &str = "an identity is a SPIFFE ID or a DNS name, and no address and no mailbox";
const WILDCARD: &str = "a wildcard is no identity";

struct Limbo {
    id: String,
    wanted: bool,
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    role: Role,
    at: UnixTime,
    name: Option<String>,
}

#[test]
fn never_more_permissive_than_webpki_and_every_disagreement_is_reviewed() {
    let Some(cases) = cases() else { return };
    assert!(cases.len() > 150, "only {} cases", cases.len());
    let permissive = |verifier: fn(&Limbo) -> bool| {
        let let_in = cases.iter().filter(|case| verifier(case) && !by_webpki(case));
        let_in.map(|case| &*case.id).collect::<Vec<_>>()
    };
    assert_eq!(permissive(ours), Vec::<&str>::new());
    assert!(!permissive(|_| true).is_empty(), "the twin that takes everybody must be caught");

    let disagreements = |wanted: bool, reviewed: &[(&str, &str)]| {
        let on_list = |id: &str| reviewed.iter().any(|(begins, _)| id.starts_with(begins));
        let differ = cases.iter().filter(|case| case.wanted == wanted && ours(case) != wanted);
        let differ: Vec<_> = differ.map(|case| &*case.id).collect();
        for (begins, _) in reviewed {
            assert!(differ.iter().any(|id| id.starts_with(begins)), "{begins}: nothing differs");
        }
        differ.into_iter().filter(|id| !on_list(id)).collect::<Vec<_>>()
    };
    assert_eq!((disagreements(false, LET_IN), disagreements(true, REFUSED)), (vec![], vec![]));

    let named = |id: &str| cases.iter().find(|case| case.id == id).unwrap();
    let signer = named("rfc5280::leaf-ku-keycertsign");
    assert!(by_webpki(signer) && !ours(signer), "webpki does not look at the leaf's key usage");
}

fn ours(case: &Limbo) -> bool {
    let Some(name) = &case.name else { return false };
    let domain = || "limbo.test".parse::<TrustDomain>().unwrap();
    let Ok(policy) = PeerPolicy::dns_name(domain(), name) else { return false };
    let trust =
        Trust { bundles: [(domain(), case.roots.clone())].into(), crls: case.lists.clone() };
    let Ok(store) = TrustStore::new(&trust, Revocation::new()) else { return false };
    let algorithms = default_provider().unwrap().signature_verification_algorithms;
    let Limbo { leaf, intermediates, at, role, .. } = case;
    store
        .verify_peer(leaf, intermediates, *at, *role, algorithms, &policy)
        .is_ok_and(|peer| policy.admits(&peer))
}

fn by_webpki(case: &Limbo) -> bool {
    let Ok(cert) = EndEntityCert::try_from(&case.leaf) else { return false };
    let anchors: Vec<_> =
        case.roots.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
    let lists: Result<Vec<_>, _> =
        case.lists.iter().map(|list| OwnedCertRevocationList::from_der(list)).collect();
    let Ok(lists) = lists else { return false };
    let lists: Vec<_> = lists.into_iter().map(CertRevocationList::from).collect();
    let lists: Vec<_> = lists.iter().collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|builder| builder.build());
    let usage = match case.role {
        Role::Server => KeyUsage::server_auth(),
        Role::Client => KeyUsage::client_auth(),
    };
    let algorithms = default_provider().unwrap().signature_verification_algorithms.all;
    let chain = cert.verify_for_usage(
        algorithms,
        &anchors,
        &case.intermediates,
        case.at,
        usage,
        revocation,
        None,
    );
    let name = case.name.as_deref().map(|name| ServerName::try_from(name).ok());
    chain.is_ok()
        && name.is_none_or(|name| {
            name.is_some_and(|name| cert.verify_is_valid_for_subject_name(&name).is_ok())
        })
}

fn cases() -> Option<Vec<Limbo>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/limbo/limbo.json");
    let path = std::env::var_os("MESH_LIMBO").map_or_else(|| beside.into(), PathBuf::from);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("skipped: no x509-limbo data at {}: {error}", path.display());
            return None;
        }
    };
    let data: Value = serde_json::from_slice(&text).unwrap();
    let cases = data["testcases"].as_array().unwrap().iter();
    // A leaf that is no PEM at all is for readers of PEM.
    Some(cases.filter_map(case).collect())
}

fn case(case: &Value) -> Option<Limbo> {
    fn list<T: PemObject>(texts: &Value) -> Vec<T> {
        let texts = texts.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.filter_map(|text| T::from_pem_slice(text.as_bytes()).ok()).collect()
    }
    let text = |key: &str| case[key].as_str();
    Some(Limbo {
        id: text("id")?.to_owned(),
        wanted: text("expected_result")? == "SUCCESS",
        leaf: CertificateDer::from_pem_slice(text("peer_certificate")?.as_bytes()).ok()?,
        intermediates: list(&case["untrusted_intermediates"]),
        roots: list(&case["trusted_certs"]),
        lists: list(&case["crls"]),
        role: if text("validation_kind")? == "SERVER" { Role::Server } else { Role::Client },
        at: instant(text("validation_time").unwrap_or(TODAY)),
        name: case["expected_peer_name"]["value"].as_str().map(str::to_owned),
    })
}

/// `2024-01-01T00:00:00+00:00`, in UTC as all of them are.
fn instant(text: &str) -> UnixTime {
    let number = |from: usize, to: usize| text[from..to].parse::<u16>().unwrap();
    let (month, day) = (number(5, 7) as u8, number(8, 10) as u8);
    let date = rcgen::date_time_ymd(number(0, 4).into(), month, day).unix_timestamp();
    let time = i64::from(number(11, 13)) * 3600 + i64::from(number(14, 16)) * 60;
    let secs = date + time + i64::from(number(17, 19));
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(secs).unwrap()))
}

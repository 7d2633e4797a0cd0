//! Revocation lists: of the right issuer, of none, out of date, forged.

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};

use rustls_pki_types::CertificateRevocationListDer;

use super::*;

const LEAF: u64 = 7;
const MIDDLE: u64 = 8;

fn signing_lists(name: &str) -> CertificateParams {
    let mut params = authority(name);
    params.key_usages.push(Ku::CrlSign);
    params
}

/// A list that names `serial`, and is up to date until the year `next`.
fn list(issuer: &Issuer, serial: u64, next: i32) -> CertificateRevocationListDer<'static> {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: rcgen::date_time_ymd(2029, 2, 1),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2028, 1, 1),
        next_update: rcgen::date_time_ymd(next, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().der().clone()
}

/// A leaf below an intermediate below a root, all with keys of their own.
struct Chain {
    top: Issuer,
    middle: Issuer,
    leaf: CertificateDer<'static>,
}

impl Chain {
    fn new(top: CertificateParams) -> Self {
        let top = root(top);
        let mut params = signing_lists("middle");
        params.serial_number = Some(SerialNumber::from(MIDDLE));
        let middle = below(params, &top);
        let mut params = leaf();
        params.serial_number = Some(SerialNumber::from(LEAF));
        Self { leaf: issue(&params, &middle), top, middle }
    }

    fn verify(
        &self,
        lists: &[CertificateRevocationListDer<'static>],
        revocation: Revocation,
    ) -> Option<Untrusted> {
        let bundles = [("td".parse().unwrap(), vec![self.top.der().clone()])].into();
        let store = TrustStore::new(&Trust { bundles, crls: lists.into() }, revocation).unwrap();
        let chain = [self.middle.der().clone()];
        [Role::Client, Role::Server]
            .map(|role| verify_chain(&store, &self.leaf, &chain, role).err())
            .into_iter()
            .reduce(|client, server| {
                assert_eq!(client, server, "both sides judge alike");
                client
            })
            .unwrap()
    }
}

#[test]
fn the_table_of_revocation() {
    let chain = Chain::new(signing_lists("top"));
    let of_leaf = list(&chain.middle, LEAF, 2031);
    let clean_of_leaf = list(&chain.middle, 99, 2031);
    let old_of_leaf = list(&chain.middle, 99, 2029);
    let of_middle = list(&chain.top, MIDDLE, 2031);
    let clean_of_middle = list(&chain.top, 99, 2031);
    let strict = Revocation::new();
    let (leaf_only, unknown) = (strict.leaf_only(true), strict.allow_unknown(true));
    let outdated = strict.allow_outdated(true);

    assert_eq!(chain.verify(&[], strict), None, "without a list nothing is checked");
    let rows = [
        (vec![&clean_of_leaf, &clean_of_middle], strict, None),
        (vec![&of_leaf, &clean_of_middle], strict, Some(Untrusted::Revoked)),
        (vec![&of_leaf], unknown, Some(Untrusted::Revoked)),
        (vec![&of_leaf], leaf_only, Some(Untrusted::Revoked)),
        (vec![&clean_of_leaf, &of_middle], strict, Some(Untrusted::Revoked)),
        (vec![&clean_of_leaf, &of_middle], unknown, Some(Untrusted::Revoked)),
        (vec![&clean_of_leaf, &of_middle], leaf_only, None),
        (vec![&clean_of_leaf], strict, Some(Untrusted::RevocationUnknown)),
        (vec![&clean_of_middle], strict, Some(Untrusted::RevocationUnknown)),
        (vec![&clean_of_middle], leaf_only, Some(Untrusted::RevocationUnknown)),
        (vec![&clean_of_leaf], unknown, None),
        (vec![&old_of_leaf, &clean_of_middle], strict, Some(Untrusted::RevocationOutdated)),
        (vec![&old_of_leaf, &clean_of_middle], unknown, Some(Untrusted::RevocationOutdated)),
        (vec![&old_of_leaf, &clean_of_middle], outdated, None),
    ];
    for (row, (lists, revocation, expected)) in rows.into_iter().enumerate() {
        let lists: Vec<_> = lists.into_iter().cloned().collect();
        assert_eq!(chain.verify(&lists, revocation), expected, "row {row}");
    }
}

#[test]
fn a_list_in_the_issuers_name_by_another_key_is_a_forgery() {
    let chain = Chain::new(signing_lists("top"));
    let impostor = root(signing_lists("middle"));
    let lists = [list(&impostor, 99, 2031), list(&chain.top, 99, 2031)];
    for revocation in [Revocation::new(), Revocation::new().allow_unknown(true)] {
        assert_eq!(chain.verify(&lists, revocation), Some(Untrusted::RevocationForged));
    }
}

/// webpki does not see the key usage of a root, and would believe its list.
#[test]
fn a_root_that_must_not_sign_lists_has_none() {
    // Of the same key, and refused by rcgen as a signer: the list is made by its twin that may.
    let mut params = authority("top");
    params.key_usages = vec![Ku::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let mute = CertifiedIssuer::self_signed(params, key).unwrap();
    let key = KeyPair::from_pem(&pem).unwrap();
    let twin = CertifiedIssuer::self_signed(signing_lists("top"), key).unwrap();
    let mut params = signing_lists("middle");
    params.serial_number = Some(SerialNumber::from(MIDDLE));
    let middle = below(params, &twin);
    let chain = Chain { leaf: issue(&leaf(), &middle), middle, top: mute };
    let lists = [list(&chain.middle, 99, 2031), list(&twin, 99, 2031)];
    let leaf_only = Revocation::new().leaf_only(true);
    assert_eq!(chain.verify(&lists, Revocation::new()), Some(Untrusted::RevocationForged));
    assert_eq!(chain.verify(&lists, leaf_only), None, "nobody asked the root");
    let control = Chain { top: twin, ..chain };
    assert_eq!(control.verify(&lists, Revocation::new()), None);
}

#[test]
fn what_is_no_list_is_refused_when_it_is_loaded() {
    let chain = Chain::new(signing_lists("top"));
    let good = list(&chain.middle, 99, 2031);
    let cut = CertificateRevocationListDer::from(good[..good.len() - 1].to_vec());
    let trust = Trust { bundles: BTreeMap::new(), crls: vec![good, cut] };
    let error = TrustStore::new(&trust, Revocation::new()).unwrap_err();
    assert!(error.to_string().contains("revocation list 2"), "{error}");
}

/// webpki asks the first list that bears the issuer's name: who is named in the second only would pass.
#[test]
fn a_second_list_of_one_issuer_is_refused_when_it_is_loaded() {
    let chain = Chain::new(signing_lists("top"));
    let (old, new) = (list(&chain.middle, 99, 2031), list(&chain.middle, LEAF, 2031));
    let load = |crls: [&CertificateRevocationListDer<'static>; 2]| {
        let crls = crls.map(Clone::clone).to_vec();
        TrustStore::new(&Trust { bundles: BTreeMap::new(), crls }, Revocation::new())
    };
    for both in [[&old, &new], [&new, &old]] {
        let error = load(both).unwrap_err();
        assert!(error.to_string().contains("revocation list 2"), "{error}");
    }
    assert!(load([&new, &new]).is_ok(), "the same once more says nothing else");
    assert!(load([&new, &list(&chain.top, 99, 2031)]).is_ok(), "of another issuer");
}

//! Peers of another mesh, which have a DNS name and no SPIFFE ID.

use super::*;

const WEB: &str = "web.shop.serviceaccount.identity.linkerd.cluster.local";

fn policy(domain: &str, name: &str) -> PeerPolicy {
    PeerPolicy::dns_name(domain.parse().unwrap(), name).unwrap()
}

fn linkerd(names: Vec<SanType>) -> CertificateParams {
    let mut params = leaf();
    params.subject_alt_names = names;
    params
}

fn check_for(
    policy: &PeerPolicy,
    change: impl FnOnce(&mut CertificateParams),
) -> Result<PeerIdentity, Untrusted> {
    let root = root(authority("root"));
    let mut params = linkerd(vec![dns(WEB)]);
    change(&mut params);
    let store = trusting(&[("td", &[&root])]).unwrap();
    let algorithms = default_provider().unwrap().signature_verification_algorithms;
    store.verify_peer(&issue(&params, &root), &[], now(), Role::Client, algorithms, policy)
}

#[test]
fn a_dns_name_is_an_identity_only_where_the_policy_names_it() {
    let wanted = policy("td", "WEB.shop.serviceaccount.identity.linkerd.cluster.local");
    let peer = check_for(&wanted, |_| {}).unwrap();
    assert_eq!(peer.dns_name(), Some(WEB));
    assert_eq!(peer.id().as_str(), "spiffe://td", "no workload has this ID");
    assert!(wanted.admits(&peer));

    let not_asked_for = [
        PeerPolicy::nobody(),
        PeerPolicy::any_authenticated(),
        PeerPolicy::trust_domain("td".parse().unwrap()),
        policy("td", "other.shop.serviceaccount.identity.linkerd.cluster.local"),
    ];
    for other in not_asked_for {
        not_an_svid(check_for(&other, |_| {}), Rule::HasUri);
    }
    let domain = PeerPolicy::trust_domain("td".parse().unwrap());
    assert!(!domain.admits(&peer), "a rule for workloads with IDs does not mean it");
    assert!(domain.allows(peer.id()), "the twin, which asks by the ID alone, is fooled");
}

#[test]
fn the_bundle_is_the_one_that_the_policy_names() {
    let elsewhere = check_for(&policy("other", WEB), |_| {});
    assert_eq!(elsewhere.unwrap_err(), Untrusted::UnknownTrustDomain("other".parse().unwrap()));
    let (ours, theirs) = (root(authority("ours")), root(authority("theirs")));
    let store = trusting(&[("td", &[&ours]), ("other", &[&theirs])]).unwrap();
    let algorithms = default_provider().unwrap().signature_verification_algorithms;
    let leaf = issue(&linkerd(vec![dns(WEB)]), &theirs);
    let verify = |policy: &PeerPolicy| {
        store.verify_peer(&leaf, &[], now(), Role::Server, algorithms, policy)
    };
    assert_eq!(verify(&policy("td", WEB)).unwrap_err(), Untrusted::UnknownIssuer);
    assert!(verify(&policy("other", WEB)).is_ok());
}

#[test]
fn a_name_under_several_trust_domains_is_the_peer_of_the_one_that_vouches_for_it() {
    let (ours, theirs) = (root(authority("ours")), root(authority("theirs")));
    let store = trusting(&[("td", &[&ours]), ("other", &[&theirs])]).unwrap();
    let algorithms = default_provider().unwrap().signature_verification_algorithms;
    let wanted = [policy("nowhere", WEB), policy("td", WEB), policy("other", WEB)];
    let any =
        |order: [usize; 3]| order.iter().fold(PeerPolicy::nobody(), |any, at| any.or(&wanted[*at]));
    let mut expired = linkerd(vec![dns(WEB)]);
    expired.not_after = rcgen::date_time_ymd(2029, 6, 1);
    let stranger = root(authority("theirs"));
    let good = linkerd(vec![dns("else.where"), dns(WEB)]);
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 1, 2]] {
        let verify = |params: &CertificateParams, issuer: &Issuer| {
            let policy = any(order);
            let leaf = issue(params, issuer);
            let peer = store.verify_peer(&leaf, &[], now(), Role::Client, algorithms, &policy);
            assert!(peer.as_ref().map_or(true, |peer| policy.admits(peer)));
            peer.map(|peer| peer.id().to_string())
        };
        assert_eq!(verify(&good, &theirs).as_deref(), Ok("spiffe://other"), "{order:?}");
        assert_eq!(verify(&good, &ours).as_deref(), Ok("spiffe://td"), "{order:?}");
        assert_eq!(verify(&expired, &theirs), Err(Untrusted::Expired), "{order:?}");
        let unknown = verify(&good, &stranger).unwrap_err();
        assert!(is_stranger(&unknown), "{order:?}: {unknown}");
    }
}

#[test]
fn a_certificate_with_a_uri_is_never_taken_for_its_dns_name() {
    let wanted = policy("td", WEB);
    let both = check_for(&wanted, |leaf| {
        leaf.subject_alt_names.push(uri("spiffe://td/workload"));
    });
    let both = both.unwrap();
    assert_eq!((both.dns_name(), both.id().path()), (None, "/workload"));
    assert!(!wanted.admits(&both));
    let bad_uri = check_for(&wanted, |leaf| leaf.subject_alt_names.push(uri("https://td/")));
    not_an_svid(bad_uri, Rule::UriIsSpiffeId);
}

#[test]
fn the_other_rules_hold_for_it_too() {
    let wanted = policy("td", WEB);
    let with = |change: fn(&mut CertificateParams)| check_for(&wanted, change);
    let wildcard = with(|leaf| leaf.subject_alt_names = vec![dns("*.cluster.local")]);
    not_an_svid(wildcard, Rule::HasUri);
    not_an_svid(
        with(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        Rule::NoAuthority,
    );
    not_an_svid(with(|leaf| leaf.key_usages.push(Ku::KeyCertSign)), Rule::NoCertSign);
    not_an_svid(with(|leaf| leaf.key_usages = vec![Ku::KeyAgreement]), Rule::DigitalSignature);
    let in_the_name = with(|leaf| {
        leaf.subject_alt_names.clear();
        leaf.distinguished_name.push(DnType::CommonName, WEB);
    });
    not_an_svid(in_the_name, Rule::HasUri);
}

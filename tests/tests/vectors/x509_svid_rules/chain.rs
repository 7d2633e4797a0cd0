//! Rules for what stands above the leaf: bundles, issuers, their names, and revocation lists.

use mesh_tls::{IssuerRule, Revocation, Untrusted};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Eku,
    GeneralSubtree, IsCa, KeyUsagePurpose as Ku, NameConstraints, SerialNumber,
};

use super::{Judged, Outcome, both, scene::*};

pub(super) fn judge(id: &str) -> Judged {
    Some(match id {
        "chain.wrong_td" => {
            let (ours, theirs) = (root(authority("ours")), root(authority("theirs")));
            let mut trust = Trust::of(&[&ours]);
            trust.bundles.push(("other.test", vec![theirs.der().clone()]));
            let forged = Peer::new(&leaf(), &theirs, &[]);
            both(trust.judge(&forged), Some(&Untrusted::UnknownIssuer))
        }
        "chain.no_bundle" => {
            let root = root(authority("root"));
            let mut stranger = leaf();
            stranger.subject_alt_names = vec![uri("spiffe://stranger.test/workload")];
            let unknown = "stranger.test".parse().expect("a trust domain");
            let found = Trust::of(&[&root]).judge(&Peer::new(&stranger, &root, &[]));
            both(found, Some(&Untrusted::UnknownTrustDomain(unknown)))
        }
        "chain.empty_bundle" => {
            let peer = Peer::new(&leaf(), &root(authority("root")), &[]);
            both(Trust::of(&[]).judge(&peer), Some(&Untrusted::UnknownIssuer))
        }
        "chain.same_ca_two_tds" => {
            let shared = root(authority("shared"));
            let mut trust = Trust::of(&[&shared]);
            trust.bundles.push(("other.test", vec![shared.der().clone()]));
            both(trust.judge(&Peer::new(&leaf(), &shared, &[])), None)
        }
        "chain.missing_intermediate" => {
            let top = root(authority("root"));
            let middle = below(authority("intermediate"), &top);
            let found = Trust::of(&[&top]).judge(&Peer::new(&leaf(), &middle, &[]));
            both(found, Some(&Untrusted::UnknownIssuer))
        }
        "chain.order" => {
            let top = root(authority("root"));
            let upper = below(authority("upper"), &top);
            let lower = below(authority("lower"), &upper);
            let stranger = root(authority("stranger"));
            let peer = Peer::new(&leaf(), &lower, &[&upper, &stranger, &lower]);
            both(Trust::of(&[&top]).judge(&peer), None)
        }
        "chain.too_long" => {
            let top = root(authority("root"));
            let middle = below(authority("intermediate"), &top);
            let trust = Trust::of(&[&top]);
            let of = |issuers| Peer::new(&leaf(), &middle, &vec![&middle; issuers]);
            // Sixteen in all are let through: the rule is a limit, not a dislike.
            both(trust.judge(&of(15)), None)
                .and_then(|_| both(trust.judge(&of(16)), Some(&Untrusted::ChainTooLong)))
                .and_then(|_| both(trust.judge(&of(19)), Some(&Untrusted::ChainTooLong)))
        }
        "chain.pathlen" => {
            let constrained = |ca: &mut CertificateParams| {
                ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            };
            both(through(constrained, |_| {}), Some(&because(IssuerRule::PathLength)))
        }
        "sign.no_ca" => {
            let found = through(|_| {}, |ca| ca.is_ca = IsCa::ExplicitNoCa);
            both(found, Some(&because(IssuerRule::IsAuthority)))
        }
        "sign.no_certsign" => {
            let found = through(|_| {}, |ca| ca.key_usages = vec![Ku::DigitalSignature]);
            both(found, Some(&because(IssuerRule::CertSign)))
        }
        "sign.id_with_path" => {
            let named = |ca: &mut CertificateParams| {
                ca.subject_alt_names = vec![uri("spiffe://td.test/ca")];
            };
            both(through(named, named), None).map(|_| Outcome::OurChoice)
        }
        "sign.foreign_td" => {
            let named = |ca: &mut CertificateParams| {
                ca.subject_alt_names = vec![uri("spiffe://other.test")];
            };
            both(through(|_| {}, named), None)
        }
        "sign.eku_limited" => {
            let found = through(|_| {}, |ca| ca.extended_key_usages = vec![Eku::EmailProtection]);
            both(found, Some(&Untrusted::WrongPurpose))
        }
        "nc.uri_permitted" => uri_constraints(),
        "nc.dns_permitted" => {
            let constrained = |ca: &mut CertificateParams| {
                let permitted_subtrees = vec![GeneralSubtree::DnsName("td.test".into())];
                ca.name_constraints =
                    Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
            };
            both(through(constrained, constrained), None)
        }
        "crl.leaf_revoked" => {
            let found = revoked(LEAF, 99, Revocation::new());
            both(found, Some(&Untrusted::Revoked))
        }
        "crl.intermediate_revoked" => {
            both(revoked(99, MIDDLE, Revocation::new().leaf_only(true)), None).and_then(|outcome| {
                // By default the whole chain is looked up.
                both(revoked(99, MIDDLE, Revocation::new()), Some(&Untrusted::Revoked))?;
                Ok(outcome)
            })
        }
        "crl.unknown" => {
            let top = root(authority("root"));
            let of_another = list(&root(authority("another")), LEAF, YEAR + 1);
            let peer = Peer::new(&leaf(), &top, &[]);
            let with = |revocation| {
                Trust { lists: vec![of_another.clone()], revocation, ..Trust::of(&[&top]) }
                    .judge(&peer)
            };
            both(with(Revocation::new()), Some(&Untrusted::RevocationUnknown))
                .and_then(|_| both(with(Revocation::new().allow_unknown(true)), None))
                .map(|_| Outcome::OurChoice)
        }
        "crl.expired" => {
            let top = root(authority("root"));
            let old = list(&top, 99, YEAR - 1);
            let peer = Peer::new(&leaf(), &top, &[]);
            let with = |revocation| {
                Trust { lists: vec![old.clone()], revocation, ..Trust::of(&[&top]) }.judge(&peer)
            };
            both(with(Revocation::new()), Some(&Untrusted::RevocationOutdated))
                .and_then(|_| both(with(Revocation::new().allow_outdated(true)), None))
                .map(|_| Outcome::OurChoice)
        }
        _ => return None,
    })
}

const LEAF: u64 = 7;
const MIDDLE: u64 = 8;

fn because(rule: IssuerRule) -> Untrusted {
    Untrusted::BadIssuer(rule)
}

/// A leaf below an intermediate below a trusted root.
fn through(
    change_root: impl FnOnce(&mut CertificateParams),
    change: impl FnOnce(&mut CertificateParams),
) -> Result<[Option<Untrusted>; 2], String> {
    let (mut top, mut middle) = (authority("root"), authority("intermediate"));
    change_root(&mut top);
    change(&mut middle);
    let top = root(top);
    let middle = below(middle, &top);
    Trust::of(&[&top]).judge(&Peer::new(&leaf(), &middle, &[&middle]))
}

/// The same, where a list of each issuer names one serial number.
fn revoked(
    by_middle: u64,
    by_top: u64,
    revocation: Revocation,
) -> Result<[Option<Untrusted>; 2], String> {
    let top = root(authority("root"));
    let mut middle = authority("intermediate");
    middle.serial_number = Some(SerialNumber::from(MIDDLE));
    let middle = below(middle, &top);
    let mut params = leaf();
    params.serial_number = Some(SerialNumber::from(LEAF));
    let lists = vec![list(&middle, by_middle, YEAR + 1), list(&top, by_top, YEAR + 1)];
    let trust = Trust { lists, revocation, ..Trust::of(&[&top]) };
    trust.judge(&Peer::new(&params, &middle, &[&middle]))
}

/// A root with one is refused where it is loaded, and says so; below an intermediate with one nobody is let in.
fn uri_constraints() -> Result<Outcome, String> {
    // NameConstraints { permittedSubtrees [0] { { uniformResourceIdentifier [6] "td.test" } } }
    let content = [&[0x30, 0x0D, 0xA0, 0x0B, 0x30, 0x09, 0x86, 0x07][..], b"td.test"].concat();
    let constrained = |ca: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content.clone());
        extension.set_criticality(true);
        ca.custom_extensions.push(extension);
    };
    let found = through(|_| {}, constrained)?;
    if found.iter().any(Option::is_none) {
        return Err(format!("below an intermediate: {found:?}"));
    }
    let mut top = authority("root");
    constrained(&mut top);
    match run(Trust::of(&[&root(top)]).mesh()).map(drop) {
        Err(error) if error.to_string().contains("constrains URI names") => {
            Ok(Outcome::RefusedOnLoad)
        }
        other => Err(format!("{other:?}")),
    }
}

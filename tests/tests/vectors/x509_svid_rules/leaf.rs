//! Rules for the leaf.

use mesh_tls::{SvidRule, Untrusted};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Eku, IsCa, KeyUsagePurpose as Ku, SanType,
};

use super::{Judged, Outcome, both, scene::*, sides};
use crate::spiffe_ids::alternative_name;

const ID: &str = "spiffe://td.test/workload";

pub(super) fn judge(id: &str) -> Judged {
    let accepted = |change: fn(&mut CertificateParams)| both(under_a_root(change), None);
    let refused = |rule: SvidRule, change: fn(&mut CertificateParams)| {
        both(under_a_root(change), Some(&Untrusted::NotAnSvid(rule)))
    };
    let because = |why: Untrusted, change: fn(&mut CertificateParams)| {
        both(under_a_root(change), Some(&why))
    };
    let choice = |outcome: Result<Outcome, String>| outcome.map(|_| Outcome::OurChoice);
    Some(match id {
        "leaf.ok.basic" => accepted(|_| {}),
        "leaf.ok.other_sans" => accepted(|leaf| {
            leaf.subject_alt_names.push(dns("workload.test"));
            leaf.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
            leaf.subject_alt_names.push(email("a@workload.test"));
        }),
        "leaf.ok.empty_subject" => accepted(|leaf| {
            leaf.distinguished_name = DistinguishedName::new();
            let mut names = raw_uri(leaf, ID.as_bytes());
            names.set_criticality(true);
            leaf.custom_extensions.push(names);
        }),
        "leaf.ok.intermediate" => through_an_intermediate(),
        "leaf.ok.no_eku" => accepted(|leaf| leaf.extended_key_usages.clear()),
        "leaf.ok.key_encipherment" => accepted(|leaf| {
            leaf.key_usages.extend([Ku::KeyEncipherment, Ku::KeyAgreement]);
        }),
        "leaf.uri.none" => refused(SvidRule::HasUri, |leaf| {
            leaf.subject_alt_names = vec![dns("workload.test")];
        })
        .and_then(|_| refused(SvidRule::HasUri, |leaf| leaf.subject_alt_names.clear())),
        "leaf.uri.two_spiffe" => {
            refused(SvidRule::OneUri, |leaf| leaf.subject_alt_names.push(uri(ID))).and_then(|_| refused(
                SvidRule::OneUri,
                |leaf| leaf.subject_alt_names.push(uri("spiffe://td.test/other")),
            ))
        }
        "leaf.uri.spiffe_plus_https" => refused(SvidRule::OneUri, |leaf| {
            leaf.subject_alt_names.push(uri("https://td.test/workload"));
        }),
        "leaf.uri.wrong_scheme" => refused(SvidRule::UriIsSpiffeId, |leaf| {
            leaf.subject_alt_names = vec![uri("https://td.test/workload")];
        })
        .and_then(|_| refused(SvidRule::UriIsSpiffeId, |leaf| {
            leaf.subject_alt_names = vec![uri("sparfe://td.test/workload")];
        })),
        "leaf.uri.bad_id" => refused(SvidRule::UriIsSpiffeId, |leaf| {
            leaf.subject_alt_names = vec![uri("spiffe://td.test/a/../workload")];
        }),
        "leaf.uri.oversized" => refused(SvidRule::UriIsSpiffeId, |leaf| {
            let padding = "a".repeat(2049 - "spiffe://td.test/".len());
            leaf.subject_alt_names = vec![uri(&format!("spiffe://td.test/{padding}"))];
        }),
        "leaf.uri.nul" => refused(SvidRule::UriIsSpiffeId, |leaf| {
            let names = raw_uri(leaf, b"spiffe://td.test/work\0load");
            leaf.custom_extensions.push(names);
        })
        .and_then(|_| refused_for_its_bytes()),
        "leaf.san_email_lookalike" => refused(SvidRule::HasUri, |leaf| {
            leaf.subject_alt_names = vec![email(ID)];
        })
        .and_then(|_| refused(SvidRule::HasUri, |leaf| {
            // In a dNSName, with letters that no DNS name has.
            leaf.subject_alt_names.clear();
            leaf.custom_extensions.push(alternative_name(&[(2, ID.as_bytes())]));
        }))
        .and_then(|_| refused(SvidRule::HasUri, |leaf| {
            leaf.subject_alt_names.clear();
            leaf.distinguished_name.push(DnType::CommonName, ID);
        })),
        "leaf.path.root" => refused(SvidRule::IdHasPath, |leaf| {
            leaf.subject_alt_names = vec![uri("spiffe://td.test")];
        }),
        "leaf.ca.true" => refused(SvidRule::NoAuthority, |leaf| {
            leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }),
        "leaf.ca.malformed" => refused(SvidRule::Decodes, |leaf| {
            leaf.is_ca = IsCa::NoCa;
            leaf.custom_extensions.push(extension(19, &[0x04, 0x01, 0x00]));
        })
        .and_then(|_| refused(SvidRule::Decodes, |leaf| {
            leaf.key_usages.clear();
            leaf.custom_extensions.push(extension(15, &[0x30, 0x00]));
        })),
        "leaf.bc.absent" => choice(accepted(|leaf| leaf.is_ca = IsCa::NoCa)),
        "leaf.ku.certsign" => {
            refused(SvidRule::NoCertSign, |leaf| leaf.key_usages.push(Ku::KeyCertSign))
        }
        "leaf.ku.crlsign" => {
            refused(SvidRule::NoCrlSign, |leaf| leaf.key_usages.push(Ku::CrlSign))
        }
        "leaf.ku.no_digsig" => refused(SvidRule::DigitalSignature, |leaf| {
            leaf.key_usages = vec![Ku::KeyAgreement];
        }),
        "leaf.ku.absent" => choice(accepted(|leaf| leaf.key_usages.clear())),
        "leaf.ku.noncritical" => choice(accepted(|leaf| {
            leaf.key_usages.clear();
            leaf.custom_extensions.push(extension(15, &[0x03, 0x02, 0x07, 0x80]));
        })),
        "leaf.eku.client_only_as_server" => {
            let found = under_a_root(|leaf| leaf.extended_key_usages = vec![Eku::ClientAuth]);
            sides(found, [Some(&Untrusted::WrongPurpose), None])
        }
        "leaf.eku.server_only_as_client" => {
            let found = under_a_root(|leaf| leaf.extended_key_usages = vec![Eku::ServerAuth]);
            sides(found, [None, Some(&Untrusted::WrongPurpose)])
        }
        "leaf.eku.any" => because(Untrusted::WrongPurpose, |leaf| {
            leaf.extended_key_usages = vec![Eku::Any];
        }),
        "leaf.eku.email" => because(Untrusted::WrongPurpose, |leaf| {
            leaf.extended_key_usages = vec![Eku::EmailProtection];
        }),
        "leaf.time.expired" => because(Untrusted::Expired, |leaf| {
            leaf.not_after = rcgen::date_time_ymd(YEAR - 1, 12, 31);
        }),
        "leaf.time.future" => because(Untrusted::NotYetValid, |leaf| {
            leaf.not_before = rcgen::date_time_ymd(YEAR, 1, 2);
        }),
        "leaf.self_signed" => {
            let own = rcgen::CertifiedIssuer::self_signed(leaf(), key()).expect("self-signed");
            let peer = Peer { chain: vec![own.der().clone()], key: secret(own.key()) };
            let found = Trust::of(&[&root(authority("root"))]).judge(&peer);
            both(found, Some(&Untrusted::UnknownIssuer))
        }
        "leaf.in_bundle" => {
            // Refused where it is listed, so that no peer ever meets it.
            let own = rcgen::CertifiedIssuer::self_signed(leaf(), key()).expect("self-signed");
            match run(Trust::of(&[&own]).mesh()).map(drop) {
                Err(error) if error.to_string().contains("certificate authority") => {
                    Ok(Outcome::Refused)
                }
                other => Err(format!("{other:?}")),
            }
        }
        "leaf.ca_presents_itself" => {
            let mut params = authority("root");
            params.subject_alt_names = vec![uri(ID)];
            let root = root(params);
            let peer = Peer { chain: vec![root.der().clone()], key: secret(root.key()) };
            let why = Untrusted::NotAnSvid(SvidRule::NoAuthority);
            both(Trust::of(&[&root]).judge(&peer), Some(&why))
        }
        _ => return None,
    })
}

fn under_a_root(
    change: impl FnOnce(&mut CertificateParams),
) -> Result<[Option<Untrusted>; 2], String> {
    let root = root(authority("root"));
    let mut params = leaf();
    change(&mut params);
    Trust::of(&[&root]).judge(&Peer::new(&params, &root, &[]))
}

fn through_an_intermediate() -> Result<Outcome, String> {
    let top = root(authority("root"));
    let middle = below(authority("intermediate"), &top);
    both(Trust::of(&[&top]).judge(&Peer::new(&leaf(), &middle, &[&middle])), None)
}

/// Bytes that are no ASCII: an IA5String has none. Whether the reader stumbles over the string or over the ID in it is
/// its own affair.
fn refused_for_its_bytes() -> Result<Outcome, String> {
    let found = under_a_root(|leaf| {
        let names = raw_uri(leaf, b"spiffe://td.test/workl\xF6ad");
        leaf.custom_extensions.push(names);
    })?;
    match found.iter().all(|why| matches!(why, Some(Untrusted::NotAnSvid(_)))) {
        true => Ok(Outcome::Refused),
        false => Err(format!("{found:?}")),
    }
}

fn raw_uri(leaf: &mut CertificateParams, bytes: &[u8]) -> CustomExtension {
    leaf.subject_alt_names.clear();
    alternative_name(&[(6, bytes)])
}

fn extension(number: u64, content: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(&[2, 5, 29, number], content.to_vec())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

fn email(name: &str) -> SanType {
    SanType::Rfc822Name(name.try_into().expect("ASCII"))
}

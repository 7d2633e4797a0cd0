//! SPIFFE IDs, their parts, and the addresses of Workload Endpoints.

use std::sync::OnceLock;

use mesh_tls::{Material, SpiffeId, TrustDomain, workload_api::Address};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use serde::Deserialize;

use crate::case::Case;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Config {
    SpiffeIds { input: String },
    TrustDomains { input: String },
    FromSegments { segments: Vec<String> },
    Equality { a: String, b: String },
    MemberOf { id: String, trust_domain: String },
    EndpointSockets { input: String },
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Expect {
    valid: Option<bool>,
    trust_domain: Option<String>,
    path: Option<String>,
    valid_as_leaf: Option<bool>,
    equal: Option<bool>,
    member: Option<bool>,
}

const NOTHING: Expect = Expect {
    valid: None,
    trust_domain: None,
    path: None,
    valid_as_leaf: None,
    equal: None,
    member: None,
};

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let found = match case.config()? {
        Config::SpiffeIds { input } => {
            let id = input.parse::<SpiffeId>().ok();
            Expect {
                valid: Some(id.is_some()),
                trust_domain: id.as_ref().map(|id| id.trust_domain().as_str().to_owned()),
                path: id.as_ref().map(|id| id.path().to_owned()),
                valid_as_leaf: Some(is_taken_as_leaf(&input)),
                ..NOTHING
            }
        }
        Config::TrustDomains { input } => {
            let domain = input.parse::<TrustDomain>().ok();
            let trust_domain = domain.map(|domain| domain.as_str().to_owned());
            Expect { valid: Some(trust_domain.is_some()), trust_domain, ..NOTHING }
        }
        Config::FromSegments { segments } => {
            let domain: TrustDomain = parse("td")?;
            let segments: Vec<_> = segments.iter().map(String::as_str).collect();
            let id = SpiffeId::from_segments(&domain, &segments).ok();
            let path = id.map(|id| id.path().to_owned());
            Expect { valid: Some(path.is_some()), path, ..NOTHING }
        }
        Config::Equality { a, b } => {
            let (a, b): (SpiffeId, SpiffeId) = (parse(&a)?, parse(&b)?);
            Expect { equal: Some(a == b), ..NOTHING }
        }
        Config::MemberOf { id, trust_domain } => {
            let (id, domain): (SpiffeId, TrustDomain) = (parse(&id)?, parse(&trust_domain)?);
            Expect { member: Some(id.is_member_of(&domain)), ..NOTHING }
        }
        Config::EndpointSockets { input } => {
            Expect { valid: Some(input.parse::<Address>().is_ok()), ..NOTHING }
        }
    };
    let expected: Expect = case.expect()?;
    if found == expected { Ok(()) } else { Err(format!("{found:?}, expected {expected:?}")) }
}

fn parse<T: std::str::FromStr<Err = mesh_tls::InvalidSpiffeId>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

/// Whether a certificate with these bytes as its URI is taken for an SVID.
fn is_taken_as_leaf(uri: &str) -> bool {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    let key = KEY.get_or_init(|| KeyPair::generate().expect("a key"));
    let mut params = CertificateParams::default();
    params.custom_extensions = vec![alternative_name(&[(6, uri.as_bytes())])];
    let cert = params.self_signed(key).expect("whatever the URI");
    let pem = cert.pem() + &key.serialize_pem();
    Material::from_pem(pem.as_bytes(), pem.as_bytes(), b"").is_ok()
}

/// A subject alternative name of raw bytes (RFC 5280, 4.2.1.6): what rcgen would refuse to write.
pub(crate) fn alternative_name(names: &[(u8, &[u8])]) -> CustomExtension {
    let names: Vec<u8> = names.iter().flat_map(|(tag, bytes)| tlv(0x80 | tag, bytes)).collect();
    CustomExtension::from_oid_content(&[2, 5, 29, 17], tlv(0x30, &names))
}

fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let header = match value.len() {
        0..=0x7F => vec![tag, value.len() as u8],
        _ => [&[tag, 0x80 | length.len() as u8][..], &length].concat(),
    };
    [header, value.to_vec()].concat()
}

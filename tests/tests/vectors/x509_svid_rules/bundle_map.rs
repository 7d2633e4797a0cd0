//! SPIFFE bundle maps. gRPC's test data have a file for each case; here it is written with keys of our own.

use mesh_tls::bundle_map::BundleMap;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::scene::*;

/// `expected` is the first word of what gRPC makes of it.
pub(super) fn check(case: &str, expected: &str) -> Result<(), String> {
    let text = document(case).ok_or_else(|| format!("no document for {case:?}"))?;
    let map = BundleMap::parse(text.as_bytes());
    let found = if map.is_ok() { "accept" } else { "reject" };
    if found != expected {
        return Err(format!("{map:?}, gRPC: {expected}"));
    }
    let Ok(map) = map else { return Ok(()) };
    let domain = |name: &str| name.parse().expect("a trust domain");
    let of = |name: &str| map.roots(&domain(name)).map(<[_]>::len);
    let roots = (map.len(), of("a.test"), of("b.test"));
    let expected = match case {
        "valid, two trust domains" => (2, Some(1), Some(2)),
        "unknown use" => (1, Some(0), None),
        _ => (1, Some(1), None),
    };
    if roots == expected { Ok(()) } else { Err(format!("{roots:?}, expected {expected:?}")) }
}

fn document(case: &str) -> Option<String> {
    let good = || jwk("EC", &[certificate(key())]);
    let one = |jwk: Value| json!({"trust_domains": {"a.test": {"keys": [jwk]}}});
    let document = match case {
        "valid, two trust domains" => json!({"trust_domains": {
            "a.test": {"spiffe_sequence": 12035488, "keys": [good()]},
            "b.test": {"keys": [good(), good()], "spiffe_refresh_hint": 600},
        }}),
        "single trust domain (reload target)" => one(good()),
        "x5c not a certificate" => one(jwk("EC", &["Tm90IGEgY2VydGlmaWNhdGU=".to_owned()])),
        "not a bundle map" => return Some(r#"{"trust_domains": {"a.test""#.to_owned()),
        "top-level key not trust_domains" => json!({"trustDomains": {"a.test": {"keys": []}}}),
        "kty missing (kid instead)" => {
            let mut key = good();
            key.as_object_mut()?.remove("kty");
            key["kid"] = "some key".into();
            one(key)
        }
        "kty EC for an RSA certificate" => {
            let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).ok()?;
            one(jwk("EC", &[certificate(rsa)]))
        }
        "two certs in x5c" => one(jwk("EC", &[certificate(key()), certificate(key())])),
        "spiffe_sequence not an integer" => {
            json!({"trust_domains": {"a.test": {"spiffe_sequence": "1", "keys": [good()]}}})
        }
        "unknown use" => {
            let mut key = good();
            key["use"] = "i_am_not_x509-svid".into();
            one(key)
        }
        "invalid trust domain name" => json!({"trust_domains": {"a.test:80": {"keys": [good()]}}}),
        "empty trust domain name" => json!({"trust_domains": {"": {"keys": [good()]}}}),
        // gRPC's file has an empty name too, and is refused for it. Without that name it is valid, and revokes.
        "empty keys array" => {
            let valid = json!({"trust_domains": {"a.test": {"keys": []}}}).to_string();
            let map = BundleMap::parse(valid.as_bytes()).ok()?;
            let a = "a.test".parse().ok()?;
            if map.roots(&a) != Some(&[]) {
                return None;
            }
            json!({"trust_domains": {"": {"keys": []}}})
        }
        "duplicate trust domain key" => {
            let bundle = json!({"keys": [good()]});
            return Some(format!(r#"{{"trust_domains": {{"a.test": {bundle}, "a.test": {bundle}}}}}"#));
        }
        _ => return None,
    };
    Some(document.to_string())
}

fn jwk(kty: &str, x5c: &[String]) -> Value {
    json!({"kty": kty, "use": "x509-svid", "x5c": x5c})
}

/// A root, as base64 without lines.
fn certificate(key: KeyPair) -> String {
    let root = rcgen::CertifiedIssuer::self_signed(authority("root"), key).expect("a root");
    root.pem().lines().filter(|line| !line.starts_with("-----")).collect()
}

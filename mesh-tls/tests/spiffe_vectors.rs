//! The golden vectors of SPIFFE IDs: every entry on which strict parsers agree.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mesh_tls::{SpiffeId, TrustDomain};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/spiffe_ids.json")).unwrap()
}

fn entries<'a>(vectors: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    vectors[name].as_array().unwrap().iter()
}

/// What a parser says of an ID: nothing, or trust domain and path.
type Verdict = Option<(String, String)>;

fn strict(text: &str) -> Verdict {
    let id: SpiffeId = text.parse().ok()?;
    Some((id.trust_domain().to_string(), id.path().to_owned()))
}

/// A parser that lower-cases first: the broken twin.
fn careless(text: &str) -> Verdict {
    strict(&text.to_ascii_lowercase())
}

/// How many entries the parser gets wrong, and how many there are.
fn disagreements(parse: fn(&str) -> Verdict) -> (Vec<String>, usize) {
    let vectors = vectors();
    let agreed: Vec<_> =
        entries(&vectors, "spiffe_ids").filter(|entry| entry["policy"] != "divergent").collect();
    let wrong = agreed.iter().filter(|entry| {
        let expected = entry["valid"].as_bool().unwrap().then(|| {
            let text = |field: &str| entry[field].as_str().unwrap().to_owned();
            (text("trust_domain"), text("path"))
        });
        parse(entry["input"].as_str().unwrap()) != expected
    });
    (wrong.map(|entry| entry["input"].to_string()).collect(), agreed.len())
}

#[test]
fn every_agreed_id_is_parsed_as_agreed() {
    let (wrong, all) = disagreements(strict);
    assert!(all > 300, "the vectors must be there, found {all}");
    assert_eq!(wrong, Vec::<String>::new());
    assert!(!disagreements(careless).0.is_empty(), "the twin must be caught");
}

#[test]
fn divergent_ids_are_refused_in_favour_of_the_strict_reading() {
    let vectors = vectors();
    for entry in entries(&vectors, "spiffe_ids").filter(|entry| entry["policy"] == "divergent") {
        let parsed = strict(entry["input"].as_str().unwrap()).is_some();
        assert_eq!(parsed, entry["valid"].as_bool().unwrap(), "{entry}");
    }
}

#[test]
fn trust_domains_segments_equality_and_membership() {
    let vectors = vectors();
    for entry in entries(&vectors, "trust_domains") {
        let parsed = entry["input"].as_str().unwrap().parse::<TrustDomain>().ok();
        assert_eq!(parsed.as_ref().map(TrustDomain::as_str), entry["trust_domain"].as_str());
    }
    let domain: TrustDomain = "td".parse().unwrap();
    for entry in entries(&vectors, "from_segments") {
        let segments = entry["segments"].as_array().unwrap();
        let segments: Vec<_> = segments.iter().map(|segment| segment.as_str().unwrap()).collect();
        let id = SpiffeId::from_segments(&domain, &segments).ok();
        assert_eq!(id.as_ref().map(SpiffeId::path), entry["path"].as_str(), "{entry}");
    }
    for entry in entries(&vectors, "equality") {
        let id = |side: &str| entry[side].as_str().unwrap().parse::<SpiffeId>().unwrap();
        assert_eq!(id("a") == id("b"), entry["equal"].as_bool().unwrap(), "{entry}");
    }
    for entry in entries(&vectors, "member_of") {
        let id: SpiffeId = entry["id"].as_str().unwrap().parse().unwrap();
        let domain: TrustDomain = entry["trust_domain"].as_str().unwrap().parse().unwrap();
        assert_eq!(id.is_member_of(&domain), entry["member"].as_bool().unwrap(), "{entry}");
    }
}

use std::path::Path;

use mesh_core::{Rng, SplitMix64};
use mesh_tower::istio::MtlsMode;

use super::*;

const PROXY: &str = "outbound: { listen: '127.0.0.1:15001' }";
const ENDPOINTS: &str = "
upstreams:
  shop:
    tls: plaintext
    endpoints:
      - { address: '10.0.0.1:80', labels: { version: v1 }, weight: 3, locality: eu/a }
  other: { tls: plaintext, endpoints: [] }
";
const RULE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: shop }
spec: { host: shop, trafficPolicy: { connectionPool: { tcp: { maxConnections: 7 } } } }
";

fn read<const N: usize>(files: [(&str, &str); N]) -> Result<Settings, ConfigError> {
    Settings::read(&Files::of(files), Path::new("/etc/mesh"))
}

#[test]
fn policies_and_endpoints_of_one_name_belong_together() {
    let settings =
        read([("proxy.yaml", PROXY), ("endpoints.yaml", ENDPOINTS), ("rule.yaml", RULE)]).unwrap();
    let mut upstreams = settings.routing.upstreams.values();
    let shop = upstreams.find(|upstream| upstream.config.name() == "shop").unwrap();
    assert_eq!(shop.config.policy().limits().max_connections(), 7);
    assert_eq!(shop.config.answers(), upstream::Answers::All);
    assert_eq!(shop.endpoints[0].weight().get(), 3);
    assert_eq!(shop.endpoints[0].locality().zone(), "a");
    assert_eq!(settings.mode, MtlsMode::Permissive);
    assert_eq!(settings.warnings, ["no document is about other: the defaults hold"]);
}

#[test]
fn a_policy_for_nobody_is_told_of() {
    let rule = RULE.replace("host: shop", "host: shpo");
    let settings =
        read([("proxy.yaml", PROXY), ("endpoints.yaml", ENDPOINTS), ("rule.yaml", &rule)]).unwrap();
    assert!(settings.warnings.iter().any(|warning| warning.starts_with("shpo has policies")));
}

#[test]
fn a_refusal_for_somebody_else_is_told_of() {
    let document = |kind: &str, namespace: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{ name: it{namespace} }}\nspec: {{ {spec} }}\n"
        )
    };
    let proxy = format!("{PROXY}\nworkload: {{ namespace: shop, labels: {{ app: cart }} }}");
    for (kind, namespace, selector, is_ours) in [
        ("AuthorizationPolicy", ", namespace: shop", "app: cart", true),
        ("AuthorizationPolicy", ", namespace: istio-system", "app: cart", true),
        ("AuthorizationPolicy", "", "app: cart", false),
        ("AuthorizationPolicy", ", namespace: shop", "app: crat", false),
        ("PeerAuthentication", ", namespace: shop", "app: cart", true),
        ("PeerAuthentication", "", "app: cart", false),
        ("PeerAuthentication", ", namespace: shop", "app: crat", false),
    ] {
        let selector = format!("selector: {{ matchLabels: {{ {selector} }} }}");
        let policy = document(kind, namespace, &selector);
        let files = [
            ("proxy.yaml", &*proxy),
            ("endpoints.yaml", "upstreams: {}"),
            ("policy.yaml", &policy),
        ];
        let warnings = read(files).unwrap().warnings;
        let is_told =
            warnings.iter().any(|warning| warning.starts_with(&format!("{kind} it of namespace ")));
        assert_eq!(is_told, !is_ours, "{policy}\n{warnings:?}");
    }
}

#[test]
fn paths_are_relative_to_the_directory() {
    let proxy =
        format!("{PROXY}\nidentity: {{ certificate: a/tls.crt, key: /b/tls.key, bundle: ca }}");
    let settings = read([("proxy.yaml", &proxy), ("endpoints.yaml", "upstreams: {}")]).unwrap();
    let identity = settings.proxy.identity.unwrap();
    assert_eq!(identity.certificate, Path::new("/etc/mesh/a/tls.crt"));
    assert_eq!(identity.key, Path::new("/b/tls.key"));
}

#[test]
fn every_wrong_value_is_named() {
    let proxy = "
outbound: { listen: 15001 }
inbound: { listen: '0.0.0.0:15006', app: here, peers: ['*'], timeout: soon }
maxConnections: 0
";
    let error = read([("proxy.yaml", proxy), ("endpoints.yaml", "upstreams: {}")]).unwrap_err();
    let text = error.to_string();
    for path in
        ["outbound.listen", "inbound.app", "inbound.peers", "inbound.timeout", "maxConnections"]
    {
        assert!(text.contains(&format!("proxy.yaml: {path}: ")), "{path} in\n{text}");
    }
}

/// The sample, with the parts that are only remarks there.
fn sample() -> [(&'static str, String); 5] {
    [
        ("proxy.yaml", include_str!("../sample/proxy.yaml")),
        ("endpoints.yaml", include_str!("../sample/endpoints.yaml")),
        ("breaker.yaml", include_str!("../sample/payment-circuit-breaker.yaml")),
        ("versions.yaml", include_str!("../sample/payment-versions.yaml")),
        ("peers.yaml", include_str!("../sample/peer-authentication.yaml")),
    ]
    .map(|(name, text)| {
        let text = text.replace("\n#   ", "\n  ");
        (name, text.replace("\n# identity:", "\nidentity:").replace("\n# inbound:", "\ninbound:"))
    })
}

/// What is put in: signs that mean something in YAML, and a byte that is no text.
const SIGNS: &[u8] = b" :-{}[]\"'\n019smh&*|>\xff";

/// Some bytes of the text removed, doubled or put in.
fn damage(text: &mut String, rng: &mut SplitMix64) {
    let mut bytes = std::mem::take(text).into_bytes();
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        let end = (at + rng.below(24) as usize).min(bytes.len());
        match rng.below(3) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes.insert(at, SIGNS[rng.below(SIGNS.len() as u64) as usize]),
        }
    }
    *text = String::from_utf8_lossy(&bytes).into_owned();
}

/// How many of the damaged samples were read, and how many were refused; a refusal names a file.
fn damaged(seeds: u64, damage: impl Fn(&mut String, &mut SplitMix64)) -> [u32; 2] {
    let mut counts = [0; 2];
    for seed in 0..seeds {
        let rng = &mut SplitMix64::new(seed);
        let mut files = sample();
        damage(&mut files[rng.below(5) as usize].1, rng);
        match read(files.each_ref().map(|(name, text)| (*name, text.as_str()))) {
            Ok(_) => counts[0] += 1,
            Err(error) => {
                let text = error.to_string();
                let named = |line: &str| files.iter().any(|(name, _)| line.contains(name));
                assert!(text.lines().next().is_some_and(named), "seed {seed}: {text}");
                counts[1] += 1;
            }
        }
    }
    counts
}

#[test]
fn a_damaged_file_is_read_or_named() {
    let [read, refused] = damaged(300, damage);
    assert!(read > 50 && refused > 50, "{read} read, {refused} refused: the damage is of some use");
    assert_eq!(damaged(5, |_, _| {}), [5, 0], "it was the damage");
}

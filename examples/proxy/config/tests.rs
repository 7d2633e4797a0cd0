use std::path::Path;

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
    let shop = settings.upstreams.iter().find(|upstream| upstream.config.name() == "shop").unwrap();
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

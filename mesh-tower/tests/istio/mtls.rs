//! Which `PeerAuthentication` decides.

use mesh_core::Labels;
use mesh_tower::istio::{Documents, MtlsMode};

use super::{read, refused};

/// (namespace, age rank: larger is younger, selector, fields of `spec` beside it)
type Peer<'a> = (&'a str, u32, Option<&'a str>, &'a str);

const ROOT: &str = "root";

fn peers(peers: &[Peer<'_>]) -> String {
    let document = |(namespace, created, selector, spec): &Peer<'_>| {
        let selector = selector.map(|labels| format!("selector: {{matchLabels: {{{labels}}}}}, "));
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: p, namespace: {namespace}, creationTimestamp: \"2024-01-01T00:00:0{created}Z\"}}\n\
             spec: {{{}{spec}}}\n---\n",
            selector.unwrap_or_default()
        )
    };
    peers.iter().map(document).collect()
}

fn documents(given: &[Peer<'_>]) -> Documents {
    read(&peers(given)).with_root_namespace(ROOT)
}

fn mode(given: &[Peer<'_>], port: Option<u16>) -> MtlsMode {
    let workload: Labels = [("app", "foo"), ("stage", "prod")].into_iter().collect();
    documents(given).mtls_mode("ns", &workload, port)
}

const STRICT: &str = "mtls: {mode: STRICT}";
const PERMISSIVE: &str = "mtls: {mode: PERMISSIVE}";
const DISABLE: &str = "mtls: {mode: DISABLE}";
const UNSET: &str = "mtls: {mode: UNSET}";
const FOO: Option<&str> = Some("app: foo");

#[test]
fn the_narrowest_that_says_something_decides() {
    use MtlsMode::{Disable, Permissive, Strict};
    let table: &[(&str, &[Peer<'_>], MtlsMode)] = &[
        ("nothing", &[], Permissive),
        ("mesh", &[(ROOT, 0, None, STRICT)], Strict),
        ("mesh, other namespace", &[("other", 0, None, STRICT)], Permissive),
        (
            "namespace beats mesh",
            &[("ns", 0, None, PERMISSIVE), (ROOT, 0, None, DISABLE)],
            Permissive,
        ),
        ("mesh before namespace", &[(ROOT, 0, None, STRICT), ("ns", 0, None, DISABLE)], Disable),
        ("selector in root is void", &[(ROOT, 0, FOO, STRICT)], Permissive),
        ("workload beats namespace", &[("ns", 0, None, STRICT), ("ns", 0, FOO, DISABLE)], Disable),
        ("other workload", &[("ns", 0, Some("app: bar"), STRICT)], Permissive),
        ("half of a selector", &[("ns", 0, Some("app: foo, zone: a"), STRICT)], Permissive),
        ("other namespace's workload", &[("other", 0, FOO, STRICT)], Permissive),
        ("unset mesh", &[(ROOT, 0, None, UNSET)], Permissive),
        ("empty workload inherits mesh", &[(ROOT, 0, None, STRICT), ("ns", 0, FOO, "")], Strict),
        (
            "empty workload inherits namespace",
            &[("ns", 0, None, STRICT), ("ns", 0, FOO, "")],
            Strict,
        ),
        (
            "unset all the way",
            &[(ROOT, 0, None, STRICT), ("ns", 0, None, UNSET), ("ns", 0, FOO, UNSET)],
            Strict,
        ),
        ("empty selector is the namespace", &[("ns", 0, Some(""), STRICT)], Strict),
    ];
    for (name, given, expected) in table {
        assert_eq!(mode(given, None), *expected, "{name}");
    }
}

#[test]
fn the_oldest_of_a_scope_counts_and_then_the_first() {
    for (namespace, selector) in [(ROOT, None), ("ns", None), ("ns", FOO)] {
        let given = [
            (namespace, 9, selector, DISABLE),
            (namespace, 1, selector, STRICT),
            (namespace, 1, selector, DISABLE),
        ];
        assert_eq!(mode(&given, None), MtlsMode::Strict, "{namespace} {selector:?}");
    }
    let undated = peers(&[("ns", 5, None, STRICT)]);
    let undated = format!(
        "{}---\n{undated}",
        peers(&[("ns", 1, None, DISABLE)])
            .replace(", creationTimestamp: \"2024-01-01T00:00:01Z\"", "")
    );
    assert_eq!(read(&undated).mtls_mode("ns", &Labels::default(), None), MtlsMode::Strict);
}

#[test]
fn ports_of_a_workload() {
    let spec = "mtls: {mode: DISABLE}, portLevelMtls: {8080: {mode: STRICT}, 9090: {mode: UNSET}}";
    let given = [("ns", 0, FOO, spec), (ROOT, 0, None, PERMISSIVE)];
    assert_eq!(mode(&given, Some(8080)), MtlsMode::Strict);
    assert_eq!(mode(&given, Some(9090)), MtlsMode::Disable);
    assert_eq!(mode(&given, Some(1)), MtlsMode::Disable);
    assert_eq!(mode(&given, None), MtlsMode::Disable);
}

#[test]
fn mistakes() {
    let error = |spec| refused(&peers(&[("ns", 0, FOO, spec)]));
    assert!(error("mtls: {mode: strict}").ends_with(
        "spec.mtls.mode: \"strict\" is not allowed, expected STRICT, PERMISSIVE, DISABLE or UNSET"
    ));
    assert!(error("mtls: STRICT").ends_with("spec.mtls: \"STRICT\" is not a mapping"));
    assert!(
        error("mtls: {mod: STRICT}").contains("spec.mtls.mod: is not supported; is mode meant?")
    );
    assert!(error("portLevelMtls: {http: {mode: STRICT}}").contains("is not a port"));
    assert!(error("portLevelMtls: {65536: {mode: STRICT}}").contains("expected 1 to 65535"));
    let without = refused(&peers(&[("ns", 0, None, "portLevelMtls: {80: {mode: STRICT}}")]));
    assert!(without.contains("spec.portLevelMtls: is not allowed without a selector"), "{without}");
}

#[test]
fn a_selector_in_the_root_namespace_is_worth_a_word() {
    let text = peers(&[("istio-system", 0, FOO, STRICT)]);
    let documents = read(&text);
    assert!(
        documents.warnings()[0]
            .to_string()
            .contains("spec.selector: a selector in the root namespace")
    );
}

//! `tls` of a DestinationRule: read for whoever makes connections, and an error for an upstream that has nobody.

use mesh_core::route::{Action, Client, Rule};
use mesh_tower::istio::{self, Cause, TlsMode, Unsupported};

use super::{read, refused, rule};

fn tls(fields: &str) -> String {
    rule(&format!("trafficPolicy: {{tls: {{{fields}}}}}"))
}

#[test]
fn every_mode_has_its_names() {
    let full = "shop.default.svc.cluster.local";
    let table = [
        ("mode: DISABLE", TlsMode::Disable, &[][..]),
        ("", TlsMode::Disable, &[]),
        ("mode: SIMPLE", TlsMode::Simple, &[full][..]),
        ("mode: SIMPLE, sni: a", TlsMode::Simple, &["a"]),
        ("mode: SIMPLE, sni: a, subjectAltNames: [b, c]", TlsMode::Simple, &["b", "c"]),
        ("mode: MUTUAL, clientCertificate: c, privateKey: k", TlsMode::Mutual, &[full]),
        ("mode: ISTIO_MUTUAL", TlsMode::IstioMutual, &[]),
        ("mode: ISTIO_MUTUAL, sni: a", TlsMode::IstioMutual, &[]),
        (
            "mode: ISTIO_MUTUAL, subjectAltNames: [spiffe://a/ns/b/sa/c]",
            TlsMode::IstioMutual,
            &["spiffe://a/ns/b/sa/c"],
        ),
    ];
    for (fields, mode, names) in table {
        let documents = read(&tls(fields));
        let tls = documents.client_tls("shop", None).unwrap().unwrap();
        assert_eq!(
            (tls.mode(), tls.server_names(full)),
            (mode, names.iter().map(|n| (*n).to_owned()).collect()),
            "{fields}"
        );
    }
    let files = "clientCertificate: c, privateKey: k, caCertificates: r, caCrl: l";
    let text = tls(&format!("mode: MUTUAL, {files}, sni: s"));
    let tls = read(&text).client_tls("shop", None).unwrap().unwrap();
    assert_eq!(
        [tls.client_certificate(), tls.private_key(), tls.ca_certificates()],
        [Some("c"), Some("k"), Some("r")]
    );
    assert_eq!([tls.ca_crl(), tls.sni()], [Some("l"), Some("s")]);
    assert!(read(&rule("")).client_tls("shop", None).unwrap().is_none());
}

#[test]
fn what_a_mode_does_not_have_is_refused() {
    for (fields, path) in [
        ("mode: simple", "tls.mode: "),
        ("mode: MUTUAL", "tls.clientCertificate: is missing"),
        ("mode: MUTUAL, clientCertificate: c", "tls.privateKey: is missing"),
        ("mode: MUTUAL, credentialName: x", "tls.credentialName: is not supported"),
        ("mode: SIMPLE, credentialName: x", "tls.credentialName: is not supported"),
        ("mode: ISTIO_MUTUAL, caCrl: x", "tls.caCrl: is not allowed in this mode"),
        ("mode: DISABLE, caCrl: x", "tls.caCrl: is not allowed in this mode"),
        ("mode: SIMPLE, caCrl: \"\"", "tls.caCrl: is empty"),
        (
            "mode: SIMPLE, clientCertificate: c",
            "tls.clientCertificate: is not allowed in this mode",
        ),
        ("mode: SIMPLE, privateKey: c", "tls.privateKey: is not allowed in this mode"),
        ("mode: DISABLE, sni: a", "tls.sni: is not allowed in this mode"),
        ("caCertificates: a", "tls.caCertificates: is not allowed in this mode"),
        ("mode: ISTIO_MUTUAL, caCertificates: a", "tls.caCertificates: is not allowed"),
        ("mode: ISTIO_MUTUAL, privateKey: a", "tls.privateKey: is not allowed"),
        ("mode: SIMPLE, insecureSkipVerify: true", "tls.insecureSkipVerify: true is not supported"),
        ("mode: SIMPLE, insecureSkipVerify: yes please", "tls.insecureSkipVerify: "),
        ("mode: SIMPLE, subjectAltNames: []", "tls.subjectAltNames: is empty"),
        ("mode: SIMPLE, sni: \"\"", "tls.sni: is empty"),
        ("mode: SIMPLE, serverName: a", "tls.serverName: is not supported"),
    ] {
        let error = refused(&tls(fields));
        assert!(error.contains(path) && error.starts_with("test.yaml:4:"), "{fields}: {error}");
    }
    assert!(read(&tls("mode: SIMPLE, insecureSkipVerify: false")).client_tls("shop", None).is_ok());
}

#[test]
fn an_upstream_that_nobody_connects_so_is_an_error() {
    let documents = read(&tls("mode: SIMPLE"));
    let error = documents.upstream("shop").unwrap_err();
    let [problem] = error.problems() else { panic!("{error}") };
    assert_eq!((problem.cause(), problem.line()), (Cause::Unsupported, Some(4)));
    assert_eq!(problem.path(), "spec.trafficPolicy.tls");
    assert!(documents.with_client_tls().upstream("shop").is_ok());

    // Of a subset and of a port too.
    for policy in [
        "subsets: [{name: v1, trafficPolicy: {tls: {mode: SIMPLE}}}]",
        "trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}",
    ] {
        let documents = read(&rule(policy));
        let error = documents.upstreams().unwrap_err().to_string();
        assert!(error.contains(".tls: is not carried out by an upstream"), "{error}");
        assert!(documents.with_client_tls().upstreams().is_ok());
    }

    // Where fields may be left out, it is said when the text is read.
    let documents = istio::read(&tls("mode: SIMPLE"), "t", Unsupported::Warn).unwrap();
    assert_eq!(documents.warnings()[0].path(), "spec.trafficPolicy.tls");
    assert!(documents.upstream("shop").is_ok());
    // And taken back, if somebody does: in either order.
    let carried = documents.clone().with_client_tls();
    assert!(carried.warnings().is_empty());
    assert!(carried.and(documents.clone()).warnings().is_empty());
    assert!(documents.clone().and(documents).with_client_tls().warnings().is_empty());
}

#[test]
fn a_destination_has_the_block_of_its_subset_and_port() {
    let documents = read(&rule(
        "trafficPolicy: {tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, \
         tls: {mode: DISABLE}}]}, subsets: [{name: v1, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]",
    ));
    let service = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front}
spec:
  hosts: [front]
  http:
    - route:
        - {destination: {host: shop}, weight: 1}
        - {destination: {host: shop, subset: v1}, weight: 1}
        - {destination: {host: shop, port: {number: 80}}, weight: 1}
        - {destination: {host: other}, weight: 1}
";
    let documents = documents.with_client_tls().and(read(service));
    let hosts = documents.routes(&Client::default()).unwrap();
    let Some(Action::Forward(forward)) = hosts[0].rules().next().map(Rule::action) else {
        panic!("it forwards")
    };
    let shares = forward.destinations().weights();
    let modes = shares.map(|(share, _)| {
        let tls = documents.client_tls_of(share.destination().unwrap()).unwrap();
        tls.map(|tls| tls.mode())
    });
    let expected =
        [Some(TlsMode::Simple), Some(TlsMode::IstioMutual), Some(TlsMode::Disable), None];
    assert_eq!(modes.collect::<Vec<_>>(), expected);
}

#[test]
fn a_block_is_replaced_whole() {
    let text = rule(
        "trafficPolicy: {tls: {mode: SIMPLE, sni: a}, portLevelSettings: [{port: {number: 80}, \
         tls: {mode: ISTIO_MUTUAL}}, {port: {number: 81}}]}, \
         subsets: [{name: v1, trafficPolicy: {tls: {mode: DISABLE}}}, {name: v2}]",
    );
    let documents = read(&text);
    let mode = |host: &str, subset| {
        let tls = documents.client_tls(host, subset).unwrap();
        tls.map(|tls| (tls.mode(), tls.sni().map(str::to_owned)))
    };
    let sni = || Some("a".to_owned());
    assert_eq!(mode("shop", None), Some((TlsMode::Simple, sni())));
    assert_eq!(mode("shop", Some("v2")), Some((TlsMode::Simple, sni())));
    assert_eq!(mode("shop", Some("v1")), Some((TlsMode::Disable, None)));
    assert_eq!(mode("shop:80", None), Some((TlsMode::IstioMutual, None)));
    assert_eq!(mode("shop:81", None), None, "a port inherits nothing");
}

//! `tls` of a DestinationRule, carried out.

use std::{net::SocketAddr, time::Duration};

use mesh_tls::DevCa;

use crate::{
    mutual::payment,
    outside::{Authority, Outside},
    support::{Directory, IDENTITY, PROXY, Proxy, application, ask, ca, command, run, until},
};

const HOST: &str = "api.bank.example";

fn rule(tls: &str) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{ name: bank }}
spec:
  host: {HOST}
  trafficPolicy:
    tls: {{ {tls} }}
"
    )
}

/// `endpoints.yaml` with one upstream.
fn endpoints(more: &str, address: SocketAddr) -> String {
    format!("upstreams: {{ {HOST}: {{ {more} endpoints: [{{ address: '{address}' }}] }} }}")
}

/// A directory for a proxy that calls the host at that address, as `tls` says.
fn directory(tls: &str, address: SocketAddr) -> Directory {
    Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &endpoints("", address))
        .with("bank.yaml", &rule(tls))
}

async fn get(proxy: &Proxy) -> (u16, String) {
    let answer = ask(proxy.address("outbound"), HOST, "/").await.unwrap();
    (answer.status.as_u16(), answer.body)
}

/// What the proxy has said of the rule.
async fn told(proxy: &Proxy, part: &str) {
    until(part, async || proxy.log().contains(part).then_some(())).await;
}

#[tokio::test]
async fn simple_believes_the_server_that_has_its_name() {
    let bank = Authority::new("bank");
    let server = Outside::start(&bank.site(HOST), None).await;
    let directory = directory("mode: SIMPLE, caCertificates: ca.pem", server.address)
        .with("ca.pem", &bank.pem());
    let proxy = Proxy::start(&directory).await;
    let expected = format!("bank asked as {HOST:?}, shown nobody");
    assert_eq!(get(&proxy).await, (200, expected));

    // Without roots of its own: the system's.
    let directory = self::directory("mode: SIMPLE", server.address).with("ca.pem", &bank.pem());
    let mut with_root = command();
    with_root.env("SSL_CERT_FILE", directory.path().join("ca.pem"));
    let proxy = Proxy::start_by(with_root, &directory).await;
    assert_eq!(get(&proxy).await.0, 200);
    // What this machine trusts, if it trusts anybody, is not asked: these are all.
    let other = Directory::new().with("ca.pem", &Authority::new("other").pem());
    let mut with_another = command();
    with_another.env("SSL_CERT_FILE", other.path().join("ca.pem")).env_remove("SSL_CERT_DIR");
    let proxy = Proxy::start_by(with_another, &directory).await;
    let requests = server.requests();
    assert_eq!(get(&proxy).await.0, 503, "no authority of the system");
    assert_eq!(server.requests(), requests);
}

#[tokio::test]
async fn whoever_is_somebody_else_gets_no_request_and_is_told_of() {
    let (bank, strange) = (Authority::new("bank"), Authority::new("bank"));
    let server = Outside::start(&bank.site(HOST), None).await;
    let place = "bank.yaml:7:10: error: DestinationRule bank: spec.trafficPolicy.tls";
    for (tls, root, why) in [
        (
            "mode: SIMPLE, caCertificates: ca.pem",
            &strange,
            ".caCertificates: ADDRESS: the server is not trusted: no root that is trusted for it has \
             signed it; add its root",
        ),
        (
            "mode: SIMPLE, caCertificates: ca.pem, sni: www.bank.example",
            &bank,
            ".subjectAltNames: ADDRESS: the server is not trusted: its certificate is for \
             api.bank.example; wanted is www.bank.example; name one of them",
        ),
        (
            "mode: SIMPLE, caCertificates: ca.pem, subjectAltNames: [a.example, 'spiffe://b/c']",
            &bank,
            ".subjectAltNames: ADDRESS: the server is not trusted: its certificate is for \
             api.bank.example; wanted is a.example or spiffe://b/c; name one of them",
        ),
    ] {
        let directory = directory(tls, server.address).with("ca.pem", &root.pem());
        let proxy = Proxy::start(&directory).await;
        let answer = ask(proxy.address("outbound"), HOST, "/").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["x-mesh-flag"]),
            (503, &"UF".parse().unwrap())
        );
        told(&proxy, &format!("{place}{}", why.replace("ADDRESS", &server.address.to_string())))
            .await;
        // It is mended while it runs.
        directory.write("ca.pem", &bank.pem());
        directory.write(
            "bank.yaml",
            &rule("mode: SIMPLE, caCertificates: ca.pem, subjectAltNames: [x.y, api.bank.example]"),
        );
        until("it is believed", async || (get(&proxy).await.0 == 200).then_some(())).await;
    }

    // Plaintext is no way out.
    let app = application("app", Duration::ZERO).await;
    let directory =
        directory("mode: SIMPLE, caCertificates: ca.pem", app).with("ca.pem", &bank.pem());
    let proxy = Proxy::start(&directory).await;
    assert_eq!(get(&proxy).await.0, 503);
    told(&proxy, "tls.mode: ").await;
    told(&proxy, "does not speak TLS, and plaintext is never used instead; DISABLE says").await;
}

#[tokio::test]
async fn mutual_shows_a_certificate_that_rotates_while_requests_fly() {
    let (bank, ours) = (Authority::new("bank"), Authority::new("ours"));
    let server = Outside::start(&bank.site(HOST), Some(&ours)).await;
    let simple = directory("mode: SIMPLE, caCertificates: ca.pem", server.address)
        .with("ca.pem", &bank.pem());
    let proxy = Proxy::start(&simple).await;
    assert_eq!(get(&proxy).await.0, 503, "it wants a certificate");
    let said = "certificate_required, and none was sent; with MUTUAL it is shown a certificate";
    told(&proxy, &format!("tls.mode: {}: the server rejected", server.address)).await;
    told(&proxy, said).await;
    assert_eq!(server.requests(), 0);

    let rule = rule(MUTUAL) + SINGLE;
    let directory = directory("", server.address)
        .with("bank.yaml", &rule)
        .with("ca.pem", &bank.pem())
        .with("own.pem", &ours.site("first.example"));
    let proxy = Proxy::start(&directory).await;
    let mut requests = 0;
    for name in ["first.example", "second.example", "third.example"] {
        directory.write("own.pem", &ours.site(name));
        until(name, async || {
            let (status, body) = get(&proxy).await;
            assert_eq!(status, 200, "{}", proxy.log());
            requests += 1;
            body.ends_with(name).then_some(())
        })
        .await;
    }
    assert_eq!(server.requests(), requests);
}

const MUTUAL: &str =
    "mode: MUTUAL, caCertificates: ca.pem, clientCertificate: own.pem, privateKey: own.pem";
/// Each request on a connection of its own, so that each proves anew.
const SINGLE: &str = "    connectionPool: { http: { maxRequestsPerConnection: 1 } }\n";

/// What `/certs` says of the host.
async fn certs(proxy: &Proxy) -> serde_json::Value {
    let (status, certs) = proxy.admin("/certs").await;
    assert_eq!(status, 200);
    assert!(!certs.contains("PRIVATE"), "{certs}");
    let mut certs: serde_json::Value = serde_json::from_str(&certs).unwrap();
    certs["outside"][HOST].take()
}

/// The value of a series of the host.
async fn metric(proxy: &Proxy, name: &str, more: &str) -> Option<f64> {
    proxy.metric(&format!("{name}{{upstream=\"{HOST}\"{more}}}")).await
}

#[tokio::test]
async fn a_revoked_server_gets_no_request_and_an_operator_sees_it_all() {
    let (bank, ours) = (Authority::new("bank"), Authority::new("ours"));
    let server = Outside::start(&bank.site(HOST), Some(&ours)).await;
    let own = ours.site("first.example");
    let directory = directory("", server.address)
        .with("bank.yaml", &(rule(&format!("{MUTUAL}, caCrl: list.pem")) + SINGLE))
        .with("ca.pem", &bank.pem())
        .with("list.pem", &bank.list(&["www.bank.example"]))
        .with("own.pem", &own);
    let proxy = Proxy::start(&directory).await;
    assert_eq!(get(&proxy).await.0, 200, "{}", proxy.log());
    let shown = certs(&proxy).await;
    let status = &shown["status"];
    assert!(status["roots"]["from"].as_str().unwrap().ends_with("ca.pem"), "{shown}");
    assert_eq!((&status["roots"]["count"], &status["crl"]["count"]), (&1.into(), &1.into()));
    assert_eq!(status["certificate"]["names"][0], "first.example");
    assert!(status["certificate"]["not_after"].as_u64() > shown["expires_in"].as_u64(), "{shown}");
    assert_eq!(status["generation"], 1);
    assert_ne!(shown["stats"]["connected"], 0, "{shown}");
    let secret = own.lines().rev().nth(1).unwrap();
    assert!(!shown.to_string().contains(secret), "{shown}");
    let (_, page) = proxy.admin("/").await;
    let words =
        ["Servers outside the mesh", "ca.pem", "1 of them", "revocation lists: 1", "first.example"];
    for words in words {
        assert!(page.contains(words), "{words:?} is not in\n{page}");
    }
    assert!(!page.contains(secret) && !page.contains("role=\"alert\""), "{page}");
    let connects = metric(&proxy, "mesh_tls_connects_total", ",result=\"ok\"").await;
    assert!(connects >= Some(1.0), "{connects:?}");
    let date = metric(&proxy, "mesh_tls_not_after_seconds", "").await;
    assert_eq!(date, status["certificate"]["not_after"].as_f64());

    directory.write("list.pem", &bank.list(&[HOST]));
    until("it is revoked", async || (get(&proxy).await.0 == 503).then_some(())).await;
    let said = format!(
        "tls.caCrl: {}: the server is not trusted: it, or an issuer above it, has been revoked",
        server.address
    );
    told(&proxy, &said).await;
    let requests = server.requests();
    directory.write("list.pem", "nothing");
    until("it is told", async || {
        let shown = certs(&proxy).await;
        let error = shown["status"]["last_error"].as_str()?;
        error.contains("list.pem: no revocation list found").then_some(())
    })
    .await;
    assert_eq!(get(&proxy).await.0, 503, "the last good list stays");
    assert_eq!(server.requests(), requests);
    assert_eq!(metric(&proxy, "mesh_tls_updates_refused_total", "").await, Some(1.0));

    // Without the list it is let in again: by a transport that is built anew, and counts from 0.
    directory.write("bank.yaml", &(rule(MUTUAL) + SINGLE));
    until("it is asked no more", async || (get(&proxy).await.0 == 200).then_some(())).await;
    assert_eq!(certs(&proxy).await["status"]["crl"], serde_json::Value::Null);
    until("no connection is forgotten", async || {
        let connects = metric(&proxy, "mesh_tls_connects_total", ",result=\"ok\"").await?;
        (connects >= f64::from(server.requests())).then_some(())
    })
    .await;
}

/// A proxy with an identity of the mesh that calls the host at that address.
async fn checkout(ca: &DevCa, tls: &str, more: &str, address: SocketAddr) -> (Directory, Proxy) {
    let directory = directory(tls, address)
        .with("proxy.yaml", &format!("{PROXY}{IDENTITY}"))
        .with("endpoints.yaml", &endpoints(more, address))
        .with_identity(ca, "/sa/checkout");
    let proxy = Proxy::start(&directory).await;
    (directory, proxy)
}

#[tokio::test]
async fn istio_mutual_proves_who_both_are() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let (_files, pay) = payment(&ca, app, "spiffe://shop.example/sa/checkout").await;
    let inbound = pay.address("inbound");
    let pay_id = "'spiffe://shop.example/sa/pay'";
    let other = "'spiffe://shop.example/sa/other'";
    for (tls, more) in [
        (format!("mode: ISTIO_MUTUAL, subjectAltNames: [{other}, {pay_id}]"), String::new()),
        (
            format!("mode: ISTIO_MUTUAL, subjectAltNames: [{pay_id}]"),
            format!("tls: mutual, peers: [{other}],"),
        ),
        // Names of the document go before those of the list, which stand for the service's accounts.
        ("mode: ISTIO_MUTUAL, sni: pay.example".into(), format!("peers: [{pay_id}],")),
    ] {
        let (_files, proxy) = checkout(&ca, &tls, &more, inbound).await;
        let (status, body) = get(&proxy).await;
        assert_eq!(status, 200, "{}", proxy.log());
        assert!(body.contains("URI=spiffe://shop.example/sa/checkout"), "{body}");
    }
    let tls = format!("mode: ISTIO_MUTUAL, subjectAltNames: [{other}]");
    let (_files, checkout) = checkout(&ca, &tls, &format!("peers: [{pay_id}],"), inbound).await;
    assert_eq!(get(&checkout).await.0, 503);
    let said = format!(
        "tls.subjectAltNames: {inbound}: the server is spiffe://shop.example/sa/pay, which the policy \
         does not allow; name it"
    );
    told(&checkout, &said).await;
}

#[tokio::test]
async fn disable_is_plaintext_and_goes_before_the_list() {
    let ca = ca();
    let app = application("app", Duration::ZERO).await;
    let peers = "tls: mutual, peers: ['spiffe://shop.example/sa/pay'],";
    let (files, proxy) = checkout(&ca, "mode: DISABLE", peers, app).await;
    assert_eq!(get(&proxy).await.0, 200);
    told(&proxy, ": warning: DestinationRule bank: spec.trafficPolicy.tls.mode: DISABLE: ").await;
    told(&proxy, "although endpoints.yaml says mutual").await;
    assert!(!proxy.log().contains("error:"), "it is none:\n{}", proxy.log());
    // And back.
    files.write("bank.yaml", &rule("mode: ISTIO_MUTUAL"));
    until("mutual TLS is wanted", async || (get(&proxy).await.0 == 503).then_some(())).await;
}

#[tokio::test]
async fn a_subset_and_a_port_have_their_own() {
    let bank = Authority::new("bank");
    let secret = Outside::start(&bank.site("v1.bank.example"), None).await;
    let app = application("app", Duration::ZERO).await;
    let listed = format!(
        "upstreams: {{ {HOST}: {{ endpoints: [
           {{ address: '{}', labels: {{ version: v1 }} }},
           {{ address: '{app}', labels: {{ version: v2 }} }} ] }} }}",
        secret.address
    );
    let documents = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: bank }
spec:
  host: api.bank.example
  trafficPolicy:
    tls: { mode: SIMPLE, caCertificates: ca.pem }
    portLevelSettings: [{ port: { number: 8080 }, tls: { mode: DISABLE } }]
  subsets:
    - name: v1
      labels: { version: v1 }
      trafficPolicy: { tls: { mode: SIMPLE, caCertificates: ca.pem, sni: v1.bank.example } }
    - name: v2
      labels: { version: v2 }
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: bank }
spec:
  hosts: [api.bank.example]
  http:
    - match: [{ uri: { exact: /v1 } }]
      route: [{ destination: { host: api.bank.example, subset: v1 } }]
    - match: [{ uri: { exact: /v2 } }]
      route: [{ destination: { host: api.bank.example, subset: v2 } }]
    - route: [{ destination: { host: api.bank.example, subset: v2, port: { number: 8080 } } }]
";
    let directory = Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &listed)
        .with("ca.pem", &bank.pem())
        .with("bank.yaml", documents);
    let proxy = Proxy::start(&directory).await;
    let get = async |path: &str| {
        let answer = ask(proxy.address("outbound"), HOST, path).await.unwrap();
        (answer.status.as_u16(), answer.body)
    };
    let of_v1 = "bank asked as \"v1.bank.example\", shown nobody";
    assert_eq!(get("/v1").await, (200, of_v1.to_owned()), "{}", proxy.log());
    assert_eq!(get("/v2").await.0, 503, "the host's block is TLS, and it speaks plaintext");
    let (status, body) = get("/").await;
    assert!(status == 200 && body.starts_with("app"), "the port's block: {status} {body}");
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_said_at_load_by_its_place() {
    let address = "127.0.0.1:9".parse().unwrap();
    let ca = Authority::new("bank");
    let place = "bank.yaml:7:10: error: DestinationRule bank: spec.trafficPolicy.tls.";
    let mutual = &*MUTUAL.replace("privateKey: own.pem", "privateKey: key.pem");
    for (tls, field, why) in [
        ("mode: SIMPLE, caCertificates: none.pem", "caCertificates", "cannot be read"),
        ("mode: SIMPLE, caCertificates: bank.yaml", "caCertificates", "no certificate found"),
        (
            "mode: SIMPLE, caCertificates: ca.pem, caCrl: none.pem",
            "caCrl",
            "none.pem: cannot be read",
        ),
        (
            "mode: SIMPLE, caCertificates: ca.pem, caCrl: ca.pem",
            "caCrl",
            "no revocation list found",
        ),
        ("mode: SIMPLE, sni: '*.bank.example'", "sni", "expected a DNS name (api.bank.example)"),
        (
            "mode: SIMPLE, subjectAltNames: [a b]",
            "subjectAltNames",
            "\"a b\" is not allowed, expected",
        ),
        (mutual, "privateKey", "the private key does not belong to the certificate"),
        ("mode: ISTIO_MUTUAL", "mode", "set identity in proxy.yaml"),
    ] {
        let directory = directory(tls, address)
            .with("ca.pem", &ca.pem())
            .with("own.pem", &ca.site("client.example"))
            .with("key.pem", &ca.site("client.example"));
        for check in [true, false] {
            let (code, said) = run(directory.path(), check).await;
            assert_eq!(code, Some(2), "{tls}: {said}");
            assert!(
                said.contains(&format!("{place}{field}: ")) && said.contains(why),
                "{tls}: {said}"
            );
        }
    }
    // With an identity, but nobody named; a name that nobody proves; and nothing said at all.
    let identity = Directory::new()
        .with("proxy.yaml", &format!("{PROXY}{IDENTITY}"))
        .with("endpoints.yaml", &endpoints("", address))
        .with_identity(&self::ca(), "/sa/checkout");
    let check = async || run(identity.path(), true).await.1;
    identity.write("bank.yaml", &rule("mode: ISTIO_MUTUAL"));
    let said = check().await;
    assert!(said.contains("tls.subjectAltNames: is missing: whose certificates"), "{said}");
    identity.write("bank.yaml", &rule("mode: ISTIO_MUTUAL, subjectAltNames: [bank.example]"));
    let said = check().await;
    assert!(said.contains("tls.subjectAltNames: \"bank.example\" is no SPIFFE ID"), "{said}");
    identity.write("bank.yaml", "");
    let said = check().await;
    assert!(said.contains(&format!("endpoints.yaml: upstreams.{HOST}.tls: is missing")), "{said}");
}

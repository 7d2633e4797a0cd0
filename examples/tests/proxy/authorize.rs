//! `AuthorizationPolicy` documents before an application, with curl and certificates.

use std::{net::SocketAddr, path::Path, time::Duration};

use http::{Request, StatusCode, Version};
use http_body_util::Full;
use mesh_tls::{DevCa, MeshTls, PeerPolicy, StaticSource};
use tokio::net::TcpListener;
use tonic::transport::{Endpoint, Server, server::TcpIncoming};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};

use crate::support::{self, Directory, Proxy, application, ca, has_curl, output, run, send, until};

/// The body, and what curl says behind it.
const DENIED: &str = "RBAC: access denied403";

const PROXY: &str = "\
workload: { namespace: shop, labels: { app: items } }
identity: { certificate: tls.crt, key: tls.key, bundle: ca.crt }
admin: { listen: '127.0.0.1:0' }
";

/// Who may do what; the mode lets plaintext in, so that it is the policy that refuses it.
const POLICIES: &str = "\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: PERMISSIVE } }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: readers, namespace: shop }
spec:
  selector: { matchLabels: { app: items } }
  action: ALLOW
  rules:
    - from: [{ source: { serviceAccounts: [cart] } }]
      to: [{ operation: { methods: [GET], paths: [/items/*] } }]
    - to: [{ operation: { paths: [/named/*] } }]
      when: [{ key: connection.sni, values: [items.shop] }]
    - to: [{ operation: { paths: [/tenants/*] } }]
      when: [{ key: 'request.headers[x-tenant]', values: [a] }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-secrets, namespace: shop }
spec:
  action: DENY
  rules:
    - to: [{ operation: { paths: [/items/secret] } }]
";

fn directory(ca: &DevCa, app: SocketAddr) -> Directory {
    let inbound = format!("inbound: {{ listen: '127.0.0.1:0', app: '{app}' }}\n");
    Directory::new()
        .with("proxy.yaml", &format!("{PROXY}{inbound}"))
        .with("endpoints.yaml", "upstreams: {}")
        .with("policies.yaml", POLICIES)
        .with_identity(ca, "/ns/shop/sa/items")
}

/// A proxy with these policies before an application, and whose identities they are.
async fn items() -> (DevCa, Directory, Proxy) {
    let ca = ca();
    let files = directory(&ca, application("items", Duration::ZERO).await);
    let proxy = Proxy::start(&files).await;
    (ca, files, proxy)
}

/// The certificate of a service account, in a directory of its own.
fn account(ca: &DevCa, path: &str) -> Directory {
    Directory::new().with_identity(ca, path)
}

/// What curl says: the status, and what came back.
async fn curl(url: &str, identity: Option<&Path>, more: &[&str]) -> String {
    let mut curl = support::curl();
    curl.args(["-s", "-k", "--path-as-is", "-w", "%{http_code}"]).args(more);
    if let Some(identity) = identity {
        curl.arg("--cert").arg(identity.join("tls.crt"));
        curl.arg("--key").arg(identity.join("tls.key"));
    }
    curl.arg(url);
    String::from_utf8(output(curl).await.stdout).unwrap()
}

#[tokio::test]
async fn curl_is_let_in_and_refused_by_policy() {
    if !has_curl() {
        return;
    }
    let (ca, _files, proxy) = items().await;
    let inbound = proxy.address("inbound");
    let (cart, other) = (account(&ca, "/ns/shop/sa/cart"), account(&ca, "/ns/shop/sa/other"));
    let https = |path: &str| format!("https://{inbound}{path}");
    let (cart, other) = (cart.path(), other.path());

    let answer = curl(&https("/items/7"), Some(cart), &[]).await;
    assert!(answer.ends_with("200"), "{answer}\n{}", proxy.log());
    let caller = "URI=spiffe://shop.example/ns/shop/sa/cart";
    let forged = ["-H", "x-forwarded-client-cert: URI=spiffe://shop.example/ns/shop/sa/admin"];
    let answer = curl(&https("/items/7"), Some(cart), &forged).await;
    assert!(answer.contains(caller) && !answer.contains("sa/admin"), "{answer}");

    for (path, identity, more) in [
        ("/admin", cart, &[][..]),
        ("/items/7", cart, &["-X", "POST"][..]),
        ("/items/secret", cart, &[]),
        ("/items//secret", cart, &[]),
        ("/items/%73ecret", cart, &[]),
        ("/items/..%2fadmin", cart, &[]),
        ("/items/../admin", cart, &[]),
        ("/items/7", other, &[]),
        ("/items/7", other, &forged[..]),
    ] {
        let answer = curl(&https(path), Some(identity), more).await;
        assert_eq!(answer, DENIED, "{path}");
    }
    // What was judged by a header does not go on without it, and who has called is never taken away.
    let dropped = ["--http1.1", "-H", "connection: x-forwarded-client-cert"];
    let answer = curl(&https("/items/7"), Some(cart), &dropped).await;
    assert!(answer.contains(caller), "{answer}");
    let dropped = ["--http1.1", "-H", "x-tenant: a", "-H", "connection: x-tenant"];
    assert_eq!(curl(&https("/tenants/a"), Some(cart), &dropped).await, DENIED);
    let answer = curl(&https("/tenants/a"), Some(cart), &dropped[..3]).await;
    assert!(answer.ends_with("200"), "the control: {answer}");

    // No certificate: the mode allows it, the policy does not.
    let answer = curl(&format!("http://{inbound}/items/7"), None, &forged).await;
    assert_eq!(answer, DENIED);
    // The server name of the handshake is known.
    let named = |name: &str| (format!("https://{name}/named/a"), format!("{name}::{inbound}"));
    for (name, status) in [("items.shop", "200"), ("admin.shop", DENIED)] {
        let (url, through) = named(name);
        let answer =
            curl(&url, Some(cart), &["--connect-to", &format!("::{}", &through[name.len() + 2..])])
                .await;
        assert!(answer.ends_with(status), "{name}: {answer}");
    }
    let answer = curl(&https("/named/a"), Some(cart), &[]).await;
    assert_eq!(answer, DENIED, "an address is no server name");

    let (_, certs) = proxy.admin("/certs").await;
    assert!(certs.contains("\"requests_denied\":13"), "{certs}");
    for shown in ["\"expires_in\":", "\"generation\":1", "\"updates_refused\":0"] {
        assert!(certs.contains(shown), "{shown}: {certs}");
    }
    assert!(
        !certs.contains("\"expires_in\":0,") && !certs.contains("\"expires_in\":null"),
        "{certs}"
    );
    assert!(
        certs.contains("\"network\":\"127.0.0.0/24\"")
            || certs.contains("\"network\":\"127.0.0.1/32\""),
        "{certs}"
    );

    let counted = async |result: &str, policy: &str| {
        let labels = format!("layer=\"inbound\",result=\"{result}\",policy=\"{policy}\"");
        proxy.metric(&format!("mesh_authorize_total{{{labels}}}")).await
    };
    assert_eq!(counted("allowed", "shop/readers").await, Some(5.0));
    assert_eq!(counted("denied", "shop/no-secrets").await, Some(3.0));
    assert_eq!(counted("denied", "").await, Some(10.0));
}

#[tokio::test]
async fn tonic_is_let_in_and_refused_by_policy() {
    let (reporter, health) = health_reporter();
    reporter.set_service_status("pay", ServingStatus::Serving).await;
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = tcp.local_addr().unwrap();
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(TcpIncoming::from(tcp)));
    let ca = ca();
    let files = directory(&ca, app);
    files.write(
        "policies.yaml",
        &POLICIES.replace("/items/*", "/grpc.health.v1.Health/*").replace("[GET]", "[POST]"),
    );
    let proxy = Proxy::start(&files).await;
    let inbound = proxy.address("inbound");
    let ask = || HealthCheckRequest { service: "pay".into() };

    let certificates = async |path: &str| {
        let material = ca.issue(path).unwrap().material().unwrap();
        MeshTls::builder(StaticSource::new(material).0).spawn().await.unwrap()
    };
    let to = |mesh: &MeshTls| {
        let channel = Endpoint::try_from(format!("http://{inbound}")).unwrap();
        let connector = mesh.connector(PeerPolicy::any_authenticated());
        HealthClient::new(channel.connect_with_connector_lazy(connector))
    };
    let (cart, other) =
        (certificates("/ns/shop/sa/cart").await, certificates("/ns/shop/sa/b").await);
    let status = to(&cart).check(ask()).await.unwrap().into_inner().status;
    assert_eq!(status, ServingStatus::Serving as i32, "{}", proxy.log());
    let refused = to(&other).check(ask()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
    assert_eq!(refused.message(), "access is denied");
    let refused = to(&other).watch(ask()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "of a stream too: {refused:?}");

    // As it is sent: the head alone.
    let request = Request::post("http://items/grpc.health.v1.Health/Check")
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .body(Full::default())
        .unwrap();
    let answer = send(inbound, request).await.unwrap();
    assert_eq!((answer.status, &*answer.body), (StatusCode::OK, ""));
    assert_eq!(answer.headers["grpc-status"], "7");
    assert!(answer.trailers.is_none(), "{answer:?}");
}

#[tokio::test]
async fn policies_change_while_it_runs_and_a_bad_one_changes_nothing() {
    if !has_curl() {
        return;
    }
    let (ca, files, proxy) = items().await;
    let cart = account(&ca, "/ns/shop/sa/cart");
    let url = |path: &str| format!("https://{}{path}", proxy.address("inbound"));
    let status = async |path: &str| {
        let answer = curl(&url(path), Some(cart.path()), &[]).await;
        answer[answer.len() - 3..].to_owned()
    };
    assert_eq!(status("/items/7").await, "200");

    files.write("policies.yaml", &POLICIES.replace("[cart]", "[checkout]"));
    until("the cart is refused", async || (status("/items/7").await == "403").then_some(())).await;

    // A field that cannot be carried out: the last good policies stay.
    let custom = POLICIES.replace("action: DENY", "action: CUSTOM");
    files.write("policies.yaml", &custom.replace("[cart]", "[\"cart\"]"));
    until("it is rejected", async || proxy.log().contains("rejected").then_some(())).await;
    assert!(proxy.log().contains("policies.yaml:24:"), "{}", proxy.log());
    assert_eq!(status("/items/7").await, "403");

    files.write("policies.yaml", POLICIES);
    until("the cart is let in", async || (status("/items/7").await == "200").then_some(())).await;
}

#[tokio::test]
async fn what_cannot_be_carried_out_keeps_the_proxy_from_starting() {
    let ca = ca();
    let files = directory(&ca, "127.0.0.1:1".parse().unwrap());
    for (old, new, line, said) in [
        ("serviceAccounts: [cart]", "requestPrincipals: ['*']", 13, "no token is verified here"),
        ("methods: [GET]", "verbs: [GET]", 14, "operation.verbs: is not supported"),
        ("action: DENY", "action: CUSTOM", 24, "nobody is here to ask"),
    ] {
        files.write("policies.yaml", &POLICIES.replace(old, new));
        // Also where other documents may leave out what is not supported.
        let inbound = "inbound: { listen: '127.0.0.1:0', app: '127.0.0.1:1' }\nunsupported: warn\n";
        files.write("proxy.yaml", &format!("{PROXY}{inbound}"));
        let (code, errors) = run(files.path(), true).await;
        assert_eq!(code, Some(2), "{new}: {errors}");
        let place = format!("policies.yaml:{line}:");
        assert!(errors.contains(&place) && errors.contains(said), "{new}: {errors}");
    }
}

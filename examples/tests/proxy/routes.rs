//! The outbound side carries out the documents' routes, as `curl` sees them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::support::{
    self, Directory, PROXY, Proxy, application, ask, has_curl, output, serve, until,
};

/// What `curl` has to say, after `-s`.
async fn curl(to: SocketAddr, host: &str, path: &str, more: &[&str]) -> String {
    let mut command = support::curl();
    command.args(["--silent", "--header", &format!("host: {host}")]).args(more);
    command.arg(format!("http://{to}{path}"));
    let output = output(command).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Only the status.
const STATUS: [&str; 4] = ["--output", "/dev/null", "--write-out", "%{http_code}"];

/// Several plaintext upstreams.
fn upstreams(all: &[(&str, SocketAddr)]) -> String {
    let one = |(name, address): &(&str, SocketAddr)| {
        format!(
            "  {name}: {{ tls: plaintext, endpoints: [{{ address: '{address}', labels: {{ version: v1 }} }}] }}\n"
        )
    };
    format!("upstreams:\n{}", all.iter().map(one).collect::<String>())
}

const RULES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: shop }
spec:
  hosts: [shop]
  http:
    - name: testers
      match: [{ headers: { x-tester: { exact: 'yes' } } }]
      route: [{ destination: { host: beta }, headers: { response: { add: { x-route: beta } } } }]
    - match: [{ uri: { prefix: /old/ } }]
      redirect: { uri: /new, redirectCode: 308 }
    - match: [{ uri: { exact: /robots.txt } }]
      directResponse: { status: 200, body: { string: 'nothing to see' } }
    - match: [{ uri: { prefix: /broken } }]
      fault: { abort: { httpStatus: 418, percentage: { value: 100 } } }
      route: [{ destination: { host: web } }]
    - match: [{ uri: { prefix: /slow } }]
      fault: { delay: { fixedDelay: 300ms, percentage: { value: 100 } } }
      route: [{ destination: { host: web } }]
    - match: [{ uri: { prefix: /api/ } }]
      rewrite: { uri: /v1/, authority: api.internal }
      headers: { request: { set: { x-set: here }, remove: [x-secret] } }
      timeout: 250ms
      route: [{ destination: { host: api } }]
    - match: [{ uri: { prefix: /copied } }]
      route: [{ destination: { host: web } }]
      mirror: { host: beta }
    - match: [{ uri: { prefix: /split } }]
      route:
        - { destination: { host: web }, weight: 75 }
        - { destination: { host: beta }, weight: 25 }
    - route: [{ destination: { host: web } }]
";

/// Says what it was asked, unless that ends with `never`: then nothing.
async fn teller(name: &'static str) -> SocketAddr {
    serve(move |request: Request<Incoming>| async move {
        if request.uri().path().ends_with("never") {
            std::future::pending::<()>().await;
        }
        let (head, body) = request.into_parts();
        let length = body.collect().await.map_or(0, |body| body.to_bytes().len());
        let host = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
        let text = format!(
            "{name} {} {} {length} {:?} {:?}",
            head.uri,
            host.unwrap_or_default(),
            head.headers.get("x-set"),
            head.headers.get("x-secret"),
        );
        Response::new(Full::new(Bytes::from(text)))
    })
    .await
}

#[tokio::test]
async fn every_kind_of_rule_is_carried_out() {
    if !has_curl() {
        return;
    }
    let (web, api) = (teller("web").await, teller("api").await);
    let copies = Arc::new(AtomicUsize::new(0));
    let counted = copies.clone();
    let beta = serve(move |request: Request<Incoming>| {
        let is_copy = request.headers()["host"] == "shop-shadow" && request.uri() == "/copied/1";
        counted.fetch_add(usize::from(is_copy), Ordering::SeqCst);
        async { Response::new(Full::new(Bytes::from_static(b"beta"))) }
    })
    .await;
    let directory = Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &upstreams(&[("web", web), ("api", api), ("beta", beta)]))
        .with("rules.yaml", RULES);
    let proxy = Proxy::start(&directory).await;
    let to = proxy.address("outbound");
    let shop = async |path: &str, more: &[&str]| curl(to, "shop", path, more).await;

    assert_eq!(shop("/", &[]).await, "web / shop 0 None None");
    assert_eq!(curl(to, "shop.default:80", "/", &[]).await, "web / shop.default:80 0 None None");
    assert_eq!(curl(to, "api", "/", &[]).await, "api / api 0 None None", "it has no rules");
    assert_eq!(curl(to, "nobody", "/", &STATUS).await, "404");

    let tester = ["--header", "x-tester: yes", "--include"];
    let answer = shop("/", &tester).await;
    assert!(answer.ends_with("beta") && answer.contains("x-route: beta"), "{answer}");

    let moved = shop("/old/thing?a=b", &["--include"]).await;
    assert!(moved.starts_with("HTTP/1.1 308"), "{moved}");
    assert!(moved.to_ascii_lowercase().contains("location: http://shop/new"), "{moved}");
    assert_eq!(shop("/robots.txt", &[]).await, "nothing to see");
    assert_eq!(shop("/broken", &STATUS).await, "418");
    let from = mesh_tower::Clock.now();
    assert_eq!(shop("/slow", &[]).await, "web /slow shop 0 None None");
    assert!(mesh_tower::Clock.now().since(from) >= Duration::from_millis(300));

    let more = ["--header", "x-secret: 1", "--data", "12345"];
    assert_eq!(shop("/api/a?b=c", &more).await, "api /v1/a?b=c api.internal 5 Some(\"here\") None");
    assert_eq!(shop("/api/never", &STATUS).await, "504", "the route's time is over");

    assert_eq!(copies.load(Ordering::SeqCst), 0);
    assert_eq!(shop("/copied/1", &["--data", "12345"]).await, "web /copied/1 shop 5 None None");
    until("the copy comes", async || (copies.load(Ordering::SeqCst) == 1).then_some(())).await;

    let mut by_beta = 0;
    for _ in 0..400 {
        let answer = ask(to, "shop", "/split").await.unwrap();
        by_beta += usize::from(answer.body == "beta");
    }
    // 100 are expected; 5 standard deviations are 43.
    assert!((57..=143).contains(&by_beta), "{by_beta} of 400");

    let (_, clusters) = proxy.admin("/clusters").await;
    for name in ["web", "api", "beta"] {
        assert!(clusters.contains(&format!("{name}::127.0.0.1")), "{clusters}");
    }
    let (_, config) = proxy.admin("/config").await;
    assert!(config.contains("upstream beta"), "{config}");
    for line in [
        "  testers   beta 100%\n",
        "redirects, 308",
        "answers 200",
        "web 75%, beta 25%",
        "copies to beta 100%",
    ] {
        assert!(config.contains(line), "{line:?} is not in\n{config}");
    }
}

#[tokio::test]
async fn a_host_without_any_endpoints_answers_for_itself() {
    let web = application("web", Duration::ZERO).await;
    let service = |host: &str, to: &str| {
        let name = host.trim_start_matches("*.");
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{ name: {name} }}\n\
             spec:\n  hosts: ['{host}']\n  http: [{{ route: [{{ destination: {{ host: {to} }} }}] }}]\n---\n"
        )
    };
    let rules = service("*.shop.example", "web") + &service("pay.shop.example", "pay");
    let directory = Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &upstreams(&[("web", web)]))
        .with("rules.yaml", &rules);
    let proxy = Proxy::start(&directory).await;
    let to = proxy.address("outbound");
    let answer = ask(to, "pay.shop.example", "/").await.unwrap();
    assert_eq!(answer.status, 503, "what is for pay alone reached web: {answer:?}");
    assert_eq!(answer.headers["x-mesh-flag"], "UH");
    assert_eq!(ask(to, "cart.shop.example", "/").await.unwrap().status, 200, "the wildcard's");
    let told =
        "pay has policies but no endpoints in endpoints.yaml: requests that lead there are refused";
    assert!(proxy.log().contains(told), "{}", proxy.log());
}

#[tokio::test]
async fn routes_change_as_a_whole_or_not_at_all() {
    let web = application("web", Duration::ZERO).await;
    let directory = Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &upstreams(&[("web", web)]))
        .with("rules.yaml", &rule("{ uri: { prefix: /a } }"));
    let proxy = Proxy::start(&directory).await;
    let to = proxy.address("outbound");
    let status = async |path: &str| ask(to, "shop", path).await.unwrap().status.as_u16();
    assert_eq!((status("/a").await, status("/b").await), (200, 404));

    // What only a router can refuse, and what names the document and the line.
    for (bad, said) in [
        ("{ uri: { regex: '/(' } }", "regex"),
        ("{ uri: { suffix: /b } }", "rules.yaml:8:"),
        ("{ headers: { 'x y': { exact: a } } }", "x y"),
    ] {
        directory.write("rules.yaml", &rule(bad));
        let before = proxy.log().matches("configuration rejected").count();
        until("it is rejected", async || {
            (proxy.log().matches("configuration rejected").count() > before).then_some(())
        })
        .await;
        assert!(proxy.log().contains(said), "{said} is not in\n{}", proxy.log());
        assert_eq!((status("/a").await, status("/b").await), (200, 404), "{bad}");
        directory.write("rules.yaml", &rule("{ uri: { prefix: /a } }"));
        let good = proxy.log().matches("configuration reloaded").count();
        until("the good one is back", async || {
            (proxy.log().matches("configuration reloaded").count() > good).then_some(())
        })
        .await;
    }
    directory.write("rules.yaml", &rule("{ uri: { prefix: /b } }"));
    until("it is followed", async || (status("/b").await == 200).then_some(())).await;
    assert_eq!(status("/a").await, 404);
}

#[tokio::test]
async fn a_route_of_gateway_api_is_carried_out_too() {
    let (web, api) = (teller("web").await, teller("api").await);
    let route = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: shop }
spec:
  parentRefs: [{ group: '', kind: Service, name: web }]
  rules:
    - backendRefs: [{ name: web, port: 80 }]
    - matches: [{ path: { value: /api } }]
      filters:
        - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-set, value: here }] } }
      backendRefs: [{ name: api, port: 80 }]
";
    let directory = Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &upstreams(&[("web", web), ("api", api)]))
        .with("route.yaml", route);
    let proxy = Proxy::start(&directory).await;
    let to = proxy.address("outbound");
    let body = async |host: &str, path: &str| ask(to, host, path).await.unwrap().body;
    for host in ["web", "web.default"] {
        assert!(body(host, "/").await.starts_with("web / "));
        assert!(body(host, "/api/x").await.starts_with("api /api/x "));
        assert!(body(host, "/api/x").await.contains("here"));
    }
    assert!(body("api", "/").await.starts_with("api / "), "it has no rules");
    directory.write(
        "route.yaml",
        &route.replace("backendRefs: [{ name: api, port: 80 }]", "backendRef: []"),
    );
    until("it is rejected", async || proxy.log().contains("is backendRefs meant?").then_some(()))
        .await;
    assert!(
        proxy.log().contains("route.yaml:11:7: error: HTTPRoute shop: spec.rules[1].backendRef"),
        "{}",
        proxy.log()
    );
    assert!(body("web", "/api/x").await.starts_with("api /api/x "));
}

fn rule(one: &str) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: shop }}
spec:
  hosts: [shop]
  http:
    - match:
        - {one}
      route: [{{ destination: {{ host: web }} }}]
"
    )
}

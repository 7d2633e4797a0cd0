//! `HTTPRoute`s of Gateway API as routes.

use std::time::Duration;

use http::{Request, StatusCode};
use mesh_core::{deadline::Deadline, route::Client};
use mesh_tower::{
    istio::{self, Documents, Unsupported},
    route::RouteRetry,
};

use super::{
    read,
    routes::{get, send},
};

const SHOP: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: sales}
spec:
  parentRefs: [{group: "", kind: Service, name: shop, port: 80}]
  rules:
    - backendRefs: [{name: web, port: 8080}]
    - matches: [{path: {type: PathPrefix, value: /api}}]
      backendRefs: [{name: api, namespace: other, port: 80}]
      filters:
        - type: URLRewrite
          urlRewrite: {hostname: api.inner, path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}
        - type: RequestHeaderModifier
          requestHeaderModifier: {set: [{name: x-to, value: api}], add: [{name: x-also, value: b}], remove: [cookie]}
        - type: ResponseHeaderModifier
          responseHeaderModifier: {add: [{name: x-via, value: mesh}]}
      timeouts: {request: 2s, backendRequest: 500ms}
      retry: {codes: [503], attempts: 4, backoff: 50ms}
    - matches:
        - {path: {type: PathPrefix, value: /api}, headers: [{name: x-user, value: jason}]}
        - {method: DELETE, queryParams: [{name: q, type: RegularExpression, value: "1|2"}]}
      backendRefs: [{name: beta, port: 80}]
    - matches: [{path: {type: Exact, value: /old}}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.com, port: 8443, scheme: https}}]
    - matches: [{path: {type: Exact, value: /nowhere}}]
    - matches: [{path: {type: RegularExpression, value: "/v[0-9]+/.*"}}]
      backendRefs:
        - {name: a, port: 80, weight: 0}
        - name: b
          port: 80
          weight: 3
          filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-b, value: "1"}]}}]
"#;

#[tokio::test]
async fn the_most_exact_match_counts_whatever_the_order() {
    let documents = read(SHOP);
    for (uri, to) in [
        ("http://shop.sales/", "web:8080"),
        ("http://shop.sales.svc.cluster.local/apis", "web:8080"),
        ("http://shop.sales/api", "api.other:80"),
        ("http://shop.sales/api/cart", "api.other:80"),
        ("http://shop.sales/old", "302 Found"),
        ("http://shop.sales/nowhere", "500 Internal Server Error"),
        ("http://shop.sales/v12/x", "b:80"),
        ("http://shop.sales:81/", "404 Not Found"),
        ("http://shop/", "404 Not Found"),
    ] {
        assert_eq!(get(&documents, uri).await, to, "{uri}");
    }
    let client = Client::default().with_namespace("sales");
    let request = |method: &str, uri: &str| {
        Request::builder().method(method).uri(uri).header("x-user", "jason").body(()).unwrap()
    };
    for (method, uri, to) in [
        ("GET", "http://shop/api/cart", "beta:80"),
        ("DELETE", "http://shop/?q=2", "beta:80"),
        ("DELETE", "http://shop/?q=3", "web:8080"),
        ("DELETE", "http://shop/old?q=1", "302 Found"),
    ] {
        assert_eq!(send(&documents, &client, request(method, uri)).await.0, to, "{method} {uri}");
    }
}

#[tokio::test]
async fn a_request_is_changed_as_the_filters_say() {
    let documents = read(SHOP);
    let request = Request::get("http://shop.sales/api/cart?a=b").header("cookie", "c").body(());
    let (to, head, response) = send(&documents, &Client::default(), request.unwrap()).await;
    let head = head.unwrap();
    assert_eq!(to, "api.other:80");
    assert_eq!(head.uri, "http://api.inner/v2/cart?a=b");
    assert_eq!(
        (&head.headers["x-to"], &head.headers["x-also"]),
        (&"api".parse().unwrap(), &"b".parse().unwrap())
    );
    assert!(!head.headers.contains_key("cookie"));
    assert_eq!(response.headers()["x-via"], "mesh");
    assert!(head.extensions.get::<Deadline>().is_some());
    let retry = head.extensions.get::<RouteRetry>().unwrap().config();
    assert_eq!((retry.retries(), retry.per_try_timeout()), (4, Some(Duration::from_millis(500))));
    assert!(retry.retry_on().to_string().contains("503"), "{}", retry.retry_on());

    let request = Request::get("http://shop.sales/v1/").body(()).unwrap();
    let (_, head, _) = send(&documents, &Client::default(), request).await;
    assert_eq!(head.unwrap().headers["x-b"], "1", "of the backend's filter");
    let request = Request::get("http://shop.sales/old").body(()).unwrap();
    let (_, _, response) = send(&documents, &Client::default(), request).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], "https://new.example.com:8443/old");
}

fn route(name: &str, created: &str, parent: &str, hostnames: &str, backend: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1beta1
kind: HTTPRoute
metadata: {{name: {name}, creationTimestamp: \"{created}\"}}
spec:
  parentRefs: [{parent}]
  hostnames: {hostnames}
  rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]
---
"
    )
}

#[tokio::test]
async fn the_rules_of_all_routes_of_a_host_count_together_and_the_older_wins() {
    let service = "{kind: Service, group: '', name: shop}";
    let of = async |routes: [&str; 2]| get(&read(&routes.concat()), "http://shop.default/").await;
    let young = route("a", "2026-02-01T00:00:00Z", service, "[]", "young");
    let old = route("b", "2026-01-31T23:59:59Z", service, "[]", "old");
    let twin = route("c", "2026-01-31T23:59:59Z", service, "[]", "twin");
    assert_eq!(of([&young, &old]).await, "old:80");
    assert_eq!(of([&old, &young]).await, "old:80");
    assert_eq!(of([&twin, &old]).await, "old:80", "then the alphabet decides");
}

#[tokio::test]
async fn a_gateway_has_the_routes_that_are_attached_to_it() {
    let text = [
        route("one", "", "{name: front}", "[shop.example.com, '*.eu.example.com']", "one"),
        route("two", "", "{name: front, namespace: other}", "[]", "two"),
    ]
    .concat();
    let documents = read(&text);
    let ask = async |gateway: &str, host: &str| {
        let client = Client::default().with_gateway(gateway);
        let request = Request::get(format!("http://{host}/")).body(()).unwrap();
        send(&documents, &client, request).await.0
    };
    assert_eq!(ask("default/front", "shop.example.com").await, "one:80");
    assert_eq!(ask("default/front", "a.eu.example.com").await, "one:80");
    assert_eq!(ask("default/front", "else.example.com").await, "404 Not Found");
    assert_eq!(ask("other/front", "else.example.com").await, "two:80", "every host");
    assert_eq!(ask("mesh", "shop.example.com").await, "404 Not Found", "it is no gateway");
    let hosts: Vec<_> = documents.http_routes()[0].hosts().collect();
    assert_eq!(hosts, ["shop.example.com", "*.eu.example.com"]);
}

#[tokio::test]
async fn a_virtual_service_goes_before() {
    let service = "{kind: Service, group: '', name: shop}";
    let text = route("a", "", service, "[]", "gateway")
        + "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec: {hosts: [shop], http: [{route: [{destination: {host: istio}}]}]}
";
    assert_eq!(get(&read(&text), "http://shop/").await, "istio");
}

#[tokio::test]
async fn copies_have_their_share() {
    for (share, expected) in [
        ("", 1_000_000),
        (", percent: 25", 250_000),
        (", fraction: {numerator: 1, denominator: 3}", 333_333),
    ] {
        let text = format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shop}}
spec:
  parentRefs: [{{kind: Service, group: '', name: shop}}]
  rules:
    - backendRefs: [{{name: a, port: 80}}]
      filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: copy, port: 81}}{share}}}}}]
"
        );
        let hosts = read(&text).routes(&Client::default()).unwrap();
        let rule = hosts[0].rules().next().unwrap();
        let mesh_core::route::Action::Forward(forward) = rule.action() else { unreachable!() };
        let mirror = &forward.mirrors()[0];
        assert_eq!(mirror.destination().to_string(), "copy:81");
        assert_eq!(mirror.share().as_ppm(), expected);
    }
}

/// What is said of a spec that cannot be carried out as it is written, in the third line and later.
fn said(mode: Unsupported, spec: &str) -> String {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  parentRefs: [{{kind: Service, group: '', name: shop}}]\n{spec}\n"
    );
    match istio::read(&text, "r.yaml", mode) {
        Ok(documents) => documents.warnings().iter().map(ToString::to_string).collect(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn what_is_not_carried_out_is_named_by_document_line_and_path() {
    for (spec, expected) in [
        (
            "  rules: [{sessionPersistence: {}}]",
            "r.yaml:6:12: error: HTTPRoute r: spec.rules[0].sessionPersistence: is not supported",
        ),
        (
            "  rules: [{filters: [{type: ExtensionRef, extensionRef: {}}]}]",
            "spec.rules[0].filters[0].type: \"ExtensionRef\" is not supported here",
        ),
        (
            "  rules: [{backendRefs: [{name: a, filters: [{type: RequestMirror}]}]}]",
            "spec.rules[0].backendRefs[0].filters[0].type: \"RequestMirror\" is not supported here",
        ),
        (
            "  rules: [{backendRefs: [{name: a, group: storage, kind: Bucket}]}]",
            "spec.rules[0].backendRefs[0]: a backend of kind Bucket is not supported",
        ),
        (
            "  rules: [{backendRefs: [{name: a, weight: 1000001}]}]",
            "spec.rules[0].backendRefs[0].weight: 1000001 is not allowed",
        ),
        (
            "  rules: [{backendRefs: [{name: a, port: 0}]}]",
            "spec.rules[0].backendRefs[0].port: 0 is not a port",
        ),
        (
            "  rules: [{matches: [{path: {type: Suffix, value: /a}}]}]",
            "spec.rules[0].matches[0].path.type: \"Suffix\" is not allowed",
        ),
        (
            "  rules: [{matches: [{path: {value: a}}]}]",
            "spec.rules[0].matches[0].path.value: \"a\" is not allowed, expected /",
        ),
        (
            "  rules: [{matches: [{path: {type: RegularExpression, value: '/('}}]}]",
            "spec.rules[0].matches[0]: ",
        ),
        (
            "  rules: [{matches: [{headers: [{name: 'a b', value: c}]}]}]",
            "spec.rules[0].matches[0]: ",
        ),
        (
            "  rules: [{matches: [{headers: [{name: a}]}]}]",
            "spec.rules[0].matches[0].headers[0].value: is missing",
        ),
        (
            "  rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: 'a b', value: c}]}}]}]",
            "spec.rules[0].filters[0].requestHeaderModifier.set[0]: ",
        ),
        (
            "  rules: [{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}], matches: [{path: {type: Exact, value: /b}}]}]",
            "spec.rules[0].filters[0].urlRewrite.path: ",
        ),
        (
            "  rules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]}]",
            "spec.rules[0].filters[0].requestRedirect.statusCode: ",
        ),
        (
            "  rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a}]}]",
            "spec.rules[0].backendRefs: has no effect beside a RequestRedirect",
        ),
        (
            "  rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]}]",
            "spec.rules[0].filters: RequestRedirect and URLRewrite cannot stand in one rule",
        ),
        (
            "  rules: [{filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {hostname: a}}]}]",
            "spec.rules[0].filters[1].type: \"URLRewrite\" stands there twice",
        ),
        (
            "  rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: RequestMirror, requestMirror: {backendRef: {name: a}}}]}]",
            "spec.rules[0].filters: has RequestMirror, which is not carried out beside RequestRedirect",
        ),
        (
            "  rules: [{timeouts: {request: 1s, backendRequest: 2s}}]",
            "spec.rules[0].timeouts: backendRequest must not be longer than request",
        ),
        ("  rules: [{retry: {codes: [200]}}]", "spec.rules[0].retry.codes[0]: 200 is not allowed"),
        ("  rule: []", "spec.rule: is not supported; is rules meant?"),
    ] {
        let text = said(Unsupported::Error, spec);
        assert!(text.contains(expected), "{expected:?} is not said of {spec}:\n{text}");
    }
    assert_eq!(said(Unsupported::Error, "  rules: [{backendRefs: [{name: a, port: 80}]}]"), "");
    let idle = said(
        Unsupported::Error,
        "  rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}], timeouts: {request: 1s}}]",
    );
    assert!(idle.contains("timeouts: has no effect beside a RequestRedirect"), "{idle}");
    let warned = said(Unsupported::Warn, "  rules: [{sessionPersistence: {}}]");
    assert!(warned.contains("warning"), "{warned}");
}

#[test]
fn a_gateway_has_no_ports_here() {
    let text = SHOP.replace(
        "{group: \"\", kind: Service, name: shop, port: 80}",
        "{kind: Gateway, name: edge, port: 80}",
    );
    let error = istio::read(&text, "r.yaml", Unsupported::Error).unwrap_err().to_string();
    assert!(error.contains("spec.parentRefs[0]: has a port, which is not supported"), "{error}");
    let portless = text.replace(", port: 80}]\n  rules", "}]\n  rules");
    assert!(istio::read(&portless, "r.yaml", Unsupported::Error).is_ok());
}

#[test]
fn a_destination_of_a_route_is_an_upstream() {
    let text = format!(
        "{SHOP}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: api, namespace: other}}
spec: {{host: api, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 7}}}}}}}}
"
    );
    let documents: Documents = read(&text);
    let hosts = documents.routes(&Client::default()).unwrap();
    let all = hosts.iter().flat_map(|host| host.rules());
    let to = all.filter_map(|rule| match rule.action() {
        mesh_core::route::Action::Forward(forward) => {
            forward.destinations().weights().next().and_then(|(share, _)| share.destination())
        }
        mesh_core::route::Action::Redirect(_) | mesh_core::route::Action::Respond(_) => None,
    });
    let to = to.into_iter().find(|to| to.host() == "api.other").unwrap();
    assert_eq!(to.full_host(), "api.other.svc.cluster.local");
    let config = documents.destination(to).unwrap();
    assert_eq!((config.name(), config.policy().limits().max_connections()), ("api.other:80", 7));
}

//! Whole virtual services as routes.

use std::{cell::RefCell, convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{
    deadline::Deadline,
    retry,
    route::{Client, VirtualHost},
};
use mesh_tower::{
    Chance,
    istio::{Destination, Documents},
    route::{RouteRetry, Router},
};
use tower::{ServiceExt, service_fn};

use super::{SUBSETS, read, refused, rule, service};

pub(super) type Head = http::request::Parts;

/// Sends a request through the routes; the destination and what it saw, or the route's own answer.
pub(super) async fn send(
    documents: &Documents,
    client: &Client,
    request: Request<()>,
) -> (String, Option<Head>, Response<()>) {
    let seen = RefCell::new(None);
    let response = {
        let make = |to: &Destination| {
            let (to, seen) = (to.to_string(), &seen);
            service_fn(move |request: Request<()>| {
                *seen.borrow_mut() = Some((to.clone(), request.into_parts().0));
                async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
            })
        };
        let router = Router::new(documents.routes(client).unwrap(), client, make).unwrap();
        router.with_chance(Chance::seeded(1)).oneshot(request).await.unwrap().map(drop)
    };
    let (to, head) = seen.into_inner().unzip();
    (to.unwrap_or_else(|| response.status().to_string()), head, response)
}

pub(super) async fn get(documents: &Documents, uri: &str) -> String {
    send(documents, &Client::default(), Request::get(uri).body(()).unwrap()).await.0
}

const WHOLE: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: sales}
spec:
  hosts: [shop, shop.example.com]
  http:
    - name: beta
      match:
        - headers: {x-user: {exact: jason}, x-flag: }
          uri: {prefix: /API}
          ignoreUriCase: true
          withoutHeaders: {x-off: {}}
        - queryParams: {beta: {regex: "1|true"}}
          method: {exact: GET}
          scheme: {exact: http}
          authority: {prefix: shop}
          port: 80
      route:
        - destination: {host: shop, subset: v2, port: {number: 8080}}
          headers: {request: {remove: [cookie], set: {x-to: "100%%"}}}
      rewrite: {uri: /v2, authority: inner.example.com}
      headers: {request: {add: {x-route: beta}}, response: {set: {x-via: mesh}}}
      timeout: 2s
      retries: {attempts: 5}
    - match: [{sourceLabels: {app: batch}}]
      route: [{destination: {host: slow}}]
    - match: [{uri: {exact: /old}}]
      redirect: {uri: /new, redirectCode: 308, authority: shop.example.com}
    - match: [{uri: {regex: "/v(\\d+)/.*"}}]
      rewrite: {uriRegexRewrite: {match: "^/v(\\d+)", rewrite: "/api/\\1"}}
      route: [{destination: {host: shop}}]
    - match: [{uri: {prefix: /closed}}]
      directResponse: {status: 503, body: {string: closed}}
    - match: [{uri: {prefix: /broken}}]
      fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
      route: [{destination: {host: shop}}]
    - route: [{destination: {host: web}, weight: 1}, {destination: {host: cart.other}, weight: 0}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop, namespace: sales}
spec:
  host: shop
  subsets: [{name: v2, labels: {version: v2}}]
"#;

#[tokio::test(start_paused = true)]
async fn a_whole_service_is_carried_out() {
    let documents = read(WHOLE);
    let sales = Client::default().with_namespace("sales");
    let request = Request::get("http://shop/api/cart?q")
        .header("x-user", "jason")
        .header("x-flag", "")
        .header("cookie", "a");
    let (to, head, response) = send(&documents, &sales, request.body(()).unwrap()).await;
    let head = head.unwrap();
    assert_eq!(
        (to.as_str(), head.uri.to_string().as_str()),
        ("shop:8080/v2", "http://inner.example.com/v2/cart?q")
    );
    assert_eq!(
        (&head.headers["x-to"], &head.headers["x-route"], head.headers.get("cookie")),
        (&"100%".parse().unwrap(), &"beta".parse().unwrap(), None)
    );
    let left = head.extensions.get::<Deadline>().unwrap().remaining(mesh_tower::Clock.now());
    assert_eq!(left, Some(Duration::from_secs(2)));
    assert_eq!(
        head.extensions.get::<RouteRetry>().unwrap().config(),
        &retry::Config::istio().with_retries(5)
    );
    assert_eq!(response.headers()["x-via"], "mesh");

    for (uri, expected) in [
        ("http://shop.sales/?beta=true", "shop:8080/v2"),
        ("http://shop.sales/?beta=truer", "web"),
        ("http://shop.sales:81/?beta=1", "web"),
        ("http://shop.sales.svc.cluster.local/", "web"),
        ("http://shop.sales.svc:80/", "web"),
        ("http://shop.example.com/", "web"),
        ("http://shop.sales/v7/x", "shop"),
        ("http://shop.sales/old", "308 Permanent Redirect"),
        ("http://shop.sales/old/", "web"),
        ("http://shop.sales/closed", "503 Service Unavailable"),
        ("http://shop.sales/broken/x", "418 I'm a teapot"),
        // A short name is of its own namespace.
        ("http://shop/", "404 Not Found"),
        ("http://nobody/", "404 Not Found"),
    ] {
        assert_eq!(get(&documents, uri).await, expected, "{uri}");
    }
    let batch = sales.with_labels([("app", "batch"), ("x", "y")].into_iter().collect());
    let request = || Request::get("http://shop/").body(()).unwrap();
    assert_eq!(send(&documents, &batch, request()).await.0, "slow");
    let (_, head, _) =
        send(&documents, &batch, Request::get("http://shop.example.com/v7/x").body(()).unwrap())
            .await;
    assert_eq!(head.unwrap().uri.path(), "/v7/x", "the rule for batch comes first");
}

#[tokio::test]
async fn a_destination_is_an_upstream() {
    let documents = read(WHOLE);
    let all: Vec<_> = destinations(&documents);
    assert_eq!(all, ["shop:8080/v2", "slow", "shop", "web"]);
    let hosts = documents.routes(&Client::default()).unwrap();
    let router =
        Router::new(hosts, &Client::default(), |to: &Destination| documents.destination(to))
            .unwrap();
    for (to, config) in router.destinations() {
        let config = config.unwrap();
        assert_eq!(config.timeout(), None, "a route's own comes with the request");
        let split = to.subset().map(|subset| (subset.to_owned(), 1));
        assert_eq!(config.split(), split.as_slice());
        assert!(config.name().starts_with(to.host()));
    }
}

fn destinations(documents: &Documents) -> Vec<String> {
    let hosts = documents.routes(&Client::default().with_gateway("none")).unwrap();
    let rules = hosts.iter().flat_map(VirtualHost::rules);
    let mut names = Vec::new();
    for rule in rules {
        if let mesh_core::route::Action::Forward(forward) = rule.action() {
            for (share, _) in forward.destinations().weights() {
                let name = share.destination().unwrap().to_string();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    names
}

#[tokio::test]
async fn hosts_without_a_service_are_known_by_their_rules() {
    let documents = read(&rule(SUBSETS));
    assert_eq!(get(&documents, "http://shop/").await, "shop");
    assert_eq!(get(&documents, "http://other/").await, "404 Not Found");
    let both = read(&[rule(SUBSETS), service("route: [{destination: {host: web}}]")].concat());
    assert_eq!(get(&both, "http://shop/").await, "web", "a service counts before a rule");
}

#[test]
fn a_subset_that_no_rule_defines() {
    for http in [
        "route: [{destination: {host: shop, subset: v9}}]",
        "match: [{uri: {prefix: /}}], route: [{destination: {host: shop, subset: v9}}]",
        "route: [{destination: {host: shop}}], mirror: {host: shop, subset: v9}",
    ] {
        let documents = read(&[rule(SUBSETS), service(http)].concat());
        let errors = documents.routes(&Client::default()).unwrap_err().to_string();
        assert!(errors.contains("\"v9\" is no subset of a DestinationRule for shop"), "{errors}");
    }
}

#[test]
fn what_an_upstream_alone_does_not_carry_out_is_an_error_there() {
    let to = "route: [{destination: {host: shop}}]";
    for (http, path) in [
        (format!("match: [{{uri: {{prefix: /}}}}], {to}"), "spec.http[0].match"),
        (format!("{to}, fault: {{}}"), "spec.http[0].fault"),
        (format!("{to}, mirror: {{host: copy}}"), "spec.http[0].mirror"),
        (format!("{to}, mirrors: []"), "spec.http[0].mirrors"),
        (format!("{to}, rewrite: {{uri: /}}"), "spec.http[0].rewrite"),
        (format!("{to}, headers: {{}}"), "spec.http[0].headers"),
        (
            "route: [{destination: {host: shop}, headers: {}}]".into(),
            "spec.http[0].route[0].headers",
        ),
        ("redirect: {uri: /}".into(), "spec.http[0].redirect"),
        ("directResponse: {status: 200}".into(), "spec.http[0].directResponse"),
    ] {
        let documents = read(&service(&http));
        assert_eq!(documents.warnings(), []);
        let errors = documents.upstream("shop").unwrap_err();
        assert_eq!(errors.problems()[0].path(), path, "{http}");
        assert!(documents.routes(&Client::default()).is_ok(), "{http}");
    }
}

#[test]
fn what_is_wrong_is_said_by_name() {
    let to = "route: [{destination: {host: shop}}]";
    for (http, expected) in [
        ("match: [{uri: {regex: \"(\"}}]", "spec.http[0].match[0]: regex: ( is not allowed"),
        (
            "match: [{uri: {exact: /, prefix: /}}]",
            "match[0].uri: a mapping needs one of exact, prefix and regex",
        ),
        ("match: [{uri: {suffix: /}}]", "match[0].uri.suffix: is not supported"),
        ("match: [{headers: {\"a b\": {}}}]", "match[0]: header: \"a b\" is not allowed"),
        ("match: [{port: 70000}]", "match[0].port: 70000 is not allowed"),
        ("match: [{ignoreUriCase: 1}]", "match[0].ignoreUriCase: 1 is not allowed"),
        ("match: {}", "match: a mapping is not a list"),
        ("rewrite: {uri: \"a b\"}", "rewrite: rewrite: \"a b\" is not allowed"),
        ("rewrite: {uriRegexRewrite: {match: a, rewrite: \"\\\\1\"}}", "rewrite: substitution:"),
        ("headers: {request: {set: {\"a b\": c}}}", "set.a b: header:"),
        ("headers: {request: {set: {a: \"1\\n\"}}}", "set.a: value:"),
        (
            "fault: {abort: {grpcStatus: SOMETIMES}}",
            "\"SOMETIMES\" is not allowed, expected a status of gRPC",
        ),
    ] {
        let error = refused(&service(&format!("{http}, {to}")));
        assert!(error.contains(expected), "{error}");
    }
    for (http, expected) in [
        ("redirect: {redirectCode: 304}", "redirectCode: redirect_code: 304 is not allowed"),
        ("redirect: {uri: relative}", "redirect: rewrite: \"relative\" is not allowed"),
        ("directResponse: {}", "directResponse.status: is missing"),
        ("directResponse: {status: 700}", "status: 700 is not allowed, expected 200 to 599"),
        ("redirect: {uri: /}, route: [{destination: {host: a}}]", "has no effect beside redirect"),
        ("redirect: {uri: /}, directResponse: {status: 200}", "stands beside directResponse"),
    ] {
        let error = refused(&service(http));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_a_rule_that_answers_itself_leaves_out_is_said() {
    for answer in ["redirect: {uri: /new}", "directResponse: {status: 200}"] {
        let name = answer.split(':').next().unwrap();
        let text = |rest: &str| service(&format!("{answer}, {rest}"));
        for (rest, path) in [
            ("timeout: 1s", "timeout"),
            ("retries: {attempts: 2}", "retries"),
            ("mirror: {host: copy}", "mirror"),
            ("mirrors: []", "mirrors"),
        ] {
            let documents = read(&text(rest));
            let said: Vec<_> = documents.warnings().iter().map(ToString::to_string).collect();
            let expected = format!("spec.http[0].{path}: has no effect beside {name}");
            assert!(said.iter().any(|said| said.contains(&expected)), "{rest}: {said:?}");
        }
        let rewrite = refused(&text("rewrite: {uri: /other}"));
        assert!(rewrite.contains("rewrite: cannot stand beside"), "{rewrite}");
        let headers = refused(&text("headers: {response: {set: {a: b}}}"));
        assert!(headers.contains("headers: is not carried out beside"), "{headers}");
        let plain = read(&service(answer));
        assert_eq!(plain.warnings().len(), 0, "{:?}", plain.warnings());
    }
}

const WILDCARD: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: all, namespace: sales}
spec:
  hosts: ['*.shop.example', '*.sales.svc.cluster.local']
  http:
    - match: [{uri: {prefix: /api}}]
      route: [{destination: {host: api}}]
    - route: [{destination: {host: web}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: deeper, namespace: sales}
spec:
  hosts: ['*.eu.shop.example']
  http: [{route: [{destination: {host: eu}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: sales}
spec: {host: cart.shop.example}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart-eu, namespace: sales}
spec: {host: cart.eu.shop.example}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pay, namespace: sales}
spec: {host: pay}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: lone, namespace: sales}
spec: {host: lone.example}
";

#[tokio::test]
async fn a_rule_for_a_destination_takes_no_host_from_a_wildcard() {
    let documents = read(WILDCARD);
    for (uri, to) in [
        ("http://cart.shop.example/api/1", "api"),
        ("http://cart.shop.example/", "web"),
        ("http://cart.eu.shop.example/api/1", "eu"),
        // By each of its names, and not only by the one that looks like the wildcard.
        ("http://pay.sales.svc.cluster.local/api/1", "api"),
        ("http://pay.sales/api/1", "api"),
        ("http://pay.sales/", "web"),
        ("http://lone.example/api/1", "lone.example"),
    ] {
        assert_eq!(get(&documents, uri).await, to, "{uri}");
    }
}

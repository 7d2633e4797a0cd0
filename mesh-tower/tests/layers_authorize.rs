//! Policies before a service: what is refused and how, what is handed on, live changes.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod support;

use std::{
    convert::Infallible,
    fmt::{Debug, Write as _},
    rc::Rc,
    sync::{Arc, Mutex},
};

use http::{Extensions, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use mesh_tower::authorize::{
    Authorize, AuthorizeLayer, Caller, FORWARDED_CLIENT_CERT, Mode,
    policy::{
        Action, Attribute, Authorizer, Config, Connection, Match, Normalization, Policy, Rule,
    },
};
use support::{Script, Strict};
use tower::{Layer, Service, ServiceExt};

#[derive(Clone)]
struct Peer(&'static str);

fn caller(extensions: &Extensions) -> Connection<'_> {
    let peer = extensions.get::<Peer>();
    peer.map_or_else(Connection::default, |peer| Connection::default().with_principal(peer.0))
}

const CART: Peer = Peer("spiffe://cluster.local/ns/shop/sa/cart");

fn readers() -> Authorizer {
    let cart = Match::of(Attribute::ServiceAccount, ["shop/cart"]);
    let read = Match::of(Attribute::Path, ["/items*"]);
    let rule = Rule::any().with_source([cart]).with_operation([read]);
    Authorizer::new([Policy::allow("readers").with_rule(rule)], &Config::default()).unwrap()
}

/// Answers with the request's target and who it says has called.
fn echo(request: Request<()>) -> Result<Response<String>, Infallible> {
    let caller = request.headers().get(FORWARDED_CLIENT_CERT);
    let caller = caller.map_or("", |caller| caller.to_str().unwrap());
    Ok(Response::new(format!("{} {caller}", request.uri())))
}

type Echo = fn(Request<()>) -> Result<Response<String>, Infallible>;

fn strict() -> Strict<Echo> {
    Strict::new(Script::default(), echo as Echo).0
}

fn get(path: &str, peer: Option<Peer>) -> Request<()> {
    let mut request = Request::get(path).body(()).unwrap();
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    request
}

async fn ask<C: Caller + Clone>(
    service: &Authorize<Strict<Echo>, C>,
    request: Request<()>,
) -> Response<String> {
    let response = service.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let size = body.size_hint().exact();
    assert_eq!(body.is_end_stream(), size == Some(0), "known before it is read");
    let bytes = body.collect().await.unwrap().to_bytes();
    assert_eq!(size, Some(bytes.len() as u64));
    Response::from_parts(head, String::from_utf8(bytes.into()).unwrap())
}

#[tokio::test]
async fn what_no_policy_allows_is_refused_without_a_word_of_why() {
    let service = AuthorizeLayer::new(readers(), caller).layer(strict());
    assert_eq!(ask(&service, get("/items/7", Some(CART))).await.status(), 200);
    for request in [
        get("/items/7", None),
        get("/items/7", Some(Peer("spiffe://cluster.local/ns/shop/sa/cart-2"))),
        get("/admin", Some(CART)),
    ] {
        let response = ask(&service, request).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()["x-mesh-flag"], "RBAC");
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(response.headers().len(), 2, "{:?}", response.headers());
        assert_eq!(response.body(), "RBAC: access denied");
    }
}

#[tokio::test]
async fn a_call_of_grpc_gets_its_status_in_the_head() {
    let service = AuthorizeLayer::new(readers(), caller).layer(strict());
    let mut request = get("/items.Items/Get", None);
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let response = ask(&service, request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "7");
    assert_eq!(response.headers()["grpc-message"], "access is denied");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.body(), "", "the head is the trailers");
}

#[tokio::test]
async fn what_is_judged_is_what_is_handed_on() {
    let service = AuthorizeLayer::new(readers(), caller).layer(strict());
    let answer = async |path: &str| ask(&service, get(path, Some(CART))).await;
    assert_eq!(answer("/items/x/../%37?a=/../b").await.body(), "/items/7?a=/../b ");
    assert_eq!(
        answer("http://shop:80/items/.").await.body(),
        "http://shop:80/items/ ",
        "the rest of the URI stays"
    );
    assert_eq!(answer("/items/../admin").await.status(), 403);
    assert_eq!(answer("/items/..%2fadmin").await.status(), 403);
    let bad = answer("/items/%zz").await;
    assert_eq!(
        (bad.status(), &bad.headers()["x-mesh-flag"]),
        (StatusCode::BAD_REQUEST, &"DPE".parse().unwrap())
    );
    assert_eq!(bad.body(), "", "nobody was refused by a policy");

    // The broken twin: judged in one form and handed on in another.
    let raw = Config::istio().with_normalization(Normalization::None);
    let policy = Match::of(Attribute::Path, ["/items*"]);
    let rule = Rule::any().with_operation([policy]);
    let raw = Authorizer::new([Policy::allow("readers").with_rule(rule)], &raw).unwrap();
    let service = AuthorizeLayer::new(raw, caller).layer(strict());
    let answer = ask(&service, get("/items/../admin", Some(CART))).await;
    assert_eq!(answer.body(), "/items/../admin ");
}

#[tokio::test]
async fn a_request_has_one_host() {
    let service = AuthorizeLayer::new(readers(), caller).layer(strict());
    let status = async |target: &str, hosts: &[&str]| {
        let mut request = get(target, Some(CART));
        for host in hosts {
            request.headers_mut().append("host", host.parse().unwrap());
        }
        ask(&service, request).await.status().as_u16()
    };
    assert_eq!(status("/items", &["shop"]).await, 200);
    assert_eq!(status("/items", &[]).await, 200);
    assert_eq!(status("http://shop/items", &["SHOP"]).await, 200);
    assert_eq!(status("http://shop/items", &["admin"]).await, 400);
    assert_eq!(status("/items", &["shop", "admin"]).await, 400);
    assert_eq!(status("/admin", &["shop", "admin"]).await, 400);
}

#[tokio::test]
async fn who_called_is_not_taken_from_a_header() {
    let forged = || {
        let mut request = get("/items", Some(CART));
        request
            .headers_mut()
            .insert(FORWARDED_CLIENT_CERT, "URI=spiffe://a/sa/admin".parse().unwrap());
        request
    };
    let layer = AuthorizeLayer::new(readers(), caller);
    assert_eq!(ask(&layer.layer(strict()), forged()).await.body(), "/items ");
    // Without any policy too.
    let open = AuthorizeLayer::new(Authorizer::default(), caller);
    assert_eq!(ask(&open.layer(strict()), forged()).await.body(), "/items ");
    let kept = layer.keep_forwarded_client_cert();
    assert_eq!(ask(&kept.layer(strict()), forged()).await.body(), "/items URI=spiffe://a/sa/admin");
}

#[tokio::test]
async fn policies_are_replaced_and_watched_while_it_runs() {
    let layer = AuthorizeLayer::new(readers(), caller).named("inbound");
    let service = layer.layer(strict());
    let handle = layer.handle();
    let status = async |path: &str| ask(&service, get(path, Some(CART))).await.status();
    assert_eq!([status("/items").await, status("/admin").await], [200, 403]);
    handle.set_mode(Mode::Watch);
    assert_eq!(handle.mode(), Mode::Watch);
    assert_eq!([status("/items").await, status("/admin").await], [200, 200]);
    handle.replace(Authorizer::new([Policy::allow("nothing")], &Config::default()).unwrap());
    assert_eq!(status("/items").await, 200, "still watched");
    handle.set_mode(Mode::Enforce);
    assert_eq!([status("/items").await, status("/admin").await], [403, 403]);
    assert_eq!(handle.refused(), 3, "what passed was not refused");
    handle.replace(Authorizer::default());
    assert_eq!(status("/admin").await, 200, "no policy refuses nothing");
    assert_eq!(handle.refused(), 3, "over all policies that there were");
}

#[tokio::test]
async fn a_refusal_does_not_use_the_inner_service() {
    let (inner, counts) = Strict::new(Script::default(), echo as Echo);
    let mut service = AuthorizeLayer::new(readers(), caller).layer(inner);
    for calls in 0..3 {
        service.ready().await.unwrap();
        assert_eq!(service.call(get("/admin", None)).await.unwrap().status(), 403);
        assert_eq!(counts.calls(), calls);
        // Readiness that was not used is there for the next request.
        service.ready().await.unwrap();
        assert_eq!(service.call(get("/items", Some(CART))).await.unwrap().status(), 200);
    }
    assert_eq!(counts.reserved(), 0);
}

#[tokio::test]
async fn the_inner_service_need_not_be_send() {
    let not_send = Rc::new(());
    let handler = move |request: Request<()>| {
        drop(Rc::clone(&not_send));
        echo(request)
    };
    let (inner, _) = Strict::new(Script::default(), handler);
    let mut service = AuthorizeLayer::new(readers(), caller).layer(inner);
    service.ready().await.unwrap();
    let answer = service.call(get("/items", Some(CART))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[cfg(feature = "metrics")]
#[test]
fn decisions_are_counted_by_policy() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let no_admin = Match::of(Attribute::Path, ["/admin*"]);
    let deny = Policy::deny("no-admin").with_rule(Rule::any().with_operation([no_admin]));
    let items = Match::of(Attribute::Path, ["/items*"]);
    let allow = Policy::allow("readers").with_rule(Rule::any().with_operation([items]));
    let trial = Policy::deny("new").with_rule(Rule::any()).with_dry_run(true);
    let audit = Match::of(Attribute::Path, ["/items*"]);
    let audit = Policy::new("seen", Action::Audit).with_rule(Rule::any().with_operation([audit]));
    let policies = Authorizer::new([deny, allow, trial, audit], &Config::default()).unwrap();
    let layer = AuthorizeLayer::new(policies, caller).named("inbound");
    let service = layer.layer(strict());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Before anybody listens: such handles count nothing, and must not be kept.
    runtime.block_on(ask(&service, get("/items", None)));

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            for path in ["/items", "/items", "/admin", "/other"] {
                ask(&service, get(path, None)).await;
            }
            layer.handle().set_mode(Mode::Watch);
            ask(&service, get("/admin", None)).await;
        });
    });
    let mut counted: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(metrics::Label::value).collect();
            let DebugValue::Counter(count) = value else { panic!("{key:?}") };
            format!("{} {} {count}", key.key().name(), labels.join(" "))
        })
        .collect();
    counted.sort();
    assert_eq!(
        counted,
        [
            "mesh_authorize_audited_total inbound default/seen 2",
            "mesh_authorize_total inbound allowed default/readers 2",
            "mesh_authorize_total inbound denied  1",
            "mesh_authorize_total inbound denied default/no-admin 1",
            "mesh_authorize_total inbound would_deny default/no-admin 1",
            "mesh_authorize_trial_total inbound denied 2",
        ]
    );
}

#[tokio::test]
async fn what_is_denied_audited_or_on_trial_is_told_and_nothing_else() {
    let of = |name, action, path: &str| {
        let paths = Match::of(Attribute::Path, [path]);
        Policy::new(name, action).with_rule(Rule::any().with_operation([paths]))
    };
    let policies = [
        of("no-admin", Action::Deny, "/admin*"),
        of("seen", Action::Audit, "/items/seen"),
        of("new", Action::Deny, "/items/old").with_dry_run(true),
    ];
    let layer = AuthorizeLayer::new(Authorizer::new(policies, &Config::default()).unwrap(), caller);
    let layer = layer.named("inbound");
    let service = layer.layer(strict());
    let log = Log::default();
    // Of one subscriber alone a line that speaks for the first time asks only its own thread whether anybody listens, and
    // keeps the answer for all; so there is another, which every thread has.
    drop(tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default()));
    let _guard = tracing::subscriber::set_default(log.clone());
    for path in ["/items", "/admin", "/items/seen", "/items/old"] {
        ask(&service, get(path, Some(CART))).await;
    }
    layer.handle().set_mode(Mode::Watch);
    ask(&service, get("/admin", Some(CART))).await;
    let id = "layer=\"inbound\" principal=\"cluster.local/ns/shop/sa/cart\"";
    let denied = format!(
        "DEBUG denied {id} reason=a policy refuses it rule=default/no-admin[0] is_clear=true"
    );
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            format!("{denied} is_watching=false"),
            format!("DEBUG audited {id} rule=default/seen[0]"),
            format!("DEBUG on trial {id} reason=a policy refuses it rule=default/new[0]"),
            format!("{denied} is_watching=true"),
        ]
    );
}

/// Keeps the events of this crate as lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("mesh_tower")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        /// What happened, and of whom.
        #[derive(Default)]
        struct Line(String, String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
                match field.name() {
                    "message" => write!(self.0, "{value:?}").unwrap(),
                    name => write!(self.1, " {name}={value:?}").unwrap(),
                }
            }
        }
        let mut line = Line::default();
        event.record(&mut line);
        let line = format!("{} {}{}", event.metadata().level(), line.0, line.1);
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

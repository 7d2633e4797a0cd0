//! Where requests go, and what is changed on the way.

use std::time::Duration;

use http::{Request, header::HOST};
use mesh_core::{
    InvalidConfig, Labels,
    deadline::Deadline,
    retry,
    route::{
        Client, Forward, HeaderChanges, Match, PathMatch, PathRewrite, Rule, Share, Split,
        TextMatch, VirtualHost, gateway,
    },
};
use mesh_tower::{
    Clock,
    route::{RouteRetry, Router},
    upstream::Criteria,
};

use super::{Backend, Fixture, Seen, to};

fn path(path: PathMatch) -> Match {
    Match::any().with_path(path)
}

#[tokio::test]
async fn the_host_then_the_first_rule() {
    let beta = Match::any().with_header("x-beta", TextMatch::regex("1|true"));
    let fixture = Fixture::hosts(vec![
        VirtualHost::new(
            ["shop", "*.shop.example"],
            vec![
                to("beta").with_match(beta),
                to("api").with_match(path(PathMatch::prefix("/api"))),
                to("web"),
            ],
        ),
        VirtualHost::new(["*.example"], vec![to("other")]),
    ]);
    for (uri, expected) in [
        ("http://shop/", "web"),
        ("http://SHOP:8080/api/cart?x=1", "api"),
        ("http://eu.shop.example/apiary", "api"),
        ("http://www.example/", "other"),
    ] {
        assert_eq!(fixture.get(uri).await.headers()["from"], expected, "{uri}");
    }
    // As a server gets it.
    let request =
        |value| Request::get("/api").header(HOST, "shop").header("x-beta", value).body(()).unwrap();
    assert_eq!(fixture.send(request("true")).await.headers()["from"], "beta");
    assert_eq!(fixture.send(request("truest")).await.headers()["from"], "api");
}

#[tokio::test]
async fn rules_of_gateway_api_go_by_their_precedence() {
    let rule = |name, one| gateway::Rule::new(to(name)).with_match(path(one));
    let fixture = Fixture::hosts(vec![VirtualHost::by_precedence(
        ["*"],
        vec![
            rule("root", PathMatch::segments("/")),
            rule("deep", PathMatch::segments("/a/b")),
            rule("regex", PathMatch::regex("/a/.*/c")),
            rule("exact", PathMatch::exact("/a/b/c")),
        ],
    )]);
    for (uri, expected) in
        [("/a/b/c", "exact"), ("/a/x/c", "regex"), ("/a/b/d", "deep"), ("/a/bx", "root")]
    {
        assert_eq!(fixture.get(uri).await.headers()["from"], expected, "{uri}");
    }
}

#[tokio::test]
async fn weights_are_drawn_for_each_request() {
    let split = Split::new(vec![("v1", 90), ("v2", 10)]).unwrap();
    let fixture = Fixture::new(vec![Rule::new(Forward::split(split).into())]);
    for _ in 0..10_000 {
        fixture.get("/").await;
    }
    let canary = fixture.counts()["v2"];
    assert!(canary.abs_diff(1_000) < 90, "{canary}");
}

#[tokio::test]
async fn path_and_authority_are_rewritten() {
    let forward = |rewrite| Forward::to("v1").with_path(Some(rewrite));
    let regex =
        PathRewrite::Regex { pattern: "/(\\w+)/(\\w+)".into(), substitution: "/\\2/\\1".into() };
    let fixture = Fixture::new(vec![
        Rule::new(forward(PathRewrite::Prefix("/v2/".into())).into())
            .with_match(path(PathMatch::prefix("/api/"))),
        Rule::new(forward(regex).with_authority(Some("new:81".into())).into())
            .with_match(path(PathMatch::prefix("/swap"))),
        Rule::new(forward(PathRewrite::Segments("/".into())).into())
            .with_match(path(PathMatch::segments("/cut"))),
    ]);
    let uri_of = async |uri: &str| {
        fixture.get(uri).await;
        fixture.last().1.uri.to_string()
    };
    assert_eq!(uri_of("http://shop/api/cart?a=1").await, "http://shop/v2/cart?a=1");
    assert_eq!(uri_of("http://shop/swap/it/x?a").await, "http://new:81/it/swap/x?a");
    assert_eq!(uri_of("/cut/it").await, "/it");
    fixture.get("/swap/it").await;
    assert_eq!(fixture.last().1.headers[HOST], "new:81");
}

#[tokio::test]
async fn headers_are_changed_at_both_levels() {
    let changes = |value: &str| {
        HeaderChanges::none().set("x-level", value).unwrap().add("x-all", value).unwrap()
    };
    let share = |name| {
        Share::new(name)
            .with_request_headers(changes("share").remove("cookie").unwrap())
            .with_response_headers(HeaderChanges::none().remove("server").unwrap())
    };
    let rule = |split| {
        let forward = Forward::shares(split)
            .with_request_headers(changes("route"))
            .with_response_headers(HeaderChanges::none().set("x-via", "mesh").unwrap());
        Fixture::new(vec![Rule::new(forward.into())])
    };
    for (split, wins, order) in [
        (Split::single(share("v1")), "share", ["route", "share"]),
        (
            Split::new(vec![(share("v1"), 1), (share("v2"), 1)]).unwrap(),
            "route",
            ["share", "route"],
        ),
    ] {
        let fixture = rule(split);
        let request = Request::get("/").header("cookie", "a").header("x-level", "caller");
        let response = fixture.send(request.body(()).unwrap()).await;
        let head = fixture.last().1;
        assert_eq!(head.headers.get_all("x-level").iter().collect::<Vec<_>>(), [wins]);
        assert_eq!(head.headers.get_all("x-all").iter().collect::<Vec<_>>(), order);
        assert!(!head.headers.contains_key("cookie"));
        assert_eq!(response.headers()["x-via"], "mesh");
        assert!(!response.headers().contains_key("server"));
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_and_retries_go_along() {
    let forward = Forward::to("v1")
        .with_timeout(Some(Duration::from_secs(2)))
        .with_retry(Some(retry::Config::none()));
    let fixture = Fixture::new(vec![Rule::new(forward.into())]);
    let now = Clock.now();
    fixture.get("/").await;
    let head = fixture.last().1;
    let deadline = Deadline::after(now, Duration::from_secs(2));
    assert_eq!(head.extensions.get::<Deadline>(), Some(&deadline));
    assert_eq!(head.extensions.get::<RouteRetry>().unwrap().config(), &retry::Config::none());
    // The caller's own is kept if it is earlier.
    let soon = Deadline::after(now, Duration::from_secs(1));
    fixture.send(Request::get("/").extension(soon).body(()).unwrap()).await;
    assert_eq!(fixture.last().1.extensions.get::<Deadline>(), Some(&soon));
}

#[tokio::test]
async fn routes_are_replaced_while_requests_fly() {
    let fixture = Fixture::new(vec![to("v1")]);
    let host = |rules| vec![VirtualHost::new(["*"], rules)];
    let made = std::cell::RefCell::new(Vec::new());
    let make = |to: &&'static str| {
        made.borrow_mut().push(*to);
        Backend(to, fixture.seen.clone())
    };
    let both = Split::new(vec![("v1", 1), ("v2", 1)]).unwrap();
    fixture.router.set_routes(host(vec![Rule::new(Forward::split(both).into())]), make).unwrap();
    assert_eq!(*made.borrow(), ["v2"], "v1 keeps its service");
    let bad = Match::any().with_header("x", TextMatch::regex("("));
    let error = fixture.router.set_routes(host(vec![to("v3").with_match(bad)]), make).unwrap_err();
    assert_eq!(error.field(), "regex");
    let names: Vec<_> = fixture.router.destinations().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["v1", "v2"]);
    assert_eq!(fixture.get("/").await.status(), 200);
}

#[test]
fn what_cannot_be_carried_out_is_refused() {
    let refused = |rule: Rule<&'static str>| -> InvalidConfig {
        let make = |to: &&'static str| Backend(to, Seen::default());
        let hosts = vec![VirtualHost::new(["*"], vec![rule])];
        Router::new(hosts, &Client::default(), make).map(drop).unwrap_err()
    };
    let rewrite = |rewrite| Rule::new(Forward::to("v1").with_path(Some(rewrite)).into());
    for path in ["a b", "/a#b", "/\n"] {
        assert_eq!(
            refused(rewrite(PathRewrite::Prefix(path.into()))).field(),
            "rewrite",
            "{path:?}"
        );
    }
    assert_eq!(refused(rewrite(PathRewrite::Whole("relative".into()))).field(), "rewrite");
    let segments = rewrite(PathRewrite::Segments("/a".into()));
    assert_eq!(refused(segments.with_match(path(PathMatch::regex("/.*")))).field(), "rewrite");
    let group = PathRewrite::Regex { pattern: "a".into(), substitution: "\\1".into() };
    assert_eq!(refused(rewrite(group)).field(), "substitution");
    for authority in ["", "a b", "me@shop", "shop:port:"] {
        let rule = Rule::new(Forward::to("v1").with_authority(Some(authority.into())).into());
        assert_eq!(refused(rule).field(), "authority", "{authority:?}");
    }
    let mirror = mesh_core::route::Mirror::new("v2", mesh_core::Ratio::ONE);
    assert_eq!(refused(Rule::new(Forward::to("v1").with_mirror(mirror).into())).field(), "mirror");
}

#[tokio::test]
async fn a_hundred_thousand_routes() {
    let rules = (0..100_000)
        .map(|index| to("v1").with_match(path(PathMatch::prefix(format!("/s{index:06}/")))));
    let fixture = Fixture::new(rules.chain([to("last")]).collect());
    for (uri, expected) in [("/s000000/", "v1"), ("/s099999/x", "v1"), ("/s100000/", "last")] {
        assert_eq!(fixture.get(uri).await.headers()["from"], expected, "{uri}");
    }
}

/// What endpoints are asked for: the route's, its destination's, and the request's own.
#[tokio::test]
async fn criteria_go_along() {
    let labels =
        |pairs: &[(&'static str, &'static str)]| -> Labels { pairs.iter().copied().collect() };
    let share = Share::new("shop").with_criteria(labels(&[("version", "v2"), ("stage", "canary")]));
    let forward = Forward::shares(Split::single(share))
        .with_criteria(labels(&[("stage", "prod"), ("region", "eu")]));
    let fixture = Fixture::new(vec![Rule::new(forward.into())]);
    fixture.get("/").await;
    let asked = fixture.last().1.extensions.get::<Criteria>().cloned();
    let expected = [("region", "eu"), ("stage", "canary"), ("version", "v2")];
    assert_eq!(asked, Some(Criteria::new(labels(&expected))));

    let own = Criteria::new(labels(&[("version", "v1")])).or(labels(&[("version", "v3")]));
    let request = Request::get("/").extension(own).body(()).unwrap();
    fixture.send(request).await;
    let asked = fixture.last().1.extensions.get::<Criteria>().cloned();
    let expected = labels(&[("region", "eu"), ("stage", "canary"), ("version", "v1")]);
    assert_eq!(asked, Some(Criteria::new(expected).or(labels(&[("version", "v3")]))));

    let silent = Fixture::new(vec![to("shop")]);
    silent.get("/").await;
    assert!(silent.last().1.extensions.get::<Criteria>().is_none(), "the twin");
}

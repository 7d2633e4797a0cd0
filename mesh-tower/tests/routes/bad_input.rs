//! Rules that cannot be carried out are refused by the name of what is wrong; few rules, or very many, are none of them.

use http::Request;
use mesh_core::{
    Ratio,
    route::{
        Action, Client, Forward, HeaderChanges, Match, Mirror, PathMatch, PathRewrite, Redirect,
        Rule, TextMatch, VirtualHost,
    },
};
use mesh_tower::route::Router;

use super::{Fixture, to};

fn refused(hosts: Vec<VirtualHost<&'static str>>) -> (String, String) {
    let error = Router::new(hosts, &Client::default(), |_: &&'static str| ()).unwrap_err();
    (error.field().to_owned(), error.value().to_owned())
}

fn host(rule: Rule<&'static str>) -> Vec<VirtualHost<&'static str>> {
    vec![VirtualHost::new(["shop"], vec![rule])]
}

fn header(name: &str, value: &str) -> Rule<&'static str> {
    let changes = HeaderChanges::none().set(name, value);
    Rule::new(Forward::to("a").with_request_headers(changes.unwrap()).into())
}

#[test]
fn what_is_wrong_is_named() {
    let a = || Forward::to("a");
    let matched = |one: Match| host(to("a").with_match(one));
    let rewritten = |path: PathRewrite| host(Rule::new(a().with_path(Some(path)).into()));
    let named = |names: &[&'static str]| vec![VirtualHost::new(names.to_vec(), vec![to("a")])];
    let redirect =
        |path: &str| host(Rule::new(Action::Redirect(Redirect::new().with_path(path.to_owned()))));
    for (field, hosts) in [
        ("hosts", named(&[""])),
        ("hosts", named(&["a*b"])),
        ("hosts", named(&["shop", "SHOP"])),
        ("header", matched(Match::any().with_header("x y", TextMatch::Present))),
        ("header", matched(Match::any().with_header("", TextMatch::Present))),
        ("header", matched(Match::any().without_header("ü", TextMatch::Present))),
        ("query", matched(Match::any().with_query("", TextMatch::Present))),
        ("regex", matched(Match::any().with_path(PathMatch::regex("/(")))),
        ("regex", matched(Match::any().with_header("x", TextMatch::regex("[")))),
        ("rewrite", rewritten(PathRewrite::Whole("no path".into()))),
        ("rewrite", rewritten(PathRewrite::Whole("/a#b".into()))),
        ("regex", rewritten(PathRewrite::Regex { pattern: "(".into(), substitution: "".into() })),
        ("rewrite", redirect("nowhere")),
        ("authority", host(Rule::new(a().with_authority(Some("a b".into())).into()))),
        ("authority", host(Rule::new(a().with_authority(Some("me@shop".into())).into()))),
        ("mirror", host(Rule::new(a().with_mirror(Mirror::new("b", Ratio::ONE)).into()))),
    ] {
        let shown = format!("{hosts:?}");
        assert_eq!(refused(hosts).0, field, "{shown}");
    }
    for name in ["", "x y", "x\n", "ü", "a:b"] {
        let error = HeaderChanges::none().set(name, "1").unwrap_err();
        assert_eq!(error.field(), "header", "{name:?}");
    }
}

/// A value goes out as it stands; what no header can have is refused when the rule is made, or when it is carried out.
#[test]
fn a_value_that_no_header_can_have_is_named() {
    for value in ["a\r\nx-injected: 1", "\0", "\u{7f}"] {
        match HeaderChanges::none().set("x-a", value) {
            Err(error) => assert_eq!(error.field(), "value", "{value:?}"),
            Ok(_) => assert_eq!(refused(host(header("x-a", value))).0, "value", "{value:?}"),
        }
    }
    Router::new(host(header("x-a", "größer")), &Client::default(), |_| ()).unwrap();
}

#[tokio::test]
async fn an_empty_table_answers_404() {
    for hosts in [
        vec![],
        vec![VirtualHost::new(["shop"], vec![])],
        vec![VirtualHost::new(Vec::<String>::new(), vec![to("a")])],
    ] {
        let fixture = Fixture::hosts(hosts);
        assert_eq!(fixture.get("http://shop/").await.status(), 404);
        assert!(fixture.counts().is_empty());
    }
}

/// Of paths, of headers, of hosts: the last rule is found as the first one is.
#[tokio::test]
async fn a_hundred_thousand_rules_are_compiled_and_matched() {
    const ALL: usize = 100_000;
    let paths = |index: usize| Match::any().with_path(PathMatch::prefix(format!("/s-{index:06}/")));
    let tenants = |index: usize| {
        Match::any().with_header("x-tenant", TextMatch::exact(format!("t-{index:06}")))
    };
    let last = |index: usize| to(if index == ALL - 1 { "last" } else { "a" });
    let by_path = (0..ALL).map(|index| last(index).with_match(paths(index))).collect();
    let by_header = (0..ALL).map(|index| last(index).with_match(tenants(index))).collect();
    let mut hosts = vec![
        VirtualHost::new(["paths".to_owned()], by_path),
        VirtualHost::new(["tenants".to_owned()], by_header),
    ];
    hosts.extend(
        (0..ALL).map(|index| VirtualHost::new([format!("h-{index:06}")], vec![last(index)])),
    );
    let fixture = Fixture::hosts(hosts);
    let tenant =
        |name: &str| Request::get("http://tenants/").header("x-tenant", name).body(()).unwrap();

    assert_eq!(fixture.get("http://paths/s-099999/x").await.status(), 200);
    assert_eq!(fixture.last().0, "last");
    assert_eq!(fixture.send(tenant("t-099999")).await.status(), 200);
    assert_eq!(fixture.last().0, "last");
    assert_eq!(fixture.get("http://h-099999/").await.status(), 200);
    assert_eq!(fixture.last().0, "last");
    assert_eq!(fixture.get("http://paths/s-000000/").await.status(), 200);
    assert_eq!(fixture.last().0, "a");
    for nowhere in ["http://paths/s-100000/", "http://h-100000/"] {
        assert_eq!(fixture.get(nowhere).await.status(), 404);
    }
    assert_eq!(fixture.send(tenant("t-100000")).await.status(), 404);
}

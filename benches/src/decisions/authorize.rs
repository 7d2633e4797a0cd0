use std::hint::black_box;

use mesh_core::authorize::{
    Attribute, Authorizer, Config, Connection, Match, PlainHead, Policy, Rule,
};

use super::each;
use crate::Case;

/// Each policy lets one service account read one path; the last of them is the one that matches.
pub(super) fn cases() -> Vec<Case> {
    let none = state(Authorizer::default(), "/items/0/7");
    let of = |policies: usize| state(authorizer(policies, &Config::default()), "/items/0/7");
    let istio = state(authorizer(10, &Config::istio()), "/items/0/7");
    let refused = state(authorizer(100, &Config::default()), "/elsewhere");
    let hosts = refusing(|index| Match::of(Attribute::Host, [format!("admin-{index}.shop")]));
    let roles = |role: &str| {
        let (authorizer, head) =
            refusing(|index| Match::of(Attribute::header("x-role"), [format!("admin-{index}")]));
        (authorizer, head.with_header("x-role", role))
    };
    let (one, list) = (roles("reader"), roles("reader, writer, tester"));
    vec![
        Case::shared("authorize: none of 10 refusals by host", hosts, allow),
        Case::shared("authorize: none of 10 refusals by header", one, allow),
        Case::shared("authorize: none of 10 refusals by header, a list of 3", list, allow),
        Case::shared("authorize: no policy", none, allow),
        Case::shared("authorize: 1 policy", of(1), allow),
        Case::shared("authorize: the last of 10 policies", of(10), allow),
        Case::shared("authorize: the last of 10 policies, as Istio", istio, allow),
        Case::shared("authorize: the last of 100 policies", of(100), allow),
        Case::shared("authorize: none of 100 policies", refused, |(authorizer, head), calls| {
            each(calls, |_, _| assert!(!decide(authorizer, head)));
        }),
    ]
}

/// Policies that refuse, none of which matches.
fn refusing(one: impl Fn(usize) -> Match) -> (Authorizer, PlainHead) {
    let policy = |index: usize| {
        let rule = Rule::any().with_operation([one(index)]);
        Policy::deny(format!("refusal-{index}")).with_rule(rule)
    };
    let authorizer = Authorizer::new((0..10).map(policy), &Config::default());
    state(authorizer.expect("values that can be had"), "/items/0/7")
}

fn state(authorizer: Authorizer, path: &str) -> (Authorizer, PlainHead) {
    (authorizer, PlainHead::new("GET", path).with_authority("items.shop:8080"))
}

fn authorizer(policies: usize, config: &Config) -> Authorizer {
    let policy = |index: usize| {
        let last = policies - 1 - index;
        let cart = Match::of(Attribute::ServiceAccount, [format!("shop/cart-{last}")]);
        let read = Match::of(Attribute::Method, ["GET", "HEAD"]);
        let path = Match::of(Attribute::Path, [format!("/items/{last}/*")]);
        let rule = Rule::any().with_source([cart]).with_operation([read, path]);
        Policy::allow(format!("readers-{index}")).with_rule(rule)
    };
    Authorizer::new((0..policies).map(policy), config).expect("values that can be had")
}

fn allow((authorizer, head): &(Authorizer, PlainHead), calls: u64) {
    each(calls, |_, _| assert!(decide(authorizer, head)));
}

fn decide(authorizer: &Authorizer, head: &PlainHead) -> bool {
    let connection = Connection::default()
        .with_principal(black_box("spiffe://cluster.local/ns/shop/sa/cart-0"))
        .with_source_ip([10, 0, 0, 7].into())
        .with_port(8080);
    black_box(authorizer.decide(&connection, black_box(head))).is_allowed()
}

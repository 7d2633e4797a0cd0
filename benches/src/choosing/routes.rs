use std::{hint::black_box, sync::OnceLock};

use http::{Request, Uri};
use mesh_core::{
    InvalidConfig,
    route::{
        Client, Forward, Match, PathMatch, Pattern, PlainHead, Rule, Table, TextMatch, VirtualHost,
    },
};
use mesh_tower::route::{Regex, Router};

use crate::{
    Case,
    stack::{self, Noop},
};

/// Rules of one host.
const RULES: usize = 10_000;

/// The rules that requests are for, counted from 0, and what they are called.
const ASKED: [(usize, &str); 3] = [(0, "1st"), (99, "100th"), (9_999, "10000th")];

/// Makes the rule of that number.
type Of = fn(usize) -> Match;

/// What a rule looks at; and its number of calls to be counted, where many rules are asked one by one.
const KINDS: [(&str, Of, u64); 4] = [
    ("exact path", exact, 1_000),
    ("prefix", |rule| path(PathMatch::prefix(format!("/shop-{rule}/"))), 1_000),
    ("regex", |rule| path(PathMatch::regex(format!("/shop-{rule}/item-[0-9]+"))), 1_000),
    ("header", |rule| Match::any().with_header("x-shop", TextMatch::exact(name(rule))), 10),
];

/// The 1st, the 100th and the 10,000th of 10,000 rules of each kind; the 100th of regular expressions that begin with
/// anything.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, of, calls) in KINDS {
        cases.extend(ASKED.map(|(rule, nth)| {
            let state = move || (table(RULES, of), head(rule));
            Case::made(format!("{kind}: {nth} rule"), state, find).counted_over(calls)
        }));
    }
    let anywhere = |rule| path(PathMatch::regex(format!(".*/shop-{rule}/item-[0-9]+")));
    let state = move || (table(100, anywhere), head(99));
    let regex = Case::made("regex that begins with anything: 100th rule", state, find);
    cases.push(regex.counted_over(10));
    cases
}

/// The router around a service that does nothing.
pub fn router_cases() -> Vec<Case> {
    vec![
        Case::service("service alone, with a path", Noop, last),
        Case::service("+ router, exact path: 10000th rule", router(), last),
    ]
}

fn exact(rule: usize) -> Match {
    path(PathMatch::exact(format!("/{}/item-7", name(rule))))
}

fn path(path: PathMatch) -> Match {
    Match::any().with_path(path)
}

fn name(rule: usize) -> String {
    format!("shop-{rule}")
}

fn head(rule: usize) -> PlainHead {
    PlainHead::new("GET", &format!("/{}/item-7", name(rule))).with_header("x-shop", name(rule))
}

fn table(rules: usize, of: Of) -> Table<usize, Lazy> {
    let rules = (0..rules).map(|rule| (vec![of(rule)], rule));
    Table::new(rules, &Client::default(), Lazy::new).expect("rules that are right")
}

fn find((table, head): &(Table<usize, Lazy>, PlainHead), calls: u64) {
    for _ in 0..calls {
        black_box(table.find(black_box(head)).expect("there is a rule"));
    }
}

fn router() -> Router<&'static str, Noop> {
    let rules =
        (0..RULES).map(|rule| Rule::new(Forward::to("shop").into()).with_match(exact(rule)));
    let hosts = vec![VirtualHost::new(["shop"], rules.collect())];
    Router::new(hosts, &Client::default(), |_| Noop).expect("rules that are right")
}

/// A request for the last rule. Its address is copied from one that was parsed once, which costs no allocation.
fn last() -> Request<stack::Body> {
    static LAST: OnceLock<Uri> = OnceLock::new();
    let uri = LAST.get_or_init(|| Uri::from_static("http://shop/shop-9999/item-7"));
    let mut request = stack::bare();
    *request.uri_mut() = uri.clone();
    request
}

/// An expression that is compiled when it is first asked: ten thousand take a minute.
#[derive(Debug)]
struct Lazy {
    text: String,
    regex: OnceLock<Regex>,
}

impl Lazy {
    fn new(text: &str) -> Result<Self, InvalidConfig> {
        Ok(Self { text: text.to_owned(), regex: OnceLock::new() })
    }

    fn regex(&self) -> &Regex {
        self.regex.get_or_init(|| Regex::new(&self.text).expect("an expression"))
    }
}

impl Pattern for Lazy {
    fn is_full_match(&self, text: &[u8]) -> bool {
        self.regex().is_full_match(text)
    }

    fn replace_all(&self, text: &str, substitution: &str) -> String {
        self.regex().replace_all(text, substitution)
    }

    fn groups(&self) -> usize {
        self.regex().groups()
    }
}

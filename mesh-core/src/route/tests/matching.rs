//! What matching takes and what it does not.

use proptest::prelude::*;

use super::*;

/// Stands for a crate of regular expressions: `.*` at the end, and letters.
#[derive(Clone, Debug)]
struct Simple(String);

impl Pattern for Simple {
    fn is_full_match(&self, text: &[u8]) -> bool {
        match self.0.strip_suffix(".*") {
            Some(start) => text.starts_with(start.as_bytes()),
            None => text == self.0.as_bytes(),
        }
    }

    fn replace_all(&self, text: &str, substitution: &str) -> String {
        text.replace(&self.0, substitution)
    }

    fn groups(&self) -> usize {
        0
    }
}

fn simple(text: &str) -> Result<Simple, crate::InvalidConfig> {
    if text.contains('(') {
        return Err(crate::InvalidConfig::new("regex", text, "an expression"));
    }
    Ok(Simple(text.to_owned()))
}

fn matches(one: Match, head: &PlainHead) -> bool {
    Table::new([(vec![one], ())], &Client::default(), simple).unwrap().find(head).is_some()
}

fn get(target: &str) -> PlainHead {
    PlainHead::new("GET", target)
}

#[test]
fn a_path_ends_where_its_query_begins() {
    let path = |path| Match::any().with_path(path);
    assert!(matches(path(PathMatch::exact("/a")), &get("/a?b=/c")));
    assert!(!matches(path(PathMatch::exact("/a")), &get("/a/")));
    assert!(matches(path(PathMatch::regex("/a/.*")), &get("/a/b?c")));
    assert!(matches(path(PathMatch::prefix("/a")), &get("/abc")));
    assert!(!matches(path(PathMatch::prefix("/a/")), &get("/a")));
    for prefix in ["/a", "/a/"] {
        let segments = path(PathMatch::segments(prefix));
        for (target, expected) in [("/a", true), ("/a/", true), ("/a/b", true), ("/ab", false)] {
            assert_eq!(matches(segments.clone(), &get(target)), expected, "{prefix} {target}");
        }
    }
    assert!(matches(path(PathMatch::segments("/")), &get("/x")));
    assert!(matches(path(PathMatch::prefix("")), &get("*")), "OPTIONS *");
}

#[test]
fn case_counts_unless_it_is_said() {
    let path = |path| Match::any().with_path(path).with_case_ignored(true);
    assert!(matches(path(PathMatch::exact("/Foo")), &get("/fOO")));
    assert!(matches(path(PathMatch::prefix("/FOO")), &get("/foo/bar")));
    assert!(matches(path(PathMatch::segments("/FOO")), &get("/foo/bar")));
    assert!(!matches(path(PathMatch::regex("/FOO")), &get("/foo")), "not of an expression");
    assert!(!matches(Match::any().with_path(PathMatch::exact("/Foo")), &get("/foo")));
    assert!(!matches(Match::any().with_method(TextMatch::exact("get")), &get("/")));
    let unicode = Match::any().with_path(PathMatch::prefix("/é")).with_case_ignored(true);
    assert!(!matches(unicode, &get("/É")), "only letters of ASCII have a case");
}

#[test]
fn several_values_of_a_header_are_one() {
    let head = get("/").with_header("x", "a").with_header("X", "b");
    let x = |text| Match::any().with_header("x", text);
    assert!(matches(x(TextMatch::exact("a,b")), &head));
    assert!(!matches(x(TextMatch::exact("a")), &head));
    assert!(matches(x(TextMatch::prefix("a")), &head));
    assert!(matches(x(TextMatch::regex("a,.*")), &head));
}

#[test]
fn a_header_that_must_not_match_may_be_absent() {
    let without = |text| Match::any().without_header("x", text);
    let (absent, empty, a) =
        (get("/"), get("/").with_header("x", ""), get("/").with_header("x", "a"));
    for (text, expected) in [
        (TextMatch::Present, [true, false, false]),
        (TextMatch::exact("a"), [true, true, false]),
        (TextMatch::exact(""), [false, false, true]),
        (TextMatch::regex(".*"), [false, false, false]),
        (TextMatch::prefix("b"), [true, true, true]),
    ] {
        let got = [&absent, &empty, &a].map(|head| matches(without(text.clone()), head));
        assert_eq!(got, expected, "{text:?}");
    }
}

#[test]
fn pseudo_headers_are_what_they_are_elsewhere() {
    let head = get("/").with_authority("shop:80");
    let header =
        |name, value| matches(Match::any().with_header(name, TextMatch::exact(value)), &head);
    assert!(
        header(":method", "GET") && header("Host", "shop:80") && header(":authority", "shop:80")
    );
    assert!(header(":scheme", "http") && !header(":scheme", "https"));
}

#[test]
fn who_asks_is_known_when_the_table_is_built() {
    let client = Client::default()
        .with_labels([("app", "a"), ("version", "v1")].into_iter().collect())
        .with_namespace("sales");
    let labels = |app: &str| Match::any().with_source_labels([("app", app)].into_iter().collect());
    assert!(labels("a").is_for(&client) && !labels("b").is_for(&client));
    let namespace = |name: &str| Match::any().with_source_namespace(name);
    assert!(namespace("sales").is_for(&client) && !namespace("ops").is_for(&client));
    let gateways = |name: &str| labels("b").with_gateways(vec![name.to_owned()]);
    assert!(gateways("mesh").is_for(&client), "gateways alone decide where they are named");
    assert!(!gateways("edge").is_for(&client));
    assert!(gateways("edge").is_for(&client.with_gateway("edge")));
}

#[test]
fn a_route_whose_matches_are_all_for_others_takes_nothing() {
    let other = Match::any().with_source_namespace("other");
    let routes = [(vec![other], "a"), (vec![], "b")];
    let table = Table::new(routes, &Client::default(), simple).unwrap();
    assert_eq!(*table.find(&get("/")).unwrap().route(), "b");
}

#[test]
fn what_cannot_be_matched_is_refused_by_name() {
    let refused = |one: Match| {
        let error = Table::new([(vec![one], ())], &Client::default(), simple).unwrap_err();
        (error.field(), error.value().to_owned())
    };
    for name in ["", "a b", "ü", "a\n", "@request.auth.claims.sub", ":path"] {
        assert_eq!(
            refused(Match::any().with_header(name, TextMatch::Present)).0,
            "header",
            "{name}"
        );
        assert_eq!(refused(Match::any().without_header(name, TextMatch::Present)).0, "header");
    }
    assert_eq!(refused(Match::any().with_query("", TextMatch::Present)).0, "query");
    let regex = Match::any().with_header("x", TextMatch::regex("("));
    assert_eq!(refused(regex), ("regex", "(".to_owned()));
}

#[test]
fn hosts_by_rank() {
    let names =
        ["a.b.com", "*.b.com", "*.com", "a.*", "a.b.*", "*", "*-x.b.com", "c.com:81", "[::1]"];
    let hosts = Hosts::new(names.map(|name| (name, name))).unwrap();
    for (authority, expected) in [
        ("A.B.com", "a.b.com"),
        ("a.b.com:80", "a.b.com"),
        ("z.a.b.com", "*.b.com"),
        ("q-x.b.com", "*-x.b.com"),
        ("-x.b.com", "*.b.com"),
        ("b.com:443", "*.com"),
        (".com", "*"),
        ("a.b.org", "a.b.*"),
        ("a.c.org", "a.*"),
        ("a.", "*"),
        ("c.com:81", "c.com:81"),
        ("c.com:82", "*.com"),
        ("[::1]:80", "[::1]"),
        ("::1", "*"),
        ("", "*"),
    ] {
        assert_eq!(hosts.find(authority), Some(&expected), "{authority}");
    }
    let none = Hosts::<()>::new(Vec::<(&str, ())>::new()).unwrap();
    assert_eq!(none.find("a"), None);
    for bad in [&["a", "A"][..], &[""], &["*a*"], &["a*b"], &["**"], &["*", "*"], &["*.a", "*.A"]] {
        let error = Hosts::new(bad.iter().map(|name| (name, ()))).unwrap_err();
        assert_eq!(error.field(), "hosts", "{bad:?}");
    }
}

#[test]
fn a_hundred_thousand_routes_are_found_by_their_path() {
    use std::cell::Cell;
    /// Counts how often a route looks at the method.
    struct Counting<'a>(PlainHead, &'a Cell<usize>);
    impl Head for Counting<'_> {
        fn method(&self) -> &str {
            self.1.set(self.1.get() + 1);
            self.0.method()
        }
        fn scheme(&self) -> &str {
            self.0.scheme()
        }
        fn authority(&self) -> &str {
            self.0.authority()
        }
        fn path(&self) -> &str {
            self.0.path()
        }
        fn query(&self) -> &str {
            self.0.query()
        }
        fn port(&self) -> Option<u16> {
            self.0.port()
        }
        fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
            self.0.header(name)
        }
    }
    let kinds: [fn(String) -> PathMatch; 4] =
        [PathMatch::Exact, PathMatch::Prefix, PathMatch::Segments, |path| {
            PathMatch::Regex(path + "/.*")
        }];
    let routes = (0..100_000).map(|index| {
        let path = kinds[index % 4](format!("/service-{index:06}"));
        (vec![Match::any().with_path(path).with_method(TextMatch::exact("GET"))], index)
    });
    let table = Table::new(routes, &Client::default(), simple).unwrap();
    let looks = Cell::new(0);
    for index in [0, 1, 2, 3, 49_999, 99_998, 99_999] {
        let tail = if index % 4 == 0 { "" } else { "/x" };
        let head = Counting(get(&format!("/service-{index:06}{tail}")), &looks);
        assert_eq!(table.find(&head).map(|found| *found.route()), Some(index));
    }
    assert_eq!(looks.get(), 7, "no other route was looked at");
    assert!(table.find(&Counting(get("/other"), &looks)).is_none());
}

#[test]
fn a_rewrite_replaces_what_the_match_took() {
    let table = Table::new(
        [
            (vec![Match::any().with_path(PathMatch::exact("/exact"))], "/e"),
            (vec![Match::any().with_path(PathMatch::prefix("/pre"))], "/p"),
            (vec![Match::any().with_path(PathMatch::regex("/re/.*"))], "/r"),
            (vec![], "/any/"),
        ],
        &Client::default(),
        simple,
    )
    .unwrap();
    for (path, expected) in
        [("/exact", "/e"), ("/prefix/x", "/pfix/x"), ("/re/x", "/r"), ("/other", "/any/other")]
    {
        let found = table.find(&get(path)).unwrap();
        let rewrite = PathRewrite::Prefix((*found.route()).to_owned());
        let rewriter = Rewriter::new(rewrite, &mut simple).unwrap();
        assert_eq!(rewriter.rewrite(path, found.taken()), expected, "{path}");
    }
    let regex = PathRewrite::Regex { pattern: "/re".into(), substitution: "/\\1".into() };
    assert_eq!(Rewriter::new(regex, &mut simple).unwrap_err().field(), "substitution");
}

#[test]
fn changes_of_two_levels_are_one() {
    let route = HeaderChanges::none().add("a", "1").unwrap().set("b", "1").unwrap();
    let to = HeaderChanges::none().set("b", "2").unwrap().remove("c").unwrap();
    let both = route.then(&to);
    let puts: Vec<_> = both.puts().map(|put| (put.name(), put.value())).collect();
    assert_eq!(puts, [("b", "1"), ("a", "1"), ("b", "2")]);
    assert_eq!(both.removed().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn a_fault_is_drawn_in_its_share() {
    let fault = |delay, abort| {
        let delay = Delay::new(std::time::Duration::from_secs(1), Ratio::from_percent(delay));
        let abort = Abort::new(AbortStatus::http(500).unwrap(), Ratio::from_percent(abort));
        Fault::none().with_delay(Some(delay)).with_abort(Some(abort))
    };
    let drawn = |fault: &Fault| {
        let mut rng = SplitMix64::new(1);
        let all: Vec<_> = (0..10_000).map(|_| fault.draw(&mut rng)).collect();
        let count = |is: fn(&Injected) -> bool| all.iter().filter(|one| is(one)).count();
        [
            count(|one| one.delay().is_some()),
            count(|one| one.abort().is_some()),
            count(|one| one.delay().is_some() && one.abort().is_some()),
        ]
    };
    assert_eq!(drawn(&fault(0, 0)), [0, 0, 0]);
    assert_eq!(drawn(&fault(100, 100)), [10_000, 10_000, 10_000]);
    let [delays, aborts, both] = drawn(&fault(50, 50));
    assert!(delays.abs_diff(5_000) < 250 && aborts.abs_diff(5_000) < 250, "{delays} {aborts}");
    assert!(both.abs_diff(2_500) < 220, "drawn apart: {both}");
    assert!(AbortStatus::http(199).is_err() && AbortStatus::http(601).is_err());
}

#[test]
fn where_a_redirect_leads() {
    let to = |redirect: &Redirect| redirect.location("https", "shop:8443", "/a", "b");
    assert_eq!(to(&Redirect::new()), "https://shop:8443/a?b");
    assert_eq!(to(&Redirect::new().with_scheme(Some("http".into()))), "http://shop/a?b");
    assert_eq!(to(&Redirect::new().with_port(Some(443))), "https://shop/a?b");
    assert_eq!(to(&Redirect::new().with_authority(Some("new:1".into()))), "https://new:1/a?b");
    assert!(Redirect::new().with_status(304).is_err());
    assert_eq!(Redirect::new().with_status(308).unwrap().status(), 308);
    assert!(DirectResponse::new(200, vec![0; (1 << 20) + 1]).is_err());
}

/// What hosts promise, one name after the other: kind of the rule that takes it, and how much of it is written.
fn rank(name: &str, authority: &str) -> Option<(u8, usize)> {
    let (name, authority) = (name.to_ascii_lowercase(), authority.to_ascii_lowercase());
    let bare = authority.split(':').next().unwrap_or_default();
    let forms = if bare == authority { vec![bare] } else { vec![&*authority, bare] };
    let ranked = forms.iter().zip([1, 0]).filter_map(|(form, with_port)| {
        let longer = form.len() > name.len() - usize::from(name.contains('*'));
        match (name.strip_prefix('*'), name.strip_suffix('*')) {
            (Some(""), _) => Some((0, 0)),
            (Some(suffix), _) => {
                (longer && form.ends_with(suffix)).then_some((4 + with_port, suffix.len()))
            }
            (_, Some(prefix)) => {
                (longer && form.starts_with(prefix)).then_some((2 + with_port, prefix.len()))
            }
            (None, None) => (*form == name).then_some((6 + with_port, name.len())),
        }
    });
    ranked.max()
}

fn check_hosts(
    names: &[String],
    authority: &str,
    find: impl Fn(&Hosts<usize>, &str) -> Option<usize>,
) -> Result<(), String> {
    let hosts = Hosts::new(names.iter().zip(0..)).map_err(|error| error.to_string())?;
    let got = find(&hosts, authority).map(|at| rank(&names[at], authority));
    let best = names.iter().map(|name| rank(name, authority)).max().flatten();
    if got == best.map(Some) {
        Ok(())
    } else {
        Err(format!("{names:?} {authority}: {got:?}, not {best:?}"))
    }
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[aB.]{1,4}(:1)?",
        4 => "\\*[aB.]{1,3}(:1)?",
        3 => "[aB.]{1,3}\\*",
        1 => Just("*".to_owned()),
    ]
}

proptest! {
    #[test]
    fn the_best_host_is_found(
        names in prop::collection::btree_map(any_host().prop_map(|name| name.to_ascii_lowercase()), any::<bool>(), 0..12),
        authority in "[Ab.]{0,5}(:[12])?",
    ) {
        let written = |(name, upper): (String, bool)| if upper { name.to_ascii_uppercase() } else { name };
        let names: Vec<_> = names.into_iter().map(written).collect();
        let real = |hosts: &Hosts<usize>, authority: &str| hosts.find(authority).copied();
        prop_assert_eq!(check_hosts(&names, &authority, real), Ok(()));
    }
}

#[test]
fn the_check_of_hosts_catches_each_broken_twin() {
    let names = ["a", "*.b", "*.a.b", "c:1", "*"].map(str::to_owned);
    let all = |find: &dyn Fn(&Hosts<usize>, &str) -> Option<usize>| {
        let asked = ["a:1", "x.a.b", "c", "c:1", "C:1", "nobody"];
        asked.iter().try_for_each(|authority| check_hosts(&names, authority, find))
    };
    assert_eq!(all(&|hosts, authority| hosts.find(authority).copied()), Ok(()));
    let no_port =
        |hosts: &Hosts<usize>, authority: &str| hosts.find(authority.split(':').next()?).copied();
    assert!(all(&no_port).is_err(), "ignores the port where a name has it");
    let no_wildcard = |hosts: &Hosts<usize>, authority: &str| {
        hosts.find(authority).copied().filter(|at| *at != 4)
    };
    assert!(all(&no_wildcard).is_err(), "knows no host for all");
    let shortest = |hosts: &Hosts<usize>, authority: &str| match hosts.find(authority).copied() {
        Some(2) => Some(1),
        found => found,
    };
    assert!(all(&shortest).is_err(), "takes the shorter wildcard");
}

/// Counts how often it is asked for a header.
struct Asked<'a>(PlainHead, &'a std::cell::Cell<usize>);

impl Head for Asked<'_> {
    fn method(&self) -> &str {
        self.0.method()
    }
    fn scheme(&self) -> &str {
        self.0.scheme()
    }
    fn authority(&self) -> &str {
        self.0.authority()
    }
    fn path(&self) -> &str {
        self.0.path()
    }
    fn query(&self) -> &str {
        self.0.query()
    }
    fn port(&self) -> Option<u16> {
        self.0.port()
    }
    fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        self.1.set(self.1.get() + 1);
        self.0.header(name)
    }
}

/// Which of 100,000 routes of one path that differ in a header takes a request, and how often the header was asked for.
fn of_a_hundred_thousand_tenants(
    text: fn(String) -> TextMatch,
    tenant: usize,
) -> (Option<usize>, usize) {
    let routes = (0..100_000).map(|index| {
        let api = Match::any().with_path(PathMatch::segments("/api"));
        (vec![api.with_header("x-tenant", text(format!("t-{index:06}")))], index)
    });
    let table = Table::new(routes, &Client::default(), simple).unwrap();
    let asked = std::cell::Cell::new(0);
    let head = get("/api/cart").with_header("x-tenant", format!("t-{tenant:06}"));
    let found = table.find(&Asked(head, &asked)).map(|found| *found.route());
    (found, asked.get())
}

#[test]
fn a_hundred_thousand_routes_of_one_path_are_found_by_a_header() {
    for (tenant, found) in [(0, Some(0)), (99_999, Some(99_999)), (100_000, None)] {
        // Once for the list of candidates, and once by the candidate.
        let asked = 1 + usize::from(found.is_some());
        assert_eq!(of_a_hundred_thousand_tenants(TextMatch::exact, tenant), (found, asked));
    }
    // The twin of which no value is known beforehand asks them all.
    let (found, asked) = of_a_hundred_thousand_tenants(TextMatch::prefix, 99_999);
    assert_eq!((found, asked), (Some(99_999), 100_000));
}

/// Found by its value or asked in its turn: the order of the list decides between the two.
#[test]
fn a_route_that_is_not_found_by_a_value_keeps_its_place() {
    let routes = (0..20).map(|index| {
        let text =
            if index == 10 { TextMatch::Present } else { TextMatch::exact(format!("v{index}")) };
        (vec![Match::any().with_header("x-v", text)], index)
    });
    let table = Table::new(routes, &Client::default(), simple).unwrap();
    let of = |value: &str| table.find(&get("/").with_header("x-v", value)).map(|f| *f.route());
    // By the value alone it would be 15.
    assert_eq!([of("v5"), of("v15"), of("other")], [Some(5), Some(10), Some(10)]);
    assert!(table.find(&get("/")).is_none());
}

/// A header or parameter, and what it must be; small, so that there are many of each.
fn any_facet() -> impl Strategy<Value = Match> {
    let text = prop_oneof![
        6 => (0..4u8).prop_map(|value| TextMatch::exact(value.to_string())),
        1 => Just(TextMatch::Present),
        1 => (0..4u8).prop_map(|value| TextMatch::prefix(value.to_string())),
    ];
    let path = prop_oneof![Just("/"), Just("/a"), Just("/a/b")];
    let kind = 0..4u8;
    (path, kind, text.clone(), text).prop_map(|(path, kind, one, other)| {
        let on = Match::any().with_path(PathMatch::prefix(path));
        match kind {
            0 => on.with_header("x-a", one),
            1 => on.with_header("x-b", one).with_query("q", other),
            2 => on.with_query("q", one),
            _ => on.with_header(":method", TextMatch::exact("GET")).with_header("x-a", one),
        }
    })
}

proptest! {
    /// However many there are, the first that matches is found: by an index, or each asked in its turn.
    #[test]
    fn the_first_of_many_is_found(
        all in prop::collection::vec(any_facet(), 0..60),
        path in prop_oneof![Just("/"), Just("/a"), Just("/a/b/c"), Just("/A")],
        values in prop::array::uniform3(prop::option::of(0..5u8)),
    ) {
        let [a, b, q] = values;
        let mut head = get(&q.map_or_else(|| path.to_owned(), |q| format!("{path}?q={q}")));
        for (name, value) in [("x-a", a), ("x-b", b)] {
            if let Some(value) = value {
                head = head.with_header(name, value.to_string());
            }
        }
        let one_by_one = all.iter().position(|one| matches(one.clone(), &head));
        let routes = all.into_iter().enumerate().map(|(index, one)| (vec![one], index));
        let table = Table::new(routes, &Client::default(), simple).unwrap();
        prop_assert_eq!(table.find(&head).map(|found| *found.route()), one_by_one);
    }
}

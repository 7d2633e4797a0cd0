use super::{
    Action, Attribute, Authorizer, Config, Connection, Match, Normalization, PlainHead, Policy,
    Reason, Rule,
};

const SLEEP: &str = "spiffe://cluster.local/ns/default/sa/sleep";

fn deny(one: Match) -> Authorizer {
    authorizer(Action::Deny, one, &Config::default())
}

fn allow(one: Match) -> Authorizer {
    authorizer(Action::Allow, one, &Config::default())
}

fn authorizer(action: Action, one: Match, config: &Config) -> Authorizer {
    let policy = Policy::new("it", action).with_rule(Rule::any().with_condition(one));
    Authorizer::new([policy], config).unwrap()
}

fn get(path: &str) -> PlainHead {
    PlainHead::new("GET", path)
}

fn passes(authorizer: &Authorizer, head: &PlainHead) -> bool {
    authorizer.decide(&Connection::default().with_principal(SLEEP), head).is_allowed()
}

/// Paths that some handler takes for `/admin`.
const DISGUISES: [&str; 11] = [
    "/admin",
    "/x/../admin",
    "/./admin",
    "/%61dmin",
    "/x/%2e%2E/admin",
    "//admin",
    "/%2Fadmin",
    "/x\\..\\admin",
    "/x/..%5cadmin",
    "/x//../../admin",
    "/a/%2F..%2fadmin",
];

#[test]
fn a_disguise_gets_nobody_past_a_refusal() {
    let refuses = |config: &Config| {
        let paths = Match::of(Attribute::Path, ["/admin"]);
        let authorizer = authorizer(Action::Deny, paths, config);
        DISGUISES.map(|path| !passes(&authorizer, &get(path)))
    };
    assert_eq!(refuses(&Config::default()), [true; 11]);
    // The broken twins: each level alone lets some through.
    for level in [
        Normalization::None,
        Normalization::Base,
        Normalization::MergeSlashes,
        Normalization::DecodeAndMergeSlashes,
    ] {
        let config = Config::istio().with_normalization(level);
        assert!(refuses(&config).contains(&false), "{level:?}");
    }
}

#[test]
fn a_disguise_gains_nothing_from_a_grant() {
    let public = allow(Match::of(Attribute::Path, ["/public/*"]));
    assert!(passes(&public, &get("/public/a")));
    assert!(passes(&public, &get("/public/a%20b")));
    for path in ["/public/../admin", "/public/..%2fadmin", "/public/%2e./admin", "//public/../a"] {
        assert!(!passes(&public, &get(path)), "{path}");
    }
    // Whichever way it is read, it is public.
    assert!(passes(&public, &get("/public//a")));
    let istio =
        authorizer(Action::Allow, Match::of(Attribute::Path, ["/public/*"]), &Config::istio());
    assert!(passes(&istio, &get("/public/..%2fadmin")), "the broken twin");
}

#[test]
fn an_escape_is_the_letter_that_it_stands_for() {
    let refuses = |config: &Config, wanted: &str, path: &str| {
        let paths = Match::of(Attribute::Path, [wanted]);
        !passes(&authorizer(Action::Deny, paths, config), &get(path))
    };
    for (wanted, path) in [
        ("/users/@me", "/users/%40me"),
        ("/users/%40me", "/users/@me"),
        ("/users/@me*", "/users/%40me/keys"),
        ("*/@me", "/users/%40me"),
        ("/{*}/@me", "/users/%40me"),
        ("/caf%C3%A9", "/caf%c3%a9"),
        ("/café", "/caf%c3%a9"),
        ("/a b", "/a%20b"),
        ("/x/@me", "/x%2f%40me"),
    ] {
        assert!(refuses(&Config::default(), wanted, path), "{wanted} {path}");
        assert!(!refuses(&Config::istio(), wanted, path), "the broken twin: {wanted} {path}");
    }
    // It is taken off once: more would be another path.
    assert!(!refuses(&Config::default(), "/users/@me", "/users/%2540me"));
    // Nobody is let in by it, and nobody is kept out by it who asks for what he may.
    assert!(!passes(&allow(Match::of(Attribute::Path, ["/users/@me"])), &get("/users/%40me")));
    assert!(passes(&allow(Match::of(Attribute::Path, ["/users/%40me"])), &get("/users/%40me")));
    assert!(passes(&allow(Match::of(Attribute::Path, ["/users/*"])), &get("/users/%40me")));
    let but = Match::of(Attribute::Path, ["/users/*"]).except(["/users/@me"]);
    assert!(!passes(&allow(but), &get("/users/%40me")));
}

#[test]
fn a_parameter_hides_no_segment() {
    for path in ["/admin;x", "/admin;x=1", "/public/..;/admin", "/public/..;x=1/;y/admin;z"] {
        let refuses = |config: &Config| {
            let admin = Match::of(Attribute::Path, ["/admin"]);
            !passes(&authorizer(Action::Deny, admin, config), &get(path))
        };
        assert!(refuses(&Config::default()), "{path}");
        assert!(!refuses(&Config::istio()), "the broken twin: {path}");
    }
    let public = allow(Match::of(Attribute::Path, ["/public/*"]));
    for path in ["/public/..;/admin", "/public/%2e.;x/admin", "/public/..%2f..;/admin"] {
        assert!(!passes(&public, &get(path)), "{path}");
    }
    for path in ["/public/a;v=1", "/public/a;v=1/b", "/public/...;/a", "/public/a/..;/b"] {
        assert!(passes(&public, &get(path)), "{path}");
    }
}

#[test]
fn a_path_without_one_form_is_refused() {
    let anything = allow(Match::of(Attribute::Path, ["*"]));
    for path in ["/%", "/%4", "/%zz", "/%2%66", "/a%00", "/%%34%31"] {
        let decision = anything.decide(&Connection::default(), &get(path));
        assert_eq!(decision.reason(), Reason::BadPath, "{path}");
    }
    assert!(passes(&anything, &get("/%7B%25")));
}

#[test]
fn normal_forms() {
    use Normalization::{Base, DecodeAndMergeSlashes, MergeSlashes};
    for (path, base, merged, decoded) in [
        ("/", "/", "/", "/"),
        ("/..", "/", "/", "/"),
        ("/a/..", "/", "/", "/"),
        ("/a/.", "/a/", "/a/", "/a/"),
        ("/a/../../b", "/b", "/b", "/b"),
        ("/a//b//", "/a//b//", "/a/b/", "/a/b/"),
        ("//", "//", "/", "/"),
        ("/a%2fb", "/a%2fb", "/a%2fb", "/a/b"),
        ("/a%5Cb\\c", "/a%5Cb/c", "/a%5Cb/c", "/a/b/c"),
        ("/%7e%2D%41%c3%a9", "/~-A%c3%a9", "/~-A%c3%a9", "/~-A%c3%a9"),
        ("/a/...", "/a/...", "/a/...", "/a/..."),
        ("/.a", "/.a", "/.a", "/.a"),
        ("*", "*", "*", "*"),
        ("", "", "", ""),
    ] {
        assert_eq!(Base.apply(path).unwrap(), base, "{path}");
        assert_eq!(MergeSlashes.apply(path).unwrap(), merged, "{path}");
        assert_eq!(DecodeAndMergeSlashes.apply(path).unwrap(), decoded, "{path}");
    }
}

fn header(values: &[&str]) -> PlainHead {
    values.iter().fold(get("/"), |head, value| head.with_header("X-Role", *value))
}

fn role(value: &str) -> Match {
    Match::of(Attribute::header("x-role"), [value])
}

#[test]
fn a_header_with_several_values() {
    let hidden = header(&["user", "admin"]);
    assert!(!passes(&deny(role("admin")), &hidden), "one is enough to refuse");
    assert!(!passes(&deny(role("user,admin")), &hidden), "and so are all together");
    assert!(!passes(&deny(role("*,admin")), &hidden));
    assert!(!passes(&deny(role("user,ad*")), &hidden));
    assert!(passes(&deny(role("user,admin2")), &hidden));
    assert!(!passes(&allow(role("admin")), &hidden), "to grant takes all");
    assert!(!passes(&allow(role("user*")), &hidden));
    assert!(passes(&allow(role("user*")), &header(&["user1", "user2"])));
    // Istio, the broken twin.
    let istio = |action, value| authorizer(action, role(value), &Config::istio());
    assert!(passes(&istio(Action::Deny, "admin"), &hidden));
    assert!(passes(&istio(Action::Allow, "user*"), &hidden));
    assert!(passes(&istio(Action::Allow, "user,admin"), &hidden));
}

#[test]
fn a_list_in_one_line_is_a_list() {
    let lists: [&[&str]; 6] = [
        &["user,admin"],
        &["user, admin"],
        &["user ,\tadmin"],
        &["admin , user"],
        &["user,", "other, admin,"],
        &["user", "admin"],
    ];
    let istio = authorizer(Action::Deny, role("admin"), &Config::istio());
    for list in lists {
        assert!(!passes(&deny(role("admin")), &header(list)), "{list:?}");
        assert!(!passes(&deny(role("adm*")), &header(list)), "{list:?}");
        assert!(passes(&deny(role("admins")), &header(list)), "{list:?}");
        assert!(passes(&istio, &header(list)), "the broken twin: {list:?}");
    }
    // Blanks around commas mean nothing, in the policy neither.
    for value in ["user,admin", "user, admin", "us*", "*, admin"] {
        for list in [&["user,admin"][..], &["user, admin"], &["user", "admin"], &["user\t,admin"]] {
            assert!(!passes(&deny(role(value)), &header(list)), "{value} {list:?}");
        }
    }
    assert!(passes(&deny(role("a b")), &header(&["ab"])), "blanks in a value do");
    // A grant is of what was sent, and never of more than Istio would grant.
    assert!(passes(&allow(role("user,admin")), &header(&["user,admin"])));
    assert!(!passes(&allow(role("admin")), &header(&["user,admin"])));
    assert!(!passes(&allow(role("admin")), &header(&["admin", "admin"])), "together another value");
    let istio = authorizer(Action::Allow, role("admin"), &Config::istio());
    assert!(!passes(&istio, &header(&["admin", "admin"])));
    // What is left out of a grant is refused.
    let but = |config: &Config| authorizer(Action::Allow, role("*").except(["admin"]), config);
    assert!(!passes(&but(&Config::default()), &header(&["user, admin"])));
    assert!(passes(&but(&Config::default()), &header(&["user"])));
    assert!(passes(&but(&Config::istio()), &header(&["user, admin"])), "the broken twin");
}

#[test]
fn a_cookie_is_one_in_however_many_crumbs() {
    let cookie = |value: &str| Match::of(Attribute::header("cookie"), [value]);
    let sent = |lines: &[&str]| {
        lines.iter().fold(get("/"), |head, line| head.with_header("cookie", *line))
    };
    for lines in [&["a=1; bad=2"][..], &["a=1", "bad=2"], &["bad=2;a=1"]] {
        assert!(!passes(&deny(cookie("bad=2")), &sent(lines)), "{lines:?}");
    }
    assert!(passes(&deny(cookie("bad=2")), &sent(&["a=1,bad=2"])), "a comma is a letter there");
    // Envoy joins crumbs before anybody sees them.
    let istio = authorizer(Action::Deny, cookie("a=1; bad=2"), &Config::istio());
    assert!(!passes(&istio, &sent(&["a=1", "bad=2"])));
}

#[test]
fn one_host_is_written_in_many_ways() {
    let host = |name: &str| get("/").with_authority(name);
    let of = |value: &str| Match::of(Attribute::Host, [value]);
    let forms = ["admin.shop", "ADMIN.shop", "admin.shop.", "user@admin.shop", "u:p@Admin.Shop."];
    for value in ["admin.shop", "Admin.SHOP.", "*.shop", "*.SHOP.", "*min.shop"] {
        for form in forms {
            for port in ["", ":", ":80", ":8080", ":080", ":99999", ":http"] {
                let authority = format!("{form}{port}");
                assert!(!passes(&deny(of(value)), &host(&authority)), "{value} {authority}");
            }
        }
    }
    // A port that a policy names is a number; who names none means that of http or https.
    for (value, authority, refused) in [
        ("admin.shop:8080", "admin.shop.:8080", true),
        ("admin.shop.:8080", "x@ADMIN.shop:08080", true),
        ("*.shop:8080", "admin.shop.:8080", true),
        ("admin.shop:8080", "admin.shop:8081", false),
        ("admin.shop:8080", "admin.shop", false),
        ("admin.shop:443", "admin.shop", true),
        ("admin.shop:80", "admin.shop.", true),
        ("admin.shop:443", "admin.shop:80", false),
        ("*:8080", "admin.shop.:08080", true),
        ("*:8080", "admin.shop", false),
        ("admin.*", "admin.shop.:80", true),
        ("admin.shop:*", "admin.shop", true),
        ("admin.shop:80*", "admin.shop.:8080", true),
        ("admin.shop", "badmin.shop", false),
        ("admin.shop", "admin.shop.evil", false),
        ("admin.shop", "admin.shop@evil", false),
        ("[::1]:80", "[::1]", true),
        ("[::1]", "[::1]:8080", true),
        ("[::1]:80", "[::1]:81", false),
    ] {
        assert_eq!(!passes(&deny(of(value)), &host(authority)), refused, "{value} {authority}");
    }
    // A grant is of the name as it was sent, whatever its case, and of nobody who hides behind a user.
    for (value, authority, granted) in [
        ("admin.shop", "ADMIN.shop", true),
        ("admin.shop", "admin.shop:80", false),
        ("admin.shop", "admin.shop.", false),
        ("admin.shop:80", "admin.shop", false),
        ("admin.shop", "user@admin.shop", false),
        ("admin.*", "admin.shop@evil", false),
        ("*.shop", "evil@admin.shop", true),
    ] {
        assert_eq!(passes(&allow(of(value)), &host(authority)), granted, "{value} {authority}");
    }
    // Of a header by one of its names too.
    let header = Match::of(Attribute::header(":authority"), ["admin.shop:8080"]);
    assert!(!passes(&deny(header), &host("admin.shop.:8080")));
    let istio = |action, value| authorizer(action, of(value), &Config::istio());
    assert!(
        passes(&istio(Action::Deny, "admin.shop"), &host("admin.shop:8080")),
        "the broken twin"
    );
    assert!(passes(&istio(Action::Allow, "admin.*"), &host("admin.shop@evil")), "the broken twin");
}

#[test]
fn a_server_name_with_a_dot_is_the_same() {
    let named = |name| Connection::default().with_sni(name);
    let of = |value: &str| Match::of(Attribute::Sni, [value]);
    let refuses =
        |authorizer: &Authorizer, name| !authorizer.decide(&named(name), &get("/")).is_allowed();
    for value in ["admin.shop", "admin.shop.", "*.shop", "ADMIN.*"] {
        for name in ["admin.shop", "admin.shop.", "Admin.Shop"] {
            assert!(refuses(&deny(of(value)), name), "{value} {name}");
        }
    }
    assert!(!refuses(&deny(of("admin.shop")), "badmin.shop"));
    assert!(refuses(&allow(of("admin.shop")), "admin.shop."), "as it was sent");
    let istio = authorizer(Action::Deny, of("admin.shop"), &Config::istio());
    assert!(!refuses(&istio, "admin.shop."), "the broken twin");
}

#[test]
fn nobody_is_not_somebody_else() {
    let nobody = Connection::default();
    let head = get("/");
    let but_evil = || Match::not(Attribute::Namespace, ["evil"]);
    let reason = |authorizer: &Authorizer| authorizer.decide(&nobody, &head).reason();
    assert_eq!(reason(&allow(but_evil())), Reason::NotAllowed);
    assert_eq!(reason(&deny(but_evil())), Reason::Denied);
    let istio = authorizer(Action::Allow, but_evil(), &Config::istio());
    assert_eq!(reason(&istio), Reason::Allowed, "the broken twin");
    // Of others the exception does what it says.
    assert!(passes(&allow(but_evil()), &head));
    for (attribute, value) in [
        (Attribute::Principal, "a/b"),
        (Attribute::ServiceAccount, "a/b"),
        (Attribute::TrustDomain, "a"),
        (Attribute::SourceIp, "10.0.0.1"),
        (Attribute::RemoteIp, "10.0.0.1"),
        (Attribute::DestinationIp, "10.0.0.1"),
        (Attribute::Port, "80"),
        (Attribute::Sni, "a"),
        (Attribute::Host, "a"),
        (Attribute::header("x"), "a"),
        (Attribute::RequestPrincipal, "a/b"),
        (Attribute::Audience, "a"),
    ] {
        let authorizer = allow(Match::not(attribute.clone(), [value]));
        assert_eq!(reason(&authorizer), Reason::NotAllowed, "{attribute}");
    }
}

#[test]
fn nobody_at_all_is_who_is_not_anybody() {
    // `notPrincipals: ["*"]`: there is one that it could be, and that is none.
    let table = [
        (Attribute::Principal, true),
        (Attribute::Namespace, true),
        (Attribute::TrustDomain, true),
        (Attribute::Sni, true),
        (Attribute::Host, true),
        (Attribute::header("x"), true),
        (Attribute::RequestPrincipal, true),
        (Attribute::Audience, true),
        (Attribute::Method, false),
        (Attribute::Path, false),
    ];
    let there = get("/").with_authority("a").with_header("X", "").with_claim(["aud"], "a");
    let there = there.with_claim(["iss"], "a").with_claim(["sub"], "b");
    let somebody = Connection::default().with_principal(SLEEP).with_sni("a");
    for (attribute, is_absent) in table {
        for config in [Config::default(), Config::istio()] {
            let but_any = Match::not(attribute.clone(), ["*"]);
            let authorizer = authorizer(Action::Allow, but_any, &config);
            let of = |connection: &Connection<'_>, head: &PlainHead| {
                authorizer.decide(connection, head).is_allowed()
            };
            assert_eq!(of(&Connection::default(), &get("/")), is_absent, "{attribute}");
            assert!(!of(&somebody, &there), "{attribute}");
        }
    }
    // Beside another exception it says the same.
    let both = allow(Match::not(Attribute::Principal, ["cluster.local/*", "*"]));
    assert!(both.decide(&Connection::default(), &get("/")).is_allowed());
    // Where anybody is wanted, nobody is not.
    assert!(
        !allow(Match::of(Attribute::Principal, ["*"]))
            .decide(&Connection::default(), &get("/"))
            .is_allowed()
    );
}

#[test]
fn identities() {
    let owns = |attribute: Attribute, value: &str, id: &str| {
        let connection = Connection::default().with_principal(id);
        let policy = Match::of(attribute, [value]);
        allow(policy).decide(&connection, &get("/")).is_allowed()
    };
    let table = [
        (Attribute::Principal, "*", SLEEP, true),
        (Attribute::Principal, "*/sa/sleep", SLEEP, true),
        (Attribute::Principal, SLEEP, SLEEP, false),
        (Attribute::Namespace, "default", SLEEP, true),
        (Attribute::Namespace, "def", SLEEP, false),
        (Attribute::Namespace, "*", SLEEP, true),
        (Attribute::Namespace, "d*f*t", SLEEP, true),
        (Attribute::Namespace, "sa/sleep", SLEEP, false),
        (Attribute::Namespace, "b", "td/x/ns/a/ns/b/sa/c", true),
        (Attribute::Namespace, "b", "td/ns/b", false),
        (Attribute::ServiceAccount, "default/sleep", SLEEP, true),
        (Attribute::ServiceAccount, "sleep", SLEEP, true),
        (Attribute::ServiceAccount, "shop/sleep", SLEEP, false),
        (Attribute::ServiceAccount, "default/sleep", "td/ns/default/sa/sleepy", false),
        (Attribute::ServiceAccount, "default/sleep", "td/ns/default/x/sa/sleep/more", true),
        (Attribute::ServiceAccount, "default/sleep", "td/ns/default/xsa/sleep", false),
        (Attribute::ServiceAccount, "default/sleep", "td/ns/default//sa/sleep", false),
        (Attribute::TrustDomain, "cluster.local", SLEEP, true),
        (Attribute::TrustDomain, "cluster.loc", SLEEP, false),
        (Attribute::TrustDomain, "*.local", SLEEP, true),
        (Attribute::TrustDomain, "clu*", SLEEP, true),
        (Attribute::TrustDomain, "ab*ba", "aba/x", false),
        (Attribute::TrustDomain, "*", "td", true),
    ];
    for (attribute, value, id, expected) in table {
        assert_eq!(owns(attribute.clone(), value, id), expected, "{attribute} {value} {id}");
    }
}

#[test]
fn addresses() {
    let holds = |value: &str, ip: &str| {
        let connection = Connection::default().with_source_ip(ip.parse().unwrap());
        let policy = Match::of(Attribute::SourceIp, [value]);
        allow(policy).decide(&connection, &get("/")).is_allowed()
    };
    for (value, ip, expected) in [
        ("10.0.0.0/8", "10.255.0.1", true),
        ("10.0.0.0/8", "11.0.0.0", false),
        ("10.1.2.3", "10.1.2.3", true),
        ("10.1.2.3/8", "10.9.9.9", true),
        ("0.0.0.0/0", "192.0.2.1", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("::/0", "2001:db8::1", true),
        ("2001:db8::/32", "2001:db8:1::1", true),
        ("2001:db8::/32", "2001:db9::1", false),
        ("10.0.0.0/8", "::ffff:10.0.0.1", true),
        ("::ffff:10.0.0.0/104", "10.0.0.1", true),
    ] {
        assert_eq!(holds(value, ip), expected, "{value} {ip}");
    }
}

#[test]
fn templates() {
    let takes = |template: &str, path: &str| {
        passes(&allow(Match::of(Attribute::Path, [template])), &get(path))
    };
    for (template, path, expected) in [
        ("/foo/{*}", "/foo/x", true),
        ("/foo/{*}", "/foo/", false),
        ("/foo/{*}", "/foo/x/y", false),
        ("/foo/{*}/bar", "/foo/x/bar", true),
        ("/foo/{*}/bar", "/foo/x/y/bar", false),
        ("/foo/{**}", "/foo/", true),
        ("/foo/{**}", "/foo", false),
        ("/foo/{**}", "/foo/a/b", true),
        ("/foo/{**}/bar", "/foo/a/b/bar", true),
        ("/foo/{**}/bar", "/foo/bar", false),
        ("/{*}/{*}/foo/{**}/bar", "/a/b/foo/c/bar", true),
        ("/foo/{*}", "/foo/a*b", false),
    ] {
        assert_eq!(takes(template, path), expected, "{template} {path}");
    }
    let strange = get("/foo/a*b");
    assert!(!passes(&deny(Match::of(Attribute::Path, ["/foo/{*}"])), &strange));
}

#[test]
fn what_is_not_understood_is_an_error() {
    for (attribute, value) in [
        (Attribute::SourceIp, "10.0.0.0/33"),
        (Attribute::SourceIp, "10.0.0"),
        (Attribute::RemoteIp, "10.0.0.0/+8"),
        (Attribute::DestinationIp, ""),
        (Attribute::Port, "65536"),
        (Attribute::Port, "+80"),
        (Attribute::Port, "http"),
        (Attribute::Path, "/{*}x"),
        (Attribute::Path, "/{**}/{*}"),
        (Attribute::Path, "/{*}/é"),
        (Attribute::Principal, ""),
        (Attribute::ServiceAccount, "a/b/c"),
        (Attribute::ServiceAccount, "a*"),
        (Attribute::ServiceAccount, "/a"),
        (Attribute::TrustDomain, "a/b"),
        (Attribute::TrustDomain, "*a*"),
        (Attribute::header(":path"), "/"),
        (Attribute::header("a b"), "x"),
        (Attribute::of_key("request.headers[]"), "x"),
        (Attribute::of_key("request.auth.claims"), "x"),
        (Attribute::of_key("source.mood"), "x"),
    ] {
        for one in [Match::of(attribute.clone(), [value]), Match::not(attribute.clone(), [value])] {
            let policy = Policy::deny("it").with_rule(Rule::any().with_condition(one));
            let policies = [policy];
            assert!(
                Authorizer::new(policies.clone(), &Config::default()).is_err(),
                "{attribute} {value:?}"
            );
            assert!(Authorizer::new(policies, &Config::istio()).is_ok(), "{attribute} {value:?}");
        }
    }
}

#[test]
fn a_rule_that_istio_leaves_out() {
    let bad = || Match::of(Attribute::SourceIp, ["10.0.0.0/33"]);
    let mixed = || Match::of(Attribute::SourceIp, ["10.0.0.0/33", "10.0.0.0/8"]);
    let istio = |action, one| authorizer(action, one, &Config::istio());
    let from = |ip: [u8; 4]| Connection::default().with_source_ip(ip.into());
    // Of a policy that refuses only the value is left out, and if it was the only one, it asks nothing.
    assert!(!istio(Action::Deny, bad()).decide(&from([11, 0, 0, 1]), &get("/")).is_allowed());
    assert!(istio(Action::Deny, mixed()).decide(&from([11, 0, 0, 1]), &get("/")).is_allowed());
    assert!(!istio(Action::Deny, mixed()).decide(&from([10, 0, 0, 1]), &get("/")).is_allowed());
    // Of one that allows the rule.
    assert!(!istio(Action::Allow, mixed()).decide(&from([10, 0, 0, 1]), &get("/")).is_allowed());
    // A key that nobody knows: the rule of a refusal is gone, and everything passes.
    let unknown = || Match::of(Attribute::of_key("source.mood"), ["bad"]);
    assert!(istio(Action::Deny, unknown()).decide(&from([10, 0, 0, 1]), &get("/")).is_allowed());
}

#[test]
fn tokens_are_what_the_carrier_says() {
    let token = get("/").with_claim(["iss"], "https://issuer/x").with_claim(["sub"], "me");
    let token = token.with_claim(["aud"], "shop").with_claim(["realm", "role"], "admin");
    for (attribute, value, expected) in [
        (Attribute::RequestPrincipal, "https://issuer/x/me", true),
        (Attribute::RequestPrincipal, "https://issuer/x/*", true),
        (Attribute::RequestPrincipal, "*/me", true),
        (Attribute::RequestPrincipal, "*", true),
        (Attribute::RequestPrincipal, "*e", true),
        (Attribute::RequestPrincipal, "https://issuer*", false),
        (Attribute::RequestPrincipal, "https://issuer/y/me", false),
        (Attribute::Audience, "shop", true),
        (Attribute::Audience, "bank", false),
        (Attribute::Presenter, "*", false),
        (Attribute::of_key("request.auth.claims[realm][role]"), "adm*", true),
        (Attribute::of_key("request.auth.claims[role]"), "adm*", false),
    ] {
        let authorizer = allow(Match::of(attribute.clone(), [value]));
        assert_eq!(passes(&authorizer, &token), expected, "{attribute} {value}");
        assert!(!passes(&authorizer, &get("/")), "no token: {attribute} {value}");
    }
}

#[test]
fn a_trial_changes_nothing_and_is_told() {
    let all = || Rule::any();
    let policies = [
        Policy::deny("new").with_rule(all()).with_dry_run(true),
        Policy::new("seen", Action::Audit).with_rule(all()),
    ];
    let authorizer = Authorizer::new(policies, &Config::default()).unwrap();
    let head = get("/");
    let decision = authorizer.decide(&Connection::default(), &head);
    assert!(decision.is_allowed());
    let (reason, rule) = decision.trial().unwrap();
    assert_eq!((reason, rule.unwrap().policy()), (Reason::Denied, "default/new"));
    assert_eq!(decision.audit().unwrap().policy_index(), 1);
    // An ALLOW policy on trial alone does not make the rest forbidden.
    let trial = Policy::allow("new").with_dry_run(true);
    let authorizer = Authorizer::new([trial], &Config::default()).unwrap();
    let decision = authorizer.decide(&Connection::default(), &head);
    assert_eq!(decision.reason(), Reason::NoAllowPolicy);
    assert_eq!(decision.trial(), Some((Reason::NotAllowed, None)));
}

#[test]
fn a_custom_policy_needs_somebody_to_ask() {
    let policy = Policy::new("it", Action::Custom).with_provider("opa").with_rule(Rule::any());
    let authorizer = Authorizer::new([policy], &Config::default()).unwrap();
    let (nobody, head) = (Connection::default(), get("/"));
    assert_eq!(authorizer.decide(&nobody, &head).reason(), Reason::NotGranted);
    let mut asked = Vec::new();
    let decision = authorizer.decide_asking(&nobody, &head, |provider| {
        asked.push(provider.to_owned());
        true
    });
    assert!(decision.is_allowed());
    assert_eq!(asked, ["opa"]);
}

#[test]
fn trust_domains_of_the_mesh() {
    let config = Config::default().with_trust_domains(["new", "old"]);
    let holds = |value: &str, id: &str| {
        let policy = Match::of(Attribute::Principal, [value]);
        let connection = Connection::default().with_principal(id);
        authorizer(Action::Allow, policy, &config).decide(&connection, &get("/")).is_allowed()
    };
    for (value, id, expected) in [
        ("cluster.local/ns/a/sa/b", "new/ns/a/sa/b", true),
        ("old/ns/a/sa/b", "new/ns/a/sa/b", true),
        ("old/ns/a/*", "new/ns/a/sa/b", true),
        ("other/ns/a/sa/b", "new/ns/a/sa/b", false),
        ("other/ns/a/sa/b", "other/ns/a/sa/b", true),
        ("*ld/ns/a/sa/b", "new/ns/a/sa/b", true),
        ("*/sa/b", "other/ns/a/sa/b", true),
    ] {
        assert_eq!(holds(value, id), expected, "{value} {id}");
    }
}

//! Requests that can be read in two ways: paths, headers, hosts and server names.

use super::*;

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
    // It is taken off as often as somebody on the way may do it; of more nobody knows what comes of it.
    for (path, reason) in [
        ("/users/%2540me", Reason::Denied),
        ("/users/%252540me", Reason::Denied),
        ("/users/%25252540me", Reason::BadPath),
        ("/users/%2500", Reason::BadPath),
        ("/users/100%25", Reason::NoAllowPolicy),
    ] {
        let of =
            |authorizer: Authorizer| authorizer.decide(&Connection::default(), &get(path)).reason();
        assert_eq!(of(deny(Match::of(Attribute::Path, ["/users/@me"]))), reason, "{path}");
    }
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

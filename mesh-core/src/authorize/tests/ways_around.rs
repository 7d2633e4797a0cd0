//! Ways around a refusal, one line each: whatever a request is spelled like, what is refused stays refused, and what is
//! granted is granted to nobody else.

use super::*;

/// What a policy names, and a request that some handler takes for it.
type Way = (&'static str, &'static str);

/// By the path.
const PATHS: [Way; 38] = [
    ("/admin", "/admin/"),
    ("/admin", "/admin/."),
    ("/admin", "/admin/x/.."),
    ("/admin/", "/admin"),
    ("*/admin", "/x/admin/"),
    ("/{*}/admin", "/x/admin/"),
    // Escapes in escapes: a proxy takes off one layer, the application another.
    ("/admin", "/%2561dmin"),
    ("/admin", "/%252561dmin"),
    ("/admin", "/%25%36%31dmin"),
    ("/users/@me", "/users/%2540me"),
    ("/admin", "/x/..%252fadmin"),
    ("/admin", "/x/%252e%252e/admin"),
    ("/admin", "/x/%252e%252e%252fadmin"),
    ("/admin", "/x/..%255cadmin"),
    ("/admin", "/%252fadmin"),
    ("/admin/*", "/admin%252fx"),
    // Parameters, escaped or empty.
    ("/admin", "/;x/admin"),
    ("/admin", "/;/admin;"),
    ("/admin", "/admin%3bx"),
    ("/admin", "/admin%3Bx=1"),
    ("/admin", "/admin%253bx"),
    ("/admin", "/x/..%3b/admin"),
    ("/admin", "/x/..%3Ba/admin"),
    ("/admin", "/x;/../admin"),
    ("/admin", "/x/;/../admin"),
    ("/admin/x", "/admin;a/x;b"),
    ("/admin/x", "/admin;a//x"),
    // What was the end of the path once it was unescaped.
    ("/admin", "/admin%3fx"),
    ("/admin", "/admin%3Fx=/y"),
    ("/admin", "/admin%23x"),
    ("/admin", "/admin%253f"),
    // Dots that a router has not resolved when it chose who handles the request.
    ("/admin/*", "/admin/../public"),
    ("/admin/*", "/admin/%2e%2e/public"),
    ("/admin/*", "/admin\\..\\public"),
    ("/admin/{*}", "/admin/."),
    // No path at all.
    ("/admin", "*"),
    ("/*", "*"),
    ("/*", ""),
];

/// By the host.
const HOSTS: [Way; 30] = [
    ("secret.example", "secret%2eexample"),
    ("secret.example", "secret%2Eexample:80"),
    ("secret.example", "s%65cret.example"),
    ("secret.example", "s%2565cret.example"),
    ("*.example", "secret.ex%61mple"),
    ("secret.*", "%73ecret.example"),
    ("secret.example", ""),
    ("*", ""),
    ("secret.example", "secret.example:80:90"),
    ("secret.example", "a@secret.example@b"),
    ("secret.example", "secret.example/@b"),
    ("secret.example", "secret.example#@b"),
    ("secret.example", "secret.example\\@b"),
    ("secret.example", "secret.example/"),
    ("secret.example", "secret.example/x"),
    ("secret.example", "secret.example?x"),
    ("secret.example", "secret.example,b"),
    ("secret.example", "b, secret.example"),
    ("secret.example", "secret.example b"),
    ("secret.example", "http://secret.example"),
    ("secret.example", "\u{ff53}ecret.example"),
    ("secret.example", "..secret.example"),
    ("secret.example", "secret..example"),
    ("[::1]", "[0:0:0:0:0:0:0:1]"),
    ("[::1]:80", "[0::1]"),
    ("127.0.0.1", "[::ffff:127.0.0.1]"),
    ("[::ffff:7f00:1]", "127.0.0.1"),
    ("127.0.0.1", "127.1"),
    ("127.0.0.1", "2130706433:80"),
    ("127.0.0.1", "0x7f.0.0.1."),
];

/// By the method: the handler of GET answers these too.
const METHODS: [Way; 4] = [("GET", "HEAD"), ("GET", "get"), ("G*", "HEAD"), ("GET", "head")];

/// The ways that are open.
fn not_refused(
    ways: &[Way],
    attribute: &Attribute,
    config: &Config,
    head: impl Fn(&str) -> PlainHead,
) -> Vec<Way> {
    let is_open = |(wanted, sent): &Way| {
        let one = Match::of(attribute.clone(), [*wanted]);
        passes(&authorizer(Action::Deny, one, config), &head(sent))
    };
    ways.iter().copied().filter(is_open).collect()
}

/// What an exception of a grant names is kept out as well.
fn not_excepted(ways: &[Way], attribute: &Attribute, head: impl Fn(&str) -> PlainHead) -> Vec<Way> {
    let is_open = |(wanted, sent): &Way| {
        passes(&allow(Match::not(attribute.clone(), [*wanted])), &head(sent))
    };
    // Where everybody with a host must stay out, who has none is meant.
    ways.iter().copied().filter(|(wanted, _)| *wanted != "*").filter(is_open).collect()
}

const NONE: [Way; 0] = [];

#[test]
fn ways_around_a_refusal_by_path() {
    assert_eq!(not_refused(&PATHS, &Attribute::Path, &Config::default(), get), NONE);
    assert_eq!(not_excepted(&PATHS, &Attribute::Path, get), NONE);
    let raw = Config::default().with_normalization(Normalization::None);
    assert_eq!(not_refused(&PATHS, &Attribute::Path, &raw, get), NONE);
    // The broken twin takes a path as it is handed on, and so are nearly all of these ways open.
    let open = not_refused(&PATHS, &Attribute::Path, &Config::istio(), get);
    assert!(open.len() > PATHS.len() - 3, "{open:?}");
}

#[test]
fn ways_around_a_refusal_by_host() {
    let to = |host: &str| get("/").with_authority(host);
    assert_eq!(not_refused(&HOSTS, &Attribute::Host, &Config::default(), to), NONE);
    assert_eq!(not_excepted(&HOSTS, &Attribute::Host, to), NONE);
    let open = not_refused(&HOSTS, &Attribute::Host, &Config::istio(), to);
    assert!(open.len() > HOSTS.len() - 3, "the broken twin: {open:?}");
}

#[test]
fn ways_around_a_refusal_by_method() {
    let by = |method: &str| PlainHead::new(method, "/");
    assert_eq!(not_refused(&METHODS, &Attribute::Method, &Config::default(), by), NONE);
    assert_eq!(not_excepted(&METHODS, &Attribute::Method, by), NONE);
    let open = not_refused(&METHODS, &Attribute::Method, &Config::istio(), by);
    assert_eq!(open.len(), METHODS.len(), "the broken twin");
    // A tunnel to a path (RFC 8441) is what GET with an upgrade is in HTTP/1.1; one to a host is none.
    let get_refused = || deny(Match::of(Attribute::Method, ["GET"]));
    assert!(!passes(&get_refused(), &PlainHead::new("CONNECT", "/chat")));
    assert!(passes(&get_refused(), &PlainHead::new("CONNECT", "")));
    for method in ["POST", "OPTIONS", "TRACE", "HEADER"] {
        assert!(passes(&get_refused(), &by(method)), "{method}");
    }
    // Who wants HEAD says so; and who grants GET has granted nothing else.
    let but_head = Match::of(Attribute::Method, ["GET"]).except(["HEAD"]);
    assert!(passes(&deny(but_head), &by("HEAD")));
    assert!(!passes(&allow(Match::of(Attribute::Method, ["GET"])), &by("HEAD")));
    assert!(passes(&allow(Match::of(Attribute::Method, ["HEAD"])), &by("HEAD")));
}

#[test]
fn a_grant_is_of_what_can_be_read_in_one_way() {
    let granted = |attribute: Attribute, wanted: &str, head: &PlainHead| {
        let one = || Match::of(attribute.clone(), [wanted]);
        let istio = passes(&authorizer(Action::Allow, one(), &Config::istio()), head);
        let ours = passes(&allow(one()), head);
        assert!(istio || !ours, "nobody is let in whom Istio refuses: {wanted} {head:?}");
        ours
    };
    for (wanted, sent, expected) in [
        ("/public/*", "/public/a%20b;c=d%3f", true),
        ("/public/*", "/public/a%252Fb", true),
        ("/public/*", "/public/100%25", true),
        ("/public/*", "/public/x/../a", true),
        ("/a;b", "/a;b", true),
        ("/%40", "/%40", true),
        ("*", "*", true),
        // As whoever decodes twice reads it.
        ("/public/*", "/public/..%252fadmin", false),
        ("/public/*", "/public/%252e%252e/admin", false),
        ("/public/*", "/public/..%255cadmin", false),
        ("/public/*", "/public/..%3b/admin", false),
        // As a router reads it that was asked before.
        ("/public/*", "/admin/../public/a", false),
        ("/public/*", "/admin/%2e%2E/public/a", false),
        ("/public/*", "/admin\\..\\public/a", false),
        ("/public", "/public/", false),
        ("*x", "x", false),
    ] {
        assert_eq!(granted(Attribute::Path, wanted, &get(sent)), expected, "{wanted} {sent}");
    }
    for (wanted, sent, expected) in [
        ("*.shop", "a_b.shop", true),
        ("*", "a,b", true),
        ("[::1]", "[::1]", true),
        ("*.shop", "evil/.shop", false),
        ("*.shop", "evil,x.shop", false),
        ("*.shop", "evil%2fx.shop", false),
        ("*.shop", "evil#@x.shop", false),
        ("127.*", "127.1", false),
        ("shop:*", "shop:80:81", false),
    ] {
        let head = get("/").with_authority(sent);
        assert_eq!(granted(Attribute::Host, wanted, &head), expected, "{wanted} {sent}");
    }
}

#[test]
fn what_nobody_told_may_be_anything() {
    let nothing = Connection::default();
    for (attribute, value) in [
        (Attribute::Port, "9090"),
        (Attribute::SourceIp, "10.0.0.0/8"),
        (Attribute::RemoteIp, "10.0.0.0/8"),
        (Attribute::DestinationIp, "10.0.0.0/8"),
    ] {
        let one = || Match::of(attribute.clone(), [value]);
        let refuses = |authorizer: &Authorizer| {
            let of_request = authorizer.decide(&nothing, &get("/")).is_allowed();
            assert_eq!(of_request, authorizer.decide_connection(&nothing).is_allowed());
            !of_request
        };
        assert!(refuses(&deny(one())), "{attribute}");
        assert!(refuses(&allow(one())), "{attribute}");
        let istio = authorizer(Action::Deny, one(), &Config::istio());
        assert!(!refuses(&istio), "the broken twin: {attribute}");
    }
    // Who shows no name has none.
    for attribute in [Attribute::Principal, Attribute::Namespace, Attribute::Sni] {
        let authorizer = deny(Match::of(attribute, ["a"]));
        assert!(authorizer.decide(&nothing, &get("/")).is_allowed());
    }
}

#[test]
fn a_header_by_another_name_or_without_a_value() {
    let role = |value: &str| Match::of(Attribute::header("x-my-role"), [value]);
    let none = || Match::not(Attribute::header("x-my-role"), ["*"]);
    let head = |headers: &[(&str, &str)]| {
        headers.iter().fold(get("/"), |head, (name, value)| head.with_header(name, *value))
    };
    for name in ["x_my_role", "X_My-Role", "x-my_role"] {
        for headers in [
            &[(name, "admin")][..],
            &[("x-my-role", "user"), (name, "admin")],
            &[(name, "a, admin")],
        ] {
            let sent = head(headers);
            assert!(!passes(&deny(role("admin")), &sent), "{headers:?}");
            let istio = authorizer(Action::Deny, role("admin"), &Config::istio());
            assert!(passes(&istio, &sent), "the broken twin: {headers:?}");
            assert!(!passes(&deny(role("*")), &sent), "{headers:?}");
            // There is one that must not be there.
            assert!(!passes(&allow(none()), &sent), "{headers:?}");
            assert!(!passes(&allow(role("user")), &sent), "{headers:?}");
        }
        assert!(passes(&allow(role("user")), &head(&[("x-my-role", "user"), (name, "user")])));
    }
    assert!(passes(&deny(role("admin")), &head(&[("x.my.role", "admin"), ("xmyrole", "admin")])));
    // Whoever writes the policy may write its name as he likes.
    let capitals = Match::of(Attribute::Header("X-My-Role".to_owned()), ["admin"]);
    assert!(!passes(&deny(capitals), &head(&[("x-my-role", "admin")])));
    let host = Match::of(Attribute::Header("Host".to_owned()), ["shop"]);
    assert!(!passes(&deny(host), &get("/").with_authority("shop:80")));
    // A header with nothing in it is there to refuse, and is not to grant.
    let empty = head(&[("x-my-role", "")]);
    assert!(!passes(&deny(role("*")), &empty));
    assert!(!passes(&allow(none()), &empty));
    assert!(!passes(&deny(none()), &empty), "who must show one has shown none");
    assert!(!passes(&allow(role("*")), &empty));
    let istio = authorizer(Action::Allow, role("*"), &Config::istio());
    assert!(passes(&istio, &empty), "the broken twin");
    assert!(passes(&deny(none()), &head(&[("x-my-role", "user")])));
}

/// Handlers in a row, of whom each does a part: what one leaves is what the next one reads.
#[test]
fn ways_around_a_refusal_in_several_steps() {
    const WAYS: [Way; 10] = [
        // Escapes off, dots resolved, escapes off once more: the dots of the first step take a name away that is dots itself
        // in the second.
        ("/admin", "/adm%2569n/%252e%252e%2f.."),
        ("/admin", "/adm%2569n/a%252fb%2f.."),
        ("/admin/*", "/adm%2569n/x/%252e%252e%2f.."),
        ("/adm@n", "/adm%40n/a%2fb/..;"),
        // Dots resolved, and only then parameters taken off.
        ("/admin", "/admin;x/..;%2f.."),
        ("/admin", "/admin;x%2f..;%2f.."),
        ("/admin", "/x/..;%2f..%2f..%2fadmin;x/..;%2f.."),
        // Dots resolved, and only then the end found.
        ("/admin", "/x%3fy%2f..%2fadmin%3fz"),
        ("/admin", "/x%23y%2f..%2fadmin%23z"),
        // The end found, and parameters left alone.
        ("/a;b", "/a;b%3fc"),
    ];
    assert_eq!(not_refused(&WAYS, &Attribute::Path, &Config::default(), get), NONE);
    assert_eq!(not_excepted(&WAYS, &Attribute::Path, get), NONE);
    let raw = Config::default().with_normalization(Normalization::None);
    let raw_ways = [("/admin", "/adm%69n/%2e%2e/.."), ("/admin", "/%61dmin/%2e/x%2fy/..")];
    assert_eq!(not_refused(&raw_ways, &Attribute::Path, &raw, get), NONE);
    assert_eq!(not_refused(&WAYS, &Attribute::Path, &raw, get), NONE);
    let open = not_refused(&WAYS, &Attribute::Path, &Config::istio(), get);
    assert_eq!(open.len(), WAYS.len(), "the broken twin");
    // A grant, to those who read it in two steps.
    let public = || Match::of(Attribute::Path, ["/public/*"]);
    let sent = get("/public/..%252fadmin/%252e%252e%252fpublic%252fx%2f..");
    assert!(!passes(&allow(public()), &sent));
    assert!(passes(&authorizer(Action::Allow, public(), &Config::istio()), &sent));
    // What is merely odd is read as before.
    for odd in ["/a%20b/x%2f..", "/a%252fb", "/a/..%252fb", "/a/..;/b%20c", "/100%25/a%2f.."] {
        let reason = deny(public()).decide(&Connection::default(), &get(odd)).reason();
        assert_eq!(reason, Reason::NoAllowPolicy, "{odd}");
    }
}

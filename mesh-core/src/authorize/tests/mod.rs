mod disguises;
mod ways_around;

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

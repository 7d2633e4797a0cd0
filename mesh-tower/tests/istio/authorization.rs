//! Which `AuthorizationPolicy` is for whom, and what is refused when it is read.

use mesh_core::{
    Labels,
    authorize::{Config, Connection, PlainHead, Reason},
};
use mesh_tower::istio::{self, Unsupported, Workload};

use super::{read, refused};

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn cart() -> Workload {
    Workload::new("shop", [("app", "cart")].into_iter().collect())
}

const DENY_ALL: &str = "action: DENY, rules: [{}]";

#[test]
fn a_policy_is_for_its_namespace_and_one_of_the_root_for_all() {
    let names = |text: &str| {
        let documents = read(text).with_root_namespace("root");
        let authorizer = documents.authorization(&cart()).unwrap();
        authorizer.policies().map(str::to_owned).collect::<Vec<_>>()
    };
    let selected = |labels: &str| format!("selector: {{matchLabels: {{{labels}}}}}, {DENY_ALL}");
    let text = [
        policy("mine", "shop", DENY_ALL),
        policy("foreign", "bank", DENY_ALL),
        policy("everywhere", "root", DENY_ALL),
        policy("everywhere-for-carts", "root", &selected("app: cart")),
        policy("for-carts", "shop", &selected("app: cart")),
        policy("for-others", "shop", &selected("app: items")),
        policy("for-half", "shop", &selected("app: cart, version: v2")),
        policy("for-all", "shop", &selected("")),
    ]
    .concat();
    let expected = [
        "shop/mine",
        "root/everywhere",
        "root/everywhere-for-carts",
        "shop/for-carts",
        "shop/for-all",
    ];
    assert_eq!(names(&text), expected);
}

#[test]
fn a_policy_without_a_spec_allows_nothing() {
    let text =
        "apiVersion: security.istio.io/v1beta1\nkind: AuthorizationPolicy\nmetadata: {name: x}\n";
    for text in [text.to_owned(), format!("{text}spec: {{}}\n")] {
        let documents = read(&text);
        let workload = Workload::new("default", Labels::default());
        let authorizer = documents.authorization(&workload).unwrap();
        let decision = authorizer.decide(&Connection::default(), &PlainHead::new("GET", "/"));
        assert_eq!(decision.reason(), Reason::NotAllowed);
    }
}

#[test]
fn a_policy_on_trial_says_so() {
    let annotated = |value: &str| {
        policy("it", "shop", DENY_ALL).replace(
            "namespace: shop",
            &format!("namespace: shop, annotations: {{istio.io/dry-run: {value}}}"),
        )
    };
    let documents = read(&annotated("\"true\""));
    assert!(documents.authorization_policies()[0].policy().is_dry_run());
    assert!(!read(&annotated("\"false\"")).authorization_policies()[0].policy().is_dry_run());
    for value in ["true", "\"yes\"", "[a]"] {
        let error = refused(&annotated(value));
        assert!(error.contains("metadata.annotations.istio.io/dry-run"), "{error}");
        assert!(error.contains("expected \"true\" or \"false\""), "{error}");
    }
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_its_place_whatever_the_mode() {
    let rule = |rule: &str| format!("rules: [{{{rule}}}]");
    let source = |fields: &str| rule(&format!("from: [{{source: {{{fields}}}}}]"));
    let operation = |fields: &str| rule(&format!("to: [{{operation: {{{fields}}}}}]"));
    let when = |fields: &str| rule(&format!("when: [{{{fields}}}]"));
    let table = [
        ("action: CUSTOM, provider: {name: opa}, rules: [{}]".to_owned(), "spec.provider: "),
        ("action: CUSTOM, rules: [{}]".to_owned(), "spec.action: "),
        ("action: allow".to_owned(), "spec.action: "),
        ("action: DENY".to_owned(), "spec.rules: "),
        ("action: DENY, rules: []".to_owned(), "spec.rules: "),
        ("targetRefs: [{kind: Service, name: a}]".to_owned(), "spec.targetRefs: "),
        ("selector: {matchExpressions: []}".to_owned(), "spec.selector.matchExpressions: "),
        ("rules: [null]".to_owned(), "spec.rules[0]: "),
        (rule("form: []"), "spec.rules[0].form: "),
        (rule("from: []"), "spec.rules[0].from: "),
        (rule("from: [{}]"), "spec.rules[0].from[0].source: "),
        (rule("from: [{source: {}}]"), "spec.rules[0].from[0].source: "),
        (rule("to: [{operation: {}}]"), "spec.rules[0].to[0].operation: "),
        (source("principal: [a]"), "spec.rules[0].from[0].source.principal: "),
        (source("principals: []"), "spec.rules[0].from[0].source.principals: "),
        (source("principals: [\"\"]"), "spec.rules[0].from[0].source.principals[0]: "),
        (source("principals: [a/b, \"a*b\"]"), "spec.rules[0].from[0].source.principals[1]: "),
        (source("principals: [\"spiffe://a/b\"]"), "source.principals[0]: "),
        (source("notIpBlocks: [10.0.0.0/33]"), "source.notIpBlocks[0]: "),
        (source("serviceAccounts: [a], namespaces: [b]"), "spec.rules[0].from[0].source: "),
        (source("serviceAccounts: [\"a*\"]"), "source.serviceAccounts[0]: "),
        (source("trustDomains: [a/b]"), "source.trustDomains[0]: "),
        (operation("ports: [80]"), "operation.ports[0]: "),
        (operation("ports: [\"http\"]"), "operation.ports[0]: "),
        (operation("paths: [\"/{*}x\"]"), "operation.paths[0]: "),
        (operation("paths: [\"/a*b\"]"), "operation.paths[0]: "),
        (operation("paths: [\"admin\"]"), "operation.paths[0]: "),
        (operation("notHosts: [\"*a*\"]"), "operation.notHosts[0]: "),
        (when("key: source.mood, values: [a]"), "spec.rules[0].when[0].key: "),
        (when("key: \"request.headers[]\", values: [a]"), "spec.rules[0].when[0].key: "),
        (when("key: \"experimental.envoy.filters.a[b]\", values: [a]"), "when[0].key: "),
        (when("values: [a]"), "spec.rules[0].when[0].key: "),
        (when("key: source.ip"), "spec.rules[0].when[0]: "),
        (when("key: source.ip, values: [a]"), "spec.rules[0].when[0].values[0]: "),
        (when("key: source.ip, notValues: [10.0.0.1], value: [a]"), "when[0].value: "),
    ];
    for (spec, path) in table {
        let text = policy("it", "shop", &spec);
        for mode in [Unsupported::Error, Unsupported::Warn] {
            let errors = istio::read(&text, "it.yaml", mode).unwrap_err().to_string();
            assert!(errors.contains(path) && errors.contains("it.yaml:4:"), "{spec}\n{errors}");
        }
    }
}

/// Nothing at all, a wrong place and a wrong name: none of it turns a refusal into nothing, or a grant into one for
/// everybody, in silence.
#[test]
fn a_policy_is_not_lost_by_a_slip() {
    let it = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
              metadata: {name: it, namespace: shop}\n";
    let rule = |rule: &str| format!("{it}spec: {{rules: [{{{rule}}}]}}\n");
    let spec = |spec: &str| format!("{it}spec: {{{spec}}}\n");
    let everything = spec("action: DENY, rules: [{}]");
    for (slip, said) in [
        (rule("from:"), "rules[0].from: is null: leave it out"),
        (rule("to: null"), "rules[0].to: is null: leave it out"),
        (rule("when:"), "rules[0].when: is null: leave it out"),
        (rule("when: []"), "rules[0].when: is empty: leave it out"),
        (rule("to: []"), "rules[0].to: is empty: leave it out"),
        (rule("from: [{source: {principals:, namespaces: [a]}}]"), "source.principals: is null"),
        (rule("to: [{operation: {hosts: [], paths: [/a]}}]"), "operation.hosts: is empty"),
        (rule("when: [{key: source.ip, values:, notValues: [10.0.0.1]}]"), "[0].values: is null"),
        (rule("when: [{key: source.ip, values: 10.0.0.1}]"), "is not a list"),
        (spec("action:, rules: [{}]"), "spec.action: is null: leave it out"),
        (spec("action: DENY, rules: null"), "spec.rules: is null: leave it out"),
        (spec("action: DENY, rules: {}"), "spec.rules: is missing"),
        (spec("action: DENY, action: ALLOW, rules: [{}]"), "duplicate mapping key"),
        (spec("rules: [{}], selector:"), "spec.selector: is null"),
        (spec("rules: [{}], selector: {matchLabels:}"), "spec.selector.matchLabels: is null"),
        (spec("rules: [{}], selector: {matchLabels: {app: 'c*'}}"), "is for no workload"),
        (spec("rules: [{}], selector: {matchLabels: {app: 7}}"), "write it in quotes"),
        (spec("rules: [{}], selector: {app: cart}"), "spec.selector.app: is not supported"),
        (format!("{it}action: DENY\n"), "action: is not supported"),
        (everything.replace("AuthorizationP", "Authorizationp"), "kind: "),
        (everything.replace("security", "securty"), "apiVersion: "),
        (everything.replace("security.istio.io/v1", "v1"), "apiVersion: "),
    ] {
        for mode in [Unsupported::Error, Unsupported::Warn] {
            let error = istio::read(&slip, "it.yaml", mode).unwrap_err().to_string();
            assert!(error.starts_with("it.yaml:") && error.contains(said), "{slip}\n{error}");
        }
    }
    // What is no list is not an empty one as well.
    for slip in ["when: x", "to: x", "from: {}"] {
        let error = istio::read(&rule(slip), "it.yaml", Unsupported::Error).unwrap_err();
        assert_eq!(error.to_string().matches("error:").count(), 1, "{slip}\n{error}");
    }
    // As `kubectl get -o yaml` writes it.
    let item = everything.replace("\n", "\n    ").replace("apiVersion", "- apiVersion");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n  {}\n", item.trim_end());
    assert_eq!(read(&list).authorization_policies().len(), 1);
}

/// Every key, with what it must be and what it must not be, in the forms that it may have.
#[test]
fn each_condition_is_carried_out() {
    let somebody = || {
        Connection::default()
            .with_principal("td/ns/a/sa/x")
            .with_source_ip([10, 0, 0, 1].into())
            .with_remote_ip([10, 0, 0, 2].into())
            .with_destination_ip([10, 0, 0, 3].into())
            .with_port(80)
            .with_sni("a.shop")
    };
    let head = PlainHead::new("GET", "/").with_header("x-h", "abc");
    let head = head.with_claim(["iss"], "i").with_claim(["sub"], "s").with_claim(["aud"], "abc");
    let head = head.with_claim(["azp"], "abc").with_claim(["k"], "abc");
    for (key, right, wrong) in [
        ("source.principal", &["td/ns/a/sa/x", "td/*", "*/x", "*"][..], "td/ns/a/sa/y"),
        ("source.namespace", &["a", "*"], "b"),
        ("source.serviceAccount", &["a/x"], "x"),
        ("source.trustDomain", &["td", "t*", "*d", "*"], "t"),
        ("source.ip", &["10.0.0.1", "10.0.0.0/24"], "10.0.0.2"),
        ("remote.ip", &["10.0.0.2", "10.0.0.0/24"], "10.0.0.1"),
        ("destination.ip", &["10.0.0.3", "10.0.0.0/24"], "10.0.0.1"),
        ("destination.port", &["80"], "81"),
        ("connection.sni", &["a.shop", "a.*", "*.shop", "*"], "b.shop"),
        ("request.headers[X-H]", &["abc", "a*", "*c", "*"], "b"),
        ("request.auth.principal", &["i/s", "i/*", "*/s", "*"], "i/t"),
        ("request.auth.audiences", &["abc", "a*", "*c", "*"], "b"),
        ("request.auth.presenter", &["abc", "a*", "*c", "*"], "b"),
        ("request.auth.claims[k]", &["abc", "a*", "*c", "*"], "b"),
    ] {
        let decide = |action: &str, field: &str, values: &str| {
            let rule = format!(
                "action: {action}, rules: [{{when: [{{key: '{key}', {field}: [{values}]}}]}}]"
            );
            let workload = cart().with_tokens().with_remote_ip().with_sni();
            let authorizer = read(&policy("it", "shop", &rule)).authorization(&workload).unwrap();
            authorizer.decide(&somebody(), &head).is_allowed()
        };
        let both = |value: &str| format!("'{value}', '{wrong}'");
        for value in right {
            let value = both(value);
            assert!(decide("ALLOW", "values", &value), "{key} {value}");
            assert!(!decide("DENY", "values", &value), "{key} {value}");
            assert!(!decide("ALLOW", "notValues", &value), "{key} {value}");
            assert!(decide("DENY", "notValues", &value), "{key} {value}");
        }
        let wrong = format!("'{wrong}'");
        assert!(!decide("ALLOW", "values", &wrong), "{key} {wrong}");
        assert!(decide("DENY", "values", &wrong), "{key} {wrong}");
        assert!(decide("ALLOW", "notValues", &wrong), "{key} {wrong}");
        assert!(!decide("DENY", "notValues", &wrong), "{key} {wrong}");
    }
}

/// Each of these would be a rule that never applies, and so a refusal of nothing.
#[test]
fn a_value_that_nothing_can_have_is_refused() {
    let source = |field: &str, value: &str| format!("from: [{{source: {{{field}: ['{value}']}}}}]");
    let operation =
        |field: &str, value: &str| format!("to: [{{operation: {{{field}: ['{value}']}}}}]");
    let when = |key: &str, value: &str| format!("when: [{{key: '{key}', notValues: ['{value}']}}]");
    for (rule, why) in [
        (source("principals", "cart"), "a principal is a trust domain with a path"),
        (when("source.principal", "cart"), "a principal is a trust domain with a path"),
        (source("notPrincipals", "spiffe://a/b"), "leave out spiffe://"),
        (source("trustDomains", "Shop.local"), "a trust domain has no capitals"),
        (source("namespaces", " shop"), "there are no blanks at the ends"),
        (operation("hosts", "http://shop"), "a host is a name"),
        (operation("hosts", "shop/x"), "a host is a name"),
        (operation("notHosts", "b\u{fc}cher.shop"), "a host is a name"),
        (operation("hosts", "a%2eshop"), "a host is a name"),
        (when("request.headers[Host]", "a shop"), "a host is a name"),
        (when("request.headers[:authority]", "u@shop"), "a host is a name"),
        (when("connection.sni", "shop:443"), "a server name has no port"),
        (operation("methods", "get"), "a method is written in capitals"),
        (when("request.headers[:method]", "Get"), "a method is written in capitals"),
        (operation("paths", "/admin?x=1"), "a path has no query"),
        (operation("notPaths", "/admin#x"), "a path has no query"),
        (operation("paths", "/a\\b"), "a path has no query"),
        (operation("paths", "/a/../b"), "the dots of a path are resolved"),
        (operation("paths", "/a/."), "the dots of a path are resolved"),
        (operation("paths", "/./{*}"), "the dots of a path are resolved"),
        (when("request.headers[x-role]", "admin "), "there are no blanks at the ends"),
    ] {
        for action in ["ALLOW", "DENY"] {
            let text = policy("it", "shop", &format!("action: {action}, rules: [{{{rule}}}]"));
            let error = istio::read(&text, "it.yaml", Unsupported::Warn).unwrap_err().to_string();
            assert!(error.starts_with("it.yaml:4:"), "{rule}\n{error}");
            assert!(error.contains(&format!("matches nothing: {why}")), "{rule}\n{error}");
        }
    }
    for rule in [
        source("principals", "*"),
        source("principals", "*/sa/cart"),
        source("namespaces", "Shop"),
        operation("hosts", "*.SHOP_a:8080"),
        operation("hosts", "[::1]:80"),
        operation("methods", "M-SEARCH"),
        operation("methods", "P*"),
        operation("paths", "/.well-known/a..b/...%3f"),
        when("connection.sni", "*.shop"),
        when("request.headers[x-role]", "a b"),
    ] {
        let text = policy("it", "shop", &format!("action: DENY, rules: [{{{rule}}}]"));
        assert!(istio::read(&text, "it.yaml", Unsupported::Error).is_ok(), "{rule}");
    }
}

#[test]
fn a_version_that_is_not_known_is_refused_whatever_the_mode() {
    let text = policy("it", "shop", DENY_ALL).replace("istio.io/v1", "istio.io/v2");
    for mode in [Unsupported::Error, Unsupported::Warn] {
        let error = istio::read(&text, "it.yaml", mode).unwrap_err().to_string();
        assert!(error.contains("apiVersion: \"security.istio.io/v2\" is not supported"), "{error}");
    }
}

#[test]
fn what_is_not_known_of_requests_is_refused_for_the_workload_that_asks_for_it() {
    for (rule, workload) in [
        ("from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]", cart().with_remote_ip()),
        ("when: [{key: remote.ip, notValues: [10.0.0.0/8]}]", cart().with_remote_ip()),
        ("when: [{key: connection.sni, values: [a]}]", cart().with_sni()),
        (
            "when: [{key: \"request.headers[X-Forwarded-Client-Cert]\", values: [a]}]",
            cart().with_forwarded_client_cert(),
        ),
        ("from: [{source: {notRequestPrincipals: [\"*\"]}}]", cart().with_tokens()),
        ("when: [{key: \"request.auth.claims[a]\", values: [a]}]", cart().with_tokens()),
        ("when: [{key: request.auth.audiences, values: [a]}]", cart().with_tokens()),
        ("when: [{key: request.auth.presenter, values: [a]}]", cart().with_tokens()),
    ] {
        let text = policy("it", "shop", &format!("action: DENY, rules: [{{{rule}}}]"));
        let documents = read(&text);
        let error = documents.authorization(&cart()).unwrap_err().to_string();
        assert!(
            error.starts_with("test.yaml:4:") && error.contains("is not supported: "),
            "{error}"
        );
        assert!(documents.authorization(&workload).is_ok(), "{rule}");
        let elsewhere = Workload::new("bank", Labels::default());
        assert!(documents.authorization(&elsewhere).unwrap().is_empty(), "{rule}");
    }
}

#[test]
fn what_is_about_tokens_or_another_judge_says_what_to_do_instead() {
    let tokens = "is not supported: no token is verified here; verify tokens in the application, ";
    let refused_when = |errors: istio::Errors| {
        let text = errors.to_string();
        assert!(text.starts_with("it.yaml:"), "{text}");
        text
    };
    let request = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                   metadata: {name: jwt}\nspec: {jwtRules: [{issuer: a}]}\n";
    // A document before it, so that places are of the right one.
    let request = format!("{}{request}", policy("it", "shop", DENY_ALL));
    let text = policy("it", "shop", "action: CUSTOM, provider: {name: opa}, rules: [{}]");
    let other = request.replace("RequestAuthentication", "AuthorizationPolicies");
    for mode in [Unsupported::Error, Unsupported::Warn] {
        let error = refused_when(istio::read(&request, "it.yaml", mode).unwrap_err());
        let place = "it.yaml:7:7: error: RequestAuthentication jwt: kind: ";
        assert!(error.contains(place), "{error}");
        assert!(error.contains(tokens) && error.contains("remove this document"), "{error}");
        let error = refused_when(istio::read(&other, "it.yaml", mode).unwrap_err());
        assert!(error.contains("it.yaml:7:7: error: AuthorizationPolicies jwt: kind: "), "{error}");
        let error = refused_when(istio::read(&text, "it.yaml", mode).unwrap_err());
        assert!(
            error.contains("it.yaml:4:16: error: AuthorizationPolicy it: spec.action: "),
            "{error}"
        );
        assert!(error.contains("ask in the application, or say it by ALLOW and DENY"), "{error}");
        assert!(
            error.contains("it.yaml:4:24: error: AuthorizationPolicy it: spec.provider: "),
            "{error}"
        );
    }
    for (rule, path) in [
        ("from: [{source: {requestPrincipals: [\"*\"]}}]", "from[0].source.requestPrincipals: "),
        ("when: [{key: request.auth.principal, values: [a/b]}]", "when[0].values: "),
        ("when: [{key: request.auth.audiences, notValues: [a]}]", "when[0].notValues: "),
    ] {
        let text = policy("it", "shop", &format!("action: DENY, rules: [{{{rule}}}]"));
        let documents = istio::read(&text, "it.yaml", Unsupported::Warn).unwrap();
        let error = refused_when(documents.authorization(&cart()).unwrap_err());
        assert!(error.starts_with("it.yaml:4:"), "{error}");
        let said = format!("error: AuthorizationPolicy it: spec.rules[0].{path}{tokens}");
        assert!(error.contains(&said), "{error}");
    }
}

#[test]
fn of_who_must_prove_himself_nothing_is_left_out() {
    let text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                metadata: {name: x}\nspec: {mtsl: {mode: STRICT}}\n";
    for mode in [Unsupported::Error, Unsupported::Warn] {
        let error = istio::read(text, "it.yaml", mode).unwrap_err().to_string();
        assert!(
            error.starts_with("it.yaml:4:8: error: PeerAuthentication x: spec.mtsl: "),
            "{error}"
        );
    }
}

#[test]
fn how_requests_are_read_is_said_by_the_workload() {
    let text = policy("it", "shop", "rules: [{from: [{source: {notNamespaces: [evil]}}]}]");
    let documents = read(&text);
    let passes = |config| {
        let authorizer = documents.authorization(&cart().with_config(config)).unwrap();
        authorizer.decide(&Connection::default(), &PlainHead::new("GET", "/")).is_allowed()
    };
    assert!(!passes(Config::default()));
    assert!(passes(Config::istio()));
}

#[test]
fn the_mesh_says_how_paths_and_trust_domains_are_read() {
    let deny = |rule: &str| policy("it", "shop", &format!("action: DENY, rules: [{{{rule}}}]"));
    let admin = deny("to: [{operation: {paths: [/admin]}}]");
    let old = deny("from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]");
    let passes = |text: &str, mesh: &str, id: &str, path: &str| {
        let mesh = istio::MeshConfig::read(mesh, "mesh.yaml", Unsupported::Error).unwrap();
        let documents = read(text).with_mesh_config(mesh);
        let authorizer = documents.authorization(&cart()).unwrap();
        let level = authorizer.config().normalization();
        let path = level.apply(path).unwrap().into_owned();
        let connection = Connection::default().with_principal(id);
        (authorizer.decide(&connection, &PlainHead::new("GET", &path)).is_allowed(), path)
    };
    let level = |level: &str| format!("pathNormalization: {{normalization: {level}}}");
    for (written, path) in [
        ("DEFAULT", "//%2fadmin"),
        ("BASE", "//%2fadmin"),
        ("MERGE_SLASHES", "/%2fadmin"),
        ("DECODE_AND_MERGE_SLASHES", "/admin"),
        ("NONE", "//%2fadmin"),
    ] {
        // However it is handed on, it may be read as that.
        assert_eq!(
            passes(&admin, &level(written), "", "//%2fadmin"),
            (false, path.into()),
            "{written}"
        );
    }
    let mesh = "trustDomain: shop.example\ntrustDomainAliases: [old.example]\n";
    for (id, passed) in [
        ("shop.example/ns/a/sa/b", false),
        ("old.example/ns/a/sa/b", false),
        ("other.example/ns/a/sa/b", true),
    ] {
        assert_eq!(passes(&old, mesh, id, "/").0, passed, "{id}");
        assert!(passes(&old, "{}", id, "/").0, "without a mesh it is what it says: {id}");
    }
    let wrong = istio::MeshConfig::read(&level("ALL"), "m", Unsupported::Error).unwrap_err();
    assert!(wrong.to_string().contains("pathNormalization.normalization: \"ALL\" is not allowed"));
}

//! Texts that are no documents, by accident or on purpose.

use mesh_tower::istio::{self, Cause, Errors, MeshConfig, Unsupported};
use proptest::prelude::*;

use super::{read, rule, service};

const SEEDS: [&str; 4] = [
    include_str!("../../../tests/istio/destination-rule-circuit-breaker.yaml"),
    include_str!("../../../tests/istio/peer-authentication-strict.yaml"),
    include_str!("../../../tests/istio/virtual-service-canary-90-10.yaml"),
    include_str!("../../../tests/istio/virtual-service-canary-95-5.yaml"),
];

fn errors(text: &str) -> Errors {
    istio::read(text, "bad.yaml", Unsupported::Error).unwrap_err()
}

#[test]
fn no_document_is_no_problem() {
    for text in ["", "\n", "# nothing\n", "---\n---\n", "null\n", "\u{feff}"] {
        assert!(read(text).upstreams().unwrap().is_empty(), "{text:?}");
    }
}

#[test]
fn bad_yaml_has_line_and_column() {
    let errors = errors("apiVersion: v1\nkind: [a\nmetadata: }\n");
    let problem = &errors.problems()[0];
    assert_eq!((problem.cause(), problem.line()), (Cause::Syntax, Some(3)), "{errors}");
    assert!(problem.column().is_some());
    assert!(problem.to_string().starts_with("bad.yaml:3:"), "{errors}");
    assert_eq!(errors.to_string().lines().count(), 1, "{errors}");
}

#[test]
fn what_stands_before_bad_yaml_is_judged_too() {
    let errors = errors(&format!("{}a: [", rule("trafficPolicy: {tunnel: {}}")));
    let causes: Vec<_> = errors.problems().iter().map(istio::Problem::cause).collect();
    assert_eq!(causes, [Cause::Unsupported, Cause::Syntax], "{errors}");
}

#[test]
fn a_key_twice_is_refused() {
    let errors = errors(&rule("trafficPolicy: {}, trafficPolicy: {}"));
    assert_eq!(errors.problems()[0].cause(), Cause::Syntax, "{errors}");
}

#[test]
fn anchors_work_in_moderation() {
    let text = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rule}
spec:
  host: shop
  trafficPolicy: &policy
    outlierDetection: {maxEjectionPercent: 50, interval: 3s}
  subsets:
    - {name: v1, trafficPolicy: *policy}
";
    let config = read(text).upstream("shop").unwrap();
    assert_eq!(config.subset("v1").unwrap().policy(), Some(config.policy()));
}

#[test]
fn laughs_are_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let last = level - 1;
        bomb += &format!(
            "a{level}: &a{level} [*a{last}, *a{last}, *a{last}, *a{last}, *a{last}, *a{last}]\n"
        );
    }
    assert!(errors(&bomb).to_string().contains("too large or too complex"));
    // Small bombs, one a document, are bounded together.
    let (base, list) = ("x, ".repeat(100), "*a, ".repeat(90));
    let many = format!("a: &a [{base}]\nb: [{list}]\n---\n").repeat(100);
    let errors = errors(&many);
    assert!(
        errors.problems().iter().any(|problem| problem.cause() == Cause::Limit),
        "{}",
        errors.problems().len()
    );
}

#[test]
fn size_depth_and_problems_are_bounded() {
    let long = "#".repeat((1 << 20) + 1);
    assert_eq!(
        errors(&long).to_string(),
        "bad.yaml: error: 1048577 bytes, at most 1048576 are read"
    );
    for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
        let cause = errors(&deep).problems()[0].cause();
        assert!(matches!(cause, Cause::Syntax | Cause::Limit), "{cause:?}");
    }
    let many: String = (0..5_000).map(|n| format!("k{n}: 1, ")).collect();
    let errors = errors(&rule(&many));
    assert_eq!(errors.problems().len(), 1_001);
    assert!(errors.to_string().ends_with("more than 1000 problems, the rest is left out"));
    let wide = istio::read(&rule(&many), "bad.yaml", Unsupported::Warn).unwrap_err();
    assert_eq!(
        wide.problems()[1_000].cause(),
        Cause::Limit,
        "what was left out may have been an error"
    );
}

#[test]
fn a_terminal_is_not_driven_by_a_document() {
    let text =
        rule("\"\\e[31mred\\n\": \"\\a\", trafficPolicy: {loadBalancer: {simple: \"\\e[2J\"}}")
            .replace("name: rule", "name: \"r\\e[0m\"");
    let errors = errors(&text).to_string();
    assert!(
        errors.lines().count() == 2 && !errors.contains('\u{1b}') && !errors.contains('\u{7}'),
        "{errors:?}"
    );
}

/// A document of every kind.
fn whole() -> String {
    let rule = rule(
        "subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {retryBudget: {percent: 20}}}], trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, portLevelSettings: [{port: {number: 8080}, connectionPool: {tcp: {tcpKeepalive: {probes: 3}}}}]}",
    );
    let service = service(
        "timeout: 1s, retries: {attempts: 2, retryOn: \"5xx,503\"}, route: [{destination: {host: shop, subset: v1}, weight: 3}]",
    );
    format!("{rule}{service}{}", SEEDS.join("\n---\n"))
}

/// Whatever comes: an answer, of which every problem can be printed and stands in the text.
fn is_sane(text: &str) -> Result<(), TestCaseError> {
    for mode in [Unsupported::Error, Unsupported::Warn] {
        drop(MeshConfig::read(text, "mesh.yaml", mode));
        match istio::read(text, "any.yaml", mode) {
            Ok(documents) => {
                drop(documents.upstreams());
                for host in ["shop", "shop:8080", "my-app", "", "*", "a.b", ":", "a:0"] {
                    drop(documents.upstream(host));
                    for subset in [None, Some("v1")] {
                        let policy = documents.effective_policy(host, subset).ok().flatten();
                        let printed = policy.map(|policy| policy.to_string()).unwrap_or_default();
                        prop_assert!(!printed.contains(|c: char| c.is_control()), "{printed:?}");
                    }
                }
            }
            Err(errors) => {
                prop_assert!(!errors.problems().is_empty());
                let lines = text.split(['\n', '\r']).count() as u64 + 1;
                for problem in errors.problems() {
                    prop_assert!(problem.line().is_none_or(|line| line <= lines), "{}", problem);
                    prop_assert!(
                        !problem.to_string().contains(|c: char| c.is_control()),
                        "{:?}",
                        problem
                    );
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn truncated(at in 0.0..1.0f64) {
        let text = whole();
        let cut = text.chars().take((text.len() as f64 * at) as usize).collect::<String>();
        is_sane(&cut)?;
    }

    #[test]
    fn one_scalar_replaced(
        index in any::<prop::sample::Index>(),
        with in prop_oneof![
            "\\PC{0,12}",
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|n| n.to_string()),
            "[0-9.]{0,6}(ns|us|ms|s|m|h|x)",
            Just("null".to_owned()), Just("[]".to_owned()), Just("{}".to_owned()), Just("&a [*a]".to_owned()),
            Just("!!binary x".to_owned()), Just("<<".to_owned()), Just(".inf".to_owned()), Just("? ".to_owned()),
        ],
    ) {
        let text = whole();
        let words: Vec<_> = text.split_inclusive([' ', '\n', ',', '}']).collect();
        let at = index.index(words.len());
        let end = words[at].chars().last().unwrap();
        let replaced = format!("{}{with}{end}{}", words[..at].concat(), words[at + 1..].concat());
        is_sane(&replaced)?;
    }

    #[test]
    fn bytes_moved(from in any::<prop::sample::Index>(), len in 0..40usize, to in any::<prop::sample::Index>()) {
        let text: Vec<char> = whole().chars().collect();
        let from = from.index(text.len());
        let part: Vec<char> = text[from..(from + len).min(text.len())].to_vec();
        let mut moved = text.clone();
        let to = to.index(text.len());
        moved.splice(to..to, part);
        is_sane(&moved.into_iter().collect::<String>())?;
    }

    #[test]
    fn anything(text in "\\PC{0,200}") {
        is_sane(&text)?;
    }
}

//! What is wrong with a directory is said before anything starts, with its place and what would be right.

use std::{fs, path::Path};

use crate::support::{
    Directory, IDENTITY, PATIENCE, PROXY, STRICT, ca, canary, command, output, run,
};

fn good() -> Directory {
    let address = "127.0.0.1:8080".parse().unwrap();
    Directory::of_shop(&[(address, "v1"), (address_2(), "v2")])
        .with("canary.yaml", &canary("shop", 90, 10))
}

/// With this in the place of one file it is refused, and all of this is said, in words for a reader.
async fn is_refused(name: &str, text: &str, said: &[&str]) {
    let (code, errors) = run(good().with(name, text).path(), true).await;
    assert_eq!(code, Some(2), "{text}: {errors}");
    for words in said {
        assert!(errors.contains(words), "{words:?} is not said of {text}:\n{errors}");
    }
    for strange in ["DuplicateKeyPolicy", "from_str", " at line ", "u64", "Option<"] {
        assert!(!errors.contains(strange), "{strange:?} is not for a reader:\n{errors}");
    }
}

fn address_2() -> std::net::SocketAddr {
    "127.0.0.1:8081".parse().unwrap()
}

#[tokio::test]
async fn a_good_directory_passes_the_check() {
    let (code, errors) = run(good().path(), true).await;
    assert_eq!(code, Some(0), "{errors}");
}

#[tokio::test]
async fn the_sample_passes_the_check() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy/sample");
    let (code, errors) = run(&sample, true).await;
    assert_eq!(code, Some(0), "{errors}");
}

#[tokio::test]
async fn what_is_wrong_with_a_directory_is_said_with_its_place() {
    let inbound = "inbound: { listen: '127.0.0.1:0', app: '127.0.0.1:1' }\n";
    let mutual = "upstreams: { shop: { tls: mutual, endpoints: [] } }";
    let twice =
        "upstreams: { shop: { tls: plaintext, endpoints: [{address: 'a:1'}, {address: 'a:1'}] } }";
    let cases: &[(&str, &str, &[&str])] = &[
        ("canary.yaml", "a: [1", &["canary.yaml:"]),
        ("proxy.yaml", "outbound: {", &["proxy.yaml:"]),
        ("proxy.yaml", "outbond: { listen: x }", &["proxy.yaml:1:", "outbond"]),
        (
            "proxy.yaml",
            "outbound: { listen: localhost }",
            &["proxy.yaml: outbound.listen", "127.0.0.1:15001"],
        ),
        ("proxy.yaml", "drain: 30", &["proxy.yaml"]),
        ("proxy.yaml", "admin: { listen: '127.0.0.1:0' }", &["nothing to do"]),
        (
            "proxy.yaml",
            "outbound: { listen: '127.0.0.1:0' }\nworkload: { locality: eu/a/b/c }",
            &["proxy.yaml: workload.locality: \"eu/a/b/c\"", "expected region/zone/sub-zone"],
        ),
        (
            "proxy.yaml",
            "outbound: { listen: '127.0.0.1:0' }\nheaderTimeout: 0s",
            &["proxy.yaml: headerTimeout: 0 is not allowed"],
        ),
        (
            "endpoints.yaml",
            "upstreams: { shop: { tls: plaintext, endpoints: [{address: 'a:1', locality: eu//r}] } }",
            &["endpoints[0].locality: \"eu//r\"", "expected region/zone/sub-zone"],
        ),
        ("endpoints.yaml", mutual, &["upstreams.shop.tls", "identity"]),
        ("endpoints.yaml", twice, &["upstreams.shop.endpoints", "a:1 is listed twice"]),
        (
            "endpoints.yaml",
            "upstreams: { shop: { tls: plaintext, endpoints: [{address: 'a:1', weight: 0}] } }",
            &["upstreams.shop.endpoints[0].weight: 0 is not allowed"],
        ),
        (
            "endpoints.yaml",
            "upstreams: { shop: { tls: plaintext, endpoints: [{address: a}] } }",
            &["endpoints[0].address", "host:port"],
        ),
        (
            "canary.yaml",
            &canary("shop", 90, 10).replace("subset: v2", "subset: v3"),
            &["canary.yaml", "v3"],
        ),
        (
            "canary.yaml",
            &canary("shop", 90, 10).replace("route:", "rout:"),
            &["canary.yaml:", "rout"],
        ),
    ];
    for (name, text, said) in cases {
        is_refused(name, text, said).await;
    }
    let directory =
        good().with("proxy.yaml", &format!("{PROXY}{inbound}")).with("mtls.yaml", STRICT);
    let (code, errors) = run(directory.path(), true).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("identity: is missing"), "{errors}");
}

/// What those wrote who tried it, file by file, and what they are told.
const MISTAKES: &[(&str, &[(&str, &str)])] = &[
    (
        "proxy.yaml",
        &[
            ("# nothing yet\n", "proxy.yaml: outbound: is missing"),
            ("{O}maxConnections: many", "proxy.yaml:2:17: is not allowed, expected a whole number"),
            (
                "{O}headerTimeout: 60",
                "proxy.yaml: headerTimeout: \"60\" is not allowed, expected a duration",
            ),
            ("{O}idleTimeout: 0s", "proxy.yaml: idleTimeout: 0 is not allowed"),
            ("{O}drain: 5 min", "proxy.yaml: drain: \"5 min\" is not allowed, expected a duration"),
            ("{O}unsupported: ignore", "\"ignore\" is not allowed, expected error or warn"),
            ("{O}outbound: { listen: x }", "outbound is here for the second time"),
            ("{O}---\n{O}", "proxy.yaml:3:1: a second document begins here"),
            ("{O}identity: { certificate: a, key: b }", "proxy.yaml:2:"),
            ("{O}identity: { certificate: a, key: b }", "the field `bundle` is missing"),
            (
                "{O}admin: { listen: '127.0.0.1:15001' }",
                "admin.listen: 127.0.0.1:15001 is taken by outbound.listen",
            ),
            (
                "{O}admin: { listen: '0.0.0.0:15001' }",
                "admin.listen: 0.0.0.0:15001 is taken by outbound.listen",
            ),
            (
                "{O}inbound: { listen: '127.0.0.1:1', app: '127.0.0.1:1' }",
                "inbound.app: 127.0.0.1:1 is inbound.listen",
            ),
            (
                "{O}{I} peers: ['spiffe://shop.example/*'] }",
                "inbound.peers: nobody proves who he is",
            ),
            ("{O}{I} peers: [] }", "inbound.peers: is empty: nobody could call"),
            ("{O}{I} maxRequests: 0 }", "inbound.maxRequests: 0 is not allowed"),
        ],
    ),
    (
        "endpoints.yaml",
        &[
            ("", "endpoints.yaml: is empty; it lists"),
            (
                "upstreams: { s: { tls: plain, endpoints: [] } }",
                "\"plain\" is not allowed, expected mutual or plaintext",
            ),
            ("upstreams: { s: {E}, s: {E} }", "s is here for the second time"),
            ("upstreams: { s: {E}, S: {E} }", "upstreams.s: is the same host as upstreams.S"),
            (
                "upstreams: { s: {E}, s.default.svc.cluster.local: {E} }",
                "upstreams.s.default.svc.cluster.local: is the same host as upstreams.s",
            ),
            (
                "upstreams: { 's hop': {E} }",
                "\"s hop\" is not allowed, expected the name of a host",
            ),
            ("upstreams: { '*.shop': {E} }", "a wildcard has no endpoints"),
            ("upstreams: { '': {E} }", "endpoints.yaml: upstreams: \"\" is not allowed"),
            ("upstreams: {\n\ts: {E} }", "endpoints.yaml:2:"),
            (
                "{A}http://a:80{Z}",
                "endpoints[0].address: \"http://a:80\" is not allowed, expected host:port without a scheme",
            ),
            ("{A}::1:80{Z}", "\"::1:80\" is not allowed, expected host:port or [IPv6]:port"),
            ("{A}a b:80{Z}", "\"a b:80\" is not allowed"),
            ("{A}a:99999{Z}", "\"a:99999\" is not allowed"),
        ],
    ),
    (
        "rule.yaml",
        &[
            ("hello world", "rule.yaml:1:1: error: \"hello world\" is not a mapping"),
            (
                "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: x }",
                "rule.yaml:2:7: error: ConfigMap x: kind: \"ConfigMap\" is not supported, expected DestinationRule",
            ),
            (
                "kind: DestinationRule\nmetadata: { name: x }",
                "rule.yaml:1:1: error: DestinationRule x: apiVersion: is missing",
            ),
        ],
    ),
];

#[tokio::test]
async fn every_mistake_is_told_with_its_place_and_its_cure() {
    let fill = |text: &str| {
        text.replace("{O}", "outbound: { listen: '127.0.0.1:15001' }\n")
            .replace("{I}", "inbound: { listen: '127.0.0.1:1', app: '127.0.0.1:2',")
            .replace("{E}", "{ tls: plaintext, endpoints: [] }")
            .replace("{A}", "upstreams: { shop: { tls: plaintext, endpoints: [{ address: '")
            .replace("{Z}", "' }] } }")
    };
    for (name, mistakes) in MISTAKES {
        for (text, said) in *mistakes {
            is_refused(name, &fill(text), &[said]).await;
        }
    }
}

#[tokio::test]
async fn addresses_of_every_form_are_taken() {
    let all = ["a-b_c.svc:80", "10.0.0.1:65535", "[::1]:80", "[fe80::1:2]:8080"];
    let listed = all.map(|address| format!("{{ address: '{address}' }}")).join(", ");
    let text = format!("upstreams: {{ shop: {{ tls: plaintext, endpoints: [{listed}] }} }}");
    let directory = good().with("endpoints.yaml", &text).with("canary.yaml", "# nothing");
    let (code, errors) = run(directory.path(), true).await;
    assert_eq!(code, Some(0), "{errors}");
}

#[tokio::test]
async fn what_is_no_file_is_named_and_not_waited_for() {
    let directory = good();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("folder.yaml")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("link.yaml")).unwrap();
    fs::write(at("bytes.yaml"), [0xff, 0xfe]).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(at("pipe.yaml")).status();
    // A pipe would keep a reader for ever.
    let asked = tokio::time::timeout(PATIENCE, run(directory.path(), true));
    let (code, errors) = asked.await.expect("it waits for a pipe");
    assert_eq!(code, Some(2));
    let mut said = vec![
        "folder.yaml: is a directory",
        "link.yaml: is a link to a file that is not there",
        "bytes.yaml: is no text in UTF-8",
    ];
    if pipe.is_ok_and(|status| status.success()) {
        said.push("pipe.yaml: is no file");
    }
    for words in said {
        assert!(errors.contains(words), "{words:?} is not in\n{errors}");
    }
}

#[tokio::test]
async fn an_identity_in_a_pipe_is_not_waited_for() {
    let directory =
        good().with("proxy.yaml", &format!("{PROXY}{IDENTITY}")).with_identity(&ca(), "/sa/one");
    let certificate = directory.path().join("tls.crt");
    fs::remove_file(&certificate).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(&certificate).status();
    if !pipe.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mkfifo(1) on this machine");
        return;
    }
    let asked = tokio::time::timeout(PATIENCE, run(directory.path(), true));
    let (code, errors) = asked.await.expect("it waits for a pipe");
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("tls.crt: cannot be read"), "{errors}");
}

#[tokio::test]
async fn a_file_with_nothing_in_it_is_told_of() {
    let mut command = command();
    command.arg("--check").arg("--config");
    let directory = good().with("empty.yaml", "\n");
    command.arg(directory.path());
    let output = output(command).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("warning: empty.yaml: there is nothing in it"), "{text}");
}

#[tokio::test]
async fn all_problems_are_told_at_once() {
    let directory = good().with("proxy.yaml", "drain: x").with("endpoints.yaml", "upstream: {}");
    let (_, errors) = run(directory.path(), true).await;
    assert!(errors.contains("drain") && errors.contains("endpoints.yaml:1:"), "{errors}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    for name in ["proxy.yaml", "endpoints.yaml"] {
        let directory = good();
        fs::remove_file(directory.path().join(name)).unwrap();
        let (code, errors) = run(directory.path(), false).await;
        assert_eq!(code, Some(2));
        assert!(errors.contains(&format!("{name}: there is none")), "{errors}");
    }
    let (code, errors) = run(&good().path().join("nowhere"), false).await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("--config wants a directory"), "{errors}");
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused() {
    let ca = ca();
    let directory =
        good().with("proxy.yaml", &format!("{PROXY}{IDENTITY}")).with_identity(&ca, "/sa/one");
    let (code, errors) = run(directory.path(), true).await;
    assert_eq!(code, Some(0), "{errors}");
    let other = ca.issue("/sa/other").unwrap();
    fs::write(directory.path().join("tls.key"), other.key_pem()).unwrap();
    let (code, errors) = run(directory.path(), true).await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("tls.key") && errors.contains("does not belong"), "{errors}");
    assert!(!errors.contains("PRIVATE KEY"), "{errors}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = good().with("proxy.yaml", &format!("outbound: {{ listen: '{address}' }}"));
    let (code, errors) = run(directory.path(), false).await;
    assert_eq!(code, Some(1));
    assert!(
        errors.contains(&address.to_string()) && errors.contains("choose another port"),
        "{errors}"
    );
}

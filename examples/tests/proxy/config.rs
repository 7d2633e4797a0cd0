use std::{fs, path::Path};

use mesh_tls::DevCa;

use crate::support::{Directory, PROXY, canary, command, endpoints, output};

/// Exit code and stderr of a run with this directory.
async fn run(directory: &Path, check: bool) -> (Option<i32>, String) {
    let mut command = command();
    command.arg("--config").arg(directory);
    if check {
        command.arg("--check");
    }
    let output = output(command).await;
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn good() -> Directory {
    let address = "127.0.0.1:8080".parse().unwrap();
    Directory::new()
        .with("proxy.yaml", PROXY)
        .with("endpoints.yaml", &endpoints("shop", "", &[(address, "v1"), (address_2(), "v2")]))
        .with("canary.yaml", &canary("shop", 90, 10))
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
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: { name: x, namespace: default }\nspec: { mtls: { mode: STRICT } }\n";
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
        let directory = good().with(name, text);
        let (code, errors) = run(directory.path(), true).await;
        assert_eq!(code, Some(2), "{text}: {errors}");
        for words in *said {
            assert!(errors.contains(words), "{words:?} is not said of {text}:\n{errors}");
        }
    }
    let directory =
        good().with("proxy.yaml", &format!("{PROXY}{inbound}")).with("mtls.yaml", strict);
    let (code, errors) = run(directory.path(), true).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("identity: is missing"), "{errors}");
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
    let ca = DevCa::new("shop.example".parse().unwrap()).unwrap();
    let (one, other) = (ca.issue("/sa/one").unwrap(), ca.issue("/sa/other").unwrap());
    let identity = "identity: { certificate: tls.crt, key: tls.key, bundle: ca.crt }\n";
    let directory = good().with("proxy.yaml", &format!("{PROXY}{identity}"));
    one.write_to(directory.path()).unwrap();
    let (code, errors) = run(directory.path(), true).await;
    assert_eq!(code, Some(0), "{errors}");
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

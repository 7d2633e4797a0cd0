//! The world outside the mesh: an authority for names, and servers that know nothing of SPIFFE.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::support::provider;

/// An authority.
pub(crate) struct Web(CertifiedIssuer<'static, KeyPair>);

/// A certificate for names.
pub(crate) struct Site {
    pub(crate) cert: String,
    pub(crate) key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
    serial: SerialNumber,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Expired,
    NotYetValid,
    /// For clients alone.
    ForClients,
    /// The certificate of an authority.
    Authority,
}

/// Of certificates: each has its own.
static NUMBERS: AtomicU64 = AtomicU64::new(1000);

impl Web {
    pub(crate) fn new(name: &str) -> Self {
        Self::until(name, 4001)
    }

    /// Good until the beginning of this year.
    pub(crate) fn until(name: &str, year: i32) -> Self {
        Self::of(name, year, &KeyPair::generate().unwrap().serialize_pem(), true)
    }

    /// The same authority with a certificate by which it may sign no revocation lists, and with one by which it may.
    pub(crate) fn mute_and_not(name: &str) -> [Self; 2] {
        let key = KeyPair::generate().unwrap().serialize_pem();
        [false, true].map(|signs_lists| Self::of(name, 4001, &key, signs_lists))
    }

    fn of(name: &str, until: i32, key: &str, signs_lists: bool) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.key_usages.extend(signs_lists.then_some(KeyUsagePurpose::CrlSign));
        Self(CertifiedIssuer::self_signed(params, KeyPair::from_pem(key).unwrap()).unwrap())
    }

    /// A revocation list with these sites, in PEM, which is out of date at the beginning of the year `next`.
    pub(crate) fn list(&self, sites: &[&Site], next: i32) -> String {
        let revoked = |site: &&Site| RevokedCertParams {
            serial_number: site.serial.clone(),
            revocation_time: rcgen::date_time_ymd(2001, 2, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2001, 2, 1),
            next_update: rcgen::date_time_ymd(next, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: sites.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    pub(crate) fn site(&self, names: &[&str]) -> Site {
        self.faulty(names, Fault::None)
    }

    pub(crate) fn faulty(&self, names: &[&str], fault: Fault) -> Site {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "common.example");
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) if name.contains(':') => SanType::URI((*name).try_into().unwrap()),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        let day = rcgen::date_time_ymd;
        (params.not_before, params.not_after) = match fault {
            Fault::Expired => (day(2001, 1, 1), day(2002, 1, 1)),
            Fault::NotYetValid => (day(4001, 1, 1), day(4002, 1, 1)),
            Fault::None | Fault::ForClients | Fault::Authority => {
                (day(2001, 1, 1), day(4002, 1, 1))
            }
        };
        params.extended_key_usages = vec![match fault {
            Fault::ForClients => ExtendedKeyUsagePurpose::ClientAuth,
            Fault::None | Fault::Expired | Fault::NotYetValid | Fault::Authority => {
                ExtendedKeyUsagePurpose::ServerAuth
            }
        }];
        if fault == Fault::None {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if fault == Fault::Authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        let serial = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let serial = SerialNumber::from(serial);
        params.serial_number = Some(serial.clone());
        let cert = params.signed_by(&key, &self.0).unwrap();
        Site {
            serial,
            cert: cert.pem(),
            key: key.serialize_pem(),
            der: cert.der().clone(),
            key_der: key.serialize_der(),
        }
    }
}

impl Site {
    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(crate) fn config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&[&Web]>,
    ) -> ServerConfig {
        let crypto = Arc::new(provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&crypto));
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority.0.der().clone()).unwrap();
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(self.key_der.clone()).unwrap();
        builder.with_single_cert(vec![self.der.clone()], key).unwrap()
    }

    /// Both in one file, swapped in at once.
    pub(crate) fn swap_into(&self, path: &Path) {
        replace(path, &format!("{}{}", self.cert, self.key));
    }
}

/// Writes beside it and renames.
pub(crate) fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

/// How a connection was made, and the client's certificate.
pub(crate) type Seen = (HandshakeKind, Option<CertificateDer<'static>>);

/// A server that echoes.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    /// The bytes of applications that it has read.
    pub(crate) read: Arc<AtomicU64>,
    /// Of each connection.
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(config: ServerConfig) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (read, seen) = (Arc::new(AtomicU64::new(0)), Arc::<Mutex<Vec<Seen>>>::default());
        let (count, list) = (Arc::clone(&read), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = tcp.accept().await {
                let (acceptor, count, list) =
                    (acceptor.clone(), Arc::clone(&count), Arc::clone(&list));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                    let state = stream.get_ref().1;
                    let client = state.peer_certificates().map(|chain| chain[0].clone());
                    list.lock().unwrap().push((state.handshake_kind().unwrap(), client));
                    let mut buf = [0; 1024];
                    while let Ok(bytes @ 1..) = stream.read(&mut buf).await {
                        count.fetch_add(bytes as u64, Ordering::SeqCst);
                        if stream.write_all(&buf[..bytes]).await.is_err()
                            || stream.flush().await.is_err()
                        {
                            break;
                        }
                    }
                });
            }
        });
        Self { addr, read, seen, task }
    }

    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! Certificates of every kind, and what an identity of ours makes of them on either side of a handshake.

use std::{sync::Arc, time::Duration};

use mesh_tls::{
    AcceptErrorKind, ConnectErrorKind, DevCa, Material, MaterialError, MaterialHandle, MeshTls,
    PeerPolicy, Revocation, StaticSource, Untrusted,
    clock::ManualClock,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime},
    rustls::{
        self, ClientConfig, ServerConfig,
        crypto::CryptoProvider,
        pki_types::ServerName,
        sign::{CertifiedKey, SingleCertAndKey},
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose as Eku, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose as Ku,
    RevokedCertParams, SanType, SerialNumber,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::any_server::AnyServer;

pub(super) type Der = CertificateDer<'static>;
pub(super) type List = CertificateRevocationListDer<'static>;
pub(super) type Issuer = CertifiedIssuer<'static, KeyPair>;

/// All of it happens in this year, which began so many seconds after 1970.
pub(super) const YEAR: i32 = 2030;
const NOW: u64 = 1_893_456_000;

pub(super) fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW))
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

pub(super) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(YEAR - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(YEAR + 1, 1, 1);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A leaf that no rule is broken by.
pub(super) fn leaf() -> CertificateParams {
    let mut params = params("leaf");
    params.subject_alt_names = vec![uri("spiffe://td.test/workload")];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Ku::DigitalSignature];
    params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    params
}

pub(super) fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Ku::KeyCertSign, Ku::CrlSign];
    params
}

pub(super) fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

pub(super) fn root(params: CertificateParams) -> Issuer {
    CertifiedIssuer::self_signed(params, key()).expect("a root")
}

pub(super) fn below(params: CertificateParams, issuer: &Issuer) -> Issuer {
    CertifiedIssuer::signed_by(params, key(), issuer).expect("an intermediate")
}

/// A list of `issuer` that names `serial`.
pub(super) fn list(issuer: &Issuer, serial: u64, next_update: i32) -> List {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: rcgen::date_time_ymd(YEAR - 1, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(YEAR - 2, 1, 1),
        next_update: rcgen::date_time_ymd(next_update, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).expect("a list").der().clone()
}

/// What the other side presents.
pub(super) struct Peer {
    pub(super) chain: Vec<Der>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Peer {
    pub(super) fn new(params: &CertificateParams, issuer: &Issuer, above: &[&Issuer]) -> Self {
        let key = key();
        let leaf = params.signed_by(&key, issuer).expect("a leaf").der().clone();
        let above = above.iter().map(|issuer| issuer.der().clone());
        Self { chain: [leaf].into_iter().chain(above).collect(), key: secret(&key) }
    }

    pub(super) fn certified(&self) -> Arc<SingleCertAndKey> {
        let key = provider().key_provider.load_private_key(self.key.clone_key()).expect("a key");
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(self.chain.clone(), key)))
    }
}

pub(super) fn secret(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8")
}

/// Whom an identity of ours trusts: it stands in a trust domain of its own, and has these bundles beside that.
#[derive(Default)]
pub(super) struct Trust {
    pub(super) bundles: Vec<(&'static str, Vec<Der>)>,
    pub(super) lists: Vec<List>,
    pub(super) revocation: Revocation,
}

impl Trust {
    pub(super) fn of(roots: &[&Issuer]) -> Self {
        let roots = roots.iter().map(|root| root.der().clone()).collect();
        Self { bundles: vec![("td.test", roots)], ..Self::default() }
    }

    pub(super) fn material(&self) -> Material {
        let ca = root(authority("judge's authority"));
        let mut own = leaf();
        own.subject_alt_names = vec![uri("spiffe://judge.test/judge")];
        let Peer { chain, key } = Peer::new(&own, &ca, &[]);
        let domain = |name: &str| name.parse().expect("a trust domain");
        let mut material =
            Material::new(chain, key).with_bundle(domain("judge.test"), vec![ca.der().clone()]);
        for (name, roots) in &self.bundles {
            material = material.with_bundle(domain(name), roots.clone());
        }
        // Who has lists has one of its own issuer too.
        let own_list = (!self.lists.is_empty()).then(|| list(&ca, 99, YEAR + 1));
        material.with_crls(self.lists.iter().cloned().chain(own_list).collect())
    }

    pub(super) async fn mesh(&self) -> Result<Judge, MaterialError> {
        let clock = Arc::new(ManualClock::new(now()));
        let (source, hand) = StaticSource::new(self.material());
        let mesh = MeshTls::builder(source)
            .clock(Arc::clone(&clock))
            .revocation(self.revocation)
            .first_material_timeout(Duration::ZERO)
            .spawn()
            .await?;
        Ok(Judge { mesh, hand, clock })
    }

    /// What a client of ours makes of a server, and a server of ours of a client.
    pub(super) fn judge(&self, peer: &Peer) -> Result<[Option<Untrusted>; 2], String> {
        run(async {
            let judge = self.mesh().await.map_err(|error| error.to_string())?;
            let (server, client) = (server_config(peer), client_config(Some(peer)));
            Ok([judge.as_client(&server).await?, judge.as_server(&client).await?])
        })
    }
}

pub(super) struct Judge {
    pub(super) mesh: MeshTls,
    pub(super) hand: MaterialHandle,
    pub(super) clock: Arc<ManualClock>,
}

impl Judge {
    /// Why this server is not trusted.
    pub(super) async fn as_client(
        &self,
        server: &Arc<ServerConfig>,
    ) -> Result<Option<Untrusted>, String> {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(Arc::clone(server));
        let serving = async {
            if let Ok(mut stream) = acceptor.accept(there).await {
                let _echo = tokio::io::copy(&mut stream.get_mut().0, &mut tokio::io::sink()).await;
            }
        };
        let connecting = async {
            let connected = self.mesh.connect(here, PeerPolicy::any_authenticated()).await;
            connected.map(drop).map_err(|error| error.kind().clone())
        };
        let (connected, ()) = tokio::join!(connecting, serving);
        match connected {
            Ok(()) => Ok(None),
            Err(ConnectErrorKind::PeerUntrusted(why)) => Ok(Some(why)),
            Err(other) => Err(format!("as a client: {other:?}")),
        }
    }

    /// Why this client is not trusted. It reads, for the verdict comes late to it.
    pub(super) async fn as_server(
        &self,
        client: &Arc<ClientConfig>,
    ) -> Result<Option<Untrusted>, String> {
        match self.accept(client, PeerPolicy::any_authenticated()).await.0 {
            Ok(()) => Ok(None),
            Err(AcceptErrorKind::PeerUntrusted(why)) => Ok(Some(why)),
            Err(other) => Err(format!("as a server: {other:?}")),
        }
    }

    /// The server's word, and whether the client got an answer by a resumed session.
    pub(super) async fn accept(
        &self,
        client: &Arc<ClientConfig>,
        policy: PeerPolicy,
    ) -> (Result<(), AcceptErrorKind>, bool) {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let acceptor = self.mesh.acceptor(policy);
        let serving = async {
            let mut stream =
                acceptor.accept_io(there).await.map_err(|error| error.kind().clone())?;
            let _sent = stream.write_all(b"x").await;
            let _flushed = stream.shutdown().await;
            Ok(())
        };
        tokio::join!(serving, greet(client, here))
    }
}

async fn greet(client: &Arc<ClientConfig>, io: DuplexStream) -> bool {
    let name = ServerName::try_from("judge.test").expect("a name");
    let Ok(mut stream) = TlsConnector::from(Arc::clone(client)).connect(name, io).await else {
        return false;
    };
    let mut answer = Vec::new();
    let _judged = stream.read_to_end(&mut answer).await;
    stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}

pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// A plain server that presents whatever it has.
pub(super) fn server_config(peer: &Peer) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3");
    Arc::new(builder.with_no_client_auth().with_cert_resolver(peer.certified()))
}

/// A plain client that takes any server, and resumes where it can.
pub(super) fn client_config(peer: Option<&Peer>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    Arc::new(match peer {
        Some(peer) => builder.with_client_cert_resolver(peer.certified()),
        None => builder.with_no_client_auth(),
    })
}

pub(super) fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(what)
}

/// A certificate authority and its directory, for whatever needs files.
pub(super) fn dev_ca() -> DevCa {
    DevCa::new("td.test".parse().expect("a trust domain")).expect("an authority")
}

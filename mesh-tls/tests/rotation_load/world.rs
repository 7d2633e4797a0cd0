//! Everything that rotates.

use std::{sync::Mutex, time::Duration};

use mesh_tls::{Material, MaterialHandle, MeshTls, MtlsAcceptor, PeerPolicy, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::support::{PATIENCE, mesh_of, only, rotate};

/// An authority that signs keys of any kind.
struct Authority {
    domain: TrustDomain,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// One key of each kind; the first is what nearly everybody has.
struct Keys([KeyPair; 3]);

#[derive(Clone, Copy)]
enum Kind {
    P256,
    Rsa,
    Ed25519,
}

impl Keys {
    fn new() -> Self {
        let of = |algorithm: &'static SignatureAlgorithm| KeyPair::generate_for(algorithm).unwrap();
        Self([
            of(&rcgen::PKCS_ECDSA_P256_SHA256),
            of(&rcgen::PKCS_RSA_SHA256),
            of(&rcgen::PKCS_ED25519),
        ])
    }
}

impl Authority {
    fn new(domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { domain: domain.parse().unwrap(), issuer }
    }

    /// Material of ours whose own domain has the roots of `trusted`.
    fn issue(&self, path: &str, keys: &Keys, kind: Kind, trusted: &[&Self]) -> Material {
        let key = &keys.0[kind as usize];
        let mut params = CertificateParams::default();
        let id = format!("spiffe://{}{path}", self.domain);
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let cert = params.signed_by(key, &self.issuer).unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let material = Material::new(vec![cert.der().clone()], der);
        material.with_bundle(self.domain.clone(), roots(trusted))
    }
}

fn roots(of: &[&Authority]) -> Vec<CertificateDer<'static>> {
    of.iter().map(|authority| authority.issuer.der().clone()).collect()
}

/// Everything that rotates, and what it becomes.
pub(crate) struct World {
    old: Authority,
    new: Authority,
    foreign: Authority,
    server_keys: Keys,
    client_keys: Keys,
    pub(crate) server: (MeshTls, MaterialHandle),
    pub(crate) client: (MeshTls, MaterialHandle),
    pub(crate) stranger: MeshTls,
    pub(crate) state: Mutex<State>,
}

#[derive(Clone, Copy)]
pub(crate) struct State {
    server: (Kind, bool),
    client: (Kind, bool),
    /// Which roots both sides trust: the old, the new.
    roots: (bool, bool),
    pub(crate) foreign: bool,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (old, new) = (Authority::new("test.local"), Authority::new("test.local"));
        let foreign = Authority::new("other.local");
        let (server_keys, client_keys) = (Keys::new(), Keys::new());
        let state = State {
            server: (Kind::P256, false),
            client: (Kind::P256, false),
            roots: (true, false),
            foreign: true,
        };
        let server = old.issue("/server", &server_keys, Kind::P256, &[&old]);
        let server = server.with_bundle(foreign.domain.clone(), roots(&[&foreign]));
        let client = old.issue("/client", &client_keys, Kind::P256, &[&old]);
        // It trusts whatever the server will ever show.
        let stranger = foreign.issue("/stranger", &client_keys, Kind::P256, &[&foreign]);
        let stranger = stranger.with_bundle(old.domain.clone(), roots(&[&old, &new]));
        Self {
            server: mesh_of(server).await,
            client: mesh_of(client).await,
            stranger: mesh_of(stranger).await.0,
            state: Mutex::new(state),
            old,
            new,
            foreign,
            server_keys,
            client_keys,
        }
    }

    pub(crate) fn acceptor(&self, grace: Duration) -> MtlsAcceptor {
        let clients = only("/client").or(&PeerPolicy::trust_domain(self.foreign.domain.clone()));
        self.server.0.acceptor(clients).with_drain_grace(grace).with_handshake_timeout(PATIENCE)
    }

    /// One rotation. The order is the one that every manual of root rotation gives: add, reissue, remove.
    pub(crate) async fn step(&self, number: usize) {
        let state = {
            let mut state = self.state.lock().unwrap();
            match number % 10 {
                0 => {}
                1 | 7 => state.roots = (true, true),
                2 => state.server = (Kind::Rsa, true),
                3 => state.client = (Kind::Rsa, true),
                4 => state.roots = (false, true),
                5 => (state.server.0, state.client.0) = (Kind::Ed25519, Kind::Ed25519),
                6 => state.foreign = false,
                8 => (state.server, state.client) = ((Kind::P256, false), (Kind::P256, false)),
                _ => (state.roots, state.foreign) = ((true, false), true),
            }
            *state
        };
        let roots_of = [(state.roots.0, &self.old), (state.roots.1, &self.new)];
        let trusted: Vec<_> = roots_of.into_iter().filter(|r| r.0).map(|r| r.1).collect();
        let issuer = |is_new| if is_new { &self.new } else { &self.old };
        let (kind, is_new) = state.client;
        let client = issuer(is_new).issue("/client", &self.client_keys, kind, &trusted);
        let (kind, is_new) = state.server;
        let mut server = issuer(is_new).issue("/server", &self.server_keys, kind, &trusted);
        if state.foreign {
            server = server.with_bundle(self.foreign.domain.clone(), roots(&[&self.foreign]));
        }
        rotate(&self.client.0, &self.client.1, client).await;
        rotate(&self.server.0, &self.server.1, server).await;
    }
}

//! Several trust domains: bundle maps in files, kept apart, taken back; and what else a source may bring.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "dev-ca", feature = "bundle-map", unix))]

mod support;

use std::{fs, sync::Arc, time::Duration};

use mesh_tls::{
    AcceptErrorKind, DevCa, DevCaSource, FileSource, IdentitySource, Material, MaterialErrorKind,
    MeshTls, PeerPolicy, SourceEvent, Untrusted, bundle_map::BundleMap,
};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SanType,
    SerialNumber,
};
use rustls::pki_types::PrivateKeyDer;
use support::{PATIENCE, TempDir, ca, eventually, mesh_of, rotate};
use tokio::time;

fn named(domain: &str) -> DevCa {
    DevCa::new(domain.parse().unwrap()).unwrap()
}

/// A map of these authorities, each for its own trust domain, or for another.
fn map(entries: &[(&str, &[&DevCa])]) -> String {
    let domain = |(name, cas): &(&str, &[&DevCa])| {
        let key = |ca: &&DevCa| {
            let pem = ca.bundle_pem();
            let x5c: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            format!(r#"{{"kty": "EC", "use": "x509-svid", "x5c": ["{x5c}"]}}"#)
        };
        let keys: Vec<_> = cas.iter().map(key).collect();
        format!(r#""{name}": {{"keys": [{}]}}"#, keys.join(", "))
    };
    let domains: Vec<_> = entries.iter().map(domain).collect();
    format!(r#"{{"trust_domains": {{{}}}}}"#, domains.join(", "))
}

fn quick(source: FileSource) -> FileSource {
    source.poll_interval(Duration::from_millis(10)).settle(Duration::from_millis(5))
}

/// Why a server on this handle refuses a client of `ca`; `None` when it does not.
async fn refusal(server: &MeshTls, ca: &DevCa, trusting: &DevCa) -> Option<Untrusted> {
    let theirs = trusting.bundle_pem();
    // Its own bundle too, or it could not be used at all.
    let client = ca.issue("/client").unwrap().with_bundle_pem(ca.bundle_pem() + &theirs);
    let client = client.material().unwrap();
    let client = match ca.trust_domain() == trusting.trust_domain() {
        true => client,
        false => {
            client.with_bundle_pem(trusting.trust_domain().clone(), theirs.as_bytes()).unwrap()
        }
    };
    let (client, _hand) = mesh_of(client).await;
    let (here, there) = tokio::io::duplex(64 * 1024);
    let any = PeerPolicy::any_authenticated;
    let acceptor = server.acceptor(any());
    let (accepted, _connected) =
        tokio::join!(acceptor.accept_io(there), client.connect(here, any()));
    match accepted.map(drop).map_err(|error| error.kind().clone()) {
        Ok(()) => None,
        Err(AcceptErrorKind::PeerUntrusted(why)) => Some(why),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bundle_map_federates_and_takes_back() {
    let (ours, friend, stranger) = (ca(), named("friend.test"), named("stranger.test"));
    let dir = TempDir::new("map");
    ours.issue("/server").unwrap().write_to(dir.path()).unwrap();
    let path = dir.join("bundles.json");
    let write = |text: &str| {
        fs::write(dir.join("new"), text).unwrap();
        fs::rename(dir.join("new"), &path).unwrap();
    };
    write(&map(&[("test.local", &[&ours]), ("friend.test", &[&friend])]));
    let source = FileSource::with_bundle_map(dir.join("tls.crt"), dir.join("tls.key"), &path);
    let server = MeshTls::builder(quick(source)).spawn().await.unwrap();
    let reached = async |number| {
        let reached = time::timeout(PATIENCE, server.reached(number)).await;
        assert!(reached.is_ok(), "{:?}", server.status());
    };
    assert_eq!(refusal(&server, &ours, &ours).await, None);
    assert_eq!(refusal(&server, &friend, &ours).await, None);
    let unknown = |name: &str| Some(Untrusted::UnknownTrustDomain(name.parse().unwrap()));
    assert_eq!(refusal(&server, &stranger, &ours).await, unknown("stranger.test"));
    // Never merged: the friend's authority does not speak for us, nor an impostor for the friend.
    let forger = named("friend.test");
    assert_eq!(refusal(&server, &forger, &ours).await, Some(Untrusted::UnknownIssuer));

    // A bad map changes nothing: half of it, one with a trust domain twice, one that is no map.
    let whole = map(&[("test.local", &[&ours]), ("stranger.test", &[&stranger])]);
    let twice = map(&[("test.local", &[&ours]), ("test.local", &[&ours])]);
    for bad in [&whole[..whole.len() / 2], &*twice, "{}"] {
        write(bad);
        eventually("it is told", || {
            server.status().last_error.is_some_and(|error| error.contains("bundles.json"))
        })
        .await;
        assert_eq!(refusal(&server, &friend, &ours).await, None, "the last good one stays");
        write(&map(&[("test.local", &[&ours]), ("friend.test", &[&friend])]));
        eventually("it is good again", || server.status().last_error.is_none()).await;
    }

    // The friend is gone from the map, and a stranger has come.
    let generation = server.stats().generation;
    write(&whole);
    reached(generation + 1).await;
    assert_eq!(refusal(&server, &friend, &ours).await, unknown("friend.test"));
    assert_eq!(refusal(&server, &stranger, &ours).await, None);
    // A bundle without keys, and then a map without anything: both valid, and nobody is trusted.
    write(&map(&[("test.local", &[&ours]), ("stranger.test", &[])]));
    reached(generation + 2).await;
    assert_eq!(refusal(&server, &stranger, &ours).await, Some(Untrusted::UnknownIssuer));
    write(&map(&[]));
    reached(generation + 3).await;
    assert_eq!(refusal(&server, &ours, &ours).await, unknown("test.local"));
}

#[tokio::test]
async fn a_trust_domain_in_a_map_and_in_a_file_is_an_error() {
    let ours = ca();
    let dir = TempDir::new("two");
    ours.issue("/server").unwrap().write_to(dir.path()).unwrap();
    fs::write(dir.join("bundles.json"), map(&[("test.local", &[&ours])])).unwrap();
    let mut source =
        quick(FileSource::in_directory(dir.path())).bundle_map(dir.join("bundles.json"));
    let error = source.next().await.unwrap_err();
    assert_eq!(error.kind(), &MaterialErrorKind::TwoBundles("test.local".parse().unwrap()));
    assert_eq!(error.file(), Some(&*dir.join("bundles.json")));
}

#[test]
fn a_map_in_memory_takes_the_place_of_what_was_there() {
    let (old, new) = (named("a.test"), named("a.test"));
    let read = |text: &str| BundleMap::parse(text.as_bytes()).unwrap();
    let material = old.issue("/x").unwrap().material().unwrap();
    let shown = format!("{:?}", material.with_bundle_map(read(&map(&[("a.test", &[&new, &old])]))));
    assert!(shown.contains("a.test: 2"), "{shown}");
    assert!(read(r#"{"trust_domains": {}, "later": 1}"#).is_empty());
}

#[tokio::test]
async fn a_root_leaves_although_the_certificate_beside_it_is_broken() {
    let (ours, goes) = (ca(), ca());
    let dir = TempDir::new("broken-leaf");
    let identity = ours.issue("/server").unwrap();
    let both = format!("{}{}", ours.bundle_pem(), goes.bundle_pem());
    identity.with_bundle_pem(both).write_to(dir.path()).unwrap();
    let server =
        MeshTls::builder(quick(FileSource::in_directory(dir.path()))).spawn().await.unwrap();
    assert_eq!(refusal(&server, &goes, &ours).await, None);
    for broken in ["garbage", ""] {
        fs::write(dir.join("tls.crt"), broken).unwrap();
        fs::write(dir.join("ca.crt"), ours.bundle_pem()).unwrap();
        time::timeout(PATIENCE, server.reached(2)).await.unwrap();
        assert_eq!(refusal(&server, &goes, &ours).await, Some(Untrusted::UnknownIssuer));
        assert_eq!(refusal(&server, &ours, &ours).await, None);
        assert!(server.status().last_error.is_some_and(|error| error.contains("tls.crt")));
    }
    // What came beside a broken certificate waits for a good one.
    fs::remove_file(dir.join("tls.crt")).unwrap();
    let late = ca();
    fs::write(dir.join("ca.crt"), format!("{}{}", ours.bundle_pem(), late.bundle_pem())).unwrap();
    eventually("it is missed", || {
        server.status().last_error.is_some_and(|error| error.contains("cannot be read"))
    })
    .await;
    assert_eq!(refusal(&server, &late, &ours).await, Some(Untrusted::UnknownIssuer));
    assert_eq!(server.status().generation, 2);
}

/// A root with the right to sign lists, and a leaf below it with a key of this kind.
fn issue(root: &CertifiedIssuer<'static, KeyPair>, path: &str, key: &KeyPair) -> Material {
    let mut params = CertificateParams::default();
    let id = format!("spiffe://test.local{path}");
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
    params.serial_number = Some(SerialNumber::from(path.len() as u64));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let cert = params.signed_by(key, root).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Material::new(vec![cert.der().clone()], key)
        .with_bundle("test.local".parse().unwrap(), vec![root.der().clone()])
}

fn root() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn the_kind_of_key_changes_from_one_generation_to_the_next() {
    let root = root();
    let kinds = [&PKCS_ECDSA_P256_SHA256, &PKCS_RSA_SHA256, &PKCS_ED25519];
    let keys = kinds.map(|kind| KeyPair::generate_for(kind).unwrap());
    let (server, hand) = mesh_of(issue(&root, "/server", &keys[0])).await;
    let (client, client_hand) = mesh_of(issue(&root, "/client", &keys[0])).await;
    for round in 1..=6 {
        rotate(&server, &hand, issue(&root, "/server", &keys[round % 3])).await;
        rotate(&client, &client_hand, issue(&root, "/client", &keys[(round + 1) % 3])).await;
        let (here, there) = tokio::io::duplex(64 * 1024);
        let any = PeerPolicy::any_authenticated;
        let acceptor = server.acceptor(any());
        let (accepted, connected) =
            tokio::join!(acceptor.accept_io(there), client.connect(here, any()));
        assert_eq!(accepted.unwrap().info().peer().unwrap().id().path(), "/client");
        assert_eq!(connected.unwrap().info().peer().unwrap().id().path(), "/server");
    }
}

#[tokio::test]
async fn an_expired_root_is_told_of_and_verifies_all_the_same() {
    for (end, told) in [(2120, false), (2021, true)] {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let said = support::Said::default();
        let _listening = said.listen();
        let (mesh, _hand) = mesh_of(issue(&root, "/a", &KeyPair::generate().unwrap())).await;
        assert_eq!(mesh.status().generation, 1);
        assert_eq!(said.text().contains("expired roots"), told, "{}", said.text());
    }
}

#[tokio::test]
async fn revocation_lists_are_read_from_a_file() {
    let root = root();
    let key = KeyPair::generate().unwrap();
    let list = |serial: u64| {
        let at = rcgen::date_time_ymd(2020, 1, 1);
        let revoked = rcgen::RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: at,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at,
            next_update: rcgen::date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&root).unwrap().pem().unwrap()
    };
    let dir = TempDir::new("lists");
    let mut params = CertificateParams::default();
    let id = "spiffe://test.local/server";
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    fs::write(dir.join("tls.crt"), params.signed_by(&key, &root).unwrap().pem()).unwrap();
    fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(dir.join("ca.crt"), root.pem()).unwrap();
    fs::write(dir.join("revoked.crl"), list(999)).unwrap();
    let source = quick(FileSource::in_directory(dir.path())).crls(dir.join("revoked.crl"));
    let server = MeshTls::builder(source).spawn().await.unwrap();
    let (client, _hand) = mesh_of(issue(&root, "/client", &key)).await;
    let meet = async || {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let any = PeerPolicy::any_authenticated;
        let acceptor = server.acceptor(any());
        let (accepted, _connected) =
            tokio::join!(acceptor.accept_io(there), client.connect(here, any()));
        accepted.map(drop).map_err(|error| error.kind().clone())
    };
    assert_eq!(meet().await, Ok(()));
    fs::write(dir.join("revoked.crl"), list("/client".len() as u64)).unwrap();
    time::timeout(PATIENCE, server.reached(2)).await.unwrap();
    assert_eq!(meet().await, Err(AcceptErrorKind::PeerUntrusted(Untrusted::Revoked)));
    // No list is not an empty list.
    fs::write(dir.join("revoked.crl"), "nothing is revoked").unwrap();
    eventually("it is told", || {
        server.status().last_error.is_some_and(|error| error.contains("revoked.crl"))
    })
    .await;
    assert_eq!(meet().await, Err(AcceptErrorKind::PeerUntrusted(Untrusted::Revoked)));
}

#[tokio::test(start_paused = true)]
async fn the_development_authority_renews_in_time_and_not_in_step() {
    let ours = Arc::new(ca());
    let life = Duration::from_secs(1000);
    let (mut shortest, mut longest) = (life, Duration::ZERO);
    for seed in 0..20 {
        let mut source = DevCaSource::new(&ours, "/a").unwrap().life(life).seed(seed);
        for round in 0..4 {
            let before = time::sleep(Duration::ZERO).deadline();
            assert!(matches!(source.next().await, Ok(SourceEvent::Update(_))));
            let waited = time::sleep(Duration::ZERO).deadline() - before;
            if round == 0 {
                assert!(waited < Duration::from_secs(1), "the first one is there at once");
            } else {
                shortest = shortest.min(waited);
                longest = longest.max(waited);
            }
        }
    }
    // Half of its life, and up to a tenth of that half.
    assert!(shortest >= life * 45 / 100 && longest <= life * 55 / 100 + Duration::from_millis(2));
    assert!(longest - shortest > life * 5 / 100, "{shortest:?} to {longest:?}: they are in step");
    assert!(DevCaSource::new(&ours, "no/path").is_err());
    let mesh = MeshTls::builder(DevCaSource::new(&ours, "/a").unwrap()).spawn().await.unwrap();
    time::timeout(Duration::from_secs(4 * 3600), mesh.reached(5)).await.unwrap();
}

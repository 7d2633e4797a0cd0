//! Identities that change while connections live.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "dev-ca")]

mod support;

use std::time::Duration;

use mesh_tls::{
    Alert, ConnectError, ConnectErrorKind, MaterialErrorKind, MeshTls, StaticSource, Untrusted,
};
use support::{
    Echo, ca, eventually, id, material, material_trusting, mesh, mesh_of, only, ping, rotate, tcp,
};

#[tokio::test]
async fn a_new_leaf_is_used_by_new_handshakes_and_old_connections_live_on() {
    let ours = ca();
    let (server, server_hand) = mesh_of(material(&ours, "/server")).await;
    let (client, client_hand) = mesh_of(material(&ours, "/client")).await;
    let mut echo = Echo::start(&server.acceptor(only("/client"))).await;
    let mut old = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
    ping(&mut old).await.unwrap();
    let first = echo.next_info().await;

    for round in 2..=20 {
        rotate(&server, &server_hand, material(&ours, "/server")).await;
        rotate(&client, &client_hand, material(&ours, "/client")).await;
        let mut new = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
        ping(&mut new).await.unwrap();
        ping(&mut old).await.unwrap();
        let info = echo.next_info().await;
        assert_eq!(info.generation(), round);
        assert_ne!(info.peer().unwrap().serial(), first.peer().unwrap().serial());
        assert_eq!(info.peer().unwrap().id(), &id("/client"));
    }
    assert_eq!((server.stats().rotations, client.stats().rotations), (20, 20));
    assert_eq!(server.stats().accepted, 20);
}

#[tokio::test]
async fn roots_are_added_and_removed_live() {
    let (a, b) = (ca(), ca());
    let (server, hand) = mesh_of(material(&a, "/server")).await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let of_a = mesh(&a, "/client").await;
    let of_b = mesh_of(material_trusting(&b, "/client", &[&a, &b])).await.0;
    let try_it = async |client: &MeshTls| -> Result<(), ConnectErrorKind> {
        let kind = |error: &ConnectError| error.kind().clone();
        let io = tcp(echo.addr).await;
        let mut stream = client.connect(io, only("/server")).await.map_err(|e| kind(&e))?;
        ping(&mut stream).await.map_err(|e| kind(ConnectError::find(&e).unwrap()))
    };

    let mut from_before = of_a.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
    ping(&mut from_before).await.unwrap();
    let unknown = ConnectErrorKind::RejectedByPeer(Alert::UnknownAuthority);
    assert_eq!(try_it(&of_a).await, Ok(()));
    assert_eq!(try_it(&of_b).await, Err(unknown.clone()), "b is not trusted yet");

    // 1. Add the new root. 2. A leaf from it. 3. Remove the old root.
    rotate(&server, &hand, material_trusting(&a, "/server", &[&a, &b])).await;
    assert_eq!((try_it(&of_a).await, try_it(&of_b).await), (Ok(()), Ok(())));
    rotate(&server, &hand, material_trusting(&b, "/server", &[&a, &b])).await;
    assert_eq!(try_it(&of_b).await, Ok(()));
    let server_of_b = ConnectErrorKind::PeerUntrusted(Untrusted::UnknownIssuer);
    assert_eq!(try_it(&of_a).await, Err(server_of_b), "this client trusts a only");
    let of_a = mesh_of(material_trusting(&a, "/client", &[&a, &b])).await.0;
    assert_eq!(try_it(&of_a).await, Ok(()));
    rotate(&server, &hand, material_trusting(&b, "/server", &[&b])).await;
    assert_eq!(try_it(&of_a).await, Err(unknown), "a is removed");
    assert_eq!(try_it(&of_b).await, Ok(()));
    ping(&mut from_before).await.expect("a connection that exists has the grace to end");
}

#[tokio::test]
async fn less_trust_takes_effect_even_when_it_orphans_our_own_leaf() {
    let (a, b) = (ca(), ca());
    let identity = a.issue("/server").unwrap();
    let (server, hand) = mesh_of(identity.material().unwrap()).await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    // The same leaf, its own authority removed: the authority was compromised.
    let orphaned = identity.with_bundle_pem(b.bundle_pem()).material().unwrap();
    rotate(&server, &hand, orphaned).await;
    let of_a = mesh(&a, "/client").await;
    let mut stream = of_a.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
    assert!(ping(&mut stream).await.is_err());
    eventually("counted", || server.stats().refused_unknown_issuer == 1).await;
    assert_eq!(echo.handled(), 0);
}

#[tokio::test]
async fn an_empty_bundle_revokes_everybody() {
    let ours = ca();
    let (server, hand) = mesh_of(material(&ours, "/server")).await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let client = mesh(&ours, "/client").await;
    let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
    ping(&mut stream).await.unwrap();
    let nobody = ours.issue("/server").unwrap().with_bundle_pem("").material().unwrap();
    rotate(&server, &hand, nobody).await;
    let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
    assert!(ping(&mut stream).await.is_err());
    assert_eq!(echo.handled(), 1);
}

#[tokio::test]
async fn a_bad_update_never_replaces_a_good_one() {
    let (ours, rogue) = (ca(), ca());
    let (source, hand) = StaticSource::new(material(&ours, "/server"));
    let server = MeshTls::builder(source).expect_id(id("/server")).spawn().await.unwrap();
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let client = mesh(&ours, "/client").await;
    let (good, other) = (ours.issue("/server").unwrap(), ours.issue("/server").unwrap());
    let mixed = mesh_tls::Material::from_pem(
        good.cert_pem().as_bytes(),
        other.key_pem().as_bytes(),
        good.bundle_pem().as_bytes(),
    );
    let past = mesh_tls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1_000_000_000));
    let expired = ours.issue_for("/server", past, Duration::from_secs(60)).unwrap();
    let bad = [
        (mixed.unwrap(), "does not belong to the certificate"),
        (
            material(&ours, "/other"),
            "spiffe://test.local/other, expected is spiffe://test.local/server",
        ),
        (material_trusting(&rogue, "/server", &[&ours]), "no root that is trusted for it"),
        (expired.material().unwrap(), "has expired"),
    ];
    for (count, (material, reason)) in bad.into_iter().enumerate() {
        hand.set(material);
        let refused = count as u64 + 1;
        eventually("it is refused", || server.stats().updates_refused == refused).await;
        let status = server.status();
        assert!(status.last_error.as_ref().unwrap().contains(reason), "{status:?}");
        assert_eq!(status.generation, 1);
        let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
        ping(&mut stream).await.unwrap();
    }
    // A good one after them is taken, and the error is over.
    rotate(&server, &hand, good.material().unwrap()).await;
    assert_eq!(server.status().last_error, None);
}

#[tokio::test]
async fn the_first_material_is_held_to_the_same_checks() {
    let (source, _hand) = StaticSource::new(material(&ca(), "/server"));
    let builder = MeshTls::builder(source).expect_id(id("/another"));
    let error = builder.first_material_timeout(Duration::ZERO).spawn().await.unwrap_err();
    assert!(matches!(error.kind(), MaterialErrorKind::UnexpectedId { .. }), "{error}");
}

#[tokio::test]
async fn nothing_secret_is_shown_by_debug() {
    let ours = ca();
    let identity = ours.issue("/server").unwrap();
    let material = identity.material().unwrap();
    let shown = format!("{material:?} {identity:?} {ours:?}");
    let server = mesh_of(material).await.0;
    let connector = server.connector(only("/x"));
    let shown = format!("{shown} {server:?} {connector:?} {:?}", server.acceptor(only("/x")));
    // Any 24 characters of the key's text, or the numbers of its bytes, would show.
    let key: String = identity.key_pem().lines().filter(|l| !l.starts_with('-')).collect();
    assert!(!shown.contains(&key[..24]), "{shown}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
    assert!(shown.len() < 2000, "longer than anything harmless: {shown}");
}

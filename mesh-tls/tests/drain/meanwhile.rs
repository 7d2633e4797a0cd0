//! What changes during a handshake, and what changes while there is no identity.

use std::time::Duration;

use mesh_tls::{AcceptErrorKind, ConnectErrorKind, PeerPolicy, ServerMode};
use tokio::{io::AsyncReadExt, time};

use super::{is_asked_to_end, pair, plain};
use crate::support::{ca, eventually, material, material_trusting, mesh, mesh_of, only, rotate};

#[tokio::test(start_paused = true)]
async fn a_policy_is_obeyed_without_an_identity() {
    let ours = ca();
    let (server, hand) = mesh_of(material(&ours, "/server")).await;
    let (good, bad) = (mesh(&ours, "/good").await, mesh(&ours, "/bad").await);
    let acceptor = server.acceptor(PeerPolicy::any_authenticated());
    let (_near, mut of_good) = pair(&good, &acceptor).await;
    let (_near, mut of_bad) = pair(&bad, &acceptor).await;
    hand.withdraw();
    eventually("withdrawn", || server.status().generation == 0).await;
    assert!(!is_asked_to_end(&mut of_bad).await, "nothing to judge by");
    acceptor.policy_handle().set(only("/good"));
    assert!(!is_asked_to_end(&mut of_good).await);
    assert!(is_asked_to_end(&mut of_bad).await);
    assert_eq!(server.stats().drained_not_authorized, 1);
    // And trust is asked about again when there is some.
    hand.set(material_trusting(&ours, "/server", &[]));
    server.reached(2).await;
    assert!(is_asked_to_end(&mut of_good).await);
    assert_eq!(server.stats().drained_untrusted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_mode_is_obeyed_without_an_identity() {
    let (server, hand) = mesh_of(material(&ca(), "/server")).await;
    let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    let (_near, mut far) = plain(&acceptor, b"GET").await;
    far.read_exact(&mut [0; 3]).await.unwrap();
    hand.withdraw();
    eventually("withdrawn", || server.status().generation == 0).await;
    acceptor.mode_handle().set(ServerMode::Strict);
    assert!(is_asked_to_end(&mut far).await);
}

/// How far the client's handshake has come when something changes.
async fn begun<F: Future>(connecting: std::pin::Pin<&mut F>) {
    let begun = time::timeout(Duration::from_millis(1), connecting).await;
    assert!(begun.is_err(), "the server has not answered yet");
}

#[tokio::test(start_paused = true)]
async fn trust_that_changes_during_a_handshake_refuses_the_server() {
    let (a, b) = (ca(), ca());
    let server = mesh_of(material_trusting(&a, "/server", &[&a, &b])).await.0;
    for distrusts in [true, false] {
        let (client, hand) = mesh_of(material_trusting(&b, "/client", &[&a, &b])).await;
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut connecting = std::pin::pin!(client.connect(near, only("/server")));
        begun(connecting.as_mut()).await;
        let trusted: &[_] = if distrusts { &[&b] } else { &[&a, &b] };
        rotate(&client, &hand, material_trusting(&b, "/client", trusted)).await;
        let acceptor = server.acceptor(only("/client"));
        let (connected, _accepted) = tokio::join!(connecting, acceptor.accept_io(far));
        if distrusts {
            let error = connected.expect_err("it is not trusted when it comes to be used");
            assert!(matches!(error.kind(), ConnectErrorKind::PeerUntrusted(_)), "{error:?}");
            assert_eq!(client.stats().connect_untrusted, 1);
        } else {
            assert!(connected.is_ok(), "a new certificate of our own changes nothing");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_withdrawn_during_a_handshake_makes_no_connection() {
    let ours = ca();
    let server = mesh(&ours, "/server").await;
    let (client, hand) = mesh_of(material(&ours, "/client")).await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut connecting = std::pin::pin!(client.connect(near, only("/server")));
    begun(connecting.as_mut()).await;
    hand.withdraw();
    eventually("withdrawn", || client.status().generation == 0).await;
    let acceptor = server.acceptor(only("/client"));
    let (connected, _accepted) = tokio::join!(connecting, acceptor.accept_io(far));
    assert_eq!(connected.unwrap_err().kind(), &ConnectErrorKind::NotReady);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_withdrawn_during_a_handshake_lets_nobody_in() {
    let ours = ca();
    let client = mesh(&ours, "/client").await;
    for mode in [ServerMode::Strict, ServerMode::Permissive] {
        for is_withdrawn in [true, false] {
            let (server, hand) = mesh_of(material(&ours, "/server")).await;
            let acceptor = server.acceptor(only("/client")).with_mode(mode);
            let (near, far) = tokio::io::duplex(64 * 1024);
            let mut connecting = std::pin::pin!(client.connect(near, only("/server")));
            let mut accepting = std::pin::pin!(acceptor.accept_io(far));
            begun(connecting.as_mut()).await;
            begun(accepting.as_mut()).await;
            if is_withdrawn {
                hand.withdraw();
                eventually("withdrawn", || server.status().generation == 0).await;
            }
            let (_connected, accepted) = tokio::join!(connecting, accepting);
            let counted = server.stats();
            if is_withdrawn {
                let error = accepted.expect_err("there is nobody to be any more");
                assert_eq!(error.kind(), &AcceptErrorKind::NotReady);
                assert_eq!((counted.accepted, counted.refused_not_ready), (0, 1));
            } else {
                assert!(accepted.is_ok(), "the control");
                assert_eq!((counted.accepted, counted.refused_not_ready), (1, 0));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn plaintext_needs_no_identity_where_it_is_let_in() {
    let (server, hand) = mesh_of(material(&ca(), "/server")).await;
    let acceptor = server.acceptor(only("/client")).with_mode(ServerMode::Permissive);
    hand.withdraw();
    eventually("withdrawn", || server.status().generation == 0).await;
    let (_near, mut far) = plain(&acceptor, b"GET").await;
    far.read_exact(&mut [0; 3]).await.unwrap();
}

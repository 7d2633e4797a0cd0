//! Rules that only a handshake shows: no certificate, no key to it, and sessions that would outlive trust.

use std::{sync::Arc, time::Duration};

use mesh_tls::{AcceptErrorKind, PeerPolicy, Untrusted};

use super::{Judged, Outcome, both, scene::*};

pub(super) fn judge(id: &str) -> Judged {
    Some(match id {
        "tls.no_client_cert" => run(async {
            let trust = Trust::of(&[&root(authority("root"))]);
            let judge = trust.mesh().await.map_err(|error| error.to_string())?;
            match judge.as_server(&client_config(None)).await? {
                Some(Untrusted::NoCertificate) => Ok(Outcome::Refused),
                other => Err(format!("{other:?}")),
            }
        }),
        "tls.proof" => {
            let root = root(authority("root"));
            let Peer { chain, key: _ } = Peer::new(&leaf(), &root, &[]);
            let thief = Peer { chain, key: secret(&key()) };
            both(Trust::of(&[&root]).judge(&thief), Some(&Untrusted::BadSignature))
        }
        "tls.resumed_after_bundle_change" => again(Change::Bundle),
        "tls.resumed_after_expiry" => again(Change::Time),
        "tls.resumed_after_authz_change" => again(Change::Policy),
        _ => return None,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Bundle,
    Time,
    Policy,
}

/// A peer that was let in once, and would come back by a ticket after something has changed.
fn again(change: Change) -> Result<Outcome, String> {
    let top = root(authority("root"));
    let peer = Peer::new(&leaf(), &top, &[]);
    run(async {
        let judge = Trust::of(&[&top]).mesh().await.map_err(|error| error.to_string())?;
        let (client, server) = (client_config(Some(&peer)), server_config(&peer));
        let any = PeerPolicy::any_authenticated;
        for _ in 0..2 {
            match judge.accept(&client, any()).await {
                (Ok(()), false) => {}
                other => return Err(format!("before the change: {other:?}")),
            }
            if let Some(why) = judge.as_client(&server).await? {
                return Err(format!("before the change: {why}"));
            }
        }
        let mut policy = any();
        match change {
            Change::Bundle => {
                judge.hand.set(Trust::of(&[]).material());
                judge.mesh.reached(2).await;
            }
            // Past the leaf's end, which is within this year; our own is as old, and expires with it.
            Change::Time => judge.clock.advance(Duration::from_secs(366 * 24 * 3600)),
            Change::Policy => policy = PeerPolicy::nobody(),
        }
        let refused = judge.accept(&Arc::clone(&client), policy).await;
        let expected = match change {
            Change::Bundle => AcceptErrorKind::PeerUntrusted(Untrusted::UnknownIssuer),
            Change::Time => AcceptErrorKind::PeerUntrusted(Untrusted::Expired),
            Change::Policy => AcceptErrorKind::PeerNotAuthorized(
                "spiffe://td.test/workload".parse().expect("an ID"),
            ),
        };
        if refused != (Err(expected.clone()), false) {
            return Err(format!("{refused:?}, expected {expected:?}"));
        }
        if change == Change::Bundle && judge.as_client(&server).await?.is_none() {
            return Err("as a client it went back to the server".to_owned());
        }
        Ok(Outcome::Refused)
    })
}

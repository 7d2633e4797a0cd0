//! Generations: what they hold, and that they let go of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Weak;

use super::{testing::Published, *};
use crate::{backend::Role, dev_ca::DevCa, error::Untrusted, id::TrustDomain, material::Trust};

fn ca(domain: &str) -> DevCa {
    DevCa::new(domain.parse().unwrap()).unwrap()
}

fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

/// Material of one authority that trusts the roots of `ours` and of one federated domain.
fn material(issuer: &DevCa, ours: &[&DevCa], federated: &DevCa) -> Material {
    let bundle: String = ours.iter().map(|ca| ca.bundle_pem()).collect();
    let identity = issuer.issue("/server").unwrap().with_bundle_pem(bundle);
    let material = identity.material().unwrap();
    let theirs = federated.bundle_pem();
    material.with_bundle_pem(federated.trust_domain().clone(), theirs.as_bytes()).unwrap()
}

/// Whether the generation in use trusts a fresh leaf of this authority.
fn trusts(published: &Published, ca: &DevCa) -> Result<(), Untrusted> {
    let generation = published.shared().current().unwrap();
    let leaf = ca.issue("/peer").unwrap().material().unwrap().chain.remove(0);
    let algorithms = published.shared().provider.crypto.signature_verification_algorithms;
    let now = published.shared().provider.clock.now();
    generation.trust.verify(&leaf, &[], now, Role::Client, algorithms).map(drop)
}

#[test]
fn a_root_that_is_gone_is_gone_although_the_leaf_beside_it_is_bad() {
    let (stays, goes, comes) = (ca("test.local"), ca("test.local"), ca("test.local"));
    let (friend, stranger) = (ca("friend.test"), ca("stranger.test"));
    let published = Published::new();
    assert!(published.publish(material(&stays, &[&stays, &goes], &friend)));
    assert!(trusts(&published, &goes).is_ok());

    // A leaf that our bundle does not lead to, beside a bundle in which one root went and one came.
    let rogue = ca("test.local");
    assert!(!published.publish(material(&rogue, &[&stays, &comes], &friend)));
    assert_eq!(trusts(&published, &stays), Ok(()));
    assert_eq!(trusts(&published, &goes), Err(Untrusted::UnknownIssuer), "taken back at once");
    assert_eq!(trusts(&published, &comes), Err(Untrusted::UnknownIssuer), "nothing is added");
    assert_eq!(trusts(&published, &friend), Ok(()));
    let status = published.shared().current().unwrap();
    assert_eq!((status.number, status.own.id().path()), (2, "/server"));
    assert!(published.shared().last_error.lock().unwrap().is_some(), "and the error is told");

    // A whole trust domain that is gone, and another that came.
    assert!(!published.publish(material(&rogue, &[&stays], &stranger)));
    let unknown = |name| Err(Untrusted::UnknownTrustDomain(domain(name)));
    assert_eq!(trusts(&published, &friend), unknown("friend.test"));
    assert_eq!(trusts(&published, &stranger), unknown("stranger.test"));

    // The same once more changes nothing, and is no new generation.
    let number = published.shared().current().unwrap().number;
    assert!(!published.publish(material(&rogue, &[&stays], &stranger)));
    assert_eq!(published.shared().current().unwrap().number, number);

    // With a good leaf all of the new state is taken.
    assert!(published.publish(material(&stays, &[&stays, &comes], &stranger)));
    assert_eq!(trusts(&published, &comes), Ok(()));
    assert_eq!(trusts(&published, &stranger), Ok(()));
}

#[test]
fn a_wrong_certificate_of_another_trust_domain_takes_nothing_from_ours() {
    let (ours, friend) = (ca("test.local"), ca("friend.test"));
    let published = Published::new();
    assert!(published.publish(material(&ours, &[&ours], &friend)));
    // Files of somebody else, and bad ones: our own bundle is not among them.
    let (theirs, rogue) = (ca("other.test"), ca("other.test"));
    assert!(!published.publish(material(&rogue, &[&theirs], &friend)));
    assert_eq!(trusts(&published, &ours), Ok(()));
    assert_eq!(published.shared().current().unwrap().number, 1);
}

#[test]
fn a_bundle_with_a_bad_root_changes_nothing() {
    let (stays, goes, friend) = (ca("test.local"), ca("test.local"), ca("friend.test"));
    let published = Published::new();
    assert!(published.publish(material(&stays, &[&stays, &goes], &friend)));
    let leaf = stays.issue("/x").unwrap().material().unwrap().chain.remove(0);
    let good = stays.issue("/server").unwrap().material().unwrap();
    assert!(!published.publish(good.with_bundle(domain("test.local"), vec![leaf])));
    assert_eq!(trusts(&published, &goes), Ok(()), "unreadable is not empty");
    let emptied = stays.issue("/server").unwrap().material().unwrap();
    assert!(published.publish(emptied.with_bundle(domain("test.local"), Vec::new())));
    assert_eq!(trusts(&published, &stays), Err(Untrusted::UnknownIssuer), "empty revokes");
}

#[test]
fn what_two_trusts_have_in_common() {
    let [a, b, c] = [1, 2, 3].map(|byte| rustls_pki_types::CertificateDer::from(vec![byte]));
    let trust = |bundles: &[(&str, &[&rustls_pki_types::CertificateDer<'static>])]| Trust {
        bundles: bundles
            .iter()
            .map(|(name, roots)| (domain(name), roots.iter().copied().cloned().collect()))
            .collect(),
        crls: Vec::new(),
    };
    let old = trust(&[("x", &[&a, &b]), ("y", &[&c])]);
    let new = trust(&[("x", &[&b, &c]), ("z", &[&a])]);
    assert_eq!(old.narrowed_to(&new), trust(&[("x", &[&b])]));
    assert_eq!(old.narrowed_to(&old), old);
    // The broken twin: the roots of all, regardless of whose.
    let roots = |trust: &Trust| trust.bundles.values().flatten().count();
    assert_ne!(roots(&new), roots(&old.narrowed_to(&new)));
}

fn settings() -> Arc<ClientSettings> {
    Arc::new(ClientSettings { alpn: crate::client::default_alpn(), sni: None })
}

/// How many of the generations are still there.
fn alive(generations: &[Weak<Generation>]) -> usize {
    generations.iter().filter(|generation| generation.strong_count() > 0).count()
}

/// The process's own memory in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[tokio::test]
async fn who_is_idle_keeps_nothing_of_what_has_been_replaced() {
    let (ours, friend) = (ca("test.local"), ca("friend.test"));
    let published = Published::new();
    let mesh = MeshTls { shared: Arc::clone(published.shared()) };
    assert!(published.publish(material(&ours, &[&ours], &friend)));
    let policy = PeerPolicy::trust_domain(domain("test.local"));
    let (connector, acceptor) = (mesh.connector(policy.clone()), mesh.acceptor(policy));
    let shake_hands = async || {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (client, server) = tokio::join!(connector.connect(near), acceptor.accept_io(far));
        (client.unwrap(), server.unwrap())
    };
    let both = shake_hands().await;
    let (generation, trust) = {
        let current = mesh.shared().current().unwrap();
        (Arc::downgrade(&current), Arc::downgrade(&current.trust))
    };
    drop(both);
    assert!(trust.strong_count() > 1, "the configurations of both sides hold it, for the next");
    assert!(published.publish(material(&ours, &[&ours], &friend)));
    assert_eq!((generation.strong_count(), trust.strong_count()), (0, 0));
    drop(shake_hands().await);
}

#[test]
fn ten_thousand_rotations_leave_one_generation_and_no_memory_behind() {
    const NAME: &str =
        "mesh::tests::ten_thousand_rotations_leave_one_generation_and_no_memory_behind";
    const ALONE: &str = "MESH_TLS_TEST_IS_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // Other tests of this program need memory as well: this one again, in a process of its own.
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let run = again.args(["--exact", NAME, "--nocapture"]).env(ALONE, "yes").output().unwrap();
        let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
        assert!(run.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let (ours, friend) = (ca("test.local"), ca("friend.test"));
    let kept = [material(&ours, &[&ours], &friend), material(&ours, &[&ours], &friend)];
    let published = Published::new();
    let mut generations = Vec::with_capacity(10_000);
    let mesh = MeshTls { shared: Arc::clone(published.shared()) };
    let (policy, settings) = (Arc::new(PeerPolicy::any_authenticated()), settings());
    let rotate = |round: usize, generations: &mut Vec<Weak<Generation>>| {
        assert!(published.publish(kept[round % 2].duplicate()));
        generations.push(published.current());
        // What a handshake of each side makes, and keeps for the next.
        let current = mesh.shared().current().unwrap();
        assert!(current.client_config(&policy, &settings).is_ok());
        assert!(current.server_config(&policy, &settings.alpn.clone().into(), true).is_ok());
    };
    for round in 0..2_000 {
        rotate(round, &mut generations);
    }
    let early = resident();
    for round in 2_000..10_000 {
        rotate(round, &mut generations);
    }
    assert_eq!(generations.len(), 10_000);
    assert_eq!(alive(&generations), 1, "only the one in use is there");
    assert_eq!(published.shared().current().unwrap().number, 10_000);
    if let Some((early, late)) = early.zip(resident()) {
        // A generation is some 10 KiB: kept, 8,000 of them would be 80 MiB.
        let grown = late.saturating_sub(early);
        assert!(grown < 8 * 1024, "{grown} KiB more than after 2,000 rotations");
    }
    // The broken twin: who holds on to each generation is found out.
    let held: Vec<_> = (0..50)
        .map(|round| {
            rotate(round, &mut generations);
            published.shared().current()
        })
        .collect();
    assert_eq!(alive(&generations), held.len());
}

#[tokio::test]
async fn what_handshakes_hold_of_a_generation_goes_with_their_last_connection() {
    let (ours, friend) = (ca("test.local"), ca("friend.test"));
    let kept = [material(&ours, &[&ours], &friend), material(&ours, &[&ours], &friend)];
    let [server, client] = [(); 2].map(|()| Published::new());
    let handle = |of: &Published| MeshTls { shared: Arc::clone(of.shared()) };
    // They keep the configuration of their last handshake.
    let acceptor = handle(&server).acceptor(PeerPolicy::any_authenticated());
    let connector = handle(&client).connector(PeerPolicy::any_authenticated());
    let (mut stores, mut connections) = (Vec::new(), Vec::new());
    for round in 0..100 {
        for side in [&server, &client] {
            assert!(side.publish(kept[round % 2].duplicate()));
            stores.push(Arc::downgrade(&side.shared().current().unwrap().trust));
        }
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (connected, accepted) = tokio::join!(connector.connect(near), acceptor.accept_io(far));
        let ends = (connected.unwrap(), accepted.unwrap());
        if round % 10 == 0 {
            connections.push(ends);
        }
    }
    let alive = || stores.iter().filter(|store| store.strong_count() > 0).count();
    let held = alive();
    assert!(held <= 2 * connections.len() + 2, "{held} for {} connections", connections.len());
    drop(connections);
    assert_eq!(alive(), 2, "the one in use, of each side");
    // The broken twin: a list of all configurations that there ever were, as a cache by generation would be.
    let hoard: Vec<_> = (0..5)
        .map(|round| {
            assert!(server.publish(kept[round % 2].duplicate()));
            let current = server.shared().current().unwrap();
            stores.push(Arc::downgrade(&current.trust));
            current.verifier(&PeerPolicy::any_authenticated(), true)
        })
        .collect();
    let alive = stores.iter().filter(|store| store.strong_count() > 0).count();
    assert!(alive > hoard.len(), "{alive}");
}

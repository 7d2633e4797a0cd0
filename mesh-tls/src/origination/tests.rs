#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls_pki_types::UnixTime;
use tokio::time;

use super::*;
use crate::{
    DevCa, MeshTls, PeerPolicy, StaticSource,
    clock::{Clock, ManualClock},
};

/// A directory that is gone when dropped.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let name = format!("mesh-tls-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _unused = std::fs::remove_dir_all(&self.0);
    }
}

/// What is logged on this thread while somebody listens.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn count(&self, level: &str, words: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(level) && line.contains(words)).count()
    }
}

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const SERVER: &str = "spiffe://dev.local/server";

fn at(clock: &Arc<ManualClock>, ca: &DevCa, dir: &TempDir) -> (Origination, Driver) {
    let config = Config::new(Roots::pem(ca.bundle_pem().as_bytes()).unwrap())
        .with_subject_alt_names([SERVER])
        .unwrap()
        .with_certificate(dir.0.join("tls.crt"), dir.0.join("tls.key"))
        // Longer than it takes to look at the dates once more.
        .with_poll_interval(Duration::from_secs(100));
    let crypto = Arc::new(default_provider().unwrap());
    Origination::load_by(config, Provider { crypto, clock: Arc::clone(clock) as _ }).unwrap()
}

fn issue(ca: &DevCa, from: UnixTime, dir: &TempDir) {
    ca.issue_for("/client", from, Duration::from_secs(990)).unwrap().write_to(&dir.0).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_nobody_renews_is_told_of_in_time_and_not_all_the_time() {
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    // Of one subscriber alone a line that speaks for the first time asks only its own thread whether anybody listens, and
    // keeps the answer for all; so there is another, which every thread has.
    drop(tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default()));
    let _listening = tracing::subscriber::set_default(subscriber);
    let told = || (said.count("WARN", "not renewed"), said.count("ERROR", "has expired"));
    let (ca, dir) = (DevCa::new("dev.local".parse().unwrap()).unwrap(), TempDir::new("expiry"));
    let clock = Arc::new(ManualClock::new(UnixTime::now()));
    issue(&ca, clock.now(), &dir);
    let (bank, driver) = at(&clock, &ca, &dir);
    drop(tokio::spawn(driver));
    // Ten seconds of its life are over when it is issued.
    for (advance, expected) in
        [(0, (0, 0)), (785, (0, 0)), (10, (1, 0)), (140, (1, 0)), (10, (2, 0)), (50, (2, 1))]
    {
        clock.advance(Duration::from_secs(advance));
        time::sleep(Duration::from_secs(300)).await;
        assert_eq!(told(), expected, "after {advance} s more");
    }
    assert_eq!(said.count("ERROR", "tls.crt"), 1, "it says which");
    issue(&ca, clock.now(), &dir);
    let reached = time::timeout(Duration::from_secs(300), bank.reached(2)).await;
    reached.expect("to look at the dates does not keep it from the files");
    time::sleep(Duration::from_secs(300)).await;
    assert_eq!(told(), (2, 1), "it was renewed");
    clock.advance(Duration::from_secs(800));
    time::sleep(Duration::from_secs(300)).await;
    assert_eq!(told(), (3, 1), "and the next one is not");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_expires_during_a_handshake_makes_no_connection() {
    let (ca, dir) = (DevCa::new("dev.local".parse().unwrap()).unwrap(), TempDir::new("handshake"));
    let (source, _hand) = StaticSource::new(ca.issue("/server").unwrap().material().unwrap());
    let server = MeshTls::builder(source).spawn().await.unwrap();
    let acceptor = server.acceptor(PeerPolicy::any_authenticated());
    for expires in [false, true] {
        let clock = Arc::new(ManualClock::new(UnixTime::now()));
        issue(&ca, clock.now(), &dir);
        let (bank, _driver) = at(&clock, &ca, &dir);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut connecting = pin!(bank.connect(near, "api.bank.example"));
        let begun = time::timeout(Duration::from_millis(1), connecting.as_mut()).await;
        assert!(begun.is_err(), "the server has not answered yet");
        clock.advance(Duration::from_secs(if expires { 1_000 } else { 10 }));
        let (connected, _accepted) = tokio::join!(connecting, acceptor.accept_io(far));
        if expires {
            assert_eq!(connected.unwrap_err().kind(), &ConnectErrorKind::IdentityExpired);
            assert_eq!(bank.stats().connect_not_ready, 1);
            let (near, _far) = tokio::io::duplex(64 * 1024);
            let next = bank.connect(near, "api.bank.example").await;
            assert_eq!(next.unwrap_err().kind(), &ConnectErrorKind::IdentityExpired);
        } else {
            assert!(connected.is_ok(), "the control");
        }
        assert_eq!(bank.stats().connected, u64::from(!expires));
    }
}

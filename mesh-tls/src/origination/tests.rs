#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls_pki_types::UnixTime;
use tokio::time;

use super::*;
use crate::{
    ConnectErrorKind, DevCa, MeshTls, PeerPolicy, StaticSource,
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
    /// How often these words were said of that name.
    fn about(&self, words: &str, name: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(words) && line.contains(name)).count()
    }

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

/// A root that is good for 1,000 s, in PEM.
fn root(name: &str, from: UnixTime) -> String {
    let date = |secs: u64| {
        let secs = Duration::from_secs(from.as_secs() + secs);
        (std::time::UNIX_EPOCH + secs).into()
    };
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date(0), date(1_000));
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

#[tokio::test(start_paused = true)]
async fn roots_and_lists_that_end_are_told_of_each_by_its_name() {
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _listening = tracing::subscriber::set_default(subscriber);
    let dir = TempDir::new("ends");
    let clock = Arc::new(ManualClock::new(UnixTime::now()));
    let later = UnixTime::since_unix_epoch(Duration::from_secs(clock.now().as_secs() + 500));
    let (roots, lists) = (dir.0.join("ca.pem"), dir.0.join("list.pem"));
    let two = format!("{}{}", root("first", clock.now()), root("second", later));
    std::fs::write(&roots, &two).unwrap();
    std::fs::write(&lists, list(clock.now())).unwrap();
    let crypto = Arc::new(default_provider().unwrap());
    let provider = Provider { crypto, clock: Arc::clone(&clock) as _ };
    let config = Config::new(Roots::file(&roots)).with_crl(&lists);
    let config = config.with_poll_interval(Duration::from_secs(100));
    let (_bank, driver) = Origination::load_by(config.clone(), provider).unwrap();
    drop(tokio::spawn(driver));
    let told = || {
        ["about to expire", "has expired", "about to be out of date", "is out of date"]
            .map(|words| ["CN=first", "CN=second", "list.pem"].map(|name| said.about(words, name)))
    };
    let mut expected = [[0; 3]; 4];
    // Which words come behind so many seconds more, of which.
    for (advance, new) in [
        (940, None),
        (20, Some((0, 0))),
        (50, Some((1, 0))),
        (470, Some((0, 1))),
        (30, Some((1, 1))),
    ] {
        clock.advance(Duration::from_secs(advance));
        time::sleep(Duration::from_secs(300)).await;
        if let Some((words, name)) = new {
            expected[words][name] += 1;
        }
        // The list ends when the first root does.
        (expected[2][2], expected[3][2]) = (expected[0][0], expected[1][0]);
        assert_eq!(told(), expected, "after {advance} s more");
    }
    assert_eq!(said.count("ERROR", "list.pem"), 1, "servers are refused for it");
    assert_eq!(said.count("ERROR", "root"), 0, "none is refused for it");
    // What is given is told of too.
    let again = Config::new(Roots::pem(two.as_bytes()).unwrap());
    let crypto = Arc::new(default_provider().unwrap());
    let (_given, driver) = Origination::load_by(again, Provider { crypto, clock }).unwrap();
    drop(tokio::spawn(driver));
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(said.about("has expired", "CN=first"), 2);
}

/// A list that is up to date for 1,000 s, in PEM.
fn list(from: UnixTime) -> String {
    let date = |secs: u64| {
        let secs = Duration::from_secs(from.as_secs() + secs);
        (std::time::UNIX_EPOCH + secs).into()
    };
    let params = rcgen::CertificateRevocationListParams {
        this_update: date(0),
        next_update: date(1_000),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let mut issuer = rcgen::CertificateParams::default();
    issuer.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::CertifiedIssuer::self_signed(issuer, key).unwrap();
    params.signed_by(&issuer).unwrap().pem().unwrap()
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

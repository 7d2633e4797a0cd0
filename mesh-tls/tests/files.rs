//! Identities in files: swapped by a link, overwritten in place, torn, broken, gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "dev-ca", unix))]

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mesh_tls::{
    DevCa, DevIdentity, FileSource, IdentitySource, MaterialErrorKind, MeshTls, SourceEvent,
    clock::{Clock, ManualClock, SystemClock},
    pki_types::UnixTime,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use support::{Echo, PATIENCE, TempDir, ca, eventually, mesh, only, ping, tcp};
use tokio::time;

fn source(dir: &Path) -> FileSource {
    FileSource::in_directory(dir)
        .poll_interval(Duration::from_millis(10))
        .settle(Duration::from_millis(5))
}

async fn from_files(dir: &Path) -> MeshTls {
    MeshTls::builder(source(dir)).spawn().await.unwrap()
}

async fn first_error(source: FileSource) -> mesh_tls::MaterialError {
    let builder = MeshTls::builder(source).first_material_timeout(Duration::ZERO);
    builder.spawn().await.unwrap_err()
}

async fn generation(mesh: &MeshTls, number: u64) {
    let reached = time::timeout(PATIENCE, mesh.reached(number)).await;
    assert!(reached.is_ok(), "{:?}", mesh.status());
}

/// The layout of a Kubernetes volume: files are links through `..data`, which is swapped by a rename.
struct Volume {
    dir: TempDir,
    round: u32,
}

impl Volume {
    fn new() -> Self {
        let dir = TempDir::new("volume");
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(name), dir.join(name)).unwrap();
        }
        Self { dir, round: 0 }
    }

    fn publish(&mut self, identity: &DevIdentity) {
        self.round += 1;
        let name = format!("..round_{}", self.round);
        identity.write_to(self.dir.join(&name)).unwrap();
        symlink(&name, self.dir.join("..data_tmp")).unwrap();
        fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).unwrap();
        let old = self.dir.join(&format!("..round_{}", self.round - 1));
        if old.exists() {
            fs::remove_dir_all(old).unwrap();
        }
    }
}

#[tokio::test]
async fn a_swapped_link_rotates_and_connections_live() {
    let ours = ca();
    let mut volume = Volume::new();
    volume.publish(&ours.issue("/server").unwrap());
    let server = from_files(volume.dir.path()).await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let client = mesh(&ours, "/client").await;
    let mut old = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
    ping(&mut old).await.unwrap();
    for round in 2..=4 {
        volume.publish(&ours.issue("/server").unwrap());
        generation(&server, round).await;
        let mut new = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
        ping(&mut new).await.unwrap();
        ping(&mut old).await.unwrap();
    }
    assert_eq!(server.stats().updates_refused, 0);
}

/// Whether the contents of the two files belong together.
fn is_pair(cert: &str, key: &str) -> bool {
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    rustls::sign::CertifiedKey::from_der(chain, key, &support::provider()).is_ok()
}

/// A writer that swaps the volume without pause until told to stop.
fn busy_writer(
    ca: &Arc<DevCa>,
    mut volume: Volume,
) -> (Arc<AtomicBool>, std::thread::JoinHandle<Volume>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (ca, stopped) = (Arc::clone(ca), Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            volume.publish(&ca.issue("/server").unwrap());
        }
        volume
    });
    (stop, writer)
}

#[tokio::test]
async fn a_pair_is_never_torn_by_swaps_while_it_is_read() {
    let ours = Arc::new(ca());
    let mut volume = Volume::new();
    volume.publish(&ours.issue("/server").unwrap());
    let (cert, key) = (volume.dir.join("tls.crt"), volume.dir.join("tls.key"));

    // The control: each file read by its own path, as most programs do, comes out torn.
    let (stop, writer) = busy_writer(&ours, volume);
    let mut torn = 0;
    for _ in 0..200_000 {
        let (Ok(cert), Ok(key)) = (fs::read_to_string(&cert), fs::read_to_string(&key)) else {
            continue;
        };
        if !is_pair(&cert, &key) {
            torn += 1;
            break;
        }
    }
    assert!(torn > 0, "the control must see a torn pair, or the test proves nothing");

    // The source, under the same writer: what it delivers must always be a pair.
    let dir = cert.parent().unwrap().to_owned();
    let quick = FileSource::in_directory(&dir).poll_interval(Duration::ZERO).settle(Duration::ZERO);
    let source = MeshTls::builder(quick).first_material_timeout(PATIENCE).spawn();
    let mesh = source.await.unwrap();
    time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut volume = writer.join().unwrap();
    let last = mesh.stats().generation;
    volume.publish(&ours.issue("/server").unwrap());
    eventually("the last one is taken", || mesh.stats().generation > last).await;
    assert_eq!(mesh.stats().updates_refused, 0, "{:?}", mesh.status());
}

#[tokio::test]
async fn files_overwritten_in_place_one_by_one_rotate_once_both_are_there() {
    let ours = ca();
    let dir = TempDir::new("in-place");
    ours.issue("/server").unwrap().write_to(dir.path()).unwrap();
    let server = from_files(dir.path()).await;
    let next = ours.issue("/server").unwrap();
    // The key first: for a while it does not belong to the certificate.
    fs::write(dir.join("tls.key"), next.key_pem()).unwrap();
    eventually("the torn pair is refused", || server.stats().updates_refused == 1).await;
    let error = server.status().last_error.unwrap();
    assert!(error.contains("tls.key") && error.contains("does not belong"), "{error}");
    assert_eq!(server.stats().generation, 1, "the last good one stays");
    // Half of the certificate, as a writer interrupted in the middle leaves it.
    let half = &next.cert_pem()[..next.cert_pem().len() / 2];
    fs::write(dir.join("tls.crt"), half).unwrap();
    eventually("half a file is an error", || server.stats().source_errors > 0).await;
    assert_eq!(server.stats().generation, 1);
    fs::write(dir.join("tls.crt"), next.cert_pem()).unwrap();
    generation(&server, 2).await;
    assert_eq!(server.status().last_error, None);
}

#[tokio::test]
async fn garbage_and_missing_files_keep_the_last_good_identity() {
    let ours = ca();
    let dir = TempDir::new("garbage");
    ours.issue("/server").unwrap().write_to(dir.path()).unwrap();
    let server = from_files(dir.path()).await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let client = mesh(&ours, "/client").await;
    for (name, expected) in
        [("tls.crt", "no certificate"), ("tls.key", "no private key"), ("ca.crt", "no certificate")]
    {
        let good = fs::read(dir.join(name)).unwrap();
        let before = server.stats().generation;
        let bad: [(&str, Option<&[u8]>); 2] =
            [(expected, Some(b"garbage\0")), ("cannot be read", None)];
        for (reason, contents) in bad {
            match contents {
                Some(contents) => fs::write(dir.join(name), contents).unwrap(),
                None => fs::remove_file(dir.join(name)).unwrap(),
            }
            let named = || {
                let error = server.status().last_error.unwrap_or_default();
                error.contains(name) && error.contains(reason)
            };
            eventually(&format!("{name}: {reason}"), named).await;
            assert_eq!(server.stats().generation, before);
            let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
            ping(&mut stream).await.unwrap();
        }
        fs::write(dir.join(name), good).unwrap();
        eventually("it recovers", || server.status().last_error.is_none()).await;
    }
}

#[tokio::test]
async fn an_emptied_bundle_revokes_but_an_unreadable_one_does_not() {
    let ours = ca();
    let dir = TempDir::new("bundle");
    ours.issue("/server").unwrap().write_to(dir.path()).unwrap();
    let server = from_files(dir.path()).await;
    let echo = Echo::start(&server.acceptor(only("/client"))).await;
    let client = mesh(&ours, "/client").await;
    let try_it = async || {
        let mut stream = client.connect(tcp(echo.addr).await, only("/server")).await.unwrap();
        ping(&mut stream).await.is_ok()
    };
    fs::rename(dir.join("ca.crt"), dir.join("away")).unwrap();
    eventually("noticed", || server.status().last_error.is_some()).await;
    assert!(try_it().await, "unreadable: the last good bundle stays");
    fs::write(dir.join("ca.crt"), "\n").unwrap();
    generation(&server, 2).await;
    assert!(!try_it().await, "empty: nobody is trusted");
    fs::rename(dir.join("away"), dir.join("ca.crt")).unwrap();
    generation(&server, 3).await;
    assert!(try_it().await);
}

#[tokio::test]
async fn the_first_errors_name_the_file_and_the_cure() {
    let ours = ca();
    let dir = TempDir::new("first");
    let error = first_error(source(dir.path())).await;
    assert_eq!(error.kind(), &MaterialErrorKind::Unreadable);
    assert_eq!(error.file(), Some(&*dir.join("tls.crt")));
    assert!(error.to_string().contains("permissions"));

    let (one, other) = (ours.issue("/a").unwrap(), ours.issue("/a").unwrap());
    one.write_to(dir.path()).unwrap();
    fs::write(dir.join("tls.key"), other.key_pem()).unwrap();
    let error = first_error(source(dir.path())).await;
    assert_eq!(error.kind(), &MaterialErrorKind::KeyMismatch);
    assert_eq!(error.file(), Some(&*dir.join("tls.key")));

    one.write_to(dir.path()).unwrap();
    fs::write(dir.join("ca.crt"), one.cert_pem()).unwrap();
    let error = first_error(source(dir.path())).await;
    assert!(matches!(error.kind(), MaterialErrorKind::BadBundle(1, _)), "{error}");
    assert_eq!(error.file(), Some(&*dir.join("ca.crt")));
}

/// Base64 in PEM, back to its bytes.
fn der(pem: &str) -> Vec<u8> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_or_else(
        |_| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec(),
        |key| key.secret_der().to_vec(),
    )
}

#[tokio::test]
async fn each_mistake_with_files_is_told_with_its_cure() {
    let ours = ca();
    let good = ours.issue("/a").unwrap();
    let past = UnixTime::since_unix_epoch(Duration::from_secs(1_000_000_000));
    let expired = ours.issue_for("/a", past, Duration::from_secs(60)).unwrap();
    let elsewhere = DevCa::new("else.test".parse().unwrap()).unwrap().issue("/a").unwrap();
    let (cert, key) = (good.cert_pem(), good.key_pem());
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let old_style = key.replace("PRIVATE KEY-----\n", "RSA PRIVATE KEY-----\n");
    let header = "RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n";
    let old_style = old_style.replacen("RSA PRIVATE KEY-----\n", header, 1);
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let (no_text, der_cert, der_key) = (Some(Vec::new()), Some(der(cert)), Some(der(key)));
    // The file, what is in it instead (nothing: a directory is in its place), what is said of it, and what to do.
    let table = [
        ("tls.crt", None, ["cannot be read", "directory"]),
        ("tls.key", None, ["cannot be read", "directory"]),
        ("ca.crt", None, ["cannot be read", "directory"]),
        ("tls.crt", no_text.clone(), ["no certificate found", "BEGIN CERTIFICATE"]),
        ("tls.key", no_text, ["no private key found", "PKCS#8"]),
        ("tls.crt", bytes(key), ["no certificate found", "BEGIN CERTIFICATE"]),
        ("tls.key", bytes(cert), ["no private key found", "PKCS#8"]),
        ("tls.crt", bytes(&cert[..cert.len() / 2]), ["no certificate found", "cut off"]),
        ("tls.key", bytes(&key[..key.len() / 2]), ["no private key found", "cut off"]),
        ("ca.crt", bytes("garbage"), ["no certificate found", "BEGIN CERTIFICATE"]),
        ("tls.crt", der_cert.clone(), ["binary", "openssl x509 -inform DER"]),
        ("tls.key", der_key, ["binary", "openssl pkey -inform DER"]),
        ("ca.crt", der_cert, ["binary", "openssl x509 -inform DER"]),
        ("tls.key", bytes(&encrypted), ["is encrypted", "openssl pkey"]),
        ("tls.key", bytes(&old_style), ["is encrypted", "openssl pkey"]),
        ("tls.key", bytes(elsewhere.key_pem()), ["does not belong", "swap them in together"]),
        ("tls.crt", bytes(expired.cert_pem()), ["peers would refuse", "has expired"]),
        (
            "ca.crt",
            bytes(elsewhere.bundle_pem()),
            ["peers would refuse", "no root that is trusted"],
        ),
        ("ca.crt", bytes(cert), ["certificate 1 of the bundle cannot be a root", "authority"]),
    ];
    for (name, contents, words) in table {
        let dir = TempDir::new("mistake");
        good.write_to(dir.path()).unwrap();
        if name == "tls.crt" && words[1] == "has expired" {
            expired.write_to(dir.path()).unwrap();
        }
        fs::remove_file(dir.join(name)).unwrap();
        match &contents {
            Some(contents) => fs::write(dir.join(name), contents).unwrap(),
            None => fs::create_dir(dir.join(name)).unwrap(),
        }
        let error = first_error(source(dir.path())).await;
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let said = format!("{error}: {cause}");
        // A root that did not sign our leaf could be the mistake of either file.
        let named = if words[0] == "peers would refuse" { "tls.crt" } else { name };
        assert_eq!(error.file(), Some(&*dir.join(named)), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{name}, {words:?}: {said}");
    }
    let dir = TempDir::new("pipe");
    good.write_to(dir.path()).unwrap();
    fs::remove_file(dir.join("tls.key")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(dir.join("tls.key")).status();
    if made.is_ok_and(|made| made.success()) {
        let error = first_error(source(dir.path())).await;
        assert!(error.to_string().contains("tls.key: cannot be read; check"), "{error}");
        assert!(error.to_string().contains("that it is a file"), "{error}");
    }
    let dir = TempDir::new("forbidden");
    good.write_to(dir.path()).unwrap();
    let nobody = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(dir.join("tls.key"), nobody).unwrap();
    if fs::File::open(dir.join("tls.key")).is_ok() {
        return eprintln!("skipped: whoever runs this may read everything");
    }
    let error = first_error(source(dir.path())).await;
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.file(), Some(&*dir.join("tls.key")));
    assert!(error.to_string().contains("permissions") && cause.contains("permission denied"));
}

#[tokio::test]
async fn a_key_that_everybody_may_read_is_a_warning_and_is_taken() {
    let dir = TempDir::new("open");
    ca().issue("/a").unwrap().write_to(dir.path()).unwrap();
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(dir.join("tls.key"), mode).unwrap();
        let said = support::Said::default();
        let listening = said.listen();
        let mut source = source(dir.path());
        assert!(matches!(source.next().await, Ok(SourceEvent::Update(_))));
        drop(listening);
        assert_eq!(said.text().contains("may read or replace the private key"), warned);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_file_is_believed_when_it_is_seen_empty_twice() {
    let dir = TempDir::new("emptied");
    let identity = ca().issue("/a").unwrap();
    for stays_empty in [false, true] {
        identity.write_to(dir.path()).unwrap();
        // Looks at 10 s, at 20 s and so on, a little later each time.
        let mut source =
            FileSource::in_directory(dir.path()).poll_interval(Duration::from_secs(10));
        assert!(matches!(source.next().await, Ok(SourceEvent::Update(_))));
        let writer = async {
            time::sleep(Duration::from_secs(5)).await;
            fs::write(dir.join("ca.crt"), "").unwrap();
            time::sleep(Duration::from_secs(10)).await;
            if !stays_empty {
                fs::write(dir.join("ca.crt"), identity.bundle_pem()).unwrap();
            }
        };
        let told = time::timeout(Duration::from_secs(100), source.next());
        let (told, ()) = tokio::join!(told, writer);
        assert_eq!(told.is_ok(), stays_empty, "an empty bundle revokes: {told:?}");
    }
}

#[tokio::test]
async fn one_file_may_hold_both_certificate_and_key() {
    let ours = ca();
    let dir = TempDir::new("one");
    let identity = ours.issue("/server").unwrap();
    let both = format!("{}{}", identity.cert_pem(), identity.key_pem());
    fs::write(dir.join("both.pem"), both).unwrap();
    fs::write(dir.join("ca.crt"), identity.bundle_pem()).unwrap();
    let both = dir.join("both.pem");
    let mut source = FileSource::new(&both, &both, dir.join("ca.crt"));
    assert!(matches!(source.next().await, Ok(SourceEvent::Update(_))));
}

#[tokio::test(start_paused = true)]
async fn what_is_back_after_an_error_in_the_second_reading_is_delivered_again() {
    let ours = ca();
    let dir = TempDir::new("second");
    let first = ours.issue("/server").unwrap();
    first.write_to(dir.path()).unwrap();
    let mut source = FileSource::in_directory(dir.path())
        .poll_interval(Duration::from_millis(1))
        .settle(Duration::from_millis(400));
    assert!(matches!(source.next().await, Ok(SourceEvent::Update(_))));
    ours.issue("/server").unwrap().write_to(dir.path()).unwrap();
    let breaking = async {
        time::sleep(Duration::from_millis(200)).await;
        fs::remove_file(dir.join("ca.crt")).unwrap();
    };
    let (next, ()) = tokio::join!(source.next(), breaking);
    assert_eq!(next.unwrap_err().kind(), &MaterialErrorKind::Unreadable);
    first.write_to(dir.path()).unwrap();
    let again = time::timeout(Duration::from_secs(5), source.next()).await;
    let again = again.expect("or the error would be shown for ever");
    assert!(matches!(again, Ok(SourceEvent::Update(_))));
}

#[tokio::test]
async fn a_federated_bundle_does_not_take_the_place_of_our_own() {
    let (ours, rogue) = (ca(), ca());
    let dir = TempDir::new("federated");
    ours.issue("/server").unwrap().write_to(dir.path()).unwrap();
    fs::write(dir.join("other.crt"), rogue.bundle_pem()).unwrap();
    let domain = |name: &str| name.parse::<mesh_tls::TrustDomain>().unwrap();
    let with =
        |name: &str| source(dir.path()).federated_bundle(domain(name), dir.join("other.crt"));
    assert!(matches!(with("other.test").next().await, Ok(SourceEvent::Update(_))));
    let error = with("test.local").next().await.unwrap_err();
    assert_eq!(error.kind(), &MaterialErrorKind::TwoBundles(domain("test.local")));
    let twice = with("other.test").federated_bundle(domain("other.test"), dir.join("ca.crt"));
    let error = { twice }.next().await.unwrap_err();
    assert_eq!(error.kind(), &MaterialErrorKind::TwoBundles(domain("other.test")));
}

#[tokio::test(start_paused = true)]
async fn a_root_that_was_taken_back_does_not_return_with_a_leaf_whose_time_has_come() {
    let (stays, goes) = (ca(), ca());
    let both = format!("{}{}", stays.bundle_pem(), goes.bundle_pem());
    let (start, dir) = (SystemClock::new().now(), TempDir::new("early"));
    let clock = Arc::new(ManualClock::new(start));
    stays.issue("/server").unwrap().with_bundle_pem(both.clone()).write_to(dir.path()).unwrap();
    let mesh = MeshTls::builder(source(dir.path())).clock(Arc::clone(&clock));
    let mesh = mesh.spawn().await.unwrap();

    let later = UnixTime::since_unix_epoch(Duration::from_secs(start.as_secs() + 120));
    let early = stays.issue_for("/server", later, Duration::from_secs(7200)).unwrap();
    early.with_bundle_pem(both).write_to(dir.path()).unwrap();
    eventually("it waits for its time", || mesh.stats().updates_refused > 0).await;
    assert_eq!(mesh.stats().generation, 1);
    // One root less, beside a leaf that cannot be read.
    fs::write(dir.join("tls.crt"), "garbage").unwrap();
    fs::write(dir.join("ca.crt"), stays.bundle_pem()).unwrap();
    generation(&mesh, 2).await;
    clock.advance(Duration::from_secs(120));
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(mesh.stats().generation, 2, "the root would be back");
}

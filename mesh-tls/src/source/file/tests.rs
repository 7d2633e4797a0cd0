//! Files under a writer without pause: whatever is put to use is whole.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "a writer that a busy machine keeps from its work is told by the real clock"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use tokio::time;

use super::{
    read::{Contents, read},
    *,
};
use crate::{
    dev_ca::{DevCa, DevIdentity},
    material::Material,
    mesh::testing::Published,
};

/// The replacements of each layout.
const ROUNDS: usize = 10_000;
/// So many identities take turns. More of them would only take longer to make.
const IDENTITIES: usize = 16;

/// After how many replacements the writer rests.
const STRETCH: usize = 500;
/// How long it rests at the most for what it has written to be in use. Longer than a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How one identity takes the place of another.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    /// A link to a directory, swapped by a rename, as Kubernetes does it.
    Swapped,
    /// Each file renamed into place.
    Renamed,
    /// Each file overwritten.
    Overwritten,
    /// One file with all of it, renamed into place.
    Combined,
}

impl Layout {
    /// How long the writer rests. Where it overwrites, three readings fit into a rest.
    fn rest(self) -> Duration {
        Duration::from_millis(if self == Self::Overwritten { 240 } else { 80 })
    }

    /// Between two readings. Who overwrites in place needs a writer that stops now and then, and two readings that are not
    /// one.
    fn wait(self) -> Duration {
        if self == Self::Overwritten { self.rest() / 4 } else { Duration::ZERO }
    }
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir()
            .join(format!("mesh-tls-torture-{}-{name}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn source(&self, layout: Layout) -> FileSource {
        let source = match layout {
            Layout::Combined => {
                let file = self.0.join("all.pem");
                FileSource::new(&file, &file, &file)
            }
            Layout::Swapped | Layout::Renamed | Layout::Overwritten => {
                FileSource::in_directory(&self.0)
            }
        };
        source.poll_interval(layout.wait()).settle(layout.wait())
    }

    fn write(&self, layout: Layout, round: usize, identity: &DevIdentity) {
        match layout {
            Layout::Swapped => {
                let name = format!("..round_{round}");
                let fresh = self.0.join(&name);
                fs::create_dir_all(&fresh).unwrap();
                for (name, text) in files(identity) {
                    fs::write(fresh.join(name), text).unwrap();
                    if round == 0 {
                        symlink(Path::new("..data").join(name), self.0.join(name)).unwrap();
                    }
                }
                symlink(&name, self.0.join("..data_tmp")).unwrap();
                fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
                if let Some(old) = round.checked_sub(1) {
                    fs::remove_dir_all(self.0.join(format!("..round_{old}"))).unwrap();
                }
            }
            Layout::Renamed => {
                for (name, text) in files(identity) {
                    fs::write(self.0.join("new"), text).unwrap();
                    fs::rename(self.0.join("new"), self.0.join(name)).unwrap();
                }
            }
            Layout::Overwritten => {
                for (name, text) in files(identity) {
                    fs::write(self.0.join(name), text).unwrap();
                }
            }
            Layout::Combined => {
                // One set of roots is all: a file that is the bundle too must hold no leaf, so the chain is apart.
                let text = [identity.key_pem(), identity.cert_pem()].concat();
                fs::write(self.0.join("new"), text).unwrap();
                fs::rename(self.0.join("new"), self.0.join("all.pem")).unwrap();
            }
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn files(identity: &DevIdentity) -> [(&'static str, &str); 3] {
    // The key first, so that the pair is torn for a while wherever it can be.
    [
        ("tls.key", identity.key_pem()),
        ("tls.crt", identity.cert_pem()),
        ("ca.crt", identity.bundle_pem()),
    ]
}

/// The leaf of each identity that there is, with the key and the root that belong to it.
fn truth(identities: &[DevIdentity]) -> BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)> {
    let of = |identity: &DevIdentity| {
        let material = identity.material().unwrap();
        let root = material.trust.bundles.values().next().unwrap()[0].to_vec();
        (material.chain[0].to_vec(), (material.key.secret_der().to_vec(), root))
    };
    identities.iter().map(of).collect()
}

/// What became of the deliveries of one layout.
#[derive(Debug, Default)]
struct Tally {
    delivered: usize,
    published: usize,
    refused: usize,
    errors: usize,
    mismatched: usize,
    torn_states: usize,
    /// How often the writer was kept from its work with an empty file for so long that it is meant to be believed.
    stalls: usize,
}

/// Reads until the writer has made all its replacements and the last one is in use.
async fn torture(layout: Layout, publish: fn(&Published, Material) -> bool) -> Tally {
    let dir = Arc::new(Dir::new(&format!("{layout:?}")));
    // Two authorities: a leaf of the one beside the root of the other is a bad state too.
    let cas = [(); 2].map(|()| DevCa::new("test.local".parse().unwrap()).unwrap());
    let atomic = matches!(layout, Layout::Swapped | Layout::Combined);
    let identities: Vec<_> = (0..IDENTITIES)
        .map(|at| cas[if atomic { at % 2 } else { 0 }].issue("/server").unwrap())
        .collect();
    let truth = truth(&identities);
    let mut source = dir.source(layout);
    if layout == Layout::Combined {
        // Both roots beside it, for a leaf of either.
        let roots = cas.iter().map(DevCa::bundle_pem).collect::<String>();
        fs::write(dir.0.join("ca.crt"), roots).unwrap();
        let file = dir.0.join("all.pem");
        source = FileSource::new(&file, &file, dir.0.join("ca.crt"))
            .poll_interval(Duration::ZERO)
            .settle(Duration::ZERO);
    }
    dir.write(layout, 0, &identities[0]);

    let (done, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let leaves: Vec<_> =
        identities.iter().map(|one| one.material().unwrap().chain[0].to_vec()).collect();
    let in_use = Arc::new(Mutex::new(Vec::new()));
    let writer = {
        let (dir, done, stop) = (Arc::clone(&dir), Arc::clone(&done), Arc::clone(&stop));
        let in_use = Arc::clone(&in_use);
        thread::spawn(move || {
            let mut stalls = 0;
            for round in 1..=ROUNDS {
                let began = Instant::now();
                dir.write(layout, round, &identities[round % IDENTITIES]);
                // Seen empty by two readings that agree, and by two more at the next poll: three waits lie between.
                let is_seen = layout == Layout::Overwritten && began.elapsed() >= layout.wait() * 3;
                stalls += usize::from(is_seen);
                // A reader must see some of it, however busy the machine is.
                if round % STRETCH == 0 {
                    let began = Instant::now();
                    thread::park_timeout(layout.rest());
                    let is_seen = || *in_use.lock().unwrap() == leaves[round % IDENTITIES];
                    while !is_seen() && !stop.load(Ordering::Relaxed) && began.elapsed() < PATIENCE
                    {
                        thread::park_timeout(layout.rest() / 8);
                    }
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            done.store(true, Ordering::Release);
            stalls
        })
    };
    let published = Published::new();
    let mut tally = Tally::default();
    loop {
        let is_over = done.load(Ordering::Acquire);
        let next = time::timeout(layout.rest() * 4, source.next()).await;
        match next {
            Ok(Ok(SourceEvent::Update(material))) => {
                tally.delivered += 1;
                let leaf = material.chain[0].to_vec();
                let key = material.key.secret_der().to_vec();
                let roots = material.trust.bundles.values().flatten();
                let roots: Vec<_> = roots.map(|root| root.to_vec()).collect();
                let (true_key, true_root) = &truth[&leaf];
                if !publish(&published, material) {
                    tally.refused += 1;
                    continue;
                }
                tally.published += 1;
                in_use.lock().unwrap().clone_from(&leaf);
                tally.mismatched += usize::from(key != *true_key);
                // One is enough.
                stop.store(tally.mismatched > 0, Ordering::Relaxed);
                tally.torn_states += usize::from(!roots.contains(true_root));
            }
            Ok(Ok(SourceEvent::Withdrawn)) => panic!("files withdraw nothing"),
            Ok(Err(_)) => tally.errors += 1,
            // Nothing new for a while after the last word.
            Err(_) if is_over => break,
            Err(_) => {}
        }
    }
    tally.stalls = writer.join().unwrap();
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_replacements_in_each_layout_and_nothing_torn_is_put_to_use() {
    for layout in [Layout::Swapped, Layout::Renamed, Layout::Overwritten, Layout::Combined] {
        let tally = torture(layout, Published::publish).await;
        println!("{layout:?}: {tally:?}");
        assert!(tally.published > 5, "{layout:?}: a busy reader sees some of it: {tally:?}");
        assert_eq!(tally.mismatched, 0, "{layout:?}: {tally:?}");
        // On a machine with other work a writer may not come to fill what it has emptied.
        assert!(tally.torn_states <= tally.stalls, "{layout:?}: {tally:?}");
        if matches!(layout, Layout::Swapped | Layout::Combined) {
            assert_eq!(tally.refused, 0, "{layout:?} is never torn in the first place: {tally:?}");
        }
    }
}

/// The broken twin: who takes whatever is delivered, for two readings that agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_twin_that_does_not_compare_key_and_certificate_uses_torn_pairs() {
    let tally = torture(Layout::Renamed, |_, _| true).await;
    assert!(
        tally.mismatched > 0,
        "the writer must tear pairs, or the test proves nothing: {tally:?}"
    );
}

/// Two readings that agree would hide it, and a pair that is torn is refused behind them: this is one reading alone.
#[test]
fn one_reading_is_never_of_two_directories() {
    let dir = Arc::new(Dir::new("single"));
    let ca = DevCa::new("test.local".parse().unwrap()).unwrap();
    let identities: Vec<_> = (0..IDENTITIES).map(|_| ca.issue("/server").unwrap()).collect();
    let bytes = |text: &str| text.as_bytes().to_vec();
    let pairs: BTreeMap<_, _> =
        identities.iter().map(|one| (bytes(one.cert_pem()), bytes(one.key_pem()))).collect();
    dir.write(Layout::Swapped, 0, &identities[0]);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (dir, stop) = (Arc::clone(&dir), Arc::clone(&stop));
        thread::spawn(move || {
            let rounds = (1..).take_while(|_| !stop.load(Ordering::Relaxed));
            rounds.for_each(|round| {
                dir.write(Layout::Swapped, round, &identities[round % IDENTITIES]);
            });
        })
    };
    let paths = ["tls.crt", "tls.key"].map(|name| dir.0.join(name));
    let (mut whole, mut torn, mut torn_by_path) = (0, 0, 0);
    // The broken twin reads each file by its own path, as most programs do.
    let by_path = |name: &str| fs::read(dir.0.join(name)).ok();
    for _ in 0..1_000_000 {
        if let Ok(Contents(contents)) = read(&paths)
            && let [Ok(cert), Ok(key)] = &*contents
        {
            let belong = pairs.get(&**cert).is_some_and(|true_key| *true_key == **key);
            *(if belong { &mut whole } else { &mut torn }) += 1;
        }
        if let Some((cert, key)) = by_path("tls.crt").zip(by_path("tls.key")) {
            torn_by_path += usize::from(pairs.get(&cert) != Some(&key));
        }
        if torn > 0 || whole > 1_000 && torn_by_path > 20 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    println!("{whole} whole, {torn} torn; by path {torn_by_path}");
    assert!(torn == 0 && whole > 1_000, "{torn} of {whole}");
    assert!(torn_by_path > 20, "the twin must tear, or the test proves nothing");
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_read() {
    let dir = Dir::new("large");
    let ca = DevCa::new("test.local".parse().unwrap()).unwrap();
    dir.write(Layout::Renamed, 1, &ca.issue("/server").unwrap());
    let large = fs::File::create(dir.0.join("ca.crt")).unwrap();
    large.set_len(17 * 1024 * 1024).unwrap();
    let error = dir.source(Layout::Renamed).next().await.unwrap_err();
    assert_eq!(error.kind(), &crate::error::MaterialErrorKind::Unreadable);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("large"), "{cause}");
}

#[tokio::test]
async fn what_could_not_be_read_for_a_moment_is_told_again() {
    let dir = Dir::new("unsettled");
    let (link, beside) = (dir.0.join("data"), dir.0.join("beside"));
    let file = link.join("tls.crt");
    let turn = move |to: &str| {
        symlink(to, &beside).unwrap();
        fs::rename(&beside, &link).unwrap();
    };
    for name in ["one", "two"] {
        fs::create_dir(dir.0.join(name)).unwrap();
        fs::write(dir.0.join(name).join("tls.crt"), "the same in both").unwrap();
    }
    turn("one");
    // So many that the directory is swapped while they are read, where both threads take turns on one processor too.
    let mut watched = Watched::new(vec![file; 1_000]);
    watched.set_poll_interval(Duration::from_millis(1));
    watched.set_settle(Duration::ZERO);
    assert!(watched.changed().await.is_ok());
    let patience = PATIENCE;
    let busy = Arc::new(AtomicBool::new(true));
    let turning = {
        let busy = Arc::clone(&busy);
        thread::spawn(move || {
            while busy.load(Ordering::Relaxed) {
                turn("two");
                turn("one");
            }
        })
    };
    let failed = time::timeout(patience, watched.changed()).await.map(|told| told.is_err());
    busy.store(false, Ordering::Relaxed);
    turning.join().unwrap();
    assert_eq!(failed, Ok(true), "it kept changing");
    let again = time::timeout(patience, watched.changed()).await;
    assert!(again.expect("whoever was told of the error is told that it is over").is_ok());
    let more = time::timeout(Duration::from_millis(100), watched.changed()).await;
    assert!(more.is_err(), "and that once");
}

//! Sources that misbehave, and material that comes too early.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "dev-ca")]

mod support;

use std::{sync::Arc, thread, time::Duration};

use mesh_tls::{
    DevIdentity, IdentitySource, Material, MaterialError, MaterialErrorKind, MaterialHandle,
    MeshTls, SourceEvent, StaticSource,
    clock::{Clock, ManualClock, SystemClock},
    pki_types::UnixTime,
};
use support::{PATIENCE, Said, ca, eventually, material, only};
use tokio::{sync::oneshot, time};

/// One good delivery, or none; then the same trouble for ever, without a pause.
struct Broken {
    first: Option<Material>,
    trouble: fn() -> MaterialError,
}

impl IdentitySource for Broken {
    async fn next(&mut self) -> Result<SourceEvent, MaterialError> {
        match self.first.take() {
            Some(material) => Ok(SourceEvent::Update(material)),
            None => Err((self.trouble)()),
        }
    }
}

fn broken() -> MaterialError {
    MaterialError::from_source("broken")
}

/// Runs a test on a thread of its own: what spins there would never give back the test's runtime.
fn within_patience<F: Future<Output = ()> + Send + 'static>(test: F) {
    let (done, finished) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(test);
        done.send(()).unwrap();
    });
    finished.recv_timeout(PATIENCE).expect("it must end");
}

#[test]
fn a_source_that_fails_at_once_does_not_outlast_the_time_for_the_first_material() {
    within_patience(async {
        let source = Broken { first: None, trouble: broken };
        let builder = MeshTls::builder(source).first_material_timeout(Duration::from_millis(50));
        let error = builder.spawn().await.unwrap_err();
        assert_eq!(error.kind(), &MaterialErrorKind::Source);
    });
}

#[test]
fn a_source_that_fails_at_once_does_not_take_the_runtime() {
    within_patience(async {
        let source = Broken { first: Some(material(&ca(), "/server")), trouble: broken };
        let mesh = MeshTls::builder(source).spawn().await.unwrap();
        eventually("the error is counted", || mesh.stats().source_errors > 0).await;
        assert!(mesh.stats().source_errors < 10, "it must not spin");
    });
}

#[tokio::test]
async fn a_driver_that_panics_or_is_dropped_is_no_secret() {
    let first = || Some(material(&ca(), "/server"));
    let panicking = Broken { first: first(), trouble: || panic!("a panic that the test wants") };
    let mesh = MeshTls::builder(panicking).spawn().await.unwrap();
    let told = |mesh: &MeshTls| {
        let error = mesh.status().last_error.unwrap_or_default();
        error.contains("driver has ended")
    };
    eventually("the panic shows in the status", || told(&mesh)).await;
    assert_eq!(mesh.status().generation, 1, "what there is stays in use");

    let (source, _handle) = StaticSource::new(first().unwrap());
    let (mesh, driver) = MeshTls::builder(source).build().await.unwrap();
    assert!(!told(&mesh));
    // As a runtime does at the end of a program, which is no news; that the identity is used on, is.
    let said = Said::default();
    let _listening = said.listen();
    drop(driver);
    assert!(told(&mesh));
    assert_eq!(said.text(), "");
    for _ in 0..2 {
        let (near, _far) = tokio::io::duplex(64);
        drop(time::timeout(Duration::from_millis(1), mesh.connect(near, only("/server"))).await);
        assert_eq!(said.text().matches("driver has ended").count(), 1, "{}", said.text());
    }
}

/// A mesh with an identity, and another that is valid two minutes from now.
async fn served_early() -> (MeshTls, MaterialHandle, Arc<ManualClock>, DevIdentity) {
    let ours = ca();
    let start = SystemClock::new().now();
    let clock = Arc::new(ManualClock::new(start));
    let (source, hand) = StaticSource::new(material(&ours, "/server"));
    let mesh = MeshTls::builder(source).clock(Arc::clone(&clock)).spawn().await.unwrap();
    let later = UnixTime::since_unix_epoch(Duration::from_secs(start.as_secs() + 120));
    let early = ours.issue_for("/server", later, Duration::from_secs(7200)).unwrap();
    (mesh, hand, clock, early)
}

#[tokio::test(start_paused = true)]
async fn material_that_comes_too_early_is_used_when_its_time_has_come() {
    let (mesh, hand, clock, early) = served_early().await;
    // Once: a source delivers what has changed, not what was refused.
    hand.set(early.material().unwrap());
    eventually("it is refused", || mesh.stats().updates_refused > 0).await;
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(mesh.stats().generation, 1, "its time has not come");
    clock.advance(Duration::from_secs(120));
    let reached = time::timeout(Duration::from_secs(60), mesh.reached(2)).await;
    reached.expect("it must be tried again");
    assert_eq!(mesh.status().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn material_that_came_too_early_does_not_come_back_after_a_later_word() {
    let (mesh, hand, clock, early) = served_early().await;
    hand.set(early.material().unwrap());
    hand.withdraw();
    eventually("withdrawn", || mesh.status().generation == 0).await;
    clock.advance(Duration::from_secs(120));
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(mesh.status().generation, 0);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_nobody_renews_is_told_of_in_time_and_not_all_the_time() {
    let said = Said::default();
    let _listening = said.listen();
    let told = || {
        let text = said.text();
        let of = |level: &str, words: &str| {
            text.lines().filter(|l| l.contains(level) && l.contains(words)).count()
        };
        (of("WARN", "not renewed"), of("ERROR", "has expired"))
    };
    let ours = ca();
    let start = SystemClock::new().now();
    let clock = Arc::new(ManualClock::new(start));
    // Ten seconds of its life are over when it is issued.
    let issue = |at: UnixTime| {
        let issued = ours.issue_for("/server", at, Duration::from_secs(990));
        issued.unwrap().material().unwrap()
    };
    let (source, hand) = StaticSource::new(issue(start));
    let mesh = MeshTls::builder(source).clock(Arc::clone(&clock)).spawn().await.unwrap();
    for (advance, expected) in
        [(0, (0, 0)), (785, (0, 0)), (10, (1, 0)), (140, (1, 0)), (10, (2, 0)), (50, (2, 1))]
    {
        clock.advance(Duration::from_secs(advance));
        time::sleep(Duration::from_secs(300)).await;
        assert_eq!(told(), expected, "after {advance} s more");
    }
    hand.set(issue(clock.now()));
    time::timeout(PATIENCE, mesh.reached(2)).await.unwrap();
    time::sleep(Duration::from_secs(300)).await;
    assert_eq!(told(), (2, 1), "it was renewed");
    clock.advance(Duration::from_secs(800));
    time::sleep(Duration::from_secs(300)).await;
    assert_eq!(told(), (3, 1), "and the next one is not");
}

#[tokio::test]
async fn the_control_an_idle_driver_ends_without_a_word() {
    let (source, _handle) = StaticSource::new(material(&ca(), "/server"));
    let (mesh, driver) = MeshTls::builder(source).build().await.unwrap();
    let (done, ended) = oneshot::channel();
    tokio::spawn(async move {
        driver.await;
        done.send(()).unwrap();
    });
    drop(mesh);
    time::timeout(PATIENCE, ended).await.unwrap().unwrap();
}

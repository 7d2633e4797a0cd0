//! A mark is never lost, whoever makes it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{future::Future, pin::pin, sync::atomic::AtomicBool, time::Duration};

use tokio::{
    task::coop::{consume_budget, has_budget_remaining},
    time::sleep,
};

use super::{timer::Timer, *};
use crate::{DevCa, MeshTls, PeerPolicy, ServerMode, StaticSource};

const SECOND: Duration = Duration::from_secs(1);

/// A connection without a peer, of a server that takes them. Who judges it must live.
async fn plain(ending: Ending) -> (Watch, Arc<Live>, MeshTls) {
    let identity = DevCa::new("td".parse().unwrap()).unwrap().issue("/server").unwrap();
    let source = StaticSource::new(identity.material().unwrap()).0;
    let mesh = MeshTls::builder(source).spawn().await.unwrap();
    let acceptor = mesh.acceptor(PeerPolicy::nobody()).with_mode(ServerMode::Permissive);
    let (policy, mode) = (acceptor.policy_handle(), acceptor.mode_handle());
    let judge = Judge::server(mesh.shared(), 0, policy.load(), policy, mode);
    let live = mesh.shared().live.register();
    (Watch::server(Arc::clone(&live), judge, ending, None), live, mesh)
}

fn aging() -> Ending {
    Ending { max_age: Some(SECOND), ..Ending::default() }
}

/// The broken twin: between its last look for marks and its look at the state there is room for one.
fn attend_carelessly(live: &Live) -> State {
    while live.unmark() {}
    live.state()
}

#[tokio::test]
async fn nobody_waits_behind_a_mark() {
    let (mut watch, live, _mesh) = plain(Ending::default()).await;
    let over = AtomicBool::new(false);
    let caught = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                live.mark();
            }
        });
        let marked = (0..100_000).any(|_| watch.attend(None) == State::Marked);
        let caught = (0..50_000_000).any(|_| attend_carelessly(&live) == State::Marked);
        over.store(true, Ordering::Relaxed);
        assert!(!marked, "who is marked must not wait");
        caught
    });
    assert!(caught, "the twin must be caught");
}

#[tokio::test(start_paused = true)]
async fn a_limit_marks_also_what_was_confirmed() {
    let (mut watch, live, _mesh) = plain(aging()).await;
    watch.confirm(None).unwrap();
    assert_eq!(live.state(), State::Well);
    sleep(2 * SECOND).await;
    assert_eq!(live.state(), State::Marked, "though nobody waits");
    watch.confirm(None).unwrap();
    assert_eq!(live.state(), State::Draining, "the mark was the limit's");
    assert_eq!(watch.why(), Some(&Why::TooOld));
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_set_also_by_who_has_used_up_his_share() {
    let (_, live, _mesh) = plain(Ending::default()).await;
    let waker = Waker::from(Arc::clone(&live));
    while has_budget_remaining() {
        let _spent = pin!(consume_budget()).poll(&mut Context::from_waker(Waker::noop()));
    }
    let limit = Timer::after(SECOND, &waker);
    // The broken twin.
    let mut careless = Box::pin(sleep(SECOND));
    let _told_to_yield = careless.as_mut().poll(&mut Context::from_waker(&waker));
    sleep(2 * SECOND).await;
    assert!(limit.is_over());
    assert!(!careless.is_elapsed(), "nobody has set it");
}

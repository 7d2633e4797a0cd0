//! A mark is never lost, whoever makes it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{future::Future, pin::pin, sync::atomic::AtomicBool, task::Poll, time::Duration};

use tokio::{
    task::coop::{consume_budget, has_budget_remaining},
    time::sleep,
};

use super::{timer::Timer, *};
use crate::{
    DevCa, MeshTls, PeerPolicy, ServerMode, StaticSource, backend::Role, error::Untrusted,
};

const SECOND: Duration = Duration::from_secs(1);

/// A connection without a peer, of a server that takes them. Who judges it must live.
async fn plain(ending: Ending) -> (Watch, Arc<Live>, MeshTls) {
    let identity = DevCa::new("td".parse().unwrap()).unwrap().issue("/server").unwrap();
    let source = StaticSource::new(identity.material().unwrap()).0;
    let mesh = MeshTls::builder(source).spawn().await.unwrap();
    let acceptor = mesh.acceptor(PeerPolicy::nobody()).with_mode(ServerMode::Permissive);
    let (policy, mode) = (acceptor.policy_handle(), acceptor.mode_handle());
    let judge = Judge::server(mesh.shared(), (0, policy.load()), None, policy, mode);
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
        let marked = (0..100_000).any(|_| watch.attend(Side::Read, None) == State::Marked);
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

#[tokio::test(start_paused = true)]
async fn nobody_waits_behind_the_end_of_the_grace() {
    let (mut watch, _live, _mesh) = plain(aging()).await;
    let mut cx = Context::from_waker(Waker::noop());
    sleep(2 * SECOND).await;
    let state = watch.attend(Side::Read, None);
    assert_eq!(state, State::Draining);
    assert!(watch.wait(&mut cx, Side::Write, state), "there is time");
    // It ends between the look at the state and the wait: nobody would wake who comes too late.
    sleep(11 * SECOND).await;
    assert!(!watch.wait(&mut cx, Side::Write, state));
    let state = watch.attend(Side::Read, None);
    assert_eq!(state, State::Closed);
    assert!(!watch.wait(&mut cx, Side::Write, state), "not for a flush either");
}

/// Notes that it was woken.
#[derive(Default)]
struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_wakes_at_once_wakes_who_asks() {
    let (mut watch, _live, _mesh) = plain(aging()).await;
    sleep(2 * SECOND).await;
    let state = watch.attend(Side::Read, None);
    let task = Arc::new(Task::default());
    let waker = Waker::from(Arc::clone(&task));
    let polled = watch.poll_out(&mut Context::from_waker(&waker), state, |cx| {
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    });
    assert!(polled.is_pending());
    assert!(task.0.load(Ordering::Relaxed));
}

#[tokio::test]
async fn what_is_known_of_a_connection_keeps_no_task() {
    let (mut watch, live, _mesh) = plain(Ending::default()).await;
    let task = Arc::new(Task::default());
    let gone = Arc::downgrade(&task);
    let waker = Waker::from(task);
    assert_eq!(watch.attend(Side::Read, None), State::Well);
    assert!(watch.wait(&mut Context::from_waker(&waker), Side::Read, State::Well));
    drop(waker);
    assert!(gone.upgrade().is_some(), "it waits");
    drop(watch);
    assert!(gone.upgrade().is_none());
    assert_eq!(live.state(), State::Well);
}

/// Handlers know a peer by the name that let it in, so by that name it must go on.
#[tokio::test]
async fn who_was_let_in_by_one_name_does_not_stay_by_another() {
    let key = || rcgen::KeyPair::generate().unwrap();
    let authority = || {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        rcgen::CertifiedIssuer::self_signed(params, key()).unwrap()
    };
    let both = authority();
    let params = rcgen::CertificateParams::new(["one.test".into(), "two.test".into()]).unwrap();
    let leaf = params.signed_by(&key(), &both).unwrap().der().clone();
    let ca = DevCa::new("td".parse().unwrap()).unwrap();
    let trusting = |domains: &[&str]| {
        let own = ca.issue("/server").unwrap().material().unwrap();
        domains.iter().fold(own, |own, domain| {
            own.with_bundle_pem(domain.parse().unwrap(), both.pem().as_bytes()).unwrap()
        })
    };
    let named = |domain: &str, name| PeerPolicy::dns_name(domain.parse().unwrap(), name).unwrap();
    let (a1, a2, b1) = (named("a", "one.test"), named("a", "two.test"), named("b", "one.test"));
    let every = a1.clone().or(&a2).or(&b1);
    let reversed = b1.clone().or(&a2).or(&a1);
    let (in_a, in_b, in_both) = (&["a"][..], &["b"][..], &["a", "b"][..]);
    let not_authorized = || Err(Why::NotAuthorized("spiffe://a".parse().unwrap()));
    let not_trusted = |why| Err(Why::NotTrusted(why));
    for (policy, domains, expected) in [
        (&a1, in_both, Ok(())),
        (&reversed, in_both, Ok(())),
        (&every, in_a, Ok(())),
        (&a2, in_both, not_authorized()),
        (&b1, in_both, not_authorized()),
        (&every, in_b, not_trusted(Untrusted::UnknownTrustDomain("a".parse().unwrap()))),
    ] {
        let (source, hand) = StaticSource::new(trusting(in_both));
        let mesh = MeshTls::builder(source).spawn().await.unwrap();
        let acceptor = mesh.acceptor(every.clone());
        let (handle, mode) = (acceptor.policy_handle(), acceptor.mode_handle());
        let current = mesh.shared().current().unwrap();
        let now = rustls_pki_types::UnixTime::now();
        let peer = current.verifier(&every, true).judge(&leaf, &[], now, Role::Client).unwrap();
        assert_eq!((peer.id().as_str(), peer.dns_name()), ("spiffe://a", Some("one.test")));
        let first = (current.number, handle.load());
        let mut judge = Judge::server(mesh.shared(), first, Some(peer), handle.clone(), mode);
        hand.set(trusting(domains));
        mesh.reached(2).await;
        handle.set(policy.clone());
        assert_eq!(judge.judge(Some(std::slice::from_ref(&leaf))), expected, "{policy:?}");
    }
}

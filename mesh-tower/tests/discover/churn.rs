//! A thousand changes a second among a thousand endpoints, while requests fly.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{Endpoint, Weight};
use mesh_tower::{
    discover::{self, Handle},
    upstream::{Origin, Upstream},
};
use tower::{ServiceExt, service_fn};

const ENDPOINTS: usize = 1_000;
/// Changes are made so many at a time, at intervals that make 1,000 a second of them.
const AT_ONCE: usize = 5;

/// What each endpoint's service holds; gone when the mesh holds the endpoint no longer.
struct Held;

type AllHeld = Mutex<Vec<(String, Weak<Held>)>>;

/// What a broken program would do.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Keeps what it has of each endpoint.
    Leaks,
    /// Tells a set in two steps, the first of which is empty.
    Flaps,
}

#[derive(Debug)]
struct Outcome {
    answered: u64,
    failed: u64,
    /// Endpoints of which something is left though they are not listed.
    left_behind: usize,
    /// At one time.
    most_held: usize,
    /// The upstream has what is listed, with its weights.
    is_in_line: bool,
    /// After the upstream was dropped.
    outlive: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_and_nothing_stays_behind() {
    let outcome = run(3_000, Fault::None).await;
    eprintln!("{outcome:?}");
    assert!(outcome.answered > 1_000, "{outcome:?}: no load");
    assert_eq!((outcome.failed, outcome.left_behind, outcome.outlive), (0, 0, 0));
    assert!(outcome.is_in_line);
    // Old snapshots are let go while it lasts, not at the end: one or two may be in the hands of a caller.
    assert!(outcome.most_held < ENDPOINTS + 200, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broken_twins_are_found_out() {
    let leaks = run(300, Fault::Leaks).await;
    assert!(leaks.left_behind >= 100 && leaks.outlive > ENDPOINTS, "{leaks:?}");
    let flaps = run(300, Fault::Flaps).await;
    assert!(flaps.failed > 0, "{flaps:?}");
}

async fn run(changes: usize, fault: Fault) -> Outcome {
    let held = Arc::new(AllHeld::default());
    let kept = Arc::new(Mutex::new(Vec::new()));
    let make = {
        let (held, kept) = (held.clone(), kept.clone());
        move |origin: &Origin<'_>| {
            let mine = Arc::new(Held);
            let address = origin.endpoint().address().to_string();
            held.lock().expect("whole").push((address, Arc::downgrade(&mine)));
            if fault == Fault::Leaks {
                kept.lock().expect("whole").push(mine.clone());
            }
            service_fn(move |_: Request<_>| {
                let mine = mine.clone();
                async move {
                    // A request is under way while the next snapshot is published.
                    tokio::task::yield_now().await;
                    drop(mine);
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            })
        }
    };
    let (list, source) = discover::list((0..ENDPOINTS).map(endpoint));
    let upstream = Upstream::builder("up").discover(source).spawn(make).expect("valid");
    while upstream.status().len() < ENDPOINTS {
        tokio::task::yield_now().await;
    }

    let stop = Arc::new(AtomicBool::new(false));
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let upstream = upstream.clone();
            let (stop, answered, failed) = (stop.clone(), answered.clone(), failed.clone());
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let request = Request::new(Full::<Bytes>::default());
                    match upstream.clone().oneshot(request).await {
                        Ok(response) if response.status() == 200 => answered.fetch_add(1, SeqCst),
                        Ok(_) | Err(_) => failed.fetch_add(1, SeqCst),
                    };
                    // A refusal is ready at once, and would keep the driver from its worker.
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();

    let mut next = ENDPOINTS;
    let mut most_held = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(AT_ONCE as u64));
    for change in 0..changes {
        if change % AT_ONCE == 0 {
            ticks.tick().await;
        }
        churn(&list, change, &mut next);
        if change % 100 == 0 {
            // However busy the machine is: the mesh has seen what is listed, and has let go of what came before.
            let listed = || by_address(list.endpoints());
            until(|| is_in_line(&upstream.status(), &listed())).await;
            most_held = most_held.max(alive(&held).len());
            if fault == Fault::Flaps {
                let endpoints = list.endpoints();
                list.set([]);
                // Both steps at once would be one change: the mesh is to see the first.
                let before = failed.load(SeqCst);
                until(|| failed.load(SeqCst) > before).await;
                list.set(endpoints);
            }
        }
    }
    // All is told, and nothing is left of what was removed.
    let listed = by_address(list.endpoints());
    assert_eq!(listed.len(), ENDPOINTS);
    let left_behind =
        || alive(&held).iter().filter(|address| !listed.contains_key(*address)).count();
    let is_in_line = || is_in_line(&upstream.status(), &listed);
    // Who leaks is not waited for.
    until(|| is_in_line() && (fault == Fault::Leaks || left_behind() == 0)).await;
    let (is_in_line, left_behind) = (is_in_line(), left_behind());
    until(|| fault != Fault::None || answered.load(SeqCst) > 1_000).await;
    stop.store(true, SeqCst);
    for caller in callers {
        caller.await.expect("no caller panics");
    }
    drop(upstream);
    until(|| fault == Fault::Leaks || alive(&held).is_empty()).await;
    let outcome = Outcome {
        answered: answered.load(SeqCst),
        failed: failed.load(SeqCst),
        left_behind,
        most_held,
        is_in_line,
        outlive: alive(&held).len(),
    };
    drop(kept);
    outcome
}

/// Some time for what is on its way; whether it came is the caller's to look at.
async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn by_address(endpoints: Vec<Endpoint>) -> HashMap<String, Endpoint> {
    endpoints.into_iter().map(|e| (e.address().to_string(), e)).collect()
}

fn endpoint(number: usize) -> Endpoint {
    Endpoint::new(format!("10.{}.{}.{}:80", number >> 16, (number >> 8) & 255, number & 255))
}

/// One goes, one comes, one changes its weight.
fn churn(list: &Handle, change: usize, next: &mut usize) {
    let oldest = *next - ENDPOINTS;
    match change % 3 {
        0 => list.remove(endpoint(oldest).address()),
        1 => {
            list.insert(endpoint(*next));
            *next += 1;
        }
        _ => {
            let weight = Weight::new(1 + change as u32 % 7).expect("more than 0");
            list.insert(endpoint(oldest + ENDPOINTS / 2).with_weight(weight));
        }
    }
}

fn is_in_line(
    status: &[mesh_tower::upstream::EndpointStatus],
    listed: &HashMap<String, Endpoint>,
) -> bool {
    let same = |e: &Endpoint| listed.get(&**e.address()) == Some(e);
    status.len() == listed.len() && status.iter().all(|status| same(&status.endpoint))
}

fn alive(held: &AllHeld) -> Vec<String> {
    let mut held = held.lock().expect("nobody panics with it");
    held.retain(|(_, held)| held.strong_count() > 0);
    held.iter().map(|(address, _)| address.clone()).collect()
}

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
const CHANGES: usize = 3_000;
/// Changes are made so many at a time, at intervals that make 1,000 a second of them.
const AT_ONCE: usize = 5;

/// What each endpoint's service holds; gone when the mesh holds the endpoint no longer.
struct Held;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_and_nothing_stays_behind() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let make = {
        let held = held.clone();
        move |origin: &Origin<'_>| {
            let mine = Arc::new(Held);
            let address = origin.endpoint().address().to_string();
            held.lock().unwrap().push((address, Arc::downgrade(&mine)));
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
    let upstream = Upstream::builder("up").discover(source).spawn(make).unwrap();
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
                }
            })
        })
        .collect();

    let mut next = ENDPOINTS;
    let mut most_held = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(AT_ONCE as u64));
    for change in 0..CHANGES {
        if change % AT_ONCE == 0 {
            ticks.tick().await;
        }
        churn(&list, change, &mut next);
        if change % 100 == 0 {
            most_held = most_held.max(alive(&held).len());
        }
    }
    stop.store(true, SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(failed.load(SeqCst), 0);
    assert!(answered.load(SeqCst) > 1_000, "{answered:?} requests are no load");

    // All is told, and nothing is left of what was removed.
    let listed: HashMap<String, Endpoint> =
        list.endpoints().into_iter().map(|e| (e.address().to_string(), e)).collect();
    let wait = tokio::time::timeout(Duration::from_secs(10), async {
        while !is_in_line(&upstream.status(), &listed) || alive(&held).len() != listed.len() {
            tokio::task::yield_now().await;
        }
    });
    let settled = wait.await;
    assert!(settled.is_ok(), "{} listed, {} held", listed.len(), alive(&held).len());
    assert!(alive(&held).iter().all(|address| listed.contains_key(address)));
    assert_eq!(listed.len(), ENDPOINTS);
    assert_eq!(upstream.discovery().unwrap().endpoints, ENDPOINTS);
    // Old snapshots are let go while it lasts, not at the end. A removal and an insertion alternate, and a snapshot or
    // two may be in the hands of a caller.
    assert!(most_held < ENDPOINTS + 100, "{most_held} endpoints were held at once");

    drop(upstream);
    let wait = tokio::time::timeout(Duration::from_secs(10), async {
        while !alive(&held).is_empty() {
            tokio::task::yield_now().await;
        }
    });
    assert!(wait.await.is_ok(), "{} endpoints outlive their upstream", alive(&held).len());
    eprintln!(
        "{CHANGES} changes, {} requests, at most {most_held} endpoints held",
        answered.load(SeqCst)
    );
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

fn alive(held: &Mutex<Vec<(String, Weak<Held>)>>) -> Vec<String> {
    let mut held = held.lock().expect("nobody panics with it");
    held.retain(|(_, held)| held.strong_count() > 0);
    held.iter().map(|(address, _)| address.clone()).collect()
}

//! Callers, and what they have seen.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use http::Request;
use http_body_util::Empty;
use mesh_core::Timestamp;
use mesh_tower::{BoxError, Clock, pool::Protocol};
use tokio::{task::JoinHandle, time::sleep};
use tower::ServiceExt;

use super::*;

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) ok: AtomicU64,
    failed: AtomicU64,
    /// When an endpoint was last heard of.
    heard: Mutex<BTreeMap<String, Timestamp>>,
    errors: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Seen {
    pub(crate) fn all(&self) -> u64 {
        self.ok.load(SeqCst) + self.failed.load(SeqCst)
    }

    pub(crate) fn success(&self) -> f64 {
        self.ok.load(SeqCst) as f64 / self.all() as f64
    }

    /// Nearly every caller got an answer, and this is said of it.
    pub(crate) fn is_good(&self, protocol: Protocol, back: impl Debug) {
        let (all, success) = (self.all(), self.success());
        println!("{protocol:?}: {all} requests, {:.3} % ok, back after {back:?}", 100.0 * success);
        let errors = self.errors.lock().unwrap();
        assert!(success >= BAR, "{} of {all}: {errors:?}", errors.len());
    }

    pub(crate) async fn requests(&self, count: u64) {
        // Patience is for the next of them: how many a busy machine carries in a minute is not the question.
        let mut had = self.all();
        while had < count {
            in_time(async {
                while self.all() == had {
                    sleep(5 * MS).await;
                }
            })
            .await;
            had = self.all();
        }
    }

    /// How long it takes until that endpoint answers.
    pub(crate) async fn back(&self, address: SocketAddr) -> Duration {
        let from = Clock.now();
        let name = address.to_string();
        in_time(async {
            while self.heard.lock().unwrap().get(&name).is_none_or(|at| *at <= from) {
                sleep(MS).await;
            }
        })
        .await;
        Clock.now().since(from)
    }
}

/// Callers who ask one request after the other.
pub(crate) struct Load {
    pub(crate) seen: Arc<Seen>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn on(shop: &Shop) -> Self {
        let seen = Arc::new(Seen::default());
        let callers = (0..16).map(|_| tokio::spawn(call(shop.clone(), seen.clone()))).collect();
        Self { seen, callers }
    }

    pub(crate) async fn end(self) -> Arc<Seen> {
        self.seen.is_over.store(true, SeqCst);
        for caller in self.callers {
            caller.await.unwrap();
        }
        self.seen
    }
}

async fn call(shop: Shop, seen: Arc<Seen>) {
    while !seen.is_over.load(SeqCst) {
        let answer = async {
            let response = shop.clone().oneshot(Request::get("/").body(Empty::new())?).await?;
            let is_good = response.status().is_success();
            Ok::<_, BoxError>((is_good, bytes(response).await?))
        };
        match tokio::time::timeout(PATIENCE, answer).await.expect("hangs") {
            Ok((true, from)) => {
                seen.ok.fetch_add(1, SeqCst);
                let from = String::from_utf8(from.to_vec()).unwrap();
                seen.heard.lock().unwrap().insert(from, Clock.now());
            }
            other => {
                seen.failed.fetch_add(1, SeqCst);
                seen.errors.lock().unwrap().push(format!("{other:?}"));
            }
        }
        sleep(2 * MS).await;
    }
}

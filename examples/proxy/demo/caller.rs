//! A service that calls the payment service, in plain HTTP through its proxy. It knows nothing of the mesh.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use mesh_tower::Clock;
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

use super::world::SERVICE;

/// One request after the other, a hundred a second: the policies of the demonstration allow one request to wait for a
/// connection, so a crowd would be turned away, as they say.
const PACE: Duration = Duration::from_millis(10);
/// So many latencies are remembered for the percentiles.
const REMEMBERED: usize = 10_000;

/// The caller, and what it has seen.
pub(super) struct Caller {
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the caller has seen of its requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) requests: u64,
    pub(super) ok: u64,
    pub(super) by_version: BTreeMap<String, u64>,
    latencies: VecDeque<Duration>,
}

impl Caller {
    pub(super) fn start(proxy: SocketAddr) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(call(proxy, seen.clone(), stopped));
        Self { seen, stop, task: Mutex::new(Some(task)) }
    }

    /// Lets the request in flight end.
    pub(super) async fn stop(&self) {
        self.stop.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // A panic in it has been printed already.
            drop(task.await);
        }
    }

    pub(super) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

impl Seen {
    /// The latency that `share` of the requests stayed below.
    pub(super) fn percentile(&self, share: f64) -> Duration {
        let mut sorted: Vec<_> = self.latencies.iter().copied().collect();
        sorted.sort_unstable();
        let index = (share * sorted.len() as f64) as usize;
        sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    fn record(&mut self, ok: bool, version: Option<String>, took: Duration) {
        self.requests += 1;
        self.ok += u64::from(ok);
        if let Some(version) = version {
            *self.by_version.entry(version).or_default() += 1;
        }
        if self.latencies.len() == REMEMBERED {
            self.latencies.pop_front();
        }
        self.latencies.push_back(took);
    }
}

async fn call(proxy: SocketAddr, seen: Arc<Mutex<Seen>>, stopped: watch::Receiver<bool>) {
    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !*stopped.borrow() {
        pace.tick().await;
        let start = Clock.now();
        let (ok, version) = one(&client, proxy).await.unwrap_or((false, None));
        lock(&seen).record(ok, version, Clock.now().since(start));
    }
}

async fn one(
    client: &Client<HttpConnector, Empty<Bytes>>,
    proxy: SocketAddr,
) -> Result<(bool, Option<String>), Box<dyn std::error::Error + Send + Sync>> {
    let request =
        Request::get(format!("http://{proxy}/pay")).header(HOST, SERVICE).body(Empty::new())?;
    let response = client.request(request).await?;
    let ok = response.status().is_success();
    let version = response.headers().get("x-version");
    let version = version.and_then(|version| version.to_str().ok()).map(str::to_owned);
    response.into_body().collect().await?;
    Ok((ok, version.filter(|_| ok)))
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Endpoints die under load: one is killed, one answers nothing any more, and both come back. Callers notice nothing,
//! and traffic returns by itself.
//!
//! What bounds the return of an endpoint, once somebody listens there again: the rest of its ejection, which is never
//! more than the longest that is configured; then a request goes there, and over a new connection it takes at most the
//! time to connect and the time of a try. Where the pool has a connection that has become silent, that is found out by
//! the requests over it, which may cost one more ejection; after that ejection it has been silent for long enough to be
//! left.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "figures of the story")]

#[path = "story_endpoints_die/lists.rs"]
mod lists;
#[path = "story_endpoints_die/load.rs"]
mod load;
#[path = "story_endpoints_die/packets.rs"]
mod packets;
#[path = "story_endpoints_die/processes.rs"]
mod processes;
#[path = "story_endpoints_die/silence.rs"]
mod silence;
mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Empty;
use mesh_core::{Ratio, outlier, retry};
use mesh_tower::{
    pool::{Config, HttpEndpoints, Protocol},
    upstream::{Builder, HttpUpstream, Life, Upstream},
};
use tokio::time::sleep;

use load::{Load, Seen};
use processes::Process;
use support::*;

const MS: Duration = Duration::from_millis(1);
/// The time of a try, and the time to connect.
const TRY: Duration = Duration::from_millis(250);
const LONGEST_EJECTION: Duration = Duration::from_secs(1);
/// What a busy machine adds to all of that.
const SLACK: Duration = Duration::from_secs(5);
/// Until an endpoint is back, if its connections were closed.
const BACK: Duration =
    LONGEST_EJECTION.saturating_add(TRY).saturating_add(TRY).saturating_add(SLACK);
/// And if they have become silent.
const BACK_FROM_SILENCE: Duration = LONGEST_EJECTION.saturating_add(BACK);
const BAR: f64 = 0.999;

type Shop = HttpUpstream<Empty<Bytes>>;

fn pool(protocol: Protocol) -> Config {
    Config::default().with_protocol(protocol).with_connect_timeout(TRY)
}

/// Everything on that this story is about.
fn protected(endpoints: &[SocketAddr]) -> Builder {
    let outlier = outlier::Config::default()
        .with_consecutive_5xx(3)
        .with_max_ejection_percent(Ratio::ONE)
        .and_then(|config| config.with_base_ejection_time(LONGEST_EJECTION / 4))
        .and_then(|config| config.with_max_ejection_time(LONGEST_EJECTION))
        .unwrap();
    let retry = retry::Config::istio()
        .with_retries(3)
        .with_retry_on("5xx,reset,connect-failure,refused-stream".parse().unwrap())
        .with_per_try_timeout(Some(TRY));
    plain(endpoints).retry(retry).outlier(outlier)
}

fn plain(endpoints: &[SocketAddr]) -> Builder {
    Upstream::builder("shop")
        .endpoints(endpoints.iter().copied().map(endpoint))
        .timeout(8 * TRY)
        .retry(retry::Config::none())
        .outlier(outlier::Config::off())
}

/// One is killed, one stopped: the third carries on alone. Then both are started anew. The load, and how long each took
/// to be back.
async fn story(
    build: impl FnOnce(&[SocketAddr]) -> Builder,
    protocol: Protocol,
    requests: u64,
) -> (Arc<Seen>, [Duration; 2]) {
    let ports = [(); 3].map(|()| closed_port());
    let mut all = Vec::new();
    for port in &ports {
        all.push(Process::start(port).await);
    }
    let addresses = ports.each_ref().map(|port| port.address);
    let shop: Shop = build(&addresses).pool(pool(protocol)).spawn(HttpEndpoints::plain()).unwrap();
    let load = Load::on(&shop);
    load.seen.requests(requests / 10).await;
    all[0].kill().await;
    load.seen.requests(requests / 5).await;
    all[1].stop().await;
    sleep(1_500 * MS).await;

    all[0] = Process::start(&ports[0]).await;
    let first = load.seen.back(addresses[0]).await;
    all[1].kill().await;
    all[1] = Process::start(&ports[1]).await;
    let second = load.seen.back(addresses[1]).await;
    load.seen.requests(requests).await;
    assert!(shop.status().iter().all(|status| status.life != Life::Draining));
    (load.end().await, [first, second])
}

async fn callers_notice_nothing(protocol: Protocol) {
    let (seen, back) = story(protected, protocol, 10_000).await;
    seen.is_good(protocol, back);
    for back in back {
        assert!(back <= BACK, "{back:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_callers_notice_nothing() {
    callers_notice_nothing(Protocol::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_callers_notice_nothing() {
    callers_notice_nothing(Protocol::Http2).await;
}

/// The twin without retries and ejections misses the bar by far: the load does hit what dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_mesh_callers_notice() {
    let (seen, _) = story(plain, Protocol::Http2, 2_000).await;
    assert!(seen.success() < BAR, "{} of {} are good", seen.ok.load(SeqCst), seen.all());
}

//! Bugs that leading Rust libraries have today, each as a test that passes here.
//!
//! Who has which bug was found by running the versions named, or by reading them. The number in front of each is its
//! place in a list of 37 behaviours that a serious implementation must have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "peers_bugs/attempts.rs"]
mod attempts;
#[path = "peers_bugs/balancing.rs"]
mod balancing;
#[path = "peers_bugs/breakers.rs"]
mod breakers;
#[path = "peers_bugs/endpoints.rs"]
mod endpoints;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use mesh_core::{Ratio, breaker, retry};
use tower::Service;

const SECOND: Duration = Duration::from_secs(1);

/// Opens after two failures in a row for 10 s; so many probes then, each of which has 5 s.
fn two_strikes(probes: u32) -> breaker::Config {
    breaker::Config::builder()
        .with_consecutive_failures(Some(2))
        .with_open_for(10 * SECOND)
        .with_jitter(Ratio::ZERO)
        .with_half_open_permits(probes)
        .with_half_open_successes(probes)
        .with_probe_deadline(5 * SECOND)
        .build()
        .unwrap()
}

fn two_retries() -> retry::Config {
    retry::Config::none().with_retries(2).with_retry_on("5xx,connect-failure".parse().unwrap())
}

/// What a call of [`Backend`] does.
#[derive(Clone, Copy)]
enum Does {
    Well,
    Badly,
    After(Duration),
    Hangs,
}

/// A service that counts its calls, and how often it is asked whether it is ready.
#[derive(Clone, Default)]
struct Backend(Arc<(AtomicUsize, AtomicUsize)>);

impl Backend {
    fn calls(&self) -> usize {
        self.0.0.load(SeqCst)
    }

    fn ready_polls(&self) -> usize {
        self.0.1.load(SeqCst)
    }
}

impl Service<Does> for Backend {
    type Response = ();
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.1.fetch_add(1, SeqCst);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, does: Does) -> Self::Future {
        self.0.0.fetch_add(1, SeqCst);
        Box::pin(async move {
            match does {
                Does::Well => {}
                Does::Badly => return Err(std::io::Error::other("badly")),
                Does::After(time) => tokio::time::sleep(time).await,
                Does::Hangs => std::future::pending().await,
            }
            Ok(())
        })
    }
}

async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

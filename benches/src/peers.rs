//! The same work done by others from the registry, around the same service that does nothing.

use std::{
    future::{Ready, ready},
    hint::black_box,
    sync::Arc,
    time::Duration,
};

use http::Request;
use mesh_core::{Endpoint, balance};
use mesh_tower::balance::Balance;
use tower::{
    BoxError, ServiceBuilder,
    buffer::BufferLayer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
    retry::{
        Policy,
        budget::{Budget, TpsBudget},
    },
};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_outlier::{OutlierDetectionLayer, OutlierDetector};
use tower_service::Service;

use crate::{
    Case,
    case::{call, runtime},
    stack::{Body, Noop, bare, with_headers},
};

const TIMEOUT: Duration = Duration::from_secs(15);

/// tower's layers one by one, and then all together.
pub fn stacks() -> Vec<Case> {
    let retry = || ServiceBuilder::new().retry(Retries::new()).service(Noop);
    vec![
        Case::service("tower Timeout", ServiceBuilder::new().timeout(TIMEOUT).service(Noop), bare),
        Case::service("tower Retry + TpsBudget", retry(), bare),
        Case::service("tower Retry + TpsBudget, 8 headers", retry(), with_headers),
        Case::service(
            "tower LoadShed + ConcurrencyLimit",
            ServiceBuilder::new().load_shed().concurrency_limit(1_024).service(Noop),
            bare,
        ),
        Case::spawned(
            "tower Buffer",
            || ServiceBuilder::new().layer(BufferLayer::new(1_024)).service(Noop),
            bare,
        ),
        Case::spawned("tower: all of these, p2c over 10, breaker", || all_together(10), bare),
    ]
}

/// Breakers and outlier detection.
pub fn breakers() -> Vec<Case> {
    let resilience = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .build()
        .expect("half of 100 calls is a rule");
    let breaker = resilience.layer_fn(Noop);
    vec![
        Case::service("tower-resilience breaker, last 100 calls", breaker.clone(), bare),
        Case::service("tower-resilience outlier", outlier(Noop), bare),
        Case::service("tower-resilience breaker + outlier", outlier(breaker), bare),
        Case::shared("failsafe, default", failsafe::Config::new().build(), |breaker, calls| {
            for _ in 0..calls {
                let called = failsafe::CircuitBreaker::call(breaker, || Ok::<_, ()>(()));
                black_box(called).expect("it is closed");
            }
        }),
        Case::shared(
            "recloser, last 100 calls",
            recloser::Recloser::custom().closed_len(100).build(),
            |breaker, calls| {
                for _ in 0..calls {
                    black_box(breaker.call(|| Ok::<_, ()>(()))).expect("it is closed");
                }
            },
        ),
    ]
}

/// tower's balancer over so many endpoints. It cannot be shared without a `Buffer`.
pub fn picks() -> Vec<Case> {
    [10, 1_000]
        .into_iter()
        .map(|endpoints| {
            let balance = p2c(vec![Noop; endpoints]);
            Case::alone(format!("tower p2c, {endpoints} endpoints"), balance, |balance, calls| {
                runtime().block_on(call(balance, bare, calls));
            })
        })
        .collect()
}

/// What is to be assembled of tower's parts to choose among so many endpoints from more than one place: the balancer has one
/// owner, a task behind a `Buffer`. And, for comparison, this crate's balancer as a layer, which is `Clone`.
pub fn choosing() -> Vec<Case> {
    let alone = Case::alone("tower p2c, 10000 endpoints", None, |balance, calls| {
        let balance = balance.get_or_insert_with(|| p2c(vec![Noop; 10_000]));
        runtime().block_on(call(balance, bare, calls));
    });
    let buffered = |endpoints| {
        let make = move || {
            ServiceBuilder::new().layer(BufferLayer::new(1_024)).service(p2c(vec![Noop; endpoints]))
        };
        Case::spawned(format!("tower Buffer + p2c, {endpoints} endpoints"), make, bare)
    };
    let layer = |endpoints| {
        let balance = Balance::new(balance::Config::peak_ewma(), |_: &Endpoint| Noop);
        for host in 0..endpoints {
            balance.insert(Endpoint::new(format!("10.0.0.{host}:80")));
        }
        Case::service(format!("Balance by peak-EWMA, {endpoints} endpoints"), balance, bare)
    };
    vec![alone, buffered(10), buffered(1_000), buffered(10_000), layer(10), layer(1_000)]
}

/// Timeout, retry with budget, load shed, limit, a buffer so that it can be cloned, and under it the balancer over
/// endpoints with a breaker each. No outlier detection, no metrics.
fn all_together(
    endpoints: usize,
) -> impl Service<Request<Body>, Future: Send, Response: Send, Error: Send> + Clone + Send + 'static
{
    let breaker = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .build()
        .expect("half of 100 calls is a rule");
    let services = (0..endpoints).map(|_| breaker.layer_fn(Noop)).collect();
    ServiceBuilder::new()
        .timeout(TIMEOUT)
        .retry(Retries::new())
        .load_shed()
        .concurrency_limit(1_024)
        .layer(BufferLayer::new(1_024))
        .service(p2c(services))
}

type P2c<S> =
    tower::balance::p2c::Balance<ServiceList<std::vec::IntoIter<PeakEwma<S>>>, Request<Body>>;

fn p2c<S>(services: Vec<S>) -> P2c<S>
where
    S: Service<Request<Body>, Error: Into<BoxError>>,
{
    let measured: Vec<_> = services
        .into_iter()
        .map(|service| {
            let decay = 10e9;
            PeakEwma::new(service, Duration::from_millis(30), decay, CompleteOnResponse::default())
        })
        .collect();
    P2c::new(ServiceList::new(measured.into_iter()))
}

fn outlier<S>(
    service: S,
) -> impl Service<Request<Body>, Future: Send, Response: Send, Error: Send> + Clone + Send + 'static
where
    S: Service<Request<Body>, Future: Send, Response: Send, Error: Send + std::error::Error>
        + Clone
        + Send
        + 'static,
{
    let detector = OutlierDetector::new();
    detector.register("one", 5);
    let layer = OutlierDetectionLayer::builder().detector(detector).instance_name("one").build();
    ServiceBuilder::new().layer(layer.expect("a name and a detector are enough")).service(service)
}

/// Retries every error while the budget lasts.
#[derive(Clone, Debug)]
struct Retries(Arc<TpsBudget>);

impl Retries {
    fn new() -> Self {
        Self(Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2)))
    }
}

impl<Res, E> Policy<Request<Body>, Res, E> for Retries {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<Body>, result: &mut Result<Res, E>) -> Option<Ready<()>> {
        match result {
            Ok(_) => {
                self.0.deposit();
                None
            }
            Err(_) => self.0.withdraw().then(|| ready(())),
        }
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}

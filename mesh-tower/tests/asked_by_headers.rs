//! What a request asks for by Envoy's headers, and gets only where somebody has said so: its time, each attempt's, and
//! its retries; in the retry layer and in an upstream.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{Empty, Full};
use mesh_core::{
    Endpoint, backoff, budget,
    deadline::{Deadline, Policy},
    limit, outlier,
    retry::Config,
};
use mesh_tower::{
    BoxError, Clock, MeshError,
    body::ReplayBody,
    error::Reason,
    retry::RetryLayer,
    upstream::{self, Builder, Origin, Upstream},
};
use tower::{Layer, Service, ServiceExt, service_fn};

type Sent = Request<Full<Bytes>>;

type Headers = &'static [(&'static str, &'static str)];

/// The headers of the attempts that arrived.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<HeaderMap>>>);

impl Seen {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn last(&self) -> HeaderMap {
        self.0.lock().unwrap().last().unwrap().clone()
    }
}

/// A service that takes its time, and then gives the same answer each time.
fn inner(
    seen: Seen,
    time: Duration,
    status: u16,
) -> impl Service<
    Request<ReplayBody<Full<Bytes>>>,
    Response = Response<Empty<Bytes>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        seen.0.lock().unwrap().push(request.headers().clone());
        async move {
            tokio::time::sleep(time).await;
            Ok::<_, BoxError>(Response::builder().status(status).body(Empty::new()).unwrap())
        }
    })
}

fn request(headers: Headers) -> Sent {
    let mut request = Request::new(Full::from("order 7"));
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Retries without a wait, so that times are whole.
fn config(retries: u32) -> Config {
    let at_once = backoff::Config::fixed(Duration::ZERO);
    Config::none()
        .with_retries(retries)
        .with_backoff(at_once)
        .with_retry_on("gateway-error".parse().unwrap())
}

fn upstream_of(
    seen: &Seen,
    (time, status): (Duration, u16),
    change: impl FnOnce(Builder) -> Builder,
) -> impl Service<Sent, Response = Response<impl http_body::Body>, Error = BoxError> + Clone {
    let seen = seen.clone();
    let builder = Upstream::builder("shop")
        .endpoints([Endpoint::new("a:1"), Endpoint::new("b:1")])
        .outlier(outlier::Config::off())
        .budget(budget::Config::unlimited())
        .retry(config(1));
    change(builder).build_undriven(move |_: &Origin<'_>| inner(seen.clone(), time, status)).unwrap()
}

/// The status or the reason, and after how long.
async fn outcome<S, B>(service: S, request: Sent) -> (Result<u16, Reason>, u128)
where
    S: Service<Sent, Response = Response<B>, Error = BoxError>,
{
    let start = Clock.now();
    let result = service.oneshot(request).await;
    let result = result
        .map(|response| response.status().as_u16())
        .map_err(|error| MeshError::find(&*error).unwrap().reason());
    (result, Clock.now().since(start).as_millis())
}

const RETRIES: Headers = &[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "3")];

#[tokio::test(start_paused = true)]
async fn a_request_changes_its_retries_only_where_it_may() {
    for (on, status, headers, attempts) in [
        (false, 500, RETRIES, 1),
        (true, 500, RETRIES, 4),
        (true, 500, &[] as Headers, 1),
        (true, 503, &[], 2),
        // Fewer, too, and none.
        (true, 503, &[("x-envoy-max-retries", "0")], 1),
        (
            true,
            418,
            &[
                ("x-envoy-retriable-status-codes", "418"),
                ("x-envoy-retry-on", "retriable-status-codes"),
            ],
            2,
        ),
        (true, 500, &[("x-envoy-retry-on", "whatever")], 1),
    ] {
        let case = format!("{on} {status} {headers:?}");
        let seen = Seen::default();
        let layer = RetryLayer::new(config(1)).with_overrides(on);
        let layer = layer
            .with_budget(Arc::new(budget::Budget::new(budget::Config::unlimited(), Clock.now())));
        let service = layer.layer(inner(seen.clone(), Duration::ZERO, status));
        assert_eq!(outcome(service, request(headers)).await.0, Ok(status), "{case}");
        assert_eq!(seen.count(), attempts, "layer: {case}");
        assert_eq!(seen.last().contains_key("x-envoy-max-retries"), !on && headers.len() > 1);

        let seen = Seen::default();
        let what = (Duration::ZERO, status);
        let service = upstream_of(&seen, what, |builder| builder.retry_overrides(on));
        assert_eq!(outcome(service, request(headers)).await.0, Ok(status), "{case}");
        assert_eq!(seen.count(), attempts, "upstream: {case}");
        assert_eq!(seen.last().contains_key("x-envoy-retry-on"), !on && headers.len() > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_without_retries_of_its_own_makes_those_that_are_asked_for() {
    let seen = Seen::default();
    let service = upstream_of(&seen, (Duration::ZERO, 500), |builder| {
        builder.retry(Config::none()).retry_overrides(true)
    });
    outcome(service, request(RETRIES)).await.0.unwrap();
    assert_eq!(seen.count(), 4, "the body was kept");
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_what_callers_ask_for_and_a_retry_is_not_retried() {
    let seen = Seen::default();
    let two = limit::Config::default().with_max_retries(0);
    let service = upstream_of(&seen, (Duration::ZERO, 500), |builder| {
        builder.limits(two).retry_overrides(true)
    });
    outcome(service.clone(), request(RETRIES)).await.0.unwrap();
    assert_eq!(seen.count(), 1, "no retry may be in flight");

    let seen = Seen::default();
    let service =
        upstream_of(&seen, (Duration::ZERO, 500), |builder| builder.retry_overrides(true));
    let mut again = request(RETRIES);
    again.headers_mut().insert("x-envoy-attempt-count", "2".parse().unwrap());
    outcome(service, again).await.0.unwrap();
    assert_eq!(seen.count(), 1);
}

const TIME: Headers = &[("x-envoy-upstream-rq-timeout-ms", "700")];

const PER_TRY: Headers =
    &[("x-envoy-upstream-rq-timeout-ms", "700"), ("x-envoy-upstream-rq-per-try-timeout-ms", "200")];

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn a_request_says_how_long_it_and_each_attempt_may_take_only_where_it_may() {
    let late = Err(Reason::DeadlineExceeded);
    let attempt = Err(Reason::AttemptTimeout);
    let policy = Policy::envoy();
    for (policy, headers, result, after, attempts) in [
        (None, PER_TRY, late, 5_000, 1),
        (Some(policy), TIME, late, 700, 1),
        // Per try 200 ms; a timeout of an attempt is a gateway error to the conditions.
        (Some(policy), PER_TRY, attempt, 400, 2),
        (Some(policy), &[] as Headers, late, 15_000, 1),
        (Some(policy.with_per_try_timeout(Some(MS(300)))), &[], attempt, 600, 2),
        (Some(policy.with_per_try_timeout(Some(MS(300)))), PER_TRY, attempt, 400, 2),
        // One that never ends before the whole is none.
        (Some(policy.with_per_try_timeout(Some(MS(900)))), TIME, late, 700, 1),
    ] {
        let case = format!("{policy:?} {headers:?}");
        let seen = Seen::default();
        let service = upstream_of(&seen, (HOUR, 200), |builder| {
            let builder = builder.timeout(MS(5_000));
            match policy {
                Some(policy) => builder.deadline_policy(policy),
                None => builder,
            }
        });
        assert_eq!(outcome(service, request(headers)).await, (result, after), "upstream: {case}");
        assert_eq!(seen.count(), attempts, "upstream: {case}");
        let told = &seen.last()["x-envoy-expected-rq-timeout-ms"];
        let on_last = after / attempts as u128;
        assert_eq!(told, &on_last.to_string(), "what the attempt has: {case}");
        let passed_on = seen.last().contains_key("x-envoy-upstream-rq-timeout-ms");
        assert_eq!(passed_on, policy.is_none(), "{case}");

        let Some(policy) = policy else { continue };
        let seen = Seen::default();
        let layer = RetryLayer::new(config(1)).with_deadline_policy(policy).unwrap();
        let service = layer.layer(inner(seen.clone(), HOUR, 200));
        assert_eq!(outcome(service, request(headers)).await, (result, after), "layer: {case}");
        assert_eq!(seen.count(), attempts, "layer: {case}");
        assert!(!seen.last().contains_key("x-envoy-upstream-rq-per-try-timeout-ms"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_takes_the_place_of_the_standard_reading_but_not_of_the_process_own_deadline() {
    let expected: Headers = &[("x-envoy-expected-rq-timeout-ms", "700")];
    let seen = Seen::default();
    let standard = upstream_of(&seen, (HOUR, 200), |builder| builder);
    assert_eq!(outcome(standard, request(expected)).await.1, 700);
    let policy = Policy::envoy();
    let asks = |policy| {
        let service =
            upstream_of(&seen, (HOUR, 200), move |builder| builder.deadline_policy(policy));
        async move { outcome(service, request(expected)).await.1 }
    };
    assert_eq!(asks(policy).await, 15_000);
    assert_eq!(asks(policy.with_respect_expected(true)).await, 700);

    let service = upstream_of(&seen, (HOUR, 200), |builder| builder.deadline_policy(policy));
    let mut bounded = request(TIME);
    bounded.extensions_mut().insert(Deadline::after(Clock.now(), MS(300)));
    assert_eq!(outcome(service.clone(), bounded).await.1, 300);

    // The per-try timeout of the retry policy stands where the deadline policy has none.
    let service = upstream_of(&seen, (HOUR, 200), |builder| {
        builder.deadline_policy(policy).retry(config(1).with_per_try_timeout(Some(MS(250))))
    });
    assert_eq!(outcome(service, request(TIME)).await, (Err(Reason::AttemptTimeout), 500));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_to_outlive_its_time_is_refused_by_name() {
    let hedging = Policy::envoy().with_hedging(true);
    let config = upstream::Config::new("shop").with_deadline_policy(Some(hedging));
    assert_eq!(config.build().unwrap_err().field(), "hedging");
    assert_eq!(
        RetryLayer::new(Config::istio()).with_deadline_policy(hedging).unwrap_err().field(),
        "hedging"
    );
    let said = upstream::Config::new("shop").with_retry_overrides(true);
    let said = said.with_deadline_policy(Some(Policy::envoy())).build().unwrap();
    assert!(said.retry_overrides());
    assert_eq!(said.deadline_policy(), Some(&Policy::envoy()));
}

//! The server stack under pressures that the application reports: who is turned away, and whose time is shortened.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests are tests"
)]

mod support;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use mesh_core::{Ratio, deadline::Deadline};
use mesh_tower::{
    Chance, Clock,
    limit::{
        self,
        overload::{Action, Trigger},
    },
    server::{ServerBuilder, ServerLayer},
};
use support::{Counts, Script, Strict, drop_at_every_poll};
use tower::{Layer, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn percent(percent: u32) -> Ratio {
    Ratio::from_percent(percent)
}

/// Nothing up to half of the heap, everything from the whole of it on.
fn action() -> Arc<Action> {
    Arc::new(Action::new([Trigger::scaled("heap", percent(50), percent(100)).unwrap()]).unwrap())
}

fn request(headers: &[(&'static str, &'static str)]) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

/// Answers with the milliseconds that it has.
fn left(request: Request<Empty<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let deadline = request.extensions().get().copied().unwrap_or(Deadline::NONE);
    let left = deadline.remaining(Clock.now()).map(|left| left.as_millis());
    Ok(Response::new(Full::from(format!("{left:?}"))))
}

/// How many of 10,000 requests are refused.
async fn refused(builder: ServerBuilder) -> (usize, Arc<Counts>) {
    let (inner, counts) = Strict::new(Script::default(), left);
    let service = builder.chance(Chance::seeded(5)).build().layer(inner);
    let mut refused = 0;
    for _ in 0..10_000 {
        let response = service.clone().oneshot(request(&[])).await.unwrap();
        refused += usize::from(response.status() == 503);
    }
    (refused, counts)
}

#[tokio::test(start_paused = true)]
async fn the_share_that_is_turned_away_is_the_state_of_the_action() {
    let shed = action();
    let builder = || ServerLayer::builder().shed(Arc::clone(&shed));
    for (pressure, expected) in
        [(0, 0..=0), (50, 0..=0), (60, 1_800..=2_200), (100, 10_000..=10_000), (40, 0..=0)]
    {
        shed.on_pressure("heap", percent(pressure));
        let (refused, counts) = refused(builder()).await;
        assert!(expected.contains(&refused), "{pressure} %: {refused}");
        assert_eq!(
            counts.calls(),
            10_000 - refused,
            "who is turned away costs the handler nothing"
        );
    }
    // The twin: a server that was not told of the action.
    shed.on_pressure("heap", percent(100));
    assert_eq!(refused(ServerLayer::builder()).await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_takes_no_slot_and_says_why() {
    let shed = action();
    let limit = limit::Config::default().with_max_requests(1).with_max_pending(0);
    let layer = ServerLayer::builder().limit(limit).shed(Arc::clone(&shed)).named("shop").build();
    let (inner, counts) = Strict::new(Script { polls: 2, ..Script::default() }, left);
    let service = layer.layer(inner);
    shed.on_pressure("heap", percent(100));
    let response = service.clone().oneshot(request(&[])).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-mesh-flag"]),
        (503, &"OM".parse().unwrap())
    );
    assert_eq!((layer.limit().in_flight(), counts.reserved()), (0, 0));

    let grpc = request(&[("content-type", "application/grpc")]);
    let response = service.clone().oneshot(grpc).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"14".parse().unwrap())
    );

    // The pressure is gone, and nothing is left of it.
    shed.on_pressure("heap", Ratio::ZERO);
    assert!(drop_at_every_poll(service, &counts, || request(&[])).await > 2);
    assert_eq!(layer.limit().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn times_are_shortened_to_their_least_and_not_below() {
    let hurry = action();
    let (inner, _) = Strict::new(Script::default(), left);
    let layer = |builder: ServerBuilder| {
        builder.reduce_timeouts(Arc::clone(&hurry), SECOND * 10).build().layer(inner.clone())
    };
    let bounded = layer(ServerLayer::builder().default_timeout(SECOND * 60));
    let endless = layer(ServerLayer::builder());
    let asks = |service: &mesh_tower::server::Server<_>, millis: Option<&'static str>| {
        let asked = millis.map(|millis| ("x-envoy-expected-rq-timeout-ms", millis));
        let call = service.clone().oneshot(request(asked.as_slice()));
        async { call.await.unwrap().into_body().collect().await.unwrap().to_bytes() }
    };
    for (pressure, default, asked) in [
        (0, "Some(60000)", "Some(30000)"),
        (60, "Some(50000)", "Some(26000)"),
        (100, "Some(10000)", "Some(10000)"),
        (10, "Some(60000)", "Some(30000)"),
    ] {
        hurry.on_pressure("heap", percent(pressure));
        assert_eq!(asks(&bounded, None).await, default, "{pressure} %");
        assert_eq!(asks(&bounded, Some("30000")).await, asked, "{pressure} %");
        assert_eq!(asks(&bounded, Some("5000")).await, "Some(5000)", "less than the least");
        assert_eq!(asks(&endless, None).await, "None", "there is nothing to shorten");
    }
    // What the process itself has set stays as it is.
    hurry.on_pressure("heap", percent(100));
    let mut own = request(&[]);
    own.extensions_mut().insert(Deadline::after(Clock.now(), SECOND * 3));
    let body = bounded.oneshot(own).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "Some(3000)");
}

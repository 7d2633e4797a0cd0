//! What the route answers itself.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use mesh_core::{
    Ratio,
    route::{
        Abort, AbortStatus, Action, Delay, DirectResponse, Fault, Forward, Match, PathMatch,
        PathRewrite, Redirect, Rule, Share, VirtualHost, gateway::backends,
    },
};
use mesh_tower::{Clock, body::AnswerBody};

use super::{Fixture, to};

fn grpc() -> Request<()> {
    Request::post("/shop.Cart/Add").header("content-type", "application/grpc").body(()).unwrap()
}

async fn body(response: Response<AnswerBody<Full<Bytes>>>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn no_route_is_404() {
    let never = Match::any().with_path(PathMatch::exact("/never"));
    let fixture = Fixture::hosts(vec![VirtualHost::new(["*"], vec![to("v1").with_match(never)])]);
    let response = fixture.get("http://shop/").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-mesh-flag"]),
        (404, &"NR".parse().unwrap())
    );
    let response = fixture.send(grpc()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"12".parse().unwrap())
    );
    assert!(fixture.seen.borrow().is_empty());
    let nobody = Fixture::hosts(Vec::new());
    assert_eq!(nobody.get("/").await.status(), 404);
}

#[tokio::test]
async fn a_backend_that_does_not_exist_keeps_its_share() {
    let split = backends(vec![(Some("a"), Some(80)), (None, Some(20))]).unwrap();
    let split = split.map(|to| to.map_or_else(Share::nowhere, Share::new));
    let fixture = Fixture::new(vec![Rule::new(Forward::shares(split).into())]);
    let mut errors = 0;
    for _ in 0..1_000 {
        errors += u32::from(fixture.get("/").await.status() == 500);
    }
    assert!(errors.abs_diff(200) < 60, "{errors}");
    let none = Rule::new(Forward::shares(mesh_core::route::Split::single(Share::nowhere())).into());
    let response = Fixture::new(vec![none]).send(grpc()).await;
    assert_eq!(response.headers()["grpc-status"], "14");
}

fn faulty(abort: Option<AbortStatus>, delay: Option<Duration>, share: Ratio) -> Fixture {
    let fault = Fault::none()
        .with_abort(abort.map(|status| Abort::new(status, share)))
        .with_delay(delay.map(|delay| Delay::new(delay, share)));
    Fixture::new(vec![to("v1").with_fault(fault)])
}

#[tokio::test]
async fn an_abort_never_reaches_the_destination() {
    let http = |status| AbortStatus::http(status).unwrap();
    let fixture = faulty(Some(http(503)), None, Ratio::ONE);
    let response = fixture.get("/").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-mesh-flag"]),
        (503, &"FI".parse().unwrap())
    );
    assert_eq!(body(response).await, "fault filter abort");
    let response = fixture.send(grpc()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"14".parse().unwrap())
    );
    assert!(body(response).await.is_empty());
    assert!(fixture.seen.borrow().is_empty());

    let fixture = faulty(Some(AbortStatus::grpc("NOT_FOUND").unwrap()), None, Ratio::ONE);
    assert_eq!(fixture.send(grpc()).await.headers()["grpc-status"], "5");
    assert_eq!(fixture.get("/").await.status(), 404);
    assert_eq!(faulty(Some(http(600)), None, Ratio::ONE).get("/").await.status().as_u16(), 600);
}

#[tokio::test]
async fn an_abort_has_its_share() {
    let fixture = faulty(Some(AbortStatus::http(503).unwrap()), None, Ratio::from_percent(10));
    for _ in 0..10_000 {
        fixture.get("/").await;
    }
    assert!(fixture.counts()["v1"].abs_diff(9_000) < 90, "{:?}", fixture.counts());
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_goes_on_afterwards() {
    let delay = Duration::from_secs(5);
    let fixture = faulty(None, Some(delay), Ratio::ONE);
    let start = Clock.now();
    assert_eq!(fixture.get("/").await.status(), 200);
    assert_eq!(Clock.now().since(start), delay);
    // Held back, then aborted.
    let fixture = faulty(Some(AbortStatus::http(500).unwrap()), Some(delay), Ratio::ONE);
    assert_eq!(fixture.get("/").await.status(), 500);
    assert_eq!(Clock.now().since(start), delay * 2);
    // Dropped while it is held back, it never comes.
    let fixture = faulty(None, Some(delay), Ratio::ONE);
    let gone = tokio::time::timeout(Duration::from_secs(1), fixture.get("/")).await;
    assert!(gone.is_err() && fixture.seen.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_no_part_of_the_timeout() {
    let delay = Duration::from_secs(5);
    let fault = Fault::none().with_delay(Some(Delay::new(delay, Ratio::ONE)));
    let forward = Forward::to("v1").with_timeout(Some(Duration::from_secs(1)));
    let fixture = Fixture::new(vec![Rule::new(forward.into()).with_fault(fault)]);
    fixture.get("/").await;
    let deadline = fixture.last().1.extensions.get::<mesh_core::deadline::Deadline>().copied();
    assert_eq!(deadline.unwrap().remaining(Clock.now()), Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn redirects_and_direct_responses() {
    let redirect = Redirect::new()
        .with_status(308)
        .unwrap()
        .with_scheme(Some("https".into()))
        .with_rewrite(Some(PathRewrite::Segments("/new".into())));
    let moved = Match::any().with_path(PathMatch::segments("/old"));
    let response = DirectResponse::new(418, "tea").unwrap();
    let fixture = Fixture::new(vec![
        Rule::new(Action::Redirect(redirect)).with_match(moved),
        Rule::new(Action::Respond(response)),
    ]);
    let response = fixture.get("http://shop:80/old/x?a=1").await;
    assert_eq!(response.status(), 308);
    assert_eq!(response.headers()["location"], "https://shop/new/x?a=1");
    let response = fixture.get("http://shop/").await;
    assert_eq!(response.status(), 418);
    assert_eq!(body(response).await, "tea");
    assert!(fixture.seen.borrow().is_empty());
}

#[tokio::test]
async fn a_rewrite_that_makes_no_path_is_400() {
    let cut = PathRewrite::Regex { pattern: "^/".into(), substitution: String::new() };
    let fixture = Fixture::new(vec![Rule::new(Forward::to("v1").with_path(Some(cut)).into())]);
    let response = fixture.get("/a").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-mesh-flag"]),
        (400, &"DPE".parse().unwrap())
    );
}

//! Mirrors: copies are sent, bounded, and nobody's business.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header::HOST};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use mesh_core::{
    Ratio,
    route::{Client, Forward, Mirror, Rule, VirtualHost},
};
use mesh_tower::{
    BoxError, Chance,
    body::ReplayBody,
    route::{MirrorLimits, Mirroring},
};
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};

type Heard = Arc<Mutex<Vec<(&'static str, String, String)>>>;
type Backend =
    BoxCloneSyncService<Request<ReplayBody<Full<Bytes>>>, Response<Full<Bytes>>, BoxError>;

/// Reads the body, unless it is deaf; a destination `slow` takes an hour, `broken` fails.
fn backend(name: &'static str, heard: &Heard) -> Backend {
    let heard = heard.clone();
    BoxCloneSyncService::new(service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let heard = heard.clone();
        async move {
            let host = match request.uri().authority() {
                Some(authority) => authority.to_string(),
                None => request.headers()[HOST].to_str().unwrap().to_owned(),
            };
            if name == "deaf" {
                return Ok(Response::new(Full::default()));
            }
            let body = request.into_body().collect().await?.to_bytes();
            heard.lock().unwrap().push((name, host, String::from_utf8(body.to_vec()).unwrap()));
            match name {
                "slow" => tokio::time::sleep(Duration::from_secs(3_600)).await,
                "broken" => return Err("broken".into()),
                _ => {}
            }
            Ok::<_, BoxError>(Response::new(Full::from(name)))
        }
    }))
}

fn router(
    forward: Forward<&'static str>,
    limits: MirrorLimits,
) -> (Mirroring<&'static str, Backend>, Heard) {
    let heard = Heard::default();
    let hosts = vec![VirtualHost::new(["*"], vec![Rule::new(forward.into())])];
    let make = |to: &&'static str| backend(to, &heard);
    let router = Mirroring::new(hosts, &Client::default(), limits, make).unwrap();
    (router.with_chance(Chance::seeded(1)), heard)
}

async fn send<S, RB>(router: &S, body: &'static str) -> Result<Bytes, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>, Error = BoxError> + Clone,
    RB: Body<Data = Bytes, Error = Infallible>,
{
    let request = Request::post("http://shop:8080/").body(Full::from(body)).unwrap();
    let response = router.clone().oneshot(request).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn to(mirrors: &[(&'static str, Ratio)]) -> Forward<&'static str> {
    mirrors.iter().fold(Forward::to("v1"), |forward, (to, share)| {
        forward.with_mirror(Mirror::new(*to, *share))
    })
}

#[tokio::test(start_paused = true)]
async fn a_copy_has_the_body_and_another_host() {
    let (router, heard) =
        router(to(&[("a", Ratio::ONE), ("b", Ratio::ONE)]), MirrorLimits::default());
    assert_eq!(send(&router, "order 7").await.unwrap(), "v1");
    settle().await;
    let mut all = heard.lock().unwrap().clone();
    all[1..].sort();
    let order = |name, host: &str| (name, host.to_owned(), "order 7".to_owned());
    let copy = "shop-shadow:8080";
    assert_eq!(all, [order("v1", "shop:8080"), order("a", copy), order("b", copy)]);
    assert_eq!(
        (router.copies_sent(), router.copies_dropped(), router.copies_in_flight()),
        (2, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_requests() {
    let tenth = Ratio::from_percent(10);
    let (router, _) = router(to(&[("a", tenth), ("none", Ratio::ZERO)]), MirrorLimits::default());
    for _ in 0..2_000 {
        send(&router, "").await.unwrap();
        settle().await;
    }
    assert!(router.copies_sent().abs_diff(200) < 60, "{}", router.copies_sent());
}

#[tokio::test(start_paused = true)]
async fn a_slow_copy_holds_up_nobody_and_takes_a_place() {
    let limits = MirrorLimits::default().with_in_flight(3).with_time(Duration::from_secs(10));
    let (router, _) = router(to(&[("slow", Ratio::ONE)]), limits);
    let start = mesh_tower::Clock.now();
    for _ in 0..5 {
        send(&router, "x").await.unwrap();
        settle().await;
    }
    assert_eq!(mesh_tower::Clock.now(), start, "no request waited");
    assert_eq!(
        (router.copies_in_flight(), router.copies_sent(), router.copies_dropped()),
        (3, 3, 2)
    );
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(router.copies_in_flight(), 0, "they have their time");
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_a_copy_is_nobodys() {
    let (router, _) = router(to(&[("broken", Ratio::ONE)]), MirrorLimits::default());
    assert_eq!(send(&router, "x").await.unwrap(), "v1");
    settle().await;
    assert_eq!((router.copies_sent(), router.copies_in_flight()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_or_unread_is_not_copied() {
    let (small, heard) = router(to(&[("a", Ratio::ONE)]), MirrorLimits::default().with_body(3));
    assert_eq!(send(&small, "four").await.unwrap(), "v1");
    settle().await;
    assert_eq!((small.copies_sent(), small.copies_dropped()), (0, 1));
    assert_eq!(heard.lock().unwrap().len(), 1);
    let deaf = Forward::to("deaf").with_mirror(Mirror::new("a", Ratio::ONE));
    let (deaf, _) = router(deaf, MirrorLimits::default());
    send(&deaf, "order").await.unwrap();
    settle().await;
    assert_eq!((deaf.copies_sent(), deaf.copies_dropped(), deaf.copies_in_flight()), (0, 1, 0));
}

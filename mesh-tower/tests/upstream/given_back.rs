//! What a request holds, and that it comes back however the request ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_limit_counts_a_request_until_its_body_has_ended() {
    let world = World::new(|_| Act::Status(200));
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .limits(limit::Config::default().with_max_requests(1));
    let (upstream, _driver) = build(builder, &world);
    let first = upstream.clone().oneshot(request()).await.unwrap();
    let error = status(&upstream).await.unwrap_err();
    assert_eq!((error.flag(), error.http_status().as_u16()), ("UO", 503));
    assert_eq!(upstream.status()[0].active, 1);
    first.into_body().collect().await.unwrap();
    assert_eq!(upstream.status()[0].active, 0);
    let second = upstream.clone().oneshot(request()).await.unwrap();
    drop(second);
    assert_eq!(status(&upstream).await.unwrap(), 200, "a dropped body gives the slot back too");
}

/// Polls a request `polls` times, drops it, and asks whether everything came back.
async fn cancelled_after(polls: usize) -> bool {
    let world = World::new(|seen| match seen.number {
        1 => Act::Status(503),
        2 => Act::After(Duration::from_secs(1), 503),
        _ => Act::Status(200),
    });
    let budget = budget::Config::concurrent(mesh_core::Ratio::ONE, 1);
    let builder = Upstream::builder("shop")
        .endpoints(endpoints(&["a:1"]))
        .limits(limit::Config::default().with_max_requests(1).with_max_retries(1))
        .outlier(outlier::Config::off())
        .breaker(breaker::Config::builder().with_consecutive_failures(Some(9)).build().unwrap())
        .budget(budget)
        .timeout(Duration::from_secs(60))
        .retry(retry(4));
    let (upstream, _driver) = build(builder, &world);
    let mut future = Box::pin(upstream.clone().oneshot(request()));
    let mut finished = false;
    for _ in 0..polls {
        match poll_once(&mut future) {
            Poll::Ready(answer) => {
                assert_eq!(answer.unwrap().status(), 200);
                finished = true;
                break;
            }
            Poll::Pending => tokio::time::advance(Duration::from_millis(50)).await,
        }
    }
    drop(future);
    assert_eq!(world.live(), 0, "after {polls} polls");
    assert_eq!(upstream.status()[0].active, 0, "after {polls} polls");
    // One slot for requests and one for retries: the next request needs both back.
    assert_eq!(status(&upstream).await.unwrap(), 200, "after {polls} polls");
    finished
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_point_everything_comes_back() {
    let mut polls = 0;
    while !cancelled_after(polls).await {
        polls += 1;
        assert!(polls < 200, "it never ends");
    }
    assert!(polls > 5, "there were points to cancel at: {polls}");
}

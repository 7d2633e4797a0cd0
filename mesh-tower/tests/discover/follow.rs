//! Sets, changes, errors and ends, as an upstream follows them.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{Endpoint, Labels};
use mesh_tower::{
    BoxError,
    discover::{self, Discover, Update},
    upstream::{MakeEndpoint, Origin, Upstream},
};
use tokio::sync::{
    Notify,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tower::{ServiceExt, service_fn};

struct Script(UnboundedReceiver<Result<Update, BoxError>>);

impl Discover for Script {
    fn poll_update(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Update, BoxError>>> {
        self.0.poll_recv(cx)
    }
}

type Items = UnboundedSender<Result<Update, BoxError>>;

fn script() -> (Items, Script) {
    let (items, script) = unbounded_channel();
    (items, Script(script))
}

fn at(address: &str) -> Endpoint {
    Endpoint::new(address)
}

fn nothing(_: &Origin<'_>) {}

fn addresses<M>(upstream: &Upstream<M>) -> Vec<String>
where
    M: MakeEndpoint<Service: Clone>,
{
    let status = upstream.status();
    status.iter().map(|status| status.endpoint.address().to_string()).collect()
}

/// Lets the driver do all it has to do now.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sets_and_changes_are_followed_and_errors_keep_the_last_good_set() {
    let (items, script) = script();
    let builder = Upstream::builder("up").endpoints([at("first:1")]).discover(script);
    let upstream = builder.spawn(nothing).unwrap();
    settle().await;
    // Until the source has spoken, the endpoints to begin with are there.
    assert_eq!(addresses(&upstream), ["first:1"]);
    assert_eq!(upstream.discovery().unwrap().age, None);

    items
        .send(Ok(Update::Set(vec![at("a:1"), at("b:1"), at("a:1").with_label("v", "2")])))
        .unwrap();
    settle().await;
    assert_eq!(addresses(&upstream), ["a:1", "b:1"]);
    // Of equal addresses the last counts.
    assert_eq!(upstream.status()[0].endpoint.labels().get("v"), Some("2"));

    items.send(Ok(Update::Insert(at("c:1")))).unwrap();
    items.send(Ok(Update::Remove("b:1".into()))).unwrap();
    items.send(Ok(Update::Remove("never:1".into()))).unwrap();
    settle().await;
    assert_eq!(addresses(&upstream), ["a:1", "c:1"]);

    tokio::time::advance(Duration::from_secs(30)).await;
    items.send(Err(io::Error::other("the registry is away").into())).unwrap();
    settle().await;
    tokio::time::advance(Duration::from_secs(7)).await;
    assert_eq!(addresses(&upstream), ["a:1", "c:1"]);
    let status = upstream.discovery().unwrap();
    assert_eq!(status.age, Some(Duration::from_secs(37)));
    assert_eq!((status.endpoints, status.updates, status.failures), (2, 4, 1));
    let error = status.last_error.as_ref().unwrap();
    assert_eq!((&*error.message, error.ago), ("the registry is away", Duration::from_secs(7)));
    assert_eq!(
        status.to_string(),
        "2 endpoints, as of 37.0s ago, failing (the registry is away, 7.0s ago)"
    );

    items.send(Ok(Update::Set(vec![]))).unwrap();
    settle().await;
    let status = upstream.discovery().unwrap();
    assert_eq!(addresses(&upstream), [""; 0]);
    assert_eq!((status.age, status.failures), (Some(Duration::ZERO), 0));
    assert!(status.last_error.is_some() && !status.has_ended);

    items.send(Ok(Update::Insert(at("d:1")))).unwrap();
    drop(items);
    settle().await;
    assert_eq!(addresses(&upstream), ["d:1"]);
    assert!(upstream.discovery().unwrap().has_ended);
}

#[tokio::test]
async fn without_a_source_there_is_no_status() {
    let upstream = Upstream::builder("up").endpoints([at("a:1")]).spawn(nothing).unwrap();
    settle().await;
    assert!(upstream.discovery().is_none());
}

/// How often `make` is called tells publications apart: an endpoint that comes and goes within one is never made.
#[tokio::test]
async fn a_burst_is_published_once() {
    let burst = [
        Update::Insert(at("a:1")),
        Update::Remove("a:1".into()),
        Update::Insert(at("b:1").with_label("v", "1")),
        Update::Insert(at("b:1").with_label("v", "2")),
    ];
    let made = Arc::new(AtomicUsize::new(0));
    let counting = |made: &Arc<AtomicUsize>| {
        let made = made.clone();
        move |_: &Origin<'_>| {
            made.fetch_add(1, SeqCst);
        }
    };
    let (items, script) = script();
    let upstream = Upstream::builder("up").discover(script).spawn(counting(&made)).unwrap();
    settle().await;
    burst.iter().for_each(|update| items.send(Ok(update.clone())).unwrap());
    settle().await;
    assert_eq!(addresses(&upstream), ["b:1"]);
    assert_eq!(made.load(SeqCst), 1);

    // The broken twin publishes each of them, and is found out.
    let made = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::builder("up").spawn(counting(&made)).unwrap();
    for update in burst {
        if let Update::Insert(endpoint) = update {
            upstream.insert_endpoint(endpoint);
        } else if let Update::Remove(address) = update {
            upstream.remove_endpoint(&address);
        }
    }
    assert_eq!(addresses(&upstream), ["b:1"]);
    assert_eq!(made.load(SeqCst), 2);
}

#[tokio::test]
async fn a_source_that_is_always_ready_keeps_nobody_waiting() {
    /// Errors without end, against the rule.
    struct Storm;
    impl Discover for Storm {
        fn poll_update(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Update, BoxError>>> {
            Poll::Ready(Some(Err("again".into())))
        }
    }
    let (upstream, mut driver) = Upstream::builder("up").discover(Storm).build(nothing).unwrap();
    for _ in 0..3 {
        let poll = poll_fn(|cx| Poll::Ready(Pin::new(&mut driver).poll(cx))).await;
        assert!(poll.is_pending());
    }
    assert!(upstream.discovery().unwrap().failures > 0);
    drop(upstream);
    driver.await;
}

#[tokio::test]
async fn the_driver_ends_with_its_upstream_and_drops_the_source() {
    let (items, script) = script();
    let (upstream, driver) = Upstream::builder("up").discover(script).build(nothing).unwrap();
    let driver = tokio::spawn(driver);
    settle().await;
    assert!(!driver.is_finished() && !items.is_closed());
    drop(upstream);
    driver.await.unwrap();
    assert!(items.is_closed());
}

#[tokio::test]
async fn a_removed_endpoint_finishes_what_it_has_begun_and_takes_no_more() {
    let go = Arc::new(Notify::new());
    let make = {
        let go = go.clone();
        move |origin: &Origin<'_>| {
            let (go, address) = (go.clone(), origin.endpoint().address().clone());
            service_fn(move |_| {
                let (go, address) = (go.clone(), address.clone());
                async move {
                    if &*address == "slow:1" {
                        go.notified().await;
                    }
                    let response = Response::builder().header("from", &*address);
                    Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap())
                }
            })
        }
    };
    let (list, source) = discover::list([at("slow:1")]);
    let upstream = Upstream::builder("up").discover(source).spawn(make).unwrap();
    settle().await;
    let ask = || upstream.clone().oneshot(Request::new(Full::<Bytes>::default()));
    let first = tokio::spawn(ask());
    settle().await;

    list.insert(at("quick:1"));
    list.remove("slow:1");
    settle().await;
    for _ in 0..50 {
        assert_eq!(ask().await.unwrap().headers()["from"], "quick:1");
    }
    assert!(!first.is_finished());
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap().headers()["from"], "slow:1");
}

#[tokio::test]
async fn labels_that_change_move_an_endpoint_to_another_subset_while_it_serves() {
    let labels = |version| [("version", version)].into_iter().collect::<Labels>();
    let (list, source) = discover::list([at("a:1").with_labels(labels("v1"))]);
    let upstream = Upstream::builder("up")
        .subset("v1", labels("v1"))
        .subset("v2", labels("v2"))
        .discover(source)
        .spawn(nothing)
        .unwrap();
    let subsets = || upstream.status().iter().map(|s| s.subset.to_string()).collect::<Vec<_>>();
    settle().await;
    assert_eq!(subsets(), ["", "v1"]);
    list.insert(at("a:1").with_labels(labels("v2")));
    settle().await;
    assert_eq!(subsets(), ["", "v2"]);
}

#[cfg(feature = "metrics")]
#[test]
fn items_are_counted_by_what_came_of_them() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let (items, script) = script();
            let _upstream = Upstream::builder("up").discover(script).spawn(nothing).unwrap();
            for item in [
                Ok(Update::Set(vec![at("a:1")])),
                Ok(Update::Set(vec![at("a:1")])),
                Ok(Update::Insert(at("a:1"))),
                Err("no".into()),
                Ok(Update::Remove("a:1".into())),
            ] {
                items.send(item).unwrap();
            }
            settle().await;
        });
    });
    let mut counts: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter(|(key, ..)| key.key().name() == "mesh_discovery_updates_total")
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
            let DebugValue::Counter(count) = value else { unreachable!("{value:?}") };
            (labels.join("/"), count)
        })
        .collect();
    counts.sort();
    let expected = [("up/changed", 2), ("up/failed", 1), ("up/unchanged", 2)];
    assert_eq!(counts, expected.map(|(labels, count)| (labels.to_owned(), count)));
}

//! A burst of changes builds a table of keys once, and meanwhile no key goes astray.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::{
    Endpoint, InvalidConfig,
    balance::hash::{Config as TableConfig, Part, Policy as KeyPolicy, Rebuild, Table},
};
use tower::{Service, ServiceExt};

use super::{Config, ConsistentHash, MakeEndpoint, Origin, Policy, Upstream};
use crate::body::ReplayBody;

type Body = Full<Bytes>;

/// Who answers which key.
type Owners = BTreeMap<u32, String>;

const KEYS: u32 = 40;

fn config() -> Result<Config, InvalidConfig> {
    let by_user = KeyPolicy::new([Part::header("x-user")?]);
    // A small one: the broken twin builds a thousand.
    let hash = ConsistentHash::new(TableConfig::maglev().with_table_size(1_009)?, by_user);
    Ok(Config::new("shop").with_policy(Policy::default().with_hash(Some(hash))))
}

fn host(number: u32) -> Endpoint {
    // Numbers in no order: a new one comes between the others.
    Endpoint::new(format!("10.0.{}.{number}:80", number * 37 % 101))
}

/// Answers with its address.
#[derive(Clone)]
struct Node(Arc<str>);

impl Service<Request<ReplayBody<Body>>> for Node {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<ReplayBody<Body>>) -> Self::Future {
        ready(Ok(Response::new(Full::from(self.0.to_string()))))
    }
}

fn make(origin: &Origin<'_>) -> Node {
    Node(origin.endpoint().address().clone())
}

async fn owners<M: MakeEndpoint<Service = Node>>(upstream: &Upstream<M>) -> Owners {
    let mut owners = Owners::new();
    for key in 0..KEYS {
        let request = Request::builder().header("x-user", key).body(Body::default()).unwrap();
        let response = upstream.clone().oneshot(request).await.unwrap();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        owners.insert(key, String::from_utf8(body.to_bytes().to_vec()).unwrap());
    }
    owners
}

/// No key goes to who is gone; and while the table is the same, none leaves who is there, but for whom it belongs to and who has
/// `come` back.
fn check(
    before: &Owners,
    after: &Owners,
    listed: &BTreeSet<String>,
    same: Option<&str>,
) -> Result<(), String> {
    for (key, owner) in after {
        if !listed.contains(owner) {
            return Err(format!("{key} goes to {owner}, which is gone"));
        }
        let was = &before[key];
        if same.is_some_and(|come| come != owner) && listed.contains(was) && was != owner {
            return Err(format!("{key} has left {was} for {owner}"));
        }
    }
    Ok(())
}

fn table<M: MakeEndpoint>(upstream: &Upstream<M>) -> Arc<Table> {
    let plan = upstream.shared.plan.load();
    let places = plan.subsets[0].places.as_ref().expect("keys have places");
    places.tables().next().expect("keys have a table").clone()
}

/// The tables of a thousand changes in a row, and of the time after.
async fn tables_of_a_burst(interval: Duration) -> usize {
    let builder = Upstream::from_config(config().unwrap()).endpoints((0..50).map(host));
    let (upstream, driver) = builder.build(make).unwrap();
    tokio::spawn(driver);
    upstream.shared.with_writer(|writer| writer.set_tables_interval(interval));
    // All are kept, lest a new one stands where an old one stood.
    let mut tables = vec![table(&upstream)];
    let mut listed: BTreeSet<String> = (0..50).map(|n| host(n).address().to_string()).collect();
    let mut before = owners(&upstream).await;
    for turn in 0..1_000u32 {
        let number = turn * 7 % 90;
        let address = host(number).address().clone();
        if listed.remove(&*address) {
            upstream.remove_endpoint(&address);
        } else {
            upstream.insert_endpoint(host(number));
            listed.insert(address.to_string());
        }
        let now = table(&upstream);
        let same = tables.last().is_some_and(|last| Arc::ptr_eq(last, &now));
        if !same {
            tables.push(now);
        }
        if turn % 10 == 0 {
            let after = owners(&upstream).await;
            check(&before, &after, &listed, None).unwrap();
            before = after;
        } else if turn % 10 == 1 {
            let after = owners(&upstream).await;
            check(&before, &after, &listed, same.then_some(&*address)).unwrap();
            before = after;
        }
    }
    tokio::time::sleep(Rebuild::DEFAULT_INTERVAL * 3).await;
    let last = table(&upstream);
    if tables.last().is_none_or(|known| !Arc::ptr_eq(known, &last)) {
        tables.push(last.clone());
    }
    assert_eq!(last.owners().collect::<BTreeSet<_>>().len(), listed.len(), "all have keys now");
    check(&before, &owners(&upstream).await, &listed, None).unwrap();
    tables.len() - 1
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_builds_at_most_two_tables() {
    assert_eq!(tables_of_a_burst(Rebuild::DEFAULT_INTERVAL).await, 2);
    // The broken twin: one for each change.
    assert_eq!(tables_of_a_burst(Duration::ZERO).await, 1_000);
}

/// The broken twin of the check: a table that is read by its positions, although those have moved.
#[test]
fn keys_that_go_astray_are_found_out() {
    let hosts: Vec<String> = (0..50).map(|number| host(number).address().to_string()).collect();
    let before: Owners = (0..KEYS).map(|key| (key, hosts[key as usize].clone())).collect();
    let listed: BTreeSet<String> = hosts[1..].iter().cloned().collect();
    let shifted: Owners = (0..KEYS).map(|key| (key, hosts[key as usize + 1].clone())).collect();
    assert!(check(&before, &shifted, &listed, Some("")).unwrap_err().contains("has left"));
    assert!(check(&before, &before, &listed, Some("")).unwrap_err().contains("which is gone"));
    check(&before, &shifted, &listed, None).unwrap();
}

/// Of those that the table knows nobody is left, and no request is refused for that.
#[tokio::test(start_paused = true)]
async fn others_answer_while_the_table_knows_none_of_them() {
    let builder = Upstream::from_config(config().unwrap()).endpoints((0..5).map(host));
    let (upstream, driver) = builder.build(make).unwrap();
    tokio::spawn(driver);
    upstream.insert_endpoint(host(5)); // builds at once: the next must wait
    upstream.set_endpoints((10..15).map(host));
    let listed: BTreeSet<String> = (10..15).map(|n| host(n).address().to_string()).collect();
    let first = owners(&upstream).await;
    check(&first, &first, &listed, Some("")).unwrap();
    tokio::time::sleep(Rebuild::DEFAULT_INTERVAL * 2).await;
    let settled = owners(&upstream).await;
    check(&settled, &owners(&upstream).await, &listed, Some("")).unwrap();
}

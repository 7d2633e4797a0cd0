//! In steady state a request allocates nothing, and neither does a decision of a machine; and what a machine holds does
//! not grow.
//!
//! The heap is dhat's, which counts for the whole process: hence one thread and no test harness.

use dhat::{HeapStats, Profiler};
use http::{Extensions, Request};
use mesh_benches::{
    Case, decisions, machines,
    stack::{self, Client, Noop, answer, bare},
    windows::{self, FILLS, Windowed},
};
use mesh_core::{
    authorize::{Attribute, Authorizer, Config, Connection, Match, Policy, Rule},
    retry,
};
use mesh_tower::authorize::AuthorizeLayer;
use tower::Layer;
use tower_service::Service;

#[global_allocator]
static HEAP: dhat::Alloc = dhat::Alloc;

const CALLS: u64 = 1_000;

fn main() {
    let profiler = Profiler::builder().testing().build();
    the_counter_counts();
    let cases = [decisions::cases(), machines::cases(), machines::picks()];
    for case in cases.iter().flatten() {
        expect_none(case.name(), |calls| case.run(calls));
    }
    memory_is_constant();
    authorize(CALLS);
    let full = stack::build(stack::builder());
    expect_none("full client stack", |calls| request(&full, bare, calls));
    let none = stack::build(stack::builder().retry(retry::Config::none()));
    expect_none("client stack without retries", |calls| request(&none, bare, calls));
    // What is there for one attempt only is moved, not copied: headers cost nothing then.
    let alone = allocations(|| headers_alone(CALLS));
    let wrapped = allocations(|| request(&none, stack::with_headers, CALLS));
    assert_eq!(alone, wrapped, "headers were copied although nothing is retried");
    drop(profiler);
}

/// The broken twin: a case that allocates once a call, which must be seen.
fn the_counter_counts() {
    let boxes = Case::shared("boxes", (), |(), calls| {
        (0..calls).for_each(|call| drop(std::hint::black_box(Box::new(call))));
    });
    assert_eq!(allocations(|| boxes.run(CALLS)), CALLS);
}

/// What a machine holds does not grow with what it has seen. The broken twin is a list, which does.
fn memory_is_constant() {
    let held = |windowed: &Windowed| {
        FILLS.map(|records| {
            let before = HeapStats::get().curr_bytes;
            let filled = windowed.filled(records);
            let held = HeapStats::get().curr_bytes - before;
            drop(filled);
            held
        })
    };
    for windowed in windows::machines() {
        let [few, more, many] = held(&windowed);
        assert!(few == more && more == many, "{windowed:?}: {few}, {more}, {many} bytes");
    }
    let [few, more, many] = held(&windows::naive());
    assert!(few < more && more < many, "a list holds {few}, {more}, {many} bytes");
}

fn expect_none(what: &str, run: impl Fn(u64)) {
    run(CALLS);
    assert_eq!(allocations(|| run(CALLS)), 0, "{what} allocates, in {CALLS} calls");
}

fn request(client: &Client, request: fn() -> Request<stack::Body>, calls: u64) {
    let mut client = client.clone();
    for _ in 0..calls {
        let response = answer(client.call(request())).expect("the service answers");
        assert_eq!(response.status(), 200);
    }
}

/// Requests that the layer of authorization lets through.
fn authorize(calls: u64) {
    let get = Match::of(Attribute::Method, ["GET"]);
    let me = Match::of(Attribute::Namespace, ["shop"]);
    let rule = Rule::any().with_source([me]).with_operation([get]);
    let policy = Policy::allow("readers").with_rule(rule);
    let authorizer = Authorizer::new([policy], &Config::default()).expect("a good policy");
    let layer = AuthorizeLayer::new(authorizer, |_: &Extensions| {
        Connection::default().with_principal("spiffe://cluster.local/ns/shop/sa/cart")
    });
    let mut service = layer.layer(Noop);
    let mut run = |calls| {
        for _ in 0..calls {
            let response = answer(service.call(bare())).expect("the service answers");
            assert_eq!(response.status(), 200);
        }
    };
    // The first request of a recorder makes its counters.
    run(1);
    let allocated = allocations(|| run(calls));
    assert_eq!(allocated, 0, "the layer of authorization allocates");
}

fn headers_alone(calls: u64) {
    for _ in 0..calls {
        let response = answer(Noop.call(stack::with_headers())).expect("the service answers");
        assert_eq!(response.status(), 200);
    }
}

fn allocations(run: impl FnOnce()) -> u64 {
    let before = HeapStats::get().total_blocks;
    run();
    HeapStats::get().total_blocks - before
}

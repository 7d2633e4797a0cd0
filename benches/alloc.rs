//! In steady state a request allocates nothing, and neither does a decision of a machine; and what a machine holds does
//! not grow; and an endpoint takes no more than a kibibyte.
//!
//! The heap is dhat's, which counts for the whole process: hence one thread and no test harness.

#![expect(clippy::print_stdout, reason = "the figures are printed")]

use dhat::{HeapStats, Profiler};
use http::{Extensions, Request};
use mesh_benches::{
    Case, choosing, decisions, machines, publish,
    stack::{self, Client, Noop, answer, bare},
    windows::{self, FILLS, Windowed},
};
use mesh_core::{
    authorize::{Attribute, Authorizer, Config, Connection, Match, Policy, Rule},
    retry,
};
use mesh_tower::{authorize::AuthorizeLayer, body::ReplayBody, pool::HttpEndpoints};
use tower::Layer;
use tower_service::Service;

#[global_allocator]
static HEAP: dhat::Alloc = dhat::Alloc;

const CALLS: u64 = 1_000;

fn main() {
    let profiler = Profiler::builder().testing().build();
    the_counter_counts();
    let cases = [decisions::cases(), machines::cases(), machines::picks()];
    let choosing = [choosing::picks(), choosing::routes()];
    for case in cases.iter().chain(&choosing).flatten() {
        expect_none(case.name(), case.calls(), |calls| case.run(calls));
    }
    memory_is_constant();
    authorize(CALLS);
    memory_of_endpoints();
    let full = stack::build(stack::builder());
    expect_none("full client stack", CALLS, |calls| request(&full, bare, calls));
    let none = stack::build(stack::builder().retry(retry::Config::none()));
    expect_none("client stack without retries", CALLS, |calls| request(&none, bare, calls));
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

/// An endpoint takes at most a kibibyte, whatever it is chosen by, and half of one more with a pool of connections of which
/// it has none yet. The broken twin keeps a page for each.
fn memory_of_endpoints() {
    for (name, policy) in publish::policies() {
        let each = each_endpoint(|hosts| publish::idle(policy.clone(), hosts));
        println!("{name}: {each} bytes an endpoint");
        assert!(each <= 1_024, "{name}: {each} bytes an endpoint");
    }
    let pooled = each_endpoint(|hosts| {
        let pool: HttpEndpoints<_, ReplayBody<stack::Body>> = HttpEndpoints::plain();
        publish::builder(Default::default(), hosts).build_undriven(pool)
    });
    println!("with a pool of connections: {pooled} bytes an endpoint");
    assert!(pooled <= 1_536, "with a pool of connections: {pooled} bytes an endpoint");
    let wasteful = each_endpoint(|hosts| {
        let pages = (0..hosts).map(|_| vec![0u8; 4_096]).collect::<Vec<_>>();
        (publish::idle(Default::default(), hosts), pages)
    });
    assert!(wasteful > 1_536, "a page for each endpoint is not seen: {wasteful} bytes");
}

/// Bytes that ten thousand endpoints take beyond none, a piece.
fn each_endpoint<T>(make: impl Fn(u32) -> T) -> usize {
    const HOSTS: u32 = 10_000;
    let held = |hosts| {
        let before = HeapStats::get().curr_bytes;
        let made = make(hosts);
        let held = HeapStats::get().curr_bytes - before;
        drop(made);
        held
    };
    // What is made once is there before either is measured.
    held(1);
    (held(HOSTS) - held(0)) / HOSTS as usize
}

fn expect_none(what: &str, calls: u64, run: impl Fn(u64)) {
    run(calls);
    assert_eq!(allocations(|| run(calls)), 0, "{what} allocates, in {calls} calls");
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

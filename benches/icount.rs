//! Instructions of one call, each with a limit above which the bench fails.
//!
//! Run it with `cargo bench -p mesh-benches --bench icount`. It needs valgrind, and a `gungraun-runner` of the version
//! that Cargo.lock names; where either is missing it says so and passes.

#![allow(
    unreachable_pub,
    unused_qualifications,
    reason = "the macro of the bench harness writes them"
)]

use std::process::{Command, ExitCode, Stdio};

/// The limits are what was measured and a tenth more: they catch what makes it worse. The bars, which are where it should
/// be, stand in the report.
mod counted {
    use std::hint::black_box;

    use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group};
    use http::Request;
    use mesh_benches::{
        Case, choosing, machines,
        stack::{self, Body, Client, answer},
    };
    use mesh_core::{
        breaker::Breaker,
        outlier::{Detection, Host},
        retry,
    };
    use tower_service::Service;

    fn limit(instructions: u64) -> LibraryBenchmarkConfig {
        let mut callgrind = Callgrind::default();
        callgrind.hard_limits([(gungraun::EventKind::Ir, instructions)]);
        let mut config = LibraryBenchmarkConfig::default();
        config.tool(callgrind);
        config
    }

    /// A stack that has answered before, and the next request.
    fn full(request: fn() -> Request<Body>) -> (Client, Request<Body>) {
        warm(stack::build(stack::builder()), request)
    }

    fn no_retries(request: fn() -> Request<Body>) -> (Client, Request<Body>) {
        warm(stack::build(stack::builder().retry(retry::Config::none())), request)
    }

    fn warm(mut client: Client, request: fn() -> Request<Body>) -> (Client, Request<Body>) {
        for _ in 0..100 {
            drop(answer(client.call(request())));
        }
        (client, request())
    }

    #[library_benchmark(config = limit(3_200))]
    #[bench::full(full(stack::bare))]
    #[bench::no_retries(no_retries(stack::bare))]
    fn client((mut client, request): (Client, Request<Body>)) -> Client {
        drop(black_box(answer(client.call(request))));
        client
    }

    #[library_benchmark(config = limit(4_300))]
    #[bench::no_retries(no_retries(stack::with_headers))]
    fn client_headers((mut client, request): (Client, Request<Body>)) -> Client {
        drop(black_box(answer(client.call(request))));
        client
    }

    // In a box: to move a machine into the bench and out of it would cost more than its decision.
    #[library_benchmark(config = limit(100))]
    #[bench::consecutive(Box::new(machines::consecutive()))]
    fn breaker(breaker: Box<Breaker>) -> Box<Breaker> {
        machines::succeed(&breaker, black_box(1));
        breaker
    }

    #[library_benchmark(config = limit(30))]
    #[bench::success(Box::new(machines::detection()))]
    fn outlier(state: Box<(Detection, Host)>) -> Box<(Detection, Host)> {
        machines::record(&state, black_box(1));
        state
    }

    /// A case of the report that has run before.
    fn chosen(name: &str) -> Case {
        let cases = [machines::picks(), choosing::picks(), choosing::routes()];
        let case = cases
            .into_iter()
            .flatten()
            .find(|case| case.name() == name)
            .expect("a case of that name");
        case.run(100);
        case
    }

    #[library_benchmark(config = limit(440))]
    #[bench::of_10(chosen("pick, 10 endpoints"))]
    #[bench::of_1_000(chosen("pick, 1000 endpoints"))]
    #[bench::of_10_000(chosen("pick, 10000 endpoints"))]
    #[bench::round_robin(chosen("round robin: 1 of 10000"))]
    #[bench::by_deadline(chosen("round robin, weighted, by deadline: 1 of 10000"))]
    #[bench::random(chosen("random, weighted: 1 of 10000"))]
    #[bench::least_request(chosen("least request of 2: 1 of 10000"))]
    #[bench::least_request_weighted(chosen("least request of 2, weighted: 1 of 10000"))]
    #[bench::by_reports(chosen("by reports: 1 of 10000"))]
    #[bench::ring(chosen("ring hash: 1 of 10000"))]
    #[bench::maglev(chosen("Maglev: 1 of 10000"))]
    #[bench::bounded(chosen("Maglev, bounded load: 1 of 10000"))]
    #[bench::locality(chosen("priority and locality: 1 of 10000"))]
    fn choose(case: Case) -> Case {
        case.run(black_box(1));
        case
    }

    #[library_benchmark(config = limit(4_100))]
    #[bench::exact(chosen("exact path: 10000th rule"))]
    #[bench::prefix(chosen("prefix: 10000th rule"))]
    #[bench::regex(chosen("regex: 10000th rule"))]
    fn route(case: Case) -> Case {
        case.run(black_box(1));
        case
    }

    library_benchmark_group!(
        name = hot_paths,
        benchmarks = [client, client_headers, breaker, outlier, choose, route]
    );
    gungraun::main!(library_benchmark_groups = hot_paths);

    pub(crate) fn run() {
        main();
    }
}

fn main() -> ExitCode {
    for (tool, cure) in [
        ("valgrind", "install the package of that name"),
        ("gungraun-runner", "cargo install gungraun-runner, in the version of Cargo.lock"),
    ] {
        if !is_installed(tool) {
            eprintln!("icount skipped: no {tool} here ({cure})");
            return ExitCode::SUCCESS;
        }
    }
    counted::run();
    ExitCode::SUCCESS
}

fn is_installed(tool: &str) -> bool {
    let mut version = Command::new(tool);
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok()
}

//! A piece of work that can be repeated, on one thread or on two that share it.

use std::{
    future::poll_fn,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use tokio::{
    runtime::{Builder, Runtime},
    task::coop::unconstrained,
};
use tower_service::Service;

/// So many calls.
type Run = Box<dyn Fn(u64)>;

/// A piece of work with a name.
///
/// ```
/// use mesh_benches::Case;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
///
/// let case = Case::shared("addition", AtomicU64::new(0), |sum, calls| {
///     (0..calls).for_each(|call| _ = sum.fetch_add(call, Relaxed));
/// });
/// case.run(10);
/// assert!(case.run_on_two_threads(10));
/// ```
pub struct Case {
    name: String,
    calls: u64,
    one: Run,
    two: Option<Run>,
}

/// Calls that are counted, as a rule.
const CALLS: u64 = 1_000;

impl Case {
    /// Work on a state that threads share.
    pub fn shared<T: Send + Sync + 'static>(
        name: impl Into<String>,
        state: T,
        run: fn(&T, u64),
    ) -> Self {
        Self::made(name, move || state, run)
    }

    /// The same, on a state that is made when it is run first: to make it may cost more than to measure the others.
    pub fn made<T: Send + Sync + 'static>(
        name: impl Into<String>,
        make: impl FnOnce() -> T + Send + 'static,
        run: fn(&T, u64),
    ) -> Self {
        let state = Arc::new(LazyLock::new(make));
        let both = state.clone();
        let two = move |calls| {
            let state = &**both;
            std::thread::scope(|scope| {
                scope.spawn(|| run(state, calls));
                scope.spawn(|| run(state, calls));
            });
        };
        Self {
            name: name.into(),
            calls: CALLS,
            one: Box::new(move |calls| run(&state, calls)),
            two: Some(Box::new(two)),
        }
    }

    /// Work on a state that cannot be shared.
    pub fn alone<T: 'static>(name: impl Into<String>, state: T, run: fn(&mut T, u64)) -> Self {
        let state = Mutex::new(state);
        let one =
            move |calls| run(&mut state.lock().unwrap_or_else(PoisonError::into_inner), calls);
        Self { name: name.into(), calls: CALLS, one: Box::new(one), two: None }
    }

    /// Calls to a service whose clones share what there is to share. Each call is answered before the next is made.
    ///
    /// Two threads are two runtimes, so nothing but the service is between them.
    pub fn service<S, Req>(name: impl Into<String>, service: S, request: fn() -> Req) -> Self
    where
        S: Service<Req> + Clone + Send + 'static,
        Req: 'static,
    {
        let state = Mutex::new(service);
        Self::shared(name, (state, request), |(service, request), calls| {
            let service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
            runtime().block_on(call(service, *request, calls));
        })
    }

    /// Calls to a service that lives in tasks of its own, made inside a runtime by `make`.
    ///
    /// Two threads are the two workers of one runtime: tasks on runtimes of their own would wake each other through
    /// the kernel, and measure that.
    pub fn spawned<S, Req>(
        name: impl Into<String>,
        make: impl Fn() -> S,
        request: fn() -> Req,
    ) -> Self
    where
        S: Service<Req> + Clone + Send + 'static,
        S::Future: Send,
        S::Response: Send,
        S::Error: Send,
        Req: Send + 'static,
    {
        let single = runtime();
        let alone = single.block_on(async { make() });
        let pair = two_workers();
        let both = pair.block_on(async { make() });
        Self {
            name: name.into(),
            calls: CALLS,
            one: Box::new(move |calls| single.block_on(call(alone.clone(), request, calls))),
            two: Some(Box::new(move |calls| {
                pair.block_on(async {
                    // A task that has used up its turn gets `Pending` from ready semaphores, and `LoadShed` takes
                    // that for overload.
                    let caller = || unconstrained(call(both.clone(), request, calls));
                    let (first, second) = (tokio::spawn(caller()), tokio::spawn(caller()));
                    assert!(first.await.is_ok() && second.await.is_ok(), "a caller panicked");
                });
            })),
        }
    }

    /// The same, counted over so many calls only: each is a long one.
    #[must_use]
    pub fn counted_over(self, calls: u64) -> Self {
        Self { calls, ..self }
    }

    /// Over how many calls it is counted.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// What it is called in the report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// So many calls on this thread.
    pub fn run(&self, calls: u64) {
        (self.one)(calls);
    }

    /// So many calls on each of two threads at once; false if the work cannot be shared.
    pub fn run_on_two_threads(&self, calls: u64) -> bool {
        match &self.two {
            Some(two) => {
                two(calls);
                true
            }
            None => false,
        }
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// Asks a service again and again. A refusal would be a cheaper call than the one that is measured: it panics.
pub(crate) async fn call<S, Req>(mut service: S, request: fn() -> Req, calls: u64)
where
    S: Service<Req>,
{
    for _ in 0..calls {
        let ready = poll_fn(|cx| service.poll_ready(cx)).await;
        assert!(ready.is_ok(), "the service is not ready");
        let answer = service.call(request()).await;
        assert!(answer.is_ok(), "the request was not answered");
    }
}

/// A runtime on this thread.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime without I/O")
}

fn two_workers() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime without I/O")
}

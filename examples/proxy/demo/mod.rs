//! The demonstration: what the mesh does, on one machine, without a file.
//!
//! | part | |
//! | --- | --- |
//! | `payment-service` | three endpoints: two of v1 in process (the mesh as a library), v2 behind a proxy of its own |
//! | caller | 100 requests a second, in plain HTTP, through the outbound listener |
//! | fault | one endpoint of v1 answers 503 for eight seconds |
//! | rogue pod | tries to get in: in plaintext, without a certificate, with a certificate of another authority |
//!
//! All numbers shown are read from the mesh and from the caller while it runs.

mod backend;
mod caller;
mod rogue;
mod summary;
mod view;
mod world;

use std::{sync::atomic::Ordering, time::Duration};

use mesh_tower::Clock;

use self::{caller::Caller, rogue::Rogue, summary::Summary, view::View, world::World};
use crate::run::{Failure, Signals};

/// When the fault begins and ends, after the start.
const FAULT: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(14));
const TICK: Duration = Duration::from_millis(200);
/// What the callers must see in a run with an end.
const WANTED: f64 = 0.99;

/// Runs until the time is over, or until a signal comes.
pub(crate) async fn run(run_for: Option<Duration>) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let world = World::build().await?;
    let caller = Caller::start(world.outbound);
    let rogue = Rogue::start(&world)?;
    let mut view = View::new(&world);
    let start = Clock.now();
    loop {
        let age = Clock.now().since(start);
        world.faulty.store(age >= FAULT.0 && age < FAULT.1, Ordering::Relaxed);
        view.update(age, &Summary::of(&world, &caller, &rogue, age));
        if run_for.is_some_and(|limit| age >= limit) {
            break;
        }
        let tick = run_for.map_or(TICK, |limit| (limit - age).min(TICK));
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            _ = signals.next() => break,
        }
    }
    rogue.stop().await;
    caller.stop().await;
    let summary = Summary::of(&world, &caller, &rogue, Clock.now().since(start));
    drop(view);
    print!("{summary}");
    world.end().await;
    match run_for {
        Some(_) => judge(&summary),
        None => Ok(()),
    }
}

fn judge(summary: &Summary) -> Result<(), Failure> {
    let rate = summary.success_rate();
    if rate.is_nan() || rate < WANTED {
        return Err(Failure::Running(format!(
            "{:.2} % of the callers' requests succeeded, {:.0} % are wanted",
            rate * 100.0,
            WANTED * 100.0
        )));
    }
    if summary.let_in > 0 {
        return Err(Failure::Running(format!("{} rogue connections were let in", summary.let_in)));
    }
    Ok(())
}

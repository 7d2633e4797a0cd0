use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_core::{Ratio, Rng, SplitMix64, Timestamp};
use mesh_tower::{Clock, error::Reason};

use super::{Act, Seen, World, exponential};

/// How long a healthy endpoint takes.
const LATENCY: Duration = Duration::from_millis(5);

/// Endpoints that can fall ill and recover at the tester's word.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Turns are counted from here, so that runs are alike.
    start: Timestamp,
    modes: BTreeMap<Arc<str>, Mode>,
    rng: SplitMix64,
}

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Answers 200 after about 5 ms.
    Healthy,
    /// Takes no connection.
    Crashed,
    /// Takes the request and never answers.
    Hanging,
    /// Takes so many times as long.
    Slow(u32),
    /// Answers so many of its requests with 503.
    Failing(Ratio),
    /// Answers 503 and 200 in turns of that length.
    Flapping(Duration),
}

impl Fleet {
    /// All healthy. The seed is for latencies and errors.
    pub fn new(seed: u64) -> Self {
        let (start, modes, rng) = (Clock.now(), BTreeMap::new(), SplitMix64::new(seed));
        Self(Arc::new(Mutex::new(State { start, modes, rng })))
    }

    /// The world of these endpoints.
    pub fn world(&self) -> World {
        let fleet = self.clone();
        World::new(move |seen| fleet.act(seen))
    }

    /// From now on the endpoint behaves so.
    pub fn set(&self, address: &str, mode: Mode) {
        self.state().modes.insert(address.into(), mode);
    }

    /// All are healthy again.
    pub fn heal(&self) {
        self.state().modes.clear();
    }

    fn act(&self, seen: &Seen) -> Act {
        let mut state = self.state();
        let mode = state.modes.get(&seen.address).copied().unwrap_or(Mode::Healthy);
        let since = Clock.now().since(state.start);
        let rng = &mut state.rng;
        let latency = LATENCY / 2 + exponential(rng, LATENCY / 2);
        match mode {
            Mode::Healthy => Act::After(latency, 200),
            Mode::Crashed => Act::Fail(Duration::from_millis(1), Reason::ConnectFailed),
            Mode::Hanging => Act::Hang,
            Mode::Slow(times) => Act::After(latency * times, 200),
            Mode::Failing(share) => Act::After(latency, if rng.chance(share) { 503 } else { 200 }),
            Mode::Flapping(turn) => {
                let turns = since.as_nanos() / turn.as_nanos().max(1);
                Act::After(latency, if turns.is_multiple_of(2) { 503 } else { 200 })
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

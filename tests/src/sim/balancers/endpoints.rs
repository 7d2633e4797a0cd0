use std::time::Duration;

use mesh_core::{Outcome, Ratio, Rng, SplitMix64, Timestamp};

use super::{ENDPOINTS, FALL_ILL, HEAL};

/// The other end of all clients.
#[derive(Debug)]
pub(super) struct Endpoints {
    /// When each worker is free again.
    workers: Vec<[Timestamp; 2]>,
    rng: SplitMix64,
}

impl Endpoints {
    pub(super) fn new(seed: u64) -> Self {
        Self { workers: vec![[Timestamp::ZERO; 2]; ENDPOINTS], rng: SplitMix64::new(seed) }
    }

    /// What the client sees of a request that it sends now.
    pub(super) fn answer(&mut self, now: Timestamp, endpoint: usize) -> (Duration, Outcome) {
        if now < FALL_ILL || now >= HEAL {
            return (self.serve(now, endpoint), Outcome::Success);
        }
        let is_down = (now.since(FALL_ILL).as_secs() / 10).is_multiple_of(2);
        match endpoint {
            1 => (Duration::from_millis(1), Outcome::ServerError),
            2 => (Duration::from_secs(1), Outcome::Timeout),
            3 if is_down => (Duration::from_millis(1), Outcome::ConnectFailed),
            0 if self.rng.chance(Ratio::from_percent(5)) => {
                (self.serve(now, endpoint) + Duration::from_millis(500), Outcome::Success)
            }
            _ => (self.serve(now, endpoint), Outcome::Success),
        }
    }

    /// The wait for a worker and the work. The extra time of the slow one waits for something else, and holds no worker.
    fn serve(&mut self, now: Timestamp, endpoint: usize) -> Duration {
        let work = Duration::from_millis(5) + exponential(&mut self.rng, Duration::from_millis(5));
        let [first, second] = &mut self.workers[endpoint];
        let free = if second < first { second } else { first };
        *free = now.max(*free) + work;
        free.since(now)
    }
}

/// A time from the exponential distribution.
pub(super) fn exponential(rng: &mut SplitMix64, mean: Duration) -> Duration {
    // Never ln(0).
    let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    mean.mul_f64(-uniform.ln())
}

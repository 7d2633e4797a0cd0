use super::{Breaker, state::Phase};
use crate::{Timestamp, stats::Tally};

/// The shares that a [`Breaker`] compares with its bounds, in per cent.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rates {
    /// Failures ÷ calls.
    pub failures: f64,
    /// Slow calls ÷ calls.
    pub slow: f64,
}

impl Breaker {
    /// The rates of the window; while half-open those of the probes, and while open those of the phase before, as far as
    /// the window still holds it. `None` below the minimum of calls, where no ratio applies (resilience4j: −1), and where
    /// nothing is counted.
    ///
    /// ```
    /// use mesh_core::{Outcome, SplitMix64, Timestamp, breaker::{Breaker, Config, Window}, Ratio};
    ///
    /// let (now, mut rng) = (Timestamp::ZERO, SplitMix64::new(1));
    /// let config = Config::builder().with_failure_ratio(Ratio::ONE, 2, Window::Count(2)).build()?;
    /// let breaker = Breaker::new(config, now);
    /// for (outcome, rate) in [(Outcome::Success, None), (Outcome::Timeout, Some(50.0))] {
    ///     let permit = breaker.try_acquire(now, &mut rng).unwrap();
    ///     breaker.on_outcome(now, &mut rng, permit, outcome);
    ///     assert_eq!(breaker.rates(now).map(|rates| rates.failures), rate);
    /// }
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn rates(&self, now: Timestamp) -> Option<Rates> {
        let probes = self.lock();
        let word = self.word();
        let window =
            |generation| self.results.tally(self.rules.shape(), generation, (self.since(), now));
        let (whole, permits) = (self.rules.minimum_calls(), u64::from(probes.permits()));
        let (Tally { calls, failures, slow }, minimum) = match word.phase() {
            Phase::Closed | Phase::Sampled | Phase::MetricsOnly => {
                (window(word.generation()), whole)
            }
            // Each change of phase is a generation: none was between the two.
            Phase::Open if word.generation() == probes.generation.wrapping_add(1) => {
                (window(probes.generation), whole)
            }
            Phase::Open | Phase::HalfOpen => (probes.tally, whole.min(permits)),
            Phase::ForcedOpen | Phase::ForcedClosed => return None,
        };
        let percent = |part: u64| part as f64 * 100.0 / calls as f64;
        let is_enough = calls > 0 && calls >= minimum;
        is_enough.then(|| Rates { failures: percent(failures), slow: percent(slow) })
    }
}

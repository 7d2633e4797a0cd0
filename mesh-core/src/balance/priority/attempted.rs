use std::num::NonZeroU32;

/// The priorities that the attempts of one request have seen, so that a retry goes to another (Envoy
/// `previous_priorities`). Lives with the request.
///
/// After every `every` attempts (Envoy `update_frequency`) the priorities seen so far are left out; once that leaves
/// nobody, all of them count again.
///
/// ```
/// use mesh_core::{SplitMix64, Timestamp};
/// use mesh_core::balance::priority::{Attempted, Config, Health, Priorities};
///
/// let well = Health::new(10).with_healthy(10);
/// let priorities = Priorities::new(Config::default(), &[well, well], Timestamp::ZERO);
/// let mut attempted = Attempted::every(1)?;
/// let mut rng = SplitMix64::new(1);
/// let mut next = || {
///     let priority = priorities.pick_another(Timestamp::ZERO, &mut rng, &mut attempted)?.priority();
///     attempted.on_attempt(priority);
///     Some(priority)
/// };
/// // Priority 0, then the other one, and when both have been tried, as if none had been.
/// assert_eq!([next(), next(), next()], [Some(0), Some(1), Some(0)]);
/// assert_eq!(Attempted::every(0).unwrap_err().field(), "update_frequency");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempted {
    every: NonZeroU32,
    attempts: u32,
    /// One bit for each priority. Envoy knows no priority above 127; one that were is never left out.
    seen: u128,
    left_out: u128,
}

impl Attempted {
    /// Nothing attempted yet; priorities are left out after every `every` attempts.
    ///
    /// # Errors
    ///
    /// 0.
    pub fn every(every: u32) -> Result<Self, crate::InvalidConfig> {
        let every = NonZeroU32::new(every)
            .ok_or_else(|| crate::InvalidConfig::new("update_frequency", every, "at least 1"))?;
        Ok(Self { every, attempts: 0, seen: 0, left_out: 0 })
    }

    /// An attempt went to `priority`.
    pub fn on_attempt(&mut self, priority: usize) {
        self.attempts = self.attempts.saturating_add(1);
        self.seen |= bit(priority);
        if self.attempts.is_multiple_of(self.every.get()) {
            self.left_out = self.seen;
        }
    }

    /// Whether that priority is left out.
    pub fn is_left_out(&self, priority: usize) -> bool {
        self.left_out & bit(priority) != 0
    }

    /// Whether any is.
    pub(super) fn is_any_left_out(&self) -> bool {
        self.left_out != 0
    }

    /// All of them count again.
    pub(super) fn start_over(&mut self) {
        *self = Self { every: self.every, attempts: 0, seen: 0, left_out: 0 };
    }
}

fn bit(priority: usize) -> u128 {
    u32::try_from(priority).ok().and_then(|shift| 1u128.checked_shl(shift)).unwrap_or(0)
}

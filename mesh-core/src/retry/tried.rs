use super::Config;

/// The endpoints and priorities that a request was sent to, so that a retry goes elsewhere. Constant memory: the last
/// few endpoints, of which a forgotten one costs no more than a second visit, and the first 32 priorities.
///
/// Endpoints are whatever numbers the balancer knows them by.
///
/// ```
/// use mesh_core::retry::{Config, Tried};
///
/// let config = Config::istio();
/// let mut tried = Tried::new();
/// tried.on_attempt(7, 0);
/// assert!(tried.contains(7));
/// // A balancer that drew endpoint 7 again draws once more, but not for ever.
/// assert!(tried.wants_another(&config, 7, 1));
/// assert!(!tried.wants_another(&config, 7, 5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tried {
    endpoints: [u32; MEMORY],
    attempts: u32,
    /// Bit `i`: priority `i` was tried since the exclusions began anew.
    priorities: u32,
    excluded: u32,
}

impl Tried {
    /// Nothing was tried yet.
    pub const fn new() -> Self {
        Self { endpoints: [0; MEMORY], attempts: 0, priorities: 0, excluded: 0 }
    }

    /// An attempt begins.
    pub fn on_attempt(&mut self, endpoint: u32, priority: u32) {
        self.endpoints[self.attempts as usize % MEMORY] = endpoint;
        self.attempts = self.attempts.saturating_add(1);
        self.priorities |= 1u32.checked_shl(priority).unwrap_or(0);
    }

    /// Whether the endpoint was tried, as far as is remembered.
    pub fn contains(&self, endpoint: u32) -> bool {
        self.endpoints[..MEMORY.min(self.attempts as usize)].contains(&endpoint)
    }

    /// Whether a balancer that has drawn `endpoint`, in its `drawn`-th draw from 1, should draw again (Envoy
    /// `shouldSelectAnotherHost` with `previous_hosts`).
    pub fn wants_another(&self, config: &Config, endpoint: u32, drawn: u32) -> bool {
        config.avoid_previous()
            && drawn < config.host_selection_attempts().max(1)
            && self.contains(endpoint)
    }

    /// The priorities to avoid in the next attempt, as a bit set, of those that are `available`: after each
    /// `update_frequency` attempts all that were tried, and none once that would leave none (Envoy
    /// `previous_priorities`).
    ///
    /// ```
    /// use mesh_core::retry::{Config, Tried};
    ///
    /// let config = Config::istio().with_previous_priorities(1);
    /// let mut tried = Tried::new();
    /// tried.on_attempt(7, 0);
    /// assert_eq!(tried.excluded_priorities(&config, 0b11), 0b01);
    /// tried.on_attempt(8, 1);
    /// assert_eq!(tried.excluded_priorities(&config, 0b11), 0, "begins anew");
    /// ```
    pub fn excluded_priorities(&mut self, config: &Config, available: u32) -> u32 {
        let every = config.previous_priorities();
        if every == 0 || self.attempts < every {
            return 0;
        }
        if self.attempts.is_multiple_of(every) {
            self.excluded = self.priorities;
            if available & !self.excluded == 0 {
                (self.excluded, self.priorities) = (0, 0);
            }
        }
        self.excluded
    }
}

const MEMORY: usize = 4;

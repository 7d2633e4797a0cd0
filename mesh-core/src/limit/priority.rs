use super::Config;
use crate::budget;

/// How important a request is to the limits: each priority has limits of its own (Envoy `RoutingPriority`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "Envoy's two; each caller decides on each of them")]
pub enum Priority {
    /// What a request has unless it says otherwise.
    #[default]
    Default,
    /// Finds slots where the default priority finds none.
    High,
}

impl Priority {
    /// Every priority.
    pub const ALL: [Self; 2] = [Self::Default, Self::High];
}

/// What one priority may have in use: Envoy's `CircuitBreakers.Thresholds`.
///
/// A retry budget takes the place of `max_retries`: where there is one, that limit is off, as in Envoy.
///
/// ```
/// use mesh_core::{budget, limit::{Config, Thresholds}};
///
/// let limits = Config::envoy().with_max_retries(0);
/// let plain = Thresholds::new(limits);
/// assert_eq!((plain.limits().max_retries(), plain.budget()), (0, budget::Config::unlimited()));
///
/// let budgeted = plain.with_retry_budget(Some(budget::Config::envoy()));
/// assert_eq!(budgeted.limits().max_retries(), Config::UNLIMITED);
/// assert_eq!(budgeted.budget(), budget::Config::envoy());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Thresholds {
    limits: Config,
    retry_budget: Option<budget::Config>,
}

impl Thresholds {
    /// These limits, and no retry budget: `max_retries` holds.
    pub const fn new(limits: Config) -> Self {
        Self { limits, retry_budget: None }
    }

    /// The budget that takes the place of `max_retries`. Default `None`, as in Envoy.
    #[must_use]
    pub const fn with_retry_budget(mut self, budget: Option<budget::Config>) -> Self {
        self.retry_budget = budget;
        self
    }

    /// The limits in force: for a [`Limits`](super::Limits).
    pub const fn limits(&self) -> Config {
        match self.retry_budget {
            Some(_) => self.limits.with_max_retries(Config::UNLIMITED),
            None => self.limits,
        }
    }

    /// The budget in force: for a [`Budget`](budget::Budget). Without one every retry within `max_retries` is granted.
    pub fn budget(&self) -> budget::Config {
        self.retry_budget.unwrap_or(budget::Config::unlimited())
    }

    /// The budget as it was given.
    pub const fn retry_budget(&self) -> Option<&budget::Config> {
        self.retry_budget.as_ref()
    }
}

/// The thresholds of each priority: Envoy's `CircuitBreakers`.
///
/// Of several entries for one priority the first counts, and a priority without an entry has the defaults.
///
/// ```
/// use mesh_core::limit::{Config, Limits, Priorities, Priority, Resource, Thresholds};
///
/// let entry = |max| Thresholds::new(Config::envoy().with_max_requests(max));
/// let priorities: Priorities =
///     [(Priority::Default, entry(5)), (Priority::Default, entry(9))].into_iter().collect();
/// assert_eq!(priorities.get(Priority::Default).limits().max_requests(), 5);
/// assert_eq!(priorities.get(Priority::High).limits(), Config::envoy());
///
/// // The priorities share nothing.
/// let [default, high] = Priority::ALL.map(|priority| Limits::new(priorities.get(priority).limits()));
/// let permits: Vec<_> =
///     (0..5).map(|_| default.try_acquire(Resource::Requests).unwrap()).collect();
/// assert!(default.try_acquire(Resource::Requests).is_err());
/// assert!(high.try_acquire(Resource::Requests).is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Priorities {
    default: Option<Thresholds>,
    high: Option<Thresholds>,
}

impl Priorities {
    /// Sets the thresholds of `priority`, also where it has some.
    #[must_use]
    pub const fn with(mut self, priority: Priority, thresholds: Thresholds) -> Self {
        match priority {
            Priority::Default => self.default = Some(thresholds),
            Priority::High => self.high = Some(thresholds),
        }
        self
    }

    /// The thresholds of `priority`.
    pub fn get(&self, priority: Priority) -> Thresholds {
        match priority {
            Priority::Default => self.default,
            Priority::High => self.high,
        }
        .unwrap_or_default()
    }
}

impl FromIterator<(Priority, Thresholds)> for Priorities {
    fn from_iter<I: IntoIterator<Item = (Priority, Thresholds)>>(entries: I) -> Self {
        entries.into_iter().fold(Self::default(), |mut seen, (priority, thresholds)| {
            let entry = match priority {
                Priority::Default => &mut seen.default,
                Priority::High => &mut seen.high,
            };
            entry.get_or_insert(thresholds);
            seen
        })
    }
}

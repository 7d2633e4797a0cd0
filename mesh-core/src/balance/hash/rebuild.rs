use std::time::Duration;

use crate::Timestamp;

/// When to build the next [`Table`](super::Table): a burst of updates builds it once.
///
/// | | |
/// | --- | --- |
/// | an update after a quiet time | build at once |
/// | updates less than `interval` after a build | one build for all of them, `interval` after the last |
///
/// So at most one build for each interval, and no table older than an interval. Envoy builds one for each update
/// that its `update_merge_window` (1 s) lets through.
///
/// In between, requests go on with the old table: endpoints that are gone say that they are not available, new ones
/// wait. A timer, as a machine has them: [`Rebuild::poll_timeout`] says when, [`Rebuild::on_timeout`] whether.
///
/// ```
/// use mesh_core::{Timestamp, balance::hash::Rebuild};
/// use std::time::Duration;
///
/// let ms = |millis| Timestamp::ZERO + Duration::from_millis(millis);
/// let mut rebuild = Rebuild::new(Duration::from_millis(100));
/// assert_eq!(rebuild.poll_timeout(), None, "nothing to build");
///
/// rebuild.on_change(ms(1_000));
/// assert!(rebuild.on_timeout(ms(1_000)), "at once");
///
/// for update in 1..=50 {
///     rebuild.on_change(ms(1_000 + update));
/// }
/// assert!(!rebuild.on_timeout(ms(1_050)), "not yet");
/// assert_eq!(rebuild.poll_timeout(), Some(ms(1_100)));
/// assert!(rebuild.on_timeout(ms(1_100)), "once for the fifty");
/// assert!(!rebuild.on_timeout(ms(1_200)));
/// ```
#[derive(Clone, Debug)]
pub struct Rebuild {
    interval: Duration,
    due: Option<Timestamp>,
    /// No build before.
    earliest: Timestamp,
}

impl Rebuild {
    /// 100 ms: with 10,000 endpoints a build takes some milliseconds, so at worst some per cent of one core.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);

    /// No table is due. With an `interval` of zero each update builds.
    pub const fn new(interval: Duration) -> Self {
        Self { interval, due: None, earliest: Timestamp::ZERO }
    }

    /// The endpoints, or their weights, have changed.
    pub fn on_change(&mut self, now: Timestamp) {
        // A clock that went backwards must not put the build off for longer than an interval.
        let due = now.max(self.earliest.min(now + self.interval));
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// When [`Rebuild::on_timeout`] is to be called; `None` if there is nothing to build.
    pub const fn poll_timeout(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether a table is to be built now, from all that is known. True once for each time that is due.
    pub fn on_timeout(&mut self, now: Timestamp) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.due = None;
        self.earliest = now + self.interval;
        true
    }
}

impl Default for Rebuild {
    /// With [`Rebuild::DEFAULT_INTERVAL`].
    fn default() -> Self {
        Self::new(Self::DEFAULT_INTERVAL)
    }
}

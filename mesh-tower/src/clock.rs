use std::{sync::OnceLock, time::Duration};

use mesh_core::Timestamp;
use tokio::time::Instant;

/// Where the process's first look at the clock stands on the scale of [`Timestamp`]: ten years after its origin,
/// so that a paused test clock which runs behind the real one does not fall off the beginning.
const ORIGIN: Timestamp = Timestamp::from_secs(10 * 365 * 24 * 3_600);

static START: OnceLock<Instant> = OnceLock::new();

/// The one place where time is read.
///
/// Turns tokio's clock into [`Timestamp`]s that are comparable within the whole process, so a deadline taken by a
/// server layer means the same to a client stack. Under `tokio::time::pause` it stands still with tokio's clock.
///
/// ```
/// use mesh_tower::Clock;
///
/// let earlier = Clock.now();
/// assert!(Clock.now() >= earlier);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit by design: there is one clock")]
pub struct Clock;

impl Clock {
    /// The present.
    #[inline]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(self) -> Timestamp {
        let now = Instant::now();
        let start = *START.get_or_init(|| now);
        match now.checked_duration_since(start) {
            Some(since) => ORIGIN + since,
            None => ORIGIN - start.duration_since(now),
        }
    }

    /// The moment `at` on tokio's clock; a moment in the far future is at most 30 years from now.
    pub fn instant(self, at: Timestamp) -> Instant {
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
        let now = self.now();
        let start = START.get().copied().unwrap_or_else(|| unreachable!("`now` has set it"));
        let present = start + now.since(ORIGIN) - ORIGIN.since(now);
        present + at.since(now).min(FAR)
    }
}

/// The calendar, for the one header that names a date. Everything else runs on [`Clock`].
#[expect(clippy::disallowed_methods, reason = "`Retry-After` may be a date")]
pub(crate) fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_follows_the_paused_clock() {
        let before = Clock.now();
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(Clock.now().since(before), Duration::from_secs(3_600));
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the test plays a runtime that started later")]
    async fn a_runtime_that_started_earlier_still_sees_time_pass() {
        START.get_or_init(|| Instant::now() + Duration::from_secs(60));
        let before = Clock.now();
        tokio::time::advance(Duration::from_nanos(1)).await;
        assert_eq!(Clock.now().since(before), Duration::from_nanos(1));
    }

    #[tokio::test(start_paused = true)]
    async fn instants_and_timestamps_agree() {
        let at = Clock.now() + Duration::from_secs(5);
        tokio::time::sleep_until(Clock.instant(at)).await;
        assert_eq!(Clock.now(), at);
    }
}

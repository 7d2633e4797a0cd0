//! Where the time of day comes from: certificates are valid between two dates.
//!
//! Reading the system clock where a date is compared would make every test of expiry sleep. So the clock is an
//! argument of [`MeshTlsBuilder::clock`](crate::MeshTlsBuilder::clock); [`SystemClock`] is the default, and
//! [`ManualClock`] stands still until it is told to move.
//!
//! This clock is only for validity dates. Timeouts are the runtime's.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustls_pki_types::UnixTime;

/// A source of the time of day.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now, in whole seconds since 1970.
    fn now(&self) -> UnixTime;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl SystemClock {
    /// The clock of the machine.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}

/// A clock that moves only by hand.
///
/// ```
/// use std::time::Duration;
/// use mesh_tls::clock::{Clock, ManualClock, SystemClock};
///
/// let clock = ManualClock::new(SystemClock::new().now());
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now().as_secs(), before.as_secs() + 3600);
/// ```
#[derive(Debug)]
pub struct ManualClock {
    secs: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: UnixTime) -> Self {
        Self { secs: AtomicU64::new(now.as_secs()) }
    }

    /// Moves the clock forwards. Fractions of a second are dropped.
    pub fn advance(&self, by: Duration) {
        self.secs.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.secs.load(Ordering::Relaxed)))
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> UnixTime {
        (**self).now()
    }
}

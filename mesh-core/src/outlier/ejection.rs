//! What comes of a detection: the cap and chance decide, and then for how long.

use std::time::Duration;

use super::{Config, Detection, Detector, Event, Host, WhyNot};
use crate::{
    Ratio, Rng, Timestamp,
    sync::Ordering::{AcqRel, Acquire},
};

impl Detection {
    /// `host` was detected: what comes of it. `None` if it is no longer in the set.
    #[cold]
    pub(super) fn eject(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        host: &Host,
        detector: Detector,
    ) -> Option<Event> {
        let config = self.config();
        // One thread at a time for this host; the cap is shared with the others, hence the reservation.
        let mut history = host.history();
        if history.is_removed() {
            return None;
        }
        let reason = if host.is_ejected() {
            Err(WhyNot::AlreadyEjected)
        } else {
            self.enforce(&config, rng, detector)
        };
        if let Err(why) = reason {
            return Some(Event::NotEjected { detector, why });
        }
        let jitter = jitter(config.max_ejection_jitter(), rng);
        let (until, times) = host.eject(&mut history, &config, now, jitter, detector);
        self.next_return.fetch_min(until.as_nanos(), AcqRel);
        Some(Event::Ejected { detector, until, times })
    }

    /// Takes one of the places under the cap, if chance wants it: in Envoy's order, the cap is asked before.
    fn enforce(
        &self,
        config: &Config,
        rng: &mut impl Rng,
        detector: Detector,
    ) -> Result<(), WhyNot> {
        let (ejected, cap) = (self.ejected(), self.cap());
        if ejected >= cap {
            return Err(WhyNot::OverCap { ejected, cap });
        }
        let enforcing = config.enforcing(detector);
        if enforcing < Ratio::ONE && !rng.chance(enforcing) {
            return Err(WhyNot::NotEnforced { enforcing });
        }
        self.reserve()
    }

    fn reserve(&self) -> Result<(), WhyNot> {
        let cap = self.cap();
        let mut ejected = self.ejected();
        loop {
            if ejected >= cap {
                return Err(WhyNot::OverCap { ejected, cap });
            }
            match self.ejected.compare_exchange_weak(ejected, ejected + 1, AcqRel, Acquire) {
                Ok(_) => return Ok(()),
                Err(now) => ejected = now,
            }
        }
    }
}

/// In whole milliseconds, as Envoy draws it.
fn jitter(max: Duration, rng: &mut impl Rng) -> Duration {
    let millis = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return Duration::ZERO;
    }
    Duration::from_millis(rng.below(millis.saturating_add(1)))
}

use std::sync::Arc;

use mesh_core::{Outcome, Timestamp};

use super::{Shared, set::Record};
use crate::{Chance, Clock};

/// An endpoint's place in its set. Dropping the last one leaves the set.
#[derive(Debug)]
pub(super) struct Member {
    set: Arc<Shared>,
    record: Arc<Record>,
    chance: Chance,
}

impl Member {
    pub(super) fn join(
        set: Arc<Shared>,
        endpoint: Arc<str>,
        upstream: Option<Arc<str>>,
        chance: Chance,
    ) -> Arc<Self> {
        let record = Arc::new(Record { host: Default::default(), endpoint, upstream });
        set.join(&record);
        Arc::new(Self { set, record, chance })
    }

    /// Until when the endpoint is out of rotation. One load while it is not.
    #[inline]
    pub(super) fn ejected_until(&self) -> Option<Timestamp> {
        let until = self.record.host.ejected_until()?;
        let now = Clock.now();
        if until <= now {
            self.set.sweep(now, &self.chance);
        }
        self.record.host.ejected_until()
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected_until().is_some()
    }

    pub(super) fn on_outcome(&self, outcome: Outcome) {
        self.set.on_outcome(&self.record, &self.chance, outcome);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.set.leave(&self.record);
    }
}

use std::{error::Error, fmt};

use crate::Timestamp;

/// One request in flight. Give it back with the outcome, or to [`Limiter::on_drop`](super::Limiter::on_drop) if there is none: one that is
/// forgotten keeps its slot for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not given back keeps its slot for ever"]
pub struct Permit {
    start: Timestamp,
    epoch: u32,
    in_flight: u32,
}

impl Permit {
    pub(super) const fn new(start: Timestamp, epoch: u32, in_flight: u32) -> Self {
        Self { start, epoch, in_flight }
    }

    /// When the request was admitted; its latency counts from here.
    pub const fn start(&self) -> Timestamp {
        self.start
    }

    /// How many requests were in flight then, this one included.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The number of measurements that had begun until then. A sample from before the last one is void.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// As many requests are in flight as the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Full {
    limit: u32,
}

impl Full {
    pub(super) const fn new(limit: u32) -> Self {
        Self { limit }
    }

    /// The limit that was reached.
    pub const fn limit(&self) -> u32 {
        self.limit
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adaptive limit of {} reached", self.limit)
    }
}

impl Error for Full {}

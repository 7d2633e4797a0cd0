use std::time::Duration;

use super::tally::Tally;
use crate::{Ratio, Timestamp};

/// Where Envoy and gRPC contradict each other. One machine asks; nothing else depends on the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rules {
    Envoy,
    /// gRFC A50.
    Grpc,
}

impl Rules {
    /// How many of `hosts` may be out at once.
    pub(super) fn cap(self, share: Ratio, hosts: u32) -> u32 {
        let hosts = u64::from(hosts);
        let cap = match self {
            // With the next one it must still be within the share.
            Self::Envoy => share.of(hosts),
            // Without the next one it must still be below the share.
            Self::Grpc => (hosts * u64::from(share.as_ppm())).div_ceil(1_000_000),
        };
        u32::try_from(cap).unwrap_or(u32::MAX)
    }

    /// The first moment at which a host may be back whose time is over at `end`.
    pub(super) fn first_return(self, end: Timestamp) -> Timestamp {
        match self {
            Self::Envoy => end,
            Self::Grpc => end + Duration::from_nanos(1),
        }
    }

    /// The multiplier of the next ejection.
    pub(super) fn grown(self, multiplier: u32, base: Duration, max: Duration) -> u32 {
        let grows = match self {
            // Until the time is past the limit, and no further: else it would take as long to shrink again.
            Self::Envoy => base.saturating_mul(multiplier) < max.saturating_add(base),
            Self::Grpc => true,
        };
        multiplier.saturating_add(u32::from(grows))
    }

    /// Whether an interval in rotation lets the multiplier shrink.
    pub(super) fn shrinks(
        self,
        now: Timestamp,
        unejected_at: Option<Timestamp>,
        interval: Duration,
    ) -> bool {
        match self {
            Self::Envoy => unejected_at.is_some_and(|since| now >= since + interval),
            // Any sweep but the one of its return.
            Self::Grpc => unejected_at != Some(now),
        }
    }

    /// Whether so many failures are too many.
    pub(super) fn is_too_many(self, tally: Tally, threshold: Ratio) -> bool {
        match self {
            Self::Envoy => threshold.is_reached_by(tally.bad, tally.total()),
            Self::Grpc => {
                let allowed = u128::from(tally.total()) * u128::from(threshold.as_ppm());
                u128::from(tally.bad) * 1_000_000 > allowed
            }
        }
    }

    /// Whether hosts come back before the others are compared, not after.
    pub(super) fn returns_first(self) -> bool {
        self == Self::Envoy
    }

    /// Whether hosts that are out are left out of the comparison.
    pub(super) fn skips_ejected(self) -> bool {
        self == Self::Envoy
    }

    /// Whether a host without a request makes up the minimum of hosts, where no requests are asked of it.
    pub(super) fn counts_idle(self) -> bool {
        self == Self::Grpc
    }

    /// Whether it is only a comparison if the set as a whole is large enough.
    pub(super) fn counts_hosts_first(self) -> bool {
        self == Self::Envoy
    }

    /// Whether a configuration without any detector brings everybody back, with a clean record.
    pub(super) fn off_forgives(self) -> bool {
        self == Self::Grpc
    }

    /// Whether "too many requests" is a failure of the endpoint.
    pub(super) fn blames_for_throttling(self) -> bool {
        self == Self::Grpc
    }

    /// Whether a bound below the base time reads as the base time, rather than being refused.
    pub(super) fn accepts_short_bound(self) -> bool {
        self == Self::Grpc
    }
}

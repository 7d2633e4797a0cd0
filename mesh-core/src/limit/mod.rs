//! Limits on what one upstream may have in use at once: requests, pending requests, connections, retries.
//!
//! # Why not a semaphore
//!
//! A semaphore makes callers wait, and a queue in front of a slow upstream is how one sick service takes its
//! callers' memory with it. This machine never waits: a slot is free now, or the answer is [`Full`] now.
//!
//! # How it decides
//!
//! A slot is granted while `in_use < max`; `max = 0` refuses everything. The moment that a slot is released,
//! the next request passes: there is no open or half-open state. This is Envoy's `circuit_breakers.thresholds`,
//! with one difference: Envoy's counters may be exceeded for a moment by threads that race; here the test
//! and the count are one atomic step, so `in_use` never exceeds `max` by way of [`Limits::try_acquire`].
//!
//! [`Limits::force_acquire`] may exceed it on purpose: in Envoy an endpoint without any connection may always
//! open one.
//!
//! | limit | default | counts | source |
//! | --- | --- | --- | --- |
//! | [`Resource::Requests`] | 1,024 | requests in flight | `max_requests` |
//! | [`Resource::Pending`] | 1,024 | requests that wait for a connection | `max_pending_requests` |
//! | [`Resource::Connections`] | 1,024 | connections to all endpoints | `max_connections` |
//! | [`Resource::Retries`] | 3 | retries in flight and in back-off; a retry budget takes its place | `max_retries` |
//! | [`Resource::ConnectionPools`] | none | pools of connections | `max_connection_pools` |
//! | [`Limits::try_connect`] | none | connections to one endpoint, which the caller counts | `per_host_thresholds` |
//!
//! Envoy has these limits once for each [`Priority`], and they share nothing. So there is one [`Limits`] for each, from
//! [`Priorities`], which reads a list of thresholds as Envoy does.
//!
//! # What it does not do
//!
//! It does not learn: the figures stay as configured, however slow the upstream is ([`adaptive`] learns). A lowered limit
//! takes nothing back: it admits nobody until enough slots are released.
//!
//! # Where it differs from Envoy
//!
//! In Envoy each priority has connections of its own. The upstream of `mesh-tower` lets both use the same ones, so
//! connections, and the requests that wait for one, are counted together, by the thresholds of
//! [`Priority::Default`]. Its pools are one for each endpoint and made with it: it asks for no
//! [`Resource::ConnectionPools`].
//!
//! # Example
//!
//! ```
//! use mesh_core::limit::{Config, Limits, Resource};
//!
//! let limits = Limits::new(Config::default().with_max_requests(1));
//! let permit = limits.try_acquire(Resource::Requests).unwrap();
//!
//! let full = limits.try_acquire(Resource::Requests).unwrap_err();
//! assert_eq!(full.to_string(), "max_requests of 1 reached");
//!
//! limits.release(permit);
//! assert_eq!(limits.in_use(Resource::Requests), 0);
//! ```

use std::{error::Error, fmt};

use crate::sync::{AtomicU32, Ordering};

pub mod adaptive;
mod config;
pub mod overload;
mod priority;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::Config;
pub use priority::{Priorities, Priority, Thresholds};

/// The slots of one upstream, shared by all its requests.
///
/// One compare-and-swap for each slot taken, one subtraction for each given back; no lock, no allocation.
#[derive(Debug)]
pub struct Limits {
    requests: Counter,
    pending: Counter,
    connections: Counter,
    retries: Counter,
    connection_pools: Counter,
    max_connections_per_host: AtomicU32,
}

impl Limits {
    /// All slots free.
    pub fn new(config: Config) -> Self {
        let counter = |resource| Counter::new(config.max(resource));
        Self {
            requests: counter(Resource::Requests),
            pending: counter(Resource::Pending),
            connections: counter(Resource::Connections),
            retries: counter(Resource::Retries),
            connection_pools: counter(Resource::ConnectionPools),
            max_connections_per_host: AtomicU32::new(config.max_connections_per_host()),
        }
    }

    /// Replaces the limits. Slots in use stay in use: none is lost, none is minted.
    ///
    /// ```
    /// use mesh_core::limit::{Config, Limits, Resource};
    ///
    /// let limits = Limits::new(Config::unlimited());
    /// let permit = limits.try_acquire(Resource::Retries).unwrap();
    /// limits.set_config(&Config::unlimited().with_max_retries(1));
    /// assert!(limits.try_acquire(Resource::Retries).is_err());
    /// limits.release(permit);
    /// assert!(limits.try_acquire(Resource::Retries).is_ok());
    /// ```
    pub fn set_config(&self, config: &Config) {
        for resource in Resource::ALL {
            self.counter(resource).max.store(config.max(resource), Ordering::Relaxed);
        }
        self.max_connections_per_host.store(config.max_connections_per_host(), Ordering::Relaxed);
    }

    /// The limits in force.
    pub fn config(&self) -> Config {
        let max = |resource| self.counter(resource).max.load(Ordering::Relaxed);
        Config::default()
            .with_max_requests(max(Resource::Requests))
            .with_max_pending(max(Resource::Pending))
            .with_max_connections(max(Resource::Connections))
            .with_max_retries(max(Resource::Retries))
            .with_max_connection_pools(max(Resource::ConnectionPools))
            .with_max_connections_per_host(self.max_connections_per_host.load(Ordering::Relaxed))
    }

    /// Takes a slot if one is free.
    ///
    /// # Errors
    ///
    /// [`Full`] when `in_use` has reached the limit. Nothing was taken.
    pub fn try_acquire(&self, resource: Resource) -> Result<Permit, Full> {
        let counter = self.counter(resource);
        let limit = counter.max.load(Ordering::Relaxed);
        // The test and the count are one step: a plain load and a later add would let two threads share the
        // last slot. Relaxed is enough, since the counter guards no other memory.
        let taken = counter.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |in_use| {
            (in_use < limit).then(|| in_use + 1)
        });
        match taken {
            Ok(_) => Ok(Permit { resource }),
            Err(_) => Err(Full { resource, limit, per_host: false }),
        }
    }

    /// Takes a slot of [`Resource::Connections`] for an endpoint to which there are `open` connections already, if it
    /// may have one more (Envoy `HostImpl::canCreateConnection`: the endpoint's own limit is asked first).
    ///
    /// # Errors
    ///
    /// [`Full`] with the limit that was reached: the endpoint's own, or that of all endpoints. Nothing was taken.
    ///
    /// ```
    /// use mesh_core::limit::{Config, Limits};
    ///
    /// let limits = Limits::new(Config::default().with_max_connections_per_host(2));
    /// let second = limits.try_connect(1).unwrap();
    /// let full = limits.try_connect(2).unwrap_err();
    /// assert_eq!(full.to_string(), "max_connections_per_host of 2 reached");
    /// limits.release(second);
    /// ```
    pub fn try_connect(&self, open: u32) -> Result<Permit, Full> {
        let limit = self.max_connections_per_host.load(Ordering::Relaxed);
        if open >= limit && limit != Config::UNLIMITED {
            return Err(Full { resource: Resource::Connections, limit, per_host: true });
        }
        self.try_acquire(Resource::Connections)
    }

    /// Takes a slot whether or not one is free.
    ///
    /// For Envoy's rule that an endpoint without a connection may always open one: without it, an upstream
    /// of more endpoints than `max_connections` would leave some of them out for ever.
    ///
    /// ```
    /// use mesh_core::limit::{Config, Limits, Resource};
    ///
    /// let limits = Limits::new(Config::default().with_max_connections(0));
    /// let first_of_its_endpoint = limits.force_acquire(Resource::Connections);
    /// assert_eq!(limits.in_use(Resource::Connections), 1);
    /// limits.release(first_of_its_endpoint);
    /// ```
    pub fn force_acquire(&self, resource: Resource) -> Permit {
        self.counter(resource).in_use.fetch_add(1, Ordering::Relaxed);
        Permit { resource }
    }

    /// Gives a slot back. The permit must come from this [`Limits`]: another's would free a slot that
    /// nobody gave back here.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is given back once")]
    pub fn release(&self, permit: Permit) {
        self.counter(permit.resource).in_use.fetch_sub(1, Ordering::Relaxed);
    }

    /// Slots in use.
    pub fn in_use(&self, resource: Resource) -> u32 {
        self.counter(resource).in_use.load(Ordering::Relaxed)
    }

    /// Slots free; 0 while more are in use than the limit allows.
    pub fn remaining(&self, resource: Resource) -> u32 {
        let counter = self.counter(resource);
        let in_use = counter.in_use.load(Ordering::Relaxed);
        counter.max.load(Ordering::Relaxed).saturating_sub(in_use)
    }

    /// Whether the next one would be refused: Envoy's gauges `rq_open`, `cx_open` and so on.
    ///
    /// ```
    /// use mesh_core::limit::{Config, Limits, Resource};
    ///
    /// let limits = Limits::new(Config::default().with_max_requests(1));
    /// assert!(!limits.is_full(Resource::Requests));
    /// let permit = limits.try_acquire(Resource::Requests).unwrap();
    /// assert!(limits.is_full(Resource::Requests));
    /// # limits.release(permit);
    /// ```
    pub fn is_full(&self, resource: Resource) -> bool {
        self.remaining(resource) == 0
    }

    fn counter(&self, resource: Resource) -> &Counter {
        match resource {
            Resource::Requests => &self.requests,
            Resource::Pending => &self.pending,
            Resource::Connections => &self.connections,
            Resource::Retries => &self.retries,
            Resource::ConnectionPools => &self.connection_pools,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "Envoy's five; each caller decides on each of them")]
pub enum Resource {
    /// Requests in flight.
    Requests,
    /// Requests that wait for a connection.
    Pending,
    /// Connections of the upstream.
    Connections,
    /// Retries in flight, with those in back-off.
    Retries,
    /// Pools of connections.
    ConnectionPools,
}

impl Resource {
    /// Every resource.
    pub const ALL: [Self; 5] =
        [Self::Requests, Self::Pending, Self::Connections, Self::Retries, Self::ConnectionPools];

    /// The name of the setting that limits it, such as `max_requests`.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Requests => "max_requests",
            Self::Pending => "max_pending",
            Self::Connections => "max_connections",
            Self::Retries => "max_retries",
            Self::ConnectionPools => "max_connection_pools",
        }
    }
}

/// One slot in use: hand it back by [`Limits::release`]. A permit that is forgotten keeps its slot for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not released keeps its slot for ever"]
pub struct Permit {
    resource: Resource,
}

impl Permit {
    /// What it is a slot of.
    pub fn resource(&self) -> Resource {
        self.resource
    }
}

/// No slot was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Full {
    resource: Resource,
    limit: u32,
    per_host: bool,
}

impl Full {
    /// What there was no slot of.
    pub fn resource(&self) -> Resource {
        self.resource
    }

    /// The limit that was reached.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether it was the limit of one endpoint.
    pub fn is_per_host(&self) -> bool {
        self.per_host
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting =
            if self.per_host { "max_connections_per_host" } else { self.resource.setting() };
        write!(f, "{setting} of {} reached", self.limit)
    }
}

impl Error for Full {}

#[derive(Debug)]
struct Counter {
    in_use: AtomicU32,
    max: AtomicU32,
}

impl Counter {
    fn new(max: u32) -> Self {
        Self { in_use: AtomicU32::new(0), max: AtomicU32::new(max) }
    }
}

//! Endpoints from DNS: the addresses of a host (A, AAAA), or the targets of a service (SRV), asked for again whenever
//! an answer expires.
//!
//! Why not `tokio::net::lookup_host` at an interval: the system's resolver does not tell the TTL, knows no SRV, says
//! "no such name" and "no address" in one breath, and blocks a thread for each lookup. Why not resolve when a connection is made,
//! as HTTP clients do: then one address is seen at a time, and there is nothing to balance.
//!
//! # When it asks
//!
//! | after | it waits | source |
//! | --- | --- | --- |
//! | an answer | its TTL, from `min_refresh` (5 s) to `max_refresh` (5 min), and up to `jitter` (0) more | Envoy `respect_dns_ttl`, `dns_min_refresh_rate`, `dns_jitter` |
//! | a failure | [`Config::with_retry`]: 1 s, growing to 30 s, ±20 % | Envoy `dns_failure_refresh_rate`; gRPC's figures |
//!
//! The TTL of an answer is the least of all records that it was made of: those of the targets too, with SRV. An answer
//! without records has the TTL of the zone's SOA record, or 0 if that does not come with it.
//!
//! # What an answer means
//!
//! | answer | endpoints |
//! | --- | --- |
//! | records | those, and no others |
//! | the name is there, and has no such record (NODATA) | none: the set is emptied |
//! | no such name (NXDOMAIN) | as they were, and an [`Error`]; none with [`Config::with_nxdomain_empties`] |
//! | the server fails, refuses, or does not answer | as they were, and an [`Error`] that says how old they are |
//!
//! NODATA is what a service answers that has no server at present: that is knowledge. NXDOMAIN is what a typing error
//! answers, a zone that is being loaded, and a service that was deleted: of the three the first two are the more
//! frequent. Envoy empties its set on both.
//!
//! # SRV (RFC 2782)
//!
//! * Only the records of the lowest priority number are used. The next ones are not a fallback: while those endpoints
//!   are ejected, the upstream does what it does when all are.
//! * The weight of a record is the weight of its target; with several addresses it is divided among them, for which all weights
//!   may be multiplied by one factor. Records of one address and port add up.
//! * A weight of 0 counts as 1: the smallest that there is. So all 0 is all alike, and beside others it is RFC 2782's
//!   "very small chance".
//! * A target of `.` is no target. One that does not exist is left out; if none exists, the answer counts as NXDOMAIN. One
//!   whose lookup fails fails the whole: part of a set would overload the rest.
//! * Targets are looked up one after another.
//!
//! # What it does not do
//!
//! No TLS, no HTTPS and no DNSSEC: bring a resolver that does it ([`Resolver::from_hickory`]). It does not ask sooner because
//! endpoints fail: outlier detection passes them over meanwhile.
//!
//! # Example
//!
//! ```no_run
//! use mesh_tower::{discover::dns::{Config, Dns, Resolver}, upstream::{Origin, Upstream}};
//!
//! # async fn run() -> Result<(), mesh_tower::BoxError> {
//! let payments = Config::addresses("payments.default.svc.cluster.local.", 8080)?;
//! let upstream = Upstream::builder("payment-service")
//!     .discover(Dns::new(payments, &Resolver::system()?))
//!     .spawn(|_: &Origin<'_>| ())?;
//! if let Some(discovery) = upstream.discovery() {
//!     println!("{discovery}");
//! }
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod lookup;
mod resolver;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

pub use hickory_resolver;
use mesh_core::{Endpoint, Rng, Timestamp};
use tokio::time::{Sleep, sleep_until};

pub use config::{Config, Family};
pub use error::Error;
pub use resolver::Resolver;

use self::{
    error::Trouble,
    lookup::{Answered, Ask},
};
use super::{Discover, Update};
use crate::{BoxError, Chance, Clock};

/// A source of endpoints that asks DNS. See the [module's docs](self).
///
/// Its items are complete sets, one for each good answer, whether that differs from the last or not. Its errors are
/// [`Error`]s. It never ends.
pub struct Dns {
    config: Arc<Config>,
    ask: Arc<dyn Ask>,
    chance: Chance,
    state: State,
    good: Option<Timestamp>,
    failures: u32,
}

enum State {
    Idle,
    Asking(Pin<Box<dyn Future<Output = Result<Answered<Endpoint>, Trouble>> + Send>>),
    Waiting(Pin<Box<Sleep>>),
}

impl Dns {
    /// Asks this resolver, for the first time when it is polled first.
    pub fn new(config: Config, resolver: &Resolver) -> Self {
        Self::with_ask(config, Arc::new(resolver.clone()))
    }

    /// Where the jitter comes from. Default: each thread's own generator.
    #[must_use]
    pub fn with_chance(self, chance: Chance) -> Self {
        Self { chance, ..self }
    }

    fn with_ask(config: Config, ask: Arc<dyn Ask>) -> Self {
        Self {
            config: Arc::new(config),
            ask,
            chance: Chance::default(),
            state: State::Idle,
            good: None,
            failures: 0,
        }
    }

    fn ask(&self) -> State {
        let (config, ask) = (self.config.clone(), self.ask.clone());
        State::Asking(Box::pin(async move { lookup::endpoints(&config, &*ask).await }))
    }

    /// What to say, and how long to wait before the next question.
    fn on_answer(
        &mut self,
        answer: Result<Answered<Endpoint>, Trouble>,
        now: Timestamp,
    ) -> (Result<Update, BoxError>, Duration) {
        match answer {
            Ok((endpoints, ttl)) => {
                self.good = Some(now);
                self.failures = 0;
                let wait = ttl.clamp(self.config.min_refresh(), self.config.max_refresh());
                (Ok(Update::Set(endpoints)), wait.saturating_add(self.jitter()))
            }
            Err(trouble) => {
                self.failures = self.failures.saturating_add(1);
                let age = self.good.map(|good| now.since(good));
                let wait = self.config.retry().delay(self.failures, &mut self.chance.rng());
                (Err(Error::new(trouble, age, self.failures).into()), wait)
            }
        }
    }

    fn jitter(&self) -> Duration {
        let most = u64::try_from(self.config.jitter().as_nanos()).unwrap_or(u64::MAX);
        match most {
            0 => Duration::ZERO,
            most => Duration::from_nanos(self.chance.rng().below(most)),
        }
    }
}

impl Discover for Dns {
    fn poll_update(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Update, BoxError>>> {
        loop {
            match &mut self.state {
                State::Idle => self.state = self.ask(),
                State::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.state = self.ask();
                }
                State::Asking(lookup) => {
                    let answer = ready!(lookup.as_mut().poll(cx));
                    let now = Clock.now();
                    let (item, wait) = self.on_answer(answer, now);
                    self.state = State::Waiting(Box::pin(sleep_until(Clock.instant(now + wait))));
                    return Poll::Ready(Some(item));
                }
            }
        }
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("config", &self.config).finish_non_exhaustive()
    }
}

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream::FuturesUnordered};
use mesh_core::{
    Endpoint, Rng, Timestamp,
    health::{Check, Checker, Config, Transition, Verdict},
};

use super::{CheckHealth, Report};

/// How an upstream's endpoints are checked.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) check: Arc<dyn CheckHealth>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The checks of one upstream: which are due, and which are under way. O(log n) for each check.
pub(crate) struct Rounds {
    settings: Settings,
    endpoints: BTreeMap<Arc<str>, Checked>,
    due: BTreeSet<(Timestamp, Arc<str>)>,
    under_way: FuturesUnordered<UnderWay>,
    /// Tells listings of one address apart.
    listings: u64,
}

struct Checked {
    endpoint: Arc<Endpoint>,
    checker: Checker,
    listing: u64,
}

type UnderWay = Pin<Box<dyn Future<Output = (Arc<str>, u64, Check, Report)> + Send>>;

/// What came of a check.
pub(crate) struct Ended {
    pub(crate) address: Arc<str>,
    pub(crate) report: Report,
    pub(crate) transition: Option<Transition>,
    /// What follows from all checks so far.
    pub(crate) is_well: bool,
}

impl Rounds {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            endpoints: BTreeMap::new(),
            due: BTreeSet::new(),
            under_way: FuturesUnordered::new(),
            listings: 0,
        }
    }

    /// Who is to be checked from now on. Who stays keeps what is known.
    pub(crate) fn follow(
        &mut self,
        endpoints: &BTreeMap<Arc<str>, Arc<Endpoint>>,
        now: Timestamp,
        rng: &mut impl Rng,
    ) {
        let Self { settings, endpoints: known, due, listings, .. } = self;
        known.retain(|address, checked| {
            let stays = endpoints.contains_key(address);
            if !stays {
                due.remove(&(checked.checker.poll_timeout(), address.clone()));
            }
            stays
        });
        for (address, endpoint) in endpoints {
            if let Some(checked) = known.get_mut(address) {
                checked.endpoint = endpoint.clone();
                continue;
            }
            let checker = Checker::new(&settings.config, now, rng);
            due.insert((checker.poll_timeout(), address.clone()));
            *listings += 1;
            let checked = Checked { endpoint: endpoint.clone(), checker, listing: *listings };
            known.insert(address.clone(), checked);
        }
    }

    /// When the next check begins.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Begins what is due.
    pub(crate) fn start(&mut self, now: Timestamp) {
        while let Some((at, address)) = self.due.first().filter(|(at, _)| *at <= now) {
            let (at, address) = (*at, address.clone());
            self.due.remove(&(at, address.clone()));
            let Some(checked) = self.endpoints.get_mut(&address) else { continue };
            let Some(check) = checked.checker.try_start(&self.settings.config, now) else {
                continue;
            };
            let (limit, listing) = (self.settings.config.timeout(), checked.listing);
            let asked = self.settings.check.check(Endpoint::clone(&checked.endpoint));
            self.under_way.push(Box::pin(async move {
                (address, listing, check, within(limit, asked).await)
            }));
        }
    }

    /// The next check that ends; pending while none is under way.
    pub(crate) fn poll_ended(
        &mut self,
        cx: &mut Context<'_>,
        clock: impl Fn() -> Timestamp,
        rng: &mut impl Rng,
    ) -> Poll<Ended> {
        loop {
            let under_way = Pin::new(&mut self.under_way);
            let Poll::Ready(Some((address, listing, check, report))) = under_way.poll_next(cx)
            else {
                return Poll::Pending;
            };
            let Some(checked) =
                self.endpoints.get_mut(&address).filter(|checked| checked.listing == listing)
            else {
                continue;
            };
            let (config, verdict) = (&self.settings.config, report.verdict());
            let transition = checked.checker.on_verdict(config, clock(), rng, check, verdict);
            self.due.insert((checked.checker.poll_timeout(), address.clone()));
            let is_well = checked.checker.is_available(config);
            return Poll::Ready(Ended { address, report, transition, is_well });
        }
    }
}

async fn within(limit: Duration, asked: impl Future<Output = Report>) -> Report {
    let late = |_| Report::failed(format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, asked).await.unwrap_or_else(late)
}

impl Ended {
    /// Whether the endpoint has said that it is well.
    pub(crate) fn has_passed(&self) -> bool {
        self.report.verdict() == Verdict::Passed
    }
}

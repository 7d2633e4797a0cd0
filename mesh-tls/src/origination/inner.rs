//! What a handle, its connectors and its driver share.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

#[cfg(feature = "metrics")]
use super::metrics::Gauges;
use super::{
    config::Config,
    generation::{self, Generation, Own, Trust},
    status::Status,
};
use crate::{
    backend::{Anchors, Provider, Revoked},
    error::{ConnectError, ConnectErrorKind, MaterialError},
    mesh::{Counter, Shared, Stats},
    source::Bytes,
};

pub(crate) struct Inner {
    pub(super) config: Config,
    /// Cryptography, counters, and the connections that exist.
    pub(super) shared: Arc<Shared>,
    pub(super) current: ArcSwap<Generation>,
    /// The number of the current generation. Its sender living here tells the driver when to stop.
    pub(super) published: watch::Sender<u64>,
    /// Why what was read last is not in use.
    errors: Mutex<BTreeMap<Part, String>>,
    #[cfg(feature = "metrics")]
    gauges: Gauges,
}

/// Where an error is from: one that is over says nothing of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Files,
    #[cfg(feature = "system-roots")]
    System,
    Driver,
}

/// What was read. `None`: it was not looked at.
struct Found {
    anchors: Option<Result<Anchors, MaterialError>>,
    revoked: Option<Result<Revoked, MaterialError>>,
    own: Result<Option<Own>, MaterialError>,
}

impl Inner {
    pub(super) fn new(
        config: Config,
        provider: Provider,
        files: &[Bytes],
    ) -> Result<Self, MaterialError> {
        let trust = Trust {
            anchors: Arc::new(generation::anchors(&config, files)?),
            revoked: Arc::new(generation::revoked(&config, files)?),
        };
        let own = generation::own(&config, files, &provider)?;
        let first = Generation::build(1, trust, own, &config, &provider)?;
        let name = config.name();
        let inner = Self {
            #[cfg(feature = "metrics")]
            gauges: Gauges::new(name.clone()),
            config,
            shared: Shared::outside(provider, name),
            current: ArcSwap::from_pointee(first),
            published: watch::Sender::new(1),
            errors: Mutex::default(),
        };
        inner.tell_of_publication();
        Ok(inner)
    }

    /// Whether what we have to show is still good.
    pub(super) fn check(&self) -> Result<(), ConnectError> {
        match self.current.load().has_expired(self.shared.provider.clock.now()) {
            true => Err(ConnectError::new(ConnectErrorKind::IdentityExpired)),
            false => Ok(()),
        }
    }

    pub(super) fn counted<T>(&self, result: Result<T, ConnectError>) -> Result<T, ConnectError> {
        result.inspect_err(|error| {
            self.shared.counters.add(error.kind().into());
            tracing::debug!(%error, "no connection");
        })
    }

    pub(super) fn status(&self) -> Status {
        let last_error = self.errors().values().next().cloned();
        let now = self.shared.provider.clock.now();
        Status::of(&self.config, &self.current.load(), now, last_error)
    }

    pub(super) fn stats(&self) -> Stats {
        let current = self.current.load();
        Stats {
            generation: current.number,
            not_after: current.not_after(),
            ..self.shared.counters.snapshot(None)
        }
    }

    /// Puts to use what is good of these files.
    pub(super) fn update(&self, files: &[Bytes]) {
        let config = &self.config;
        let found = Found {
            anchors: config.roots.path().map(|_| generation::anchors(config, files)),
            revoked: config.crl().map(|_| generation::revoked(config, files)),
            own: generation::own(config, files, &self.shared.provider),
        };
        self.take(Part::Files, found);
    }

    /// Puts to use the roots of the operating system, if they are others.
    #[cfg(feature = "system-roots")]
    pub(super) fn update_system(&self, read: Result<Anchors, MaterialError>) {
        self.take(Part::System, Found { anchors: Some(read), revoked: None, own: Ok(None) });
    }

    fn take(&self, part: Part, found: Found) {
        let current = self.current.load_full();
        let known = current.trust();
        let mut refused = None;
        // Of two errors the first is told: to mend it shows the other.
        let mut refuse = |error| {
            let _first = refused.get_or_insert(error);
        };
        let anchors = found.anchors.and_then(|read| read.map_err(&mut refuse).ok());
        let anchors = anchors.filter(|anchors| *anchors != *known.anchors);
        let revoked = found.revoked.and_then(|read| read.map_err(&mut refuse).ok());
        let revoked = revoked.filter(|revoked| *revoked != *known.revoked);
        let own = found.own.map_err(&mut refuse).ok().flatten();
        let own = own.filter(|own| own.is_other_than(current.own.as_ref()));
        if anchors.is_some() || revoked.is_some() || own.is_some() {
            let trust = Trust {
                anchors: anchors.map_or(known.anchors, Arc::new),
                revoked: revoked.map_or(known.revoked, Arc::new),
            };
            let own = own.or_else(|| current.own.clone());
            let (number, provider) = (current.number + 1, &self.shared.provider);
            match Generation::build(number, trust, own, &self.config, provider) {
                Ok(generation) => self.publish(generation),
                Err(error) => refused = Some(error),
            }
        }
        self.report(part, refused.as_ref());
    }

    fn publish(&self, generation: Generation) {
        let number = generation.number;
        self.current.store(Arc::new(generation));
        self.tell_of_publication();
        self.published.send_replace(number);
        self.shared.live.changed();
    }

    fn tell_of_publication(&self) {
        let current = self.current.load();
        let Generation { number, verifier, .. } = &**current;
        tracing::info!(
            upstream = self.config.name(),
            generation = number,
            roots = ?verifier.anchors(),
            lists = ?verifier.revoked(),
            not_after = current.not_after(),
            "trust in servers outside the mesh published"
        );
        #[cfg(feature = "metrics")]
        self.gauges.published(&self.status());
        self.shared.counters.add(Counter::Rotations);
    }

    /// Notes why what was read is not in use as it is, or that it is.
    pub(super) fn report(&self, part: Part, error: Option<&MaterialError>) {
        let Some(error) = error else {
            self.errors().remove(&part);
            return;
        };
        let text = match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        let before = self.errors().insert(part, text.clone());
        if before.as_ref() != Some(&text) {
            self.shared.counters.add(Counter::UpdatesRefused);
            let upstream = self.config.name();
            tracing::warn!(upstream, error = %text, "not updated; the last good one stays in use");
        }
    }

    fn errors(&self) -> MutexGuard<'_, BTreeMap<Part, String>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

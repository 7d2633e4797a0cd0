use std::{sync::Arc, time::Duration};

use mesh_core::limit::{adaptive, overload::Action};
use tower_layer::Layer;

use super::{Server, defence::Defence};
use crate::{
    Chance,
    limit::{self, Gate, Refusals, Side},
};

/// Makes [`Server`] services. All of one layer, and their clones, share the same slots and queue; axum, which applies
/// a layer to each of its routes, therefore has one limit for all of them.
///
/// ```
/// use mesh_tower::{limit, server::ServerLayer};
///
/// let layer = ServerLayer::builder().limit(limit::Config::default()).build();
/// assert_eq!(layer.limit().in_flight(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct ServerLayer {
    gate: Arc<Gate>,
    settings: Settings,
}

/// What each service of a layer needs to know, besides the gate.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) refusals: Refusals,
    pub(super) max_wait: Option<Duration>,
    pub(super) default_timeout: Option<Duration>,
    pub(super) max_timeout: Option<Duration>,
    pub(super) trust_headers: bool,
    pub(super) defence: Defence,
}

impl ServerLayer {
    /// Begins with no limit, no timeout of its own, and trust in the callers' headers.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            limit: limit::Config::unlimited(),
            adaptive: None,
            settings: Settings {
                refusals: Refusals::new(Side::Server),
                max_wait: None,
                default_timeout: None,
                max_timeout: None,
                trust_headers: true,
                defence: Defence::default(),
            },
        }
    }

    /// Looks at the limit and changes it while requests are under way.
    pub fn limit(&self) -> limit::Handle {
        limit::Handle::new(Arc::clone(&self.gate))
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Server<S> {
        Server::new(inner, Arc::clone(&self.gate), self.settings.clone())
    }
}

/// Collects the settings of a [`ServerLayer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerBuilder {
    limit: limit::Config,
    adaptive: Option<adaptive::Config>,
    settings: Settings,
}

impl ServerBuilder {
    /// How many requests are in hand (`max_requests`) and wait (`max_pending`) at most. Default: no limit.
    pub fn limit(mut self, limit: limit::Config) -> Self {
        self.limit = limit;
        self
    }

    /// Learns how many requests to have in hand from how long they take, in place of `max_requests`: see [`adaptive`].
    /// Give it a queue with [`limit`](Self::limit), by default it has no end; a short one lets requests wait while
    /// the limiter measures. Default: a fixed limit.
    ///
    /// A request lasts from its slot to the end of its body. Its outcome is that of the [standard
    /// classification](crate::classify), a [`Timeout`](mesh_core::Outcome::Timeout) if its deadline passes, and none if
    /// its caller leaves.
    ///
    /// ```
    /// use mesh_tower::{limit::{self, adaptive}, server::ServerLayer};
    ///
    /// let layer = ServerLayer::builder()
    ///     .limit(limit::Config::default().with_max_pending(50))
    ///     .adaptive_limit(adaptive::Config::default())
    ///     .build();
    /// assert!(layer.limit().limiter().unwrap().is_measuring());
    /// ```
    pub fn adaptive_limit(mut self, adaptive: adaptive::Config) -> Self {
        self.adaptive = Some(adaptive);
        self
    }

    /// How long a request may wait for its turn. By default as long as its deadline allows, or its caller stays.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = Some(max_wait);
        self
    }

    /// The time of a request whose caller does not say how long it waits. Default: none, as in Istio.
    pub fn default_timeout(mut self, timeout: Duration) -> Self {
        self.settings.default_timeout = Some(timeout);
        self
    }

    /// The most time that a caller can ask for (Envoy `max_grpc_timeout`); it also holds where the caller says nothing.
    /// Default: any.
    pub fn max_timeout(mut self, timeout: Duration) -> Self {
        self.settings.max_timeout = Some(timeout);
        self
    }

    /// Whether callers may set their deadline and attempt number by headers. Default: yes. At the edge of the mesh: no,
    /// as Envoy removes such headers there.
    pub fn trust_headers(mut self, trust: bool) -> Self {
        self.settings.trust_headers = trust;
        self
    }

    /// Turns requests away while something else than slots is scarce: memory, file handles, a queue behind the handler
    /// (Envoy's load-shed points, `stop_accepting_requests`). The application measures the pressure and reports it to the
    /// same [`Action`]; the share of the requests that is refused is the action's state. Default: none.
    ///
    /// ```
    /// use mesh_core::Ratio;
    /// use mesh_tower::{limit::overload::{Action, Trigger}, server::ServerLayer};
    /// use std::sync::Arc;
    ///
    /// let percent = Ratio::from_percent;
    /// let shed = Arc::new(Action::new([Trigger::scaled("heap", percent(80), percent(95))?])?);
    /// let layer = ServerLayer::builder().shed(shed.clone()).build();
    /// // Now and then, by whoever knows. From here on a third of the requests is refused, by chance.
    /// shed.on_pressure("heap", percent(85));
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn shed(mut self, action: Arc<Action>) -> Self {
        self.settings.defence.shed = Some(action);
        self
    }

    /// Shortens the time of each new request while something is scarce, down to `least` (Envoy `reduce_timeouts`). What
    /// the caller asks for, the default and the most are shortened alike; a time that is shorter than `least` stays, and
    /// so do no time at all and a deadline among the request's extensions. Default: none.
    ///
    /// ```
    /// use mesh_core::Ratio;
    /// use mesh_tower::{limit::overload::{Action, Trigger}, server::ServerLayer};
    /// use std::{sync::Arc, time::Duration};
    ///
    /// let hurry = Arc::new(Action::new([Trigger::threshold("queue", Ratio::from_percent(90))?])?);
    /// let layer = ServerLayer::builder()
    ///     .default_timeout(Duration::from_secs(60))
    ///     .reduce_timeouts(hurry.clone(), Duration::from_secs(10))
    ///     .build();
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn reduce_timeouts(mut self, action: Arc<Action>, least: Duration) -> Self {
        self.settings.defence.timeouts = Some((action, least));
        self
    }

    /// Where the chance of [`shed`](Self::shed), and of the pauses of an [adaptive limit](Self::adaptive_limit), comes from.
    /// Default: each thread's own generator.
    pub fn chance(mut self, chance: Chance) -> Self {
        self.settings.defence.chance = chance;
        self
    }

    /// The name of this service, for errors and metrics.
    pub fn named(mut self, service: impl Into<Arc<str>>) -> Self {
        self.settings.refusals = self.settings.refusals.named(service.into());
        self
    }

    /// The layer.
    pub fn build(self) -> ServerLayer {
        let chance = self.settings.defence.chance.clone();
        let gate = match self.adaptive {
            None => Gate::new(self.limit),
            Some(adaptive) => Gate::adaptive(self.limit, adaptive, chance),
        };
        if let Some(name) = self.settings.refusals.name() {
            gate.set_name(name);
        }
        ServerLayer { gate, settings: self.settings }
    }
}

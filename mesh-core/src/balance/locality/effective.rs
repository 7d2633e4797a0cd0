use super::Config;

/// What is said at one level, for all upstreams (the mesh) or for one (Istio's DestinationRule). If both are set, the
/// zone-aware one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    locality: Option<Config>,
    zone_aware: Option<Config>,
}

impl Scope {
    /// A level at which nothing is said.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a configuration: in its place as zone-aware ([`Config::zone_aware`]) or not.
    #[must_use]
    pub fn with(mut self, config: Config) -> Self {
        let place =
            if config.zone_routing().is_some() { &mut self.zone_aware } else { &mut self.locality };
        *place = Some(config);
        self
    }

    fn chosen(&self) -> Option<&Config> {
        self.zone_aware.as_ref().or(self.locality.as_ref())
    }
}

/// What a service asks for itself (Kubernetes `trafficDistribution`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Distribution {
    /// Nothing.
    #[default]
    Any,
    /// [`Config::prefer_same_zone`]; `PreferClose` is its old name.
    PreferSameZone,
    /// [`Config::prefer_same_node`].
    PreferSameNode,
}

/// Who said what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the levels of Istio")]
pub enum Source {
    /// The rule of the upstream.
    Rule,
    /// The service itself.
    Service,
    /// The mesh.
    Mesh,
}

/// The configuration that counts, see [`effective`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Effective {
    config: Config,
    source: Source,
    is_forced: bool,
}

impl Effective {
    /// The configuration. If it is zone-aware it may be off: zones are not looked at then, and nothing fails over.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Who said it.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether endpoints are sorted by distance even where nobody detects outliers.
    pub fn is_forced(&self) -> bool {
        self.is_forced
    }
}

/// Which of several configurations counts: the rule's, else the service's, else the mesh's; at one level zone-aware before
/// the others. One that is off (`enabled: false`) counts too: `None`, whatever wider levels say; a zone-aware one that is off is
/// returned as such, because Envoy's own zone-aware routing must be told to be off.
///
/// ```
/// use mesh_core::balance::locality::{Config, Distribution, Scope, Source, effective};
///
/// let on = Scope::new().with(Config::failover());
/// let off = Scope::new().with(Config::failover().with_enabled(false));
/// let found = effective(&Scope::new(), Distribution::Any, &on).unwrap();
/// assert_eq!((found.source(), found.is_forced()), (Source::Mesh, false));
/// assert_eq!(effective(&off, Distribution::PreferSameZone, &on), None);
///
/// let found = effective(&Scope::new(), Distribution::PreferSameZone, &off).unwrap();
/// assert_eq!((found.source(), found.is_forced()), (Source::Service, true));
/// ```
pub fn effective(rule: &Scope, service: Distribution, mesh: &Scope) -> Option<Effective> {
    let of_service = match service {
        Distribution::Any => None,
        Distribution::PreferSameZone => Some(Config::prefer_same_zone()),
        Distribution::PreferSameNode => Some(Config::prefer_same_node()),
    };
    let (config, source) = match (rule.chosen(), of_service, mesh.chosen()) {
        (Some(config), _, _) => (config.clone(), Source::Rule),
        (None, Some(config), _) => (config, Source::Service),
        (None, None, Some(config)) => (config.clone(), Source::Mesh),
        (None, None, None) => return None,
    };
    let is_zone_aware = config.zone_routing().is_some();
    if !config.is_enabled() && !is_zone_aware {
        return None;
    }
    let is_forced = config.is_enabled() && (is_zone_aware || source == Source::Service);
    Some(Effective { config, source, is_forced })
}

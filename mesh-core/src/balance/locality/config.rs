use super::{
    Caller, Distribute, ZoneRouting,
    labels::{ByLabels, HOSTNAME, NETWORK, REGION, SUB_ZONE, ZONE},
};
use crate::{InvalidConfig, Labels, Locality};

/// How far an endpoint is from the caller, and where requests go by that: one of Istio's `distribute`, `failover` with
/// `failoverPriority`, and zone-aware.
///
/// | | distance of an endpoint |
/// | --- | --- |
/// | [`failover`](Config::failover) | 0 in the caller's sub-zone, 1 in its zone, 2 in its region, 3 elsewhere |
/// | … with a region to fail over to | 3 in that region, 4 elsewhere; the first entry for the caller's region counts |
/// | [`with_labels`](Config::with_labels), N of them | 0 if all are equal, N − j if the one at j is the first that is not |
/// | … the first is the network | another network adds N, and the walk goes on |
/// | … and with regions to fail over to | by labels first, then by locality |
/// | [`zone_aware`](Config::zone_aware) | 0 in the caller's region, 1 where it fails over to, 2 elsewhere (after the labels) |
/// | [`distribute`](Config::distribute) | 0 |
///
/// The distances that occur become the priorities 0, 1, 2, ... without gaps.
///
/// ```
/// use mesh_core::balance::locality::Config;
///
/// let config = Config::failover().with_failover("eu", "us")?;
/// assert!(config.is_enabled());
///
/// let error = config.clone().with_failover("eu", "eu").unwrap_err();
/// assert_eq!(error.to_string(), "failover: eu to eu is not allowed, expected two different regions");
/// // Where regions are labels already, they are not told a second time.
/// assert!(config.with_labels(["topology.kubernetes.io/region"]).is_err());
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    kind: Kind,
    is_enabled: bool,
    is_weighted: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Distribute(Vec<Distribute>),
    Failover(Regions, ByLabels),
    ZoneAware(Regions, ByLabels, ZoneRouting),
}

/// From which region to which one fails over.
pub(super) type Regions = Vec<(String, String)>;

impl Config {
    /// To the nearest endpoints that are well: Istio's default.
    pub fn failover() -> Self {
        Self::of(Kind::Failover(Vec::new(), ByLabels::default()))
    }

    /// By given shares. The first entry that is for the caller counts; if none is, requests go anywhere.
    ///
    /// # Errors
    ///
    /// No entry; two entries that are for the same callers.
    pub fn distribute(entries: Vec<Distribute>) -> Result<Self, InvalidConfig> {
        if entries.is_empty() {
            return Err(InvalidConfig::new("distribute", "nothing", "at least one entry"));
        }
        for (index, entry) in entries.iter().enumerate() {
            if entries[..index].iter().any(|other| other.from().overlaps(entry.from())) {
                let from = entry.from();
                return Err(InvalidConfig::new("distribute", from, "callers that do not overlap"));
            }
        }
        Ok(Self::of(Kind::Distribute(entries)))
    }

    /// Within the caller's region by [`Zones`](super::Zones), and to others by distance.
    pub fn zone_aware(routing: ZoneRouting) -> Self {
        Self::of(Kind::ZoneAware(Vec::new(), ByLabels::default(), routing))
    }

    /// Same zone first, then same region, then same network: Kubernetes `trafficDistribution: PreferSameZone`, formerly
    /// `PreferClose`.
    pub fn prefer_same_zone() -> Self {
        Self::by_known_labels(&[NETWORK, REGION, ZONE])
    }

    /// Same node first, then as [`Config::prefer_same_zone`]: Kubernetes `trafficDistribution: PreferSameNode`.
    pub fn prefer_same_node() -> Self {
        Self::by_known_labels(&[NETWORK, REGION, ZONE, SUB_ZONE, HOSTNAME])
    }

    fn by_known_labels(labels: &[&str]) -> Self {
        let labels = ByLabels::new(labels).unwrap_or_default();
        Self::of(Kind::Failover(Vec::new(), labels))
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, is_enabled: true, is_weighted: None }
    }

    /// Callers in the region `from` fail over to the region `to` before any other.
    ///
    /// # Errors
    ///
    /// The same region twice, an empty one, a zone, a wildcard; shares are given ([`Config::distribute`]); labels tell
    /// the region, zone or sub-zone.
    pub fn with_failover(mut self, from: &str, to: &str) -> Result<Self, InvalidConfig> {
        let invalid =
            |expected| InvalidConfig::new("failover", format_args!("{from} to {to}"), expected);
        if from == to {
            return Err(invalid("two different regions"));
        }
        if [from, to].iter().any(|region| region.is_empty() || region.contains(['/', '*'])) {
            return Err(invalid("regions without zone or wildcard"));
        }
        match &mut self.kind {
            Kind::Distribute(_) => return Err(invalid("distribute or failover, not both")),
            Kind::Failover(regions, labels) | Kind::ZoneAware(regions, labels, _) => {
                if labels.topology().is_some() {
                    return Err(invalid("no failover beside labels of region or zone"));
                }
                regions.push((from.to_owned(), to.to_owned()));
            }
        }
        Ok(self)
    }

    /// The nearer, the more of these labels, in this order, are as the caller's; `label=value` wants that value in place
    /// of the caller's. Replaces those of before.
    ///
    /// # Errors
    ///
    /// An empty name, more than one `=`, a label twice; shares are given; labels of region, zone or sub-zone beside
    /// [`Config::with_failover`] or zone-aware.
    pub fn with_labels<I>(mut self, labels: I) -> Result<Self, InvalidConfig>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let new = ByLabels::new(labels)?;
        let invalid =
            |value: &str, expected| Err(InvalidConfig::new("failover_priority", value, expected));
        match (&mut self.kind, new.topology()) {
            (Kind::Distribute(_), _) => {
                return invalid("labels", "distribute or failover_priority, not both");
            }
            (Kind::Failover(regions, _), Some(label)) if !regions.is_empty() => {
                return invalid(label, "no label of region or zone beside failover");
            }
            (Kind::ZoneAware(..), Some(label)) => {
                return invalid(label, "no label of region or zone beside zone-aware");
            }
            (Kind::Failover(_, labels) | Kind::ZoneAware(_, labels, _), _) => *labels = new,
        }
        Ok(self)
    }

    /// Whether it is on (Istio `enabled`). Default yes. One that is off also hides those of wider scope.
    #[must_use]
    pub fn with_enabled(mut self, is_enabled: bool) -> Self {
        self.is_enabled = is_enabled;
        self
    }

    /// Whether a locality is drawn by weight before an endpoint is. Default: with shares, or with regions or labels to
    /// fail over by (as in Istio), so that plain failover does not bend what the balancer would do.
    #[must_use]
    pub fn with_weighted_localities(mut self, is_weighted: bool) -> Self {
        self.is_weighted = Some(is_weighted);
        self
    }

    /// See [`Config::with_enabled`].
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// See [`Config::with_weighted_localities`]. Without anything that finds endpoints unwell nothing fails over.
    pub fn has_weighted_localities(&self, can_fail_over: bool) -> bool {
        self.is_weighted.unwrap_or_else(|| match &self.kind {
            Kind::Distribute(_) => true,
            Kind::Failover(regions, labels) => {
                can_fail_over && !(regions.is_empty() && labels.is_empty())
            }
            Kind::ZoneAware(..) => false,
        })
    }

    /// The rules of [`Config::zone_aware`].
    pub fn zone_routing(&self) -> Option<&ZoneRouting> {
        match &self.kind {
            Kind::ZoneAware(_, _, routing) => Some(routing),
            Kind::Distribute(_) | Kind::Failover(..) => None,
        }
    }

    /// Whether it goes by given shares ([`Config::distribute`]).
    pub fn is_distributed(&self) -> bool {
        matches!(self.kind, Kind::Distribute(_))
    }

    /// The entry of [`Config::distribute`] that is for callers at `locality`.
    pub fn distribute_for(&self, locality: &Locality) -> Option<&Distribute> {
        match &self.kind {
            Kind::Distribute(entries) => {
                entries.iter().find(|entry| entry.from().matches(locality))
            }
            Kind::Failover(..) | Kind::ZoneAware(..) => None,
        }
    }

    /// How far an endpoint of these labels is; its locality counts behind that.
    pub(super) fn distance_of_labels(&self, caller: &Caller, labels: &Labels) -> usize {
        match &self.kind {
            Kind::Distribute(_) => 0,
            Kind::Failover(_, by) | Kind::ZoneAware(_, by, _) => {
                by.distance(caller.labels(), labels)
            }
        }
    }

    /// How far an endpoint of that locality is, among those whose labels are as far.
    pub(super) fn distance_of_locality(&self, caller: &Caller, its: &Locality) -> usize {
        let own = caller.locality();
        // Of who does not know where he is, nobody is near: all are as far.
        if *own == Locality::default() {
            return 0;
        }
        match &self.kind {
            Kind::Distribute(_) => 0,
            Kind::Failover(regions, labels) if !labels.is_empty() && regions.is_empty() => 0,
            Kind::Failover(regions, _) => {
                if own.region() != its.region() {
                    3 + usize::from(
                        fails_over_to(regions, own).is_some_and(|to| to != its.region()),
                    )
                } else if own.zone() != its.zone() {
                    2
                } else {
                    usize::from(own.sub_zone() != its.sub_zone())
                }
            }
            Kind::ZoneAware(regions, ..) => {
                if own.region() == its.region() {
                    0
                } else if fails_over_to(regions, own) == Some(its.region()) {
                    1
                } else {
                    2
                }
            }
        }
    }
}

/// The first entry for the caller's region counts.
fn fails_over_to<'a>(regions: &'a Regions, own: &Locality) -> Option<&'a str> {
    regions.iter().find(|(from, _)| from == own.region()).map(|(_, to)| to.as_str())
}

use std::collections::BTreeMap;

use super::{Config, ZoneRouting};
use crate::{Endpoint, Labels, Locality, balance::priority::Health};

/// Who calls: where it runs, its labels, and who else calls.
///
/// ```
/// use mesh_core::{Labels, Locality, balance::locality::Caller};
///
/// let caller = Caller::at(Locality::new("eu", "a", "")).with_labels(Labels::default());
/// assert_eq!(caller.locality().region(), "eu");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    locality: Locality,
    labels: Labels,
    peers: Vec<(Locality, Health)>,
}

impl Caller {
    /// A caller at `locality`, without labels.
    pub fn at(locality: Locality) -> Self {
        Self { locality, ..Self::default() }
    }

    /// Sets its labels: those by which [`Config::with_labels`] compares.
    #[must_use]
    pub fn with_labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// Sets how many instances of the calling service run where, this one among them: zones are compared by them
    /// ([`Zones`](super::Zones)). Without them requests do not stay in their zone.
    #[must_use]
    pub fn with_peers(mut self, peers: impl IntoIterator<Item = (Locality, Health)>) -> Self {
        self.peers = peers.into_iter().collect();
        self
    }

    /// Where it runs.
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    /// See [`Caller::with_peers`].
    pub fn peers(&self) -> &[(Locality, Health)] {
        &self.peers
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// Some endpoints sorted into priorities, and those of a priority into localities, as seen by one caller. It does not
/// depend on health: built when endpoints or the configuration change. O(n log n).
///
/// ```
/// use mesh_core::{Endpoint, Locality, balance::locality::{Caller, Config, Layout}};
///
/// let endpoints = ["a", "b"].map(|zone| {
///     Endpoint::new(format!("{zone}:80")).with_locality(Locality::new("eu", zone, ""))
/// });
/// let caller = Caller::at(Locality::new("eu", "b", ""));
/// let layout = Layout::new(&Config::failover(), &caller, true, &endpoints);
/// assert_eq!(layout.priorities(), [Some(1), Some(0)]);
/// assert_eq!(layout.levels()[0].groups()[0].endpoints(), [1]);
///
/// // Nobody is ejected where nobody detects outliers: nothing would ever fail over.
/// let flat = Layout::new(&Config::failover(), &caller, false, &endpoints);
/// assert_eq!(flat.priorities(), [Some(0), Some(0)]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Layout {
    levels: Vec<Level>,
    priorities: Vec<Option<usize>>,
    is_weighted: bool,
    zone_routing: Option<ZoneRouting>,
}

/// The endpoints of one priority, by locality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Level {
    groups: Vec<Group>,
}

/// The endpoints of one priority and locality.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    locality: Locality,
    weight: u32,
    endpoints: Vec<usize>,
}

impl Layout {
    /// Sorts `endpoints`: by their own [priority](Endpoint::with_priority), then by distance. `can_fail_over` is whether
    /// anything can find an endpoint to be unwell (Istio wants `outlierDetection`), or failover is
    /// [forced](super::Effective::is_forced); if not, distance counts for nothing.
    pub fn new<'a>(
        config: &Config,
        caller: &Caller,
        can_fail_over: bool,
        endpoints: impl IntoIterator<Item = &'a Endpoint>,
    ) -> Self {
        let by_distance = can_fail_over && config.is_enabled();
        // Many endpoints, few groups: what an endpoint costs is one look-up, by numbers and then one comparison.
        let mut known: BTreeMap<(u32, usize, u64, &Locality), usize> = BTreeMap::new();
        let mut found: Vec<(Rank, Group)> = Vec::new();
        let mut count = 0;
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            let (priority, locality) = (endpoint.priority(), endpoint.locality());
            let far = match by_distance {
                true => config.distance_of_labels(caller, endpoint.labels()),
                false => 0,
            };
            let key = (priority, far, locality.digest(), locality);
            let group = *known.entry(key).or_insert_with(|| {
                let of_locality =
                    if by_distance { config.distance_of_locality(caller, locality) } else { 0 };
                found.push(((priority, far, of_locality), Group::empty(locality)));
                found.len() - 1
            });
            found[group].1.add(index, endpoint);
            count = index + 1;
        }
        found.sort_unstable_by(|(rank, group), (other, of_other)| {
            (rank, &group.locality).cmp(&(other, &of_other.locality))
        });
        let mut levels: Vec<Level> = Vec::new();
        let mut last = None;
        for (rank, group) in found {
            let same = last.replace(rank) == Some(rank);
            match levels.last_mut().filter(|_| same) {
                Some(level) => level.groups.push(group),
                None => levels.push(Level { groups: vec![group] }),
            }
        }
        let entry = Some(config).filter(|config| config.is_enabled());
        if let Some(entry) = entry.and_then(|config| config.distribute_for(caller.locality())) {
            for Level { groups } in &mut levels {
                let weights: Vec<_> =
                    groups.iter().map(|group| (group.locality.clone(), group.weight)).collect();
                let mut shares = entry.shares(&weights).into_iter();
                groups.retain_mut(|group| {
                    let share = shares.next().flatten();
                    group.weight = share.unwrap_or_default();
                    share.is_some()
                });
            }
            levels.retain(|level| !level.groups.is_empty());
        }
        let priorities = priorities(&levels, count);
        let is_weighted = config.is_enabled() && config.has_weighted_localities(can_fail_over);
        let zone_routing = config.zone_routing().filter(|_| config.is_enabled()).copied();
        Self { levels, priorities, is_weighted, zone_routing }
    }

    /// Sorts `endpoints` by their own [priority](Endpoint::with_priority) alone, for who does not look at localities: those of a
    /// priority are one group, and their localities are not read.
    ///
    /// ```
    /// use mesh_core::{Endpoint, balance::locality::Layout};
    ///
    /// let endpoints = [("a:80", 1), ("b:80", 0), ("c:80", 1)];
    /// let endpoints = endpoints.map(|(address, of)| Endpoint::new(address).with_priority(of));
    /// let layout = Layout::by_priority(&endpoints);
    /// assert_eq!(layout.priorities(), [Some(1), Some(0), Some(1)]);
    /// assert_eq!(layout.levels()[1].groups()[0].endpoints(), [0, 2]);
    /// ```
    pub fn by_priority<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Self {
        let mut sorted: BTreeMap<u32, Group> = BTreeMap::new();
        let mut count = 0;
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            let group = sorted.entry(endpoint.priority());
            let group = group.or_insert_with(|| Group::empty(&Locality::default()));
            group.add(index, endpoint);
            count = index + 1;
        }
        let levels: Vec<_> =
            sorted.into_values().map(|group| Level { groups: vec![group] }).collect();
        let priorities = priorities(&levels, count);
        Self { levels, priorities, is_weighted: false, zone_routing: None }
    }

    /// The priorities, from 0 on; each has an endpoint.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The priority of each endpoint, in the order given; `None` for one that gets nothing by
    /// [`Config::distribute`].
    pub fn priorities(&self) -> &[Option<usize>] {
        &self.priorities
    }

    /// Whether a locality is to be drawn by weight ([`Localities`](super::Localities)) before an endpoint is.
    pub fn is_weighted(&self) -> bool {
        self.is_weighted
    }

    /// How zones of the first priority are looked at, if they are ([`Zones`](super::Zones)).
    pub fn zone_routing(&self) -> Option<&ZoneRouting> {
        self.zone_routing.as_ref()
    }
}

/// An endpoint's own priority, how far its labels are, and then its locality.
type Rank = (u32, usize, usize);

/// Of each of `count` endpoints.
fn priorities(levels: &[Level], count: usize) -> Vec<Option<usize>> {
    let mut priorities = vec![None; count];
    for (priority, level) in levels.iter().enumerate() {
        for &endpoint in level.groups.iter().flat_map(|group| &group.endpoints) {
            priorities[endpoint] = Some(priority);
        }
    }
    priorities
}

impl Level {
    /// Its localities, in their order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
}

impl Group {
    fn empty(locality: &Locality) -> Self {
        Self { locality: locality.clone(), weight: 0, endpoints: Vec::new() }
    }

    fn add(&mut self, index: usize, endpoint: &Endpoint) {
        self.weight = self.weight.saturating_add(endpoint.weight().get());
        self.endpoints.push(index);
    }

    /// Where they run.
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    /// The sum of the weights of its endpoints, or its share by [`Config::distribute`].
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The endpoints, by their place in the list given.
    pub fn endpoints(&self) -> &[usize] {
        &self.endpoints
    }
}

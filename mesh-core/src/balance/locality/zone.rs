use super::weights::split;
use crate::{InvalidConfig, Ratio, Rng, route::Split};

/// When requests stay in the caller's zone.
///
/// | setting | default | Envoy `zone_aware_lb_config` |
/// | --- | --- | --- |
/// | routing | 100 % | `routing_enabled` 100 % |
/// | min cluster size | 6 | `min_cluster_size` 6 |
/// | always local | no | `force_locality_direct_routing` no |
///
/// ```
/// use mesh_core::{Ratio, balance::locality::ZoneRouting};
///
/// let routing = ZoneRouting::default().with_min_cluster_size(1).with_routing(Ratio::from_percent(50))?;
/// assert_eq!(routing.min_cluster_size(), 1);
/// let error = routing.with_routing(Ratio::from_percent(101)).unwrap_err();
/// assert_eq!(error.field(), "routing_enabled");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ZoneRouting {
    routing: Ratio,
    min_cluster_size: u64,
    always_local: bool,
}

impl ZoneRouting {
    /// The share of requests that look at zones at all; 0 is off.
    ///
    /// # Errors
    ///
    /// More than 100 %.
    pub fn with_routing(self, routing: Ratio) -> Result<Self, InvalidConfig> {
        if routing > Ratio::ONE {
            return Err(InvalidConfig::new("routing_enabled", routing, "0% to 100%"));
        }
        Ok(Self { routing, ..self })
    }

    /// With fewer healthy endpoints than this zones are not looked at.
    #[must_use]
    pub const fn with_min_cluster_size(self, min_cluster_size: u64) -> Self {
        Self { min_cluster_size, ..self }
    }

    /// Stay in the zone whenever it has a healthy endpoint, even if they cannot carry it.
    #[must_use]
    pub const fn with_always_local(self, always_local: bool) -> Self {
        Self { always_local, ..self }
    }

    /// See [`ZoneRouting::with_routing`].
    pub const fn routing(&self) -> Ratio {
        self.routing
    }

    /// See [`ZoneRouting::with_min_cluster_size`].
    pub const fn min_cluster_size(&self) -> u64 {
        self.min_cluster_size
    }

    /// See [`ZoneRouting::with_always_local`].
    pub const fn always_local(&self) -> bool {
        self.always_local
    }
}

impl Default for ZoneRouting {
    fn default() -> Self {
        Self { routing: Ratio::ONE, min_cluster_size: 6, always_local: false }
    }
}

/// One zone: how many healthy callers there are in it (the instances of the caller's own service), and how many healthy
/// endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "two numbers")]
pub struct Zone {
    /// Healthy instances of the calling service.
    pub callers: u64,
    /// Healthy endpoints.
    pub endpoints: u64,
}

/// Why zones are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoZones {
    /// [`ZoneRouting::with_routing`] is 0.
    Off,
    /// Fewer than two zones with healthy endpoints.
    OneZone,
    /// All callers are in one zone (unless always local).
    OneZoneOfCallers,
    /// The caller's own zone is unknown, or no caller is known in it.
    CallerUnknown,
    /// Fewer endpoints than the minimum.
    TooFew,
    /// Too few of the callers are healthy for their numbers to mean anything.
    CallersInPanic,
}

/// How much of the requests stays in the caller's zone, and where the rest goes. Immutable: built anew when endpoints or
/// callers change.
///
/// With the callers and the endpoints of each zone in per ten thousand (`c` and `e`), and `0` the own zone:
///
/// | | stays | goes to zone `i` |
/// | --- | --- | --- |
/// | `e₀ ≥ c₀`, `e₀ > 0` | everything | – |
/// | else | `e₀ / c₀` | the rest, in proportion to `max(0, eᵢ − cᵢ)` |
/// | else, nobody has room | `e₀ / c₀` | the rest, to each zone with endpoints alike |
///
/// So no zone gets more than its endpoints can carry if every zone's callers do the same (Envoy `load_balancer_impl.cc`).
///
/// ```
/// use mesh_core::{SplitMix64, balance::locality::{NoZones, Zone, ZoneRouting, Zones}};
///
/// // 60 % of the callers are in zone 0, but half of the endpoints: five of six requests stay.
/// let zones = [Zone { callers: 6, endpoints: 5 }, Zone { callers: 4, endpoints: 5 }];
/// let zones = Zones::new(&ZoneRouting::default(), Some(0), &zones, true).unwrap();
/// let mut rng = SplitMix64::new(1);
/// let stay = (0..6_000).filter(|_| zones.pick(&mut rng) == Some(0)).count();
/// assert!((4_900..5_100).contains(&stay));
///
/// let few = [Zone { callers: 1, endpoints: 1 }, Zone { callers: 1, endpoints: 1 }];
/// let refused = Zones::new(&ZoneRouting::default(), Some(0), &few, true);
/// assert_eq!(refused.unwrap_err(), NoZones::TooFew);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Zones {
    /// `None` for a request that does not look at zones.
    split: Split<Option<usize>>,
}

impl Zones {
    /// The shares by zone, for a caller in zone `own`. Only for the first priority. `callers_are_well` is whether the
    /// callers' own set is out of panic. O(zones).
    ///
    /// # Errors
    ///
    /// The reason why zones should not be looked at. Any endpoint then.
    pub fn new(
        routing: &ZoneRouting,
        own: Option<usize>,
        zones: &[Zone],
        callers_are_well: bool,
    ) -> Result<Self, NoZones> {
        let of = |count: fn(&Zone) -> u64| -> u128 {
            zones.iter().map(|zone| u128::from(count(zone))).sum()
        };
        let (callers, endpoints) = (of(|zone| zone.callers), of(|zone| zone.endpoints));
        let number = |is: fn(&Zone) -> bool| zones.iter().filter(|zone| is(zone)).count();
        let own = own.and_then(|own| Some((own, zones.get(own)?)));
        let (own, mine) = match own {
            _ if routing.routing == Ratio::ZERO => return Err(NoZones::Off),
            _ if number(|zone| zone.endpoints > 0) < 2 => return Err(NoZones::OneZone),
            _ if number(|zone| zone.callers > 0) < 2 && !routing.always_local => {
                return Err(NoZones::OneZoneOfCallers);
            }
            None => return Err(NoZones::CallerUnknown),
            Some((_, mine)) if mine.callers == 0 => return Err(NoZones::CallerUnknown),
            _ if endpoints < u128::from(routing.min_cluster_size) => return Err(NoZones::TooFew),
            _ if !callers_are_well => return Err(NoZones::CallersInPanic),
            Some(own) => own,
        };
        let share = |count: u64, all: u128| (u128::from(count) * WHOLE / all.max(1)) as u64;
        let (mine_of_callers, mine_of_endpoints) =
            (share(mine.callers, callers), share(mine.endpoints, endpoints));
        let stays_whole = mine_of_endpoints > 0 && mine_of_endpoints >= mine_of_callers;
        let mut weights = vec![0; zones.len()];
        if stays_whole || (routing.always_local && mine.endpoints > 0) {
            weights[own] = 1;
        } else {
            let room = |(index, zone): (usize, &Zone)| {
                let room =
                    share(zone.endpoints, endpoints).saturating_sub(share(zone.callers, callers));
                if index == own { 0 } else { room }
            };
            let mut rooms: Vec<u64> = zones.iter().enumerate().map(room).collect();
            if rooms.iter().all(|&room| room == 0) {
                rooms = zones.iter().map(|zone| zone.endpoints.min(1)).collect();
            }
            let all: u64 = rooms.iter().sum();
            let stays = mine_of_endpoints * WHOLE as u64 / mine_of_callers.max(1);
            // Envoy draws twice, first whether to stay; the products of both make one table.
            for (weight, room) in weights.iter_mut().zip(rooms) {
                *weight = (WHOLE as u64 - stays) * room;
            }
            weights[own] += stays * all;
        }
        let ppm = u64::from(routing.routing.as_ppm());
        let aside = u64::from(Ratio::ONE.as_ppm()) - ppm;
        let sum: u64 = weights.iter().sum();
        let looking = weights.iter().enumerate().map(|(zone, weight)| (Some(zone), weight * ppm));
        let split = split(looking.chain([(None, sum * aside)])).ok_or(NoZones::OneZone)?;
        Ok(Self { split })
    }

    /// Draws a zone. `None` is any endpoint of the priority. O(log zones).
    pub fn pick(&self, rng: &mut impl Rng) -> Option<usize> {
        *self.split.pick(rng)
    }

    /// The share of each zone, rounded down; of `None`, that of the requests that do not look at zones.
    pub fn shares(&self) -> impl Iterator<Item = (Option<usize>, Ratio)> {
        self.split.shares().map(|(zone, share)| (*zone, share))
    }
}

/// Shares are in per ten thousand, as in Envoy.
const WHOLE: u128 = 10_000;

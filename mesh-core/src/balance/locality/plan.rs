use super::{Caller, Layout, Localities, NoZones, Zone, ZoneRouting, Zones};
use crate::{
    Rng, Timestamp,
    balance::priority::{self, Attempted, Choice, Condition, Health, Priorities, Target},
};

/// Where attempts go, as of one moment: the priorities of a [`Layout`] by their health, and the localities of each. Immutable;
/// the next one is built when the condition of an endpoint changes, in O(endpoints), and shares the layout.
///
/// ```
/// use mesh_core::{Endpoint, Locality, SplitMix64, Timestamp};
/// use mesh_core::balance::{
///     locality::{Caller, Config, Distribute, Layout, Plan},
///     priority::Condition,
/// };
///
/// let endpoints = ["a", "a", "b"].map(|zone| {
///     Endpoint::new("10.0.0.1:80").with_locality(Locality::new("eu", zone, ""))
/// });
/// let caller = Caller::at(Locality::new("eu", "a", ""));
/// let config = Config::distribute(vec![Distribute::new("*", [("eu/a", 80), ("eu/b", 20)])?])?;
/// let layout = Layout::new(&config, &caller, true, &endpoints);
///
/// // Half of zone a is ejected: it carries 80 × 1.4 / 2 = 56 of 76.
/// let condition = |index| if index == 0 { Condition::Unhealthy } else { Condition::Healthy };
/// let now = Timestamp::ZERO;
/// let plan = Plan::new(Default::default(), &layout, &caller, condition, now);
/// let mut rng = SplitMix64::new(1);
/// let mut near = 0;
/// for _ in 0..7_600 {
///     let place = plan.pick(now, &mut rng).unwrap();
///     near += u32::from(place.locality() == Some(0));
/// }
/// assert!((5_500..5_700).contains(&near));
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    priorities: Priorities,
    /// One for each priority.
    spreads: Box<[Spread]>,
    no_zones: Option<NoZones>,
}

/// How the load of a priority is spread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Spread {
    Anywhere,
    Weighted(Localities),
    Zones(Zones),
}

/// A [`Choice`] of priority, and the locality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    choice: Choice,
    locality: Option<usize>,
}

impl Place {
    /// The priority: its place among the levels of the layout.
    pub fn priority(&self) -> usize {
        self.choice.priority()
    }

    /// The locality: its place among the groups of the level. `None` is any endpoint of the priority; so should be
    /// taken a locality in which nobody is available any more.
    pub fn locality(&self) -> Option<usize> {
        self.locality
    }

    /// Which of the endpoints there.
    pub fn target(&self) -> Target {
        self.choice.target()
    }

    /// See [`Choice::until`].
    pub fn until(&self) -> Option<Timestamp> {
        self.choice.until()
    }
}

impl Plan {
    /// What follows from the condition of each endpoint, asked for by its place in the list that the layout was made of. How
    /// many peers `caller` has where counts only if zones are looked at.
    pub fn new(
        config: priority::Config,
        layout: &Layout,
        caller: &Caller,
        condition: impl Fn(usize) -> Condition,
        now: Timestamp,
    ) -> Self {
        let healths = healths(layout, condition);
        let priorities = Priorities::new(config, &wholes(&healths), now);
        Self::of(priorities, layout, caller, &healths)
    }

    /// The next plan of the same priorities: a panic that goes on began when it did.
    #[must_use]
    pub fn renewed(
        &self,
        config: priority::Config,
        layout: &Layout,
        caller: &Caller,
        condition: impl Fn(usize) -> Condition,
        now: Timestamp,
    ) -> Self {
        let healths = healths(layout, condition);
        let priorities = self.priorities.renewed(config, &wholes(&healths), now);
        Self::of(priorities, layout, caller, &healths)
    }

    fn of(
        priorities: Priorities,
        layout: &Layout,
        caller: &Caller,
        healths: &[Vec<Health>],
    ) -> Self {
        let config = *priorities.config();
        let mut no_zones = None;
        let spread = |(priority, (level, healths)): (usize, (&super::Level, &Vec<Health>))| {
            if layout.is_weighted() {
                let weights = level.groups().iter().map(super::Group::weight);
                let weighted: Vec<_> = weights.zip(healths.iter().copied()).collect();
                return Spread::Weighted(Localities::new(config.overprovisioning(), &weighted));
            }
            // Only the first priority: who fails over has no zone to stay in.
            if let (0, Some(routing)) = (priority, layout.zone_routing()) {
                match of_zones(routing, caller, &config, level, healths) {
                    Ok(zones) => return Spread::Zones(zones),
                    Err(reason) => no_zones = Some(reason),
                }
            }
            Spread::Anywhere
        };
        let spreads = layout.levels().iter().zip(healths).enumerate().map(spread).collect();
        Self { priorities, spreads, no_zones }
    }

    /// Draws where an attempt goes; `None` without endpoints. Two draws, O(log priorities + log localities).
    pub fn pick(&self, now: Timestamp, rng: &mut impl Rng) -> Option<Place> {
        let choice = self.priorities.pick(now, rng)?;
        Some(self.place(choice, rng))
    }

    /// The same for a retry, see [`Priorities::pick_another`].
    pub fn pick_another(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        attempted: &mut Attempted,
    ) -> Option<Place> {
        let choice = self.priorities.pick_another(now, rng, attempted)?;
        Some(self.place(choice, rng))
    }

    fn place(&self, choice: Choice, rng: &mut impl Rng) -> Place {
        let locality = match (self.spreads.get(choice.priority()), choice.target()) {
            (Some(Spread::Weighted(localities)), target) => localities.pick(target, rng),
            (Some(Spread::Zones(zones)), Target::Healthy) => zones.pick(rng),
            (Some(Spread::Zones(_)), Target::Degraded | Target::All | Target::Nobody)
            | (Some(Spread::Anywhere) | None, _) => None,
        };
        Place { choice, locality }
    }

    /// The priorities and their loads.
    pub fn priorities(&self) -> &Priorities {
        &self.priorities
    }

    /// Why zones are not looked at, if they should have been.
    pub fn no_zones(&self) -> Option<NoZones> {
        self.no_zones
    }
}

/// By priority and locality.
fn healths(layout: &Layout, condition: impl Fn(usize) -> Condition) -> Vec<Vec<Health>> {
    let of_group =
        |group: &super::Group| group.endpoints().iter().map(|&at| condition(at)).collect();
    let levels = layout.levels().iter();
    levels.map(|level| level.groups().iter().map(of_group).collect()).collect()
}

fn wholes(healths: &[Vec<Health>]) -> Vec<Health> {
    healths.iter().map(|of_level| of_level.iter().sum()).collect()
}

fn of_zones(
    routing: &ZoneRouting,
    caller: &Caller,
    config: &priority::Config,
    level: &super::Level,
    healths: &[Health],
) -> Result<Zones, NoZones> {
    let mut localities: Vec<_> = level.groups().iter().map(super::Group::locality).collect();
    let mut zones: Vec<_> =
        healths.iter().map(|health| Zone { callers: 0, endpoints: health.healthy() }).collect();
    for (locality, health) in caller.peers() {
        let at = localities.iter().position(|known| *known == locality).unwrap_or_else(|| {
            localities.push(locality);
            zones.push(Zone::default());
            zones.len() - 1
        });
        zones[at].callers = zones[at].callers.saturating_add(health.healthy());
    }
    let peers: Health = caller.peers().iter().map(|(_, health)| health).sum();
    let own = localities.iter().position(|known| *known == caller.locality());
    Zones::new(routing, own, &zones, !peers.is_below(config.panic_threshold()))
}

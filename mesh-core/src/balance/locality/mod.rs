//! Localities: which endpoints are near, and how much goes to those that are not.
//!
//! # Why not weights on the endpoints
//!
//! A request that leaves its zone costs money and a millisecond; yet a zone that is never left is down as soon as
//! its endpoints are. Both are about groups: who is next when the near ones are gone, and how much a group that has lost
//! half of its endpoints still takes. A weight on each endpoint says neither.
//!
//! # How it decides
//!
//! Three pictures, each from facts, each built by whoever learns of the facts, and read without a lock:
//!
//! | picture | from | says | built when |
//! | --- | --- | --- | --- |
//! | [`Layout`] | a [`Config`], the [`Caller`], the endpoints | the priority of each endpoint, and the localities of each priority with their weights (Istio `localityLbSetting`) | endpoints change |
//! | [`Localities`] | the weight and the health of each locality | a locality, by `weight × min(1, 1.4 × healthy / eligible)` (Envoy `locality_wrr.cc`) | health changes |
//! | [`Zones`] | callers and endpoints of each zone | whether to stay in the caller's zone, and else in which one to spill (Envoy `zone_aware_lb_config`) | either changes |
//!
//! The priorities of the layout then share the load by their health: [`priority`](super::priority). A [`Plan`] puts
//! them together: from the condition of each endpoint to the priority and the locality of an attempt. Which of
//! several configurations counts tells [`effective`].
//!
//! # Where it differs from Envoy and Istio
//!
//! * A locality is drawn, where Envoy rotates: the shares are those of the weights in the long run, and no request waits
//!   for another's turn.
//! * Where nobody has room left, what spills goes only to zones that have endpoints.
//! * [`Config::with_labels`] refuses a label that is listed twice or has two `=`, where Istio reads one of them.
//!
//! # What it does not do
//!
//! It does not look at the latency between zones. It knows nothing of single endpoints' loads: the balancer does.
//!
//! # Example
//!
//! ```
//! use mesh_core::{Endpoint, Locality, SplitMix64, Timestamp};
//! use mesh_core::balance::{
//!     locality::{Caller, Config, Layout, Plan},
//!     priority::{Condition, Target},
//! };
//!
//! let at = |region, zone| Locality::new(region, zone, "");
//! let endpoints = [("eu", "a"), ("eu", "b"), ("us", "a"), ("asia", "a")].map(|(region, zone)| {
//!     Endpoint::new(format!("{zone}.{region}:80")).with_locality(at(region, zone))
//! });
//! let config = Config::failover().with_failover("eu", "us")?;
//! let caller = Caller::at(at("eu", "a"));
//! let layout = Layout::new(&config, &caller, true, &endpoints);
//! assert_eq!(layout.priorities(), [Some(0), Some(1), Some(2), Some(3)]);
//!
//! // The nearest is ejected: everything goes to the next.
//! let condition = |index| if index == 0 { Condition::Unhealthy } else { Condition::Healthy };
//! let plan = Plan::new(Default::default(), &layout, &caller, condition, Timestamp::ZERO);
//! let place = plan.pick(Timestamp::ZERO, &mut SplitMix64::new(1)).unwrap();
//! assert_eq!((place.priority(), place.target()), (1, Target::Healthy));
//! # Ok::<(), mesh_core::InvalidConfig>(())
//! ```

mod config;
mod distribute;
mod effective;
mod labels;
mod layout;
mod pattern;
mod plan;
mod weights;
mod zone;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use config::Config;
pub use distribute::Distribute;
pub use effective::{Distribution, Effective, Scope, Source, effective};
pub use layout::{Caller, Group, Layout, Level};
pub use pattern::Pattern;
pub use plan::{Place, Plan};
pub use weights::{Localities, effective_weight};
pub use zone::{NoZones, Zone, ZoneRouting, Zones};

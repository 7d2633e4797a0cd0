use std::time::Duration;

use mesh_core::{
    Ratio, Rng, SplitMix64, Timestamp, Weight,
    balance::{Balancer, Candidate, Choices, Config, Load, Order, SlowStart, Weighted},
};
use serde::Deserialize;
use serde_json::Number;

use crate::{case::Case, compare::same};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    weights: Option<Vec<f64>>,
    active_request_bias: Option<Number>,
    choice_count: Option<u32>,
    slow_start_window_ms: Option<u64>,
    aggression: Option<Number>,
    min_weight: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Pick {
        at_ms: u64,
        count: usize,
    },
    State {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        weight: u32,
        active_requests: u32,
    },
    Sample {
        at_ms: u64,
        indices: Vec<usize>,
        active_requests: Vec<u32>,
    },
    #[serde(rename = "weight_of_host_healthy_since_0")]
    WeightOfHost {
        at_ms: u64,
        weight: u32,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    picks: Option<Vec<usize>>,
    counts: Option<Vec<usize>>,
    effective_weight: Option<f64>,
    picked: Option<usize>,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    let (mut picks, mut weight, mut picked) = (Vec::new(), None, None);
    let fleet = settings.fleet()?;
    let balancer = Balancer::new(settings.balance()?);
    for step in &steps {
        match step {
            Step::Pick { at_ms, count } => {
                let rng = &mut SplitMix64::new(1);
                for _ in 0..*count {
                    let now = Timestamp::from_millis(*at_ms);
                    let pick = balancer.pick(now, rng, &fleet, |_| false);
                    picks.push(pick.ok_or("nobody was picked")?);
                }
            }
            Step::State { weight: of, active_requests, .. } => {
                let config = balancer.config();
                weight = Some(config.weight_under_load(weight_of(*of)?, *active_requests));
            }
            Step::Sample { at_ms, indices, active_requests } => {
                let now = Timestamp::from_millis(*at_ms);
                picked = sampled(&balancer, now, indices, active_requests)?;
            }
            Step::WeightOfHost { at_ms, weight: of } => {
                let slow_start = settings.slow_start()?.ok_or("there is no slow start")?;
                let now = Timestamp::from_millis(*at_ms);
                weight = Some(slow_start.weight(now, Timestamp::ZERO, weight_of(*of)?));
            }
        }
    }
    let count = |index| picks.iter().filter(|picked| **picked == index).count();
    let counts: Vec<usize> = (0..fleet.len()).map(count).collect();
    same("picks", &picks, expect.picks.as_ref())?;
    same("counts", &counts, expect.counts.as_ref())?;
    same("picked", picked, expect.picked.map(Some))?;
    match (expect.effective_weight, weight) {
        (Some(wanted), Some(weight)) if (weight - wanted).abs() <= wanted.abs() * 1e-9 => Ok(()),
        (None, _) => Ok(()),
        (wanted, weight) => Err(format!("weight: {weight:?} is not {wanted:?}")),
    }
}

impl Settings {
    fn balance(&self) -> Result<Config, String> {
        if let Some(bias) = &self.active_request_bias {
            let bias = ratio(bias)?;
            return Ok(Config::least_request().with_active_request_bias(Some(bias)));
        }
        if let Some(count) = self.choice_count {
            let choices = Choices::drawn(count).map_err(|error| error.to_string())?;
            return Ok(Config::least_request().with_choices(choices));
        }
        let config = Config::round_robin().with_order(Order::Deadline);
        Ok(config.with_slow_start(self.slow_start()?))
    }

    fn slow_start(&self) -> Result<Option<SlowStart>, String> {
        let Some(window) = self.slow_start_window_ms else { return Ok(None) };
        let slow_start = || {
            let mut slow_start = SlowStart::new(Duration::from_millis(window))?;
            if let Some(aggression) = &self.aggression {
                slow_start = slow_start.with_aggression(aggression.to_string().parse()?)?;
            }
            if let Some(min_weight) = &self.min_weight {
                slow_start = slow_start.with_min_weight(min_weight.to_string().parse()?)?;
            }
            Ok(slow_start)
        };
        slow_start().map(Some).map_err(|error: mesh_core::InvalidConfig| error.to_string())
    }

    /// Our weights are whole numbers: those of the case in halves, quarters, ... or in tenths, hundredths, ...
    fn fleet(&self) -> Result<Weighted<Host>, String> {
        let weights = self.weights.as_deref().unwrap_or_default();
        let units =
            (0..16).map(|power| 2f64.powi(power)).chain((1..7).map(|power| 10f64.powi(power)));
        let is_unit = |unit: &f64| weights.iter().all(|weight| (weight * unit).fract() == 0.0);
        let unit = units.into_iter().find(is_unit).ok_or("weights of too many digits")?;
        let hosts: Result<Vec<Host>, String> =
            weights.iter().map(|weight| Host::new((weight * unit) as u32)).collect();
        Ok(Weighted::scheduled(hosts?, &self.balance()?, Timestamp::ZERO))
    }
}

fn ratio(number: &Number) -> Result<Ratio, String> {
    number.to_string().parse().map_err(|error: mesh_core::InvalidConfig| error.to_string())
}

fn weight_of(weight: u32) -> Result<Weight, String> {
    Weight::new(weight).map_err(|error| error.to_string())
}

/// The pick among endpoints with so many requests in flight, when these are drawn.
fn sampled(
    balancer: &Balancer,
    now: Timestamp,
    indices: &[usize],
    active: &[u32],
) -> Result<Option<usize>, String> {
    let hosts: Vec<Host> = active.iter().map(|_| Host::new(1)).collect::<Result<_, String>>()?;
    for (host, active) in hosts.iter().zip(active) {
        (0..*active).for_each(|_| _ = host.load.on_start(now));
    }
    let count = balancer.config().choices().count().map(usize::from);
    if count != Some(indices.len()) {
        return Err(format!("{indices:?} are not {count:?} draws"));
    }
    let mut drawn = Drawn { indices: indices.iter(), of: active.len() };
    let picked = balancer.pick(now, &mut drawn, &Weighted::new(hosts), |_| false);
    match drawn.indices.next() {
        Some(left) => Err(format!("{left} was not drawn")),
        None => Ok(picked),
    }
}

/// Draws these, among so many.
struct Drawn<'a> {
    indices: std::slice::Iter<'a, usize>,
    of: usize,
}

impl Rng for Drawn<'_> {
    fn next_u64(&mut self) -> u64 {
        // The middle of the numbers that mean this index.
        let index = self.indices.next().copied().unwrap_or_default() as u128;
        (((index * 2 + 1) << 63) / self.of as u128) as u64
    }
}

#[derive(Debug)]
struct Host {
    load: Load,
    weight: Weight,
}

impl Host {
    fn new(weight: u32) -> Result<Self, String> {
        Ok(Self { load: Load::new(), weight: weight_of(weight)? })
    }
}

impl Candidate for Host {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        self.weight
    }

    fn is_available(&self, _: Timestamp) -> bool {
        true
    }
}

//! `balance::priority`: who carries how much, by the conditions of the endpoints.
//!
//! The model keeps the condition of each endpoint, and hands out a hundred tickets one by one.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Ratio, SplitMix64, Timestamp,
    balance::priority::{Attempted, Condition, Config, Health, OnPanic, Priorities, Target},
};

use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "priority",
    faults: &[
        "the excluded count",
        "the degraded are taken for healthy",
        "exactly the threshold is panic",
        "a single priority panics though others carry its load",
        "a hash is one too high",
        "a panic that goes on begins anew",
        "nobody carries more than its share",
        "a retry goes where it has been",
        "to fail fast has no end",
        "in panic only the healthy are used",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Add(u8, u8),
    Remove(u8, u8),
    Become(u8, u8, u8),
    Configure { overprovisioning: u8, threshold: u8, bound: Option<u8> },
    Pass(u8),
    Choose(u64),
    Retry(u8, u8),
}

const LONGEST: usize = 120;
const LEVELS: usize = 4;

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let levels = 1 + usize::from(u8::arbitrary(input)?) % LEVELS;
    let mut model = Model {
        levels: vec![Vec::new(); levels],
        overprovisioning: 140,
        threshold: 0,
        bound: None,
        now: 0,
        panic_since: vec![None; levels],
    };
    model.update();
    let mut machine = Faulty { priorities: None, fault };
    machine.update(&model);
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        if let Err(error) = apply(operation, &mut model, &mut machine) {
            return Ok(Err(format!("step {step}, {operation:?}: {error}")));
        }
    }
    Ok(Ok(()))
}

fn apply(operation: Operation, model: &mut Model, machine: &mut Faulty) -> Result<(), String> {
    let levels = model.levels.len();
    let place = |level: u8, model: &Model, host: u8| {
        let level = usize::from(level) % levels;
        let hosts = model.levels[level].len();
        (hosts > 0).then(|| (level, usize::from(host) % hosts.max(1)))
    };
    match operation {
        Operation::Add(level, kind) => {
            model.levels[usize::from(level) % levels].push(condition(kind));
        }
        Operation::Remove(level, host) => {
            if let Some((level, host)) = place(level, model, host) {
                model.levels[level].swap_remove(host);
            }
        }
        Operation::Become(level, host, kind) => {
            if let Some((level, host)) = place(level, model, host) {
                model.levels[level][host] = condition(kind);
            }
        }
        Operation::Configure { overprovisioning, threshold, bound } => {
            model.overprovisioning = 1 + u32::from(overprovisioning);
            model.threshold = u32::from(threshold % 101);
            model.bound = bound.map(u64::from);
        }
        Operation::Pass(seconds) => model.now += u64::from(seconds % 32),
        Operation::Choose(hash) => {
            let expected = model.choose(hash);
            let found = machine.choose(hash, model);
            if found != expected {
                return Err(format!("{found:?}, expected {expected:?}"));
            }
            return Ok(());
        }
        Operation::Retry(level, seed) => {
            return machine.retry(usize::from(level) % levels, u64::from(seed), model);
        }
    }
    model.update();
    machine.update(model);
    model.compare(machine)
}

fn condition(kind: u8) -> Condition {
    match kind % 8 {
        0..4 => Condition::Healthy,
        4 => Condition::Degraded,
        5 => Condition::Excluded,
        _ => Condition::Unhealthy,
    }
}

struct Model {
    levels: Vec<Vec<Condition>>,
    /// Per cent.
    overprovisioning: u32,
    threshold: u32,
    /// Seconds to fail fast.
    bound: Option<u64>,
    /// Seconds.
    now: u64,
    panic_since: Vec<Option<u64>>,
}

impl Model {
    fn count(&self, level: usize, wanted: Condition) -> u32 {
        self.levels[level].iter().filter(|condition| **condition == wanted).count() as u32
    }

    fn eligible(&self, level: usize) -> u32 {
        self.levels[level].len() as u32 - self.count(level, Condition::Excluded)
    }

    fn percent(&self, level: usize, of: Condition) -> u32 {
        match self.eligible(level) {
            0 => 0,
            eligible => (self.overprovisioning * self.count(level, of) / eligible).min(100),
        }
    }

    fn total(&self) -> u32 {
        let of = |level| {
            self.percent(level, Condition::Healthy) + self.percent(level, Condition::Degraded)
        };
        (0..self.levels.len()).map(of).sum::<u32>().min(100)
    }

    fn is_below(&self, level: usize) -> bool {
        let up = self.count(level, Condition::Healthy) + self.count(level, Condition::Degraded);
        self.threshold > 0
            && (self.eligible(level) == 0 || up * 100 < self.threshold * self.eligible(level))
    }

    fn update(&mut self) {
        for level in 0..self.levels.len() {
            let panics = self.total() < 100 && self.is_below(level);
            let since = self.panic_since[level].unwrap_or(self.now);
            self.panic_since[level] = panics.then_some(since);
        }
    }

    /// A hundred tickets: for each the level, and whether it is for the degraded.
    fn tickets(&self) -> Vec<(usize, bool)> {
        let levels = 0..self.levels.len();
        let total = self.total();
        if self.panic_since.iter().all(Option::is_some) {
            let sizes: Vec<_> = self.levels.iter().map(Vec::len).collect();
            let all: usize = sizes.iter().sum();
            let first = sizes.iter().position(|size| *size > 0).unwrap_or(0);
            let shares = sizes.iter().map(|size| (size * 100).checked_div(all).unwrap_or(0));
            let mut tickets: Vec<_> =
                shares.enumerate().flat_map(|(level, share)| vec![(level, false); share]).collect();
            tickets.resize(100, (first, false));
            tickets.sort_by_key(|ticket| ticket.0);
            return tickets;
        }
        if total == 0 {
            let has = |of| (0..self.levels.len()).find(|level| self.count(*level, of) > 0);
            let healthy = has(Condition::Healthy).map(|level| (level, false));
            let ticket = healthy.or_else(|| has(Condition::Degraded).map(|level| (level, true)));
            return vec![ticket.unwrap_or((0, false)); 100];
        }
        let mut tickets = Vec::new();
        let mut first = None;
        for (of, degraded) in [(Condition::Healthy, false), (Condition::Degraded, true)] {
            for level in levels.clone() {
                let percent = self.percent(level, of);
                if percent > 0 {
                    first = first.or(Some((level, degraded)));
                }
                for _ in 0..percent * 100 / total {
                    if tickets.len() < 100 {
                        tickets.push((level, degraded));
                    }
                }
            }
        }
        tickets.resize(100, first.unwrap_or((0, false)));
        tickets.sort_by_key(|(level, degraded)| (*degraded, *level));
        tickets
    }

    fn choose(&self, hash: u64) -> (usize, Target) {
        let (level, degraded) = self.tickets()[(hash % 100) as usize];
        (level, self.target(level, degraded))
    }

    fn target(&self, level: usize, degraded: bool) -> Target {
        match (self.panic_since[level], self.bound) {
            (None, _) if degraded => Target::Degraded,
            (None, _) => Target::Healthy,
            (Some(since), Some(bound)) if self.now < since + bound => Target::Nobody,
            (Some(_), _) => Target::All,
        }
    }

    fn compare(&self, machine: &Faulty) -> Result<(), String> {
        let levels = 0..self.levels.len();
        for level in levels.clone() {
            let expected = (
                self.percent(level, Condition::Healthy),
                self.percent(level, Condition::Degraded),
                self.panic_since[level].is_some(),
            );
            let found = machine.level(level);
            if found != expected {
                return Err(format!("level {level}: {found:?}, expected {expected:?}"));
            }
        }
        let priorities = machine.priorities.as_ref().ok_or("no priorities")?;
        let loads = priorities.loads().ok_or("no loads")?;
        let tickets = self.tickets();
        let has = |ticket| tickets.iter().filter(|other| **other == ticket).count() as u32;
        for level in levels {
            let found = (loads.healthy()[level], loads.degraded()[level]);
            let expected = (has((level, false)), has((level, true)));
            if found != expected {
                return Err(format!("load of {level}: {found:?}, expected {expected:?}"));
            }
        }
        Ok(())
    }
}

/// The machine, or a twin that is wrong on purpose.
struct Faulty {
    priorities: Option<Priorities>,
    fault: Option<usize>,
}

impl Faulty {
    fn update(&mut self, model: &Model) {
        let healths: Vec<Health> = model
            .levels
            .iter()
            .map(|hosts| hosts.iter().map(|condition| self.seen(*condition)).collect())
            .collect();
        let factor = if self.fault == Some(6) { 100 } else { model.overprovisioning };
        let threshold = Ratio::from_percent(model.threshold).as_ppm();
        let above = u32::from(self.fault == Some(2) && (1..1_000_000).contains(&threshold));
        let on_panic = match model.bound {
            None => OnPanic::UseAll,
            Some(_) if self.fault == Some(8) => OnPanic::FailFast { at_most: Duration::MAX },
            Some(seconds) => OnPanic::FailFast { at_most: Duration::from_secs(seconds) },
        };
        let config = Config::envoy()
            .with_overprovisioning(Ratio::from_percent(factor))
            .and_then(|config| config.with_panic_threshold(Ratio::from_ppm(threshold + above)))
            .unwrap_or_default()
            .with_on_panic(on_panic);
        let now = Timestamp::from_secs(model.now);
        self.priorities = Some(match &self.priorities {
            Some(before) if self.fault != Some(5) => before.renewed(config, &healths, now),
            _ => Priorities::new(config, &healths, now),
        });
    }

    fn seen(&self, condition: Condition) -> Condition {
        match (condition, self.fault) {
            (Condition::Excluded, Some(0)) => Condition::Unhealthy,
            (Condition::Degraded, Some(1)) => Condition::Healthy,
            _ => condition,
        }
    }

    fn level(&self, level: usize) -> (u32, u32, bool) {
        let Some(priorities) = &self.priorities else { return (0, 0, false) };
        let health = priorities.health(level);
        let panics = priorities.is_in_panic(level)
            || (self.fault == Some(3) && priorities.total() == 100 && health == 0);
        (health, priorities.degraded(level), panics)
    }

    fn choose(&self, hash: u64, model: &Model) -> (usize, Target) {
        let hash = if self.fault == Some(4) { hash.wrapping_add(1) } else { hash };
        let now = Timestamp::from_secs(model.now);
        let choice = self.priorities.as_ref().and_then(|priorities| priorities.at(now, hash));
        choice.map_or((usize::MAX, Target::Nobody), |choice| {
            let is_wrong = self.fault == Some(9) && choice.target() == Target::All;
            (choice.priority(), if is_wrong { Target::Healthy } else { choice.target() })
        })
    }

    /// After an attempt at `level` another one is drawn, if it is fit for anything.
    fn retry(&self, level: usize, seed: u64, model: &Model) -> Result<(), String> {
        let mut attempted = Attempted::every(1).map_err(|error| error.to_string())?;
        attempted.on_attempt(level);
        let (now, mut rng) = (Timestamp::from_secs(model.now), SplitMix64::new(seed));
        let priorities = self.priorities.as_ref().ok_or("no priorities")?;
        let choice = if self.fault == Some(7) {
            priorities.pick(now, &mut rng)
        } else {
            priorities.pick_another(now, &mut rng, &mut attempted)
        };
        let found = choice.ok_or("no choice")?.priority();
        let is_fit = |other: usize| {
            let of = |condition| model.percent(other, condition);
            of(Condition::Healthy) + of(Condition::Degraded) > 0
        };
        let others: Vec<_> =
            (0..model.levels.len()).filter(|other| *other != level && is_fit(*other)).collect();
        let is_right = if others.is_empty() {
            model.tickets().iter().any(|ticket| ticket.0 == found)
        } else {
            others.contains(&found)
        };
        if is_right { Ok(()) } else { Err(format!("{found} after {level}, of {others:?}")) }
    }
}

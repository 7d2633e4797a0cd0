//! `limit`: slots by priority and resource, connections by endpoint.
//!
//! The model is a list of the permits that are held.

use arbitrary::{Arbitrary, Result as Decoded, Unstructured};
use mesh_core::limit::{Config, Full, Limits, Permit, Priorities, Priority, Resource, Thresholds};

use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "limit",
    faults: &[
        "one more than the limit is admitted",
        "a release is forgotten",
        "a new limit frees the slots in use",
        "the priorities share their slots",
        "the limit of an endpoint is ignored",
        "a forced slot does not count",
        "of two entries for a priority the last counts",
        "it is full one slot too early",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Acquire(bool, u8),
    Force(bool, u8),
    /// With so many connections to the endpoint already.
    Connect(bool, u8),
    Release(u8),
    SetMax(bool, u8, u8),
    SetPerHost(bool, u8),
}

const LONGEST: usize = 300;
const RESOURCES: [Resource; 5] = Resource::ALL;

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let entries: Vec<(bool, u8)> =
        (0..4).map(|_| Arbitrary::arbitrary(input)).collect::<Decoded<_>>()?;
    let mut faulty = Faulty::new(&entries, fault);
    let mut model = Model::new(&entries);
    let mut held: Vec<(bool, Permit)> = Vec::new();
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        let agrees = match operation {
            Operation::Acquire(high, which) => {
                let resource = resource(which);
                let granted = faulty.acquire(high, resource);
                let expected = model.is_free(high, resource);
                let agrees = match &granted {
                    Ok(_) => expected,
                    Err(full) => !expected && full.limit() == model.max(high, resource),
                };
                model.take(high, resource, granted.is_ok());
                held.extend(granted.ok().map(|permit| (high, permit)));
                agrees
            }
            Operation::Force(high, which) => {
                held.push((high, faulty.force(high, resource(which))));
                model.take(high, resource(which), true);
                true
            }
            Operation::Connect(high, open) => {
                let open = u32::from(open % 5);
                let granted = faulty.connect(high, open);
                let of_host = open < model.per_host[usize::from(high)];
                let expected = of_host && model.is_free(high, Resource::Connections);
                let agrees = match &granted {
                    Ok(_) => expected,
                    Err(full) => !expected && full.is_per_host() != of_host,
                };
                model.take(high, Resource::Connections, granted.is_ok());
                held.extend(granted.ok().map(|permit| (high, permit)));
                agrees
            }
            Operation::Release(_) if held.is_empty() => true,
            Operation::Release(which) => {
                let (high, permit) = held.swap_remove(usize::from(which) % held.len());
                model.give(high, permit.resource());
                faulty.release(high, permit);
                true
            }
            Operation::SetMax(high, which, max) => {
                let max = u32::from(max % 5);
                model.max[usize::from(high)][index(resource(which))] = max;
                faulty.set(high, |config| with_max(config, resource(which), max));
                true
            }
            Operation::SetPerHost(high, max) => {
                let max = u32::from(max % 5);
                model.per_host[usize::from(high)] = max;
                faulty.set(high, |config| config.with_max_connections_per_host(max));
                true
            }
        };
        let compared =
            if agrees { model.compare(&faulty) } else { Err("decided otherwise".into()) };
        if let Err(error) = compared {
            return Ok(Err(format!("step {step}, {operation:?}: {error}")));
        }
    }
    Ok(Ok(()))
}

fn resource(which: u8) -> Resource {
    RESOURCES[usize::from(which) % RESOURCES.len()]
}

fn index(resource: Resource) -> usize {
    RESOURCES.iter().position(|other| *other == resource).unwrap_or_default()
}

fn with_max(config: Config, resource: Resource, max: u32) -> Config {
    match resource {
        Resource::Requests => config.with_max_requests(max),
        Resource::Pending => config.with_max_pending(max),
        Resource::Connections => config.with_max_connections(max),
        Resource::Retries => config.with_max_retries(max),
        Resource::ConnectionPools => config.with_max_connection_pools(max),
    }
}

fn entry(high: bool, max_requests: u8) -> (Priority, Thresholds) {
    let config = Config::envoy().with_max_requests(u32::from(max_requests % 5));
    (if high { Priority::High } else { Priority::Default }, Thresholds::new(config))
}

struct Model {
    max: [[u32; 5]; 2],
    per_host: [u32; 2],
    /// Priority and resource of each permit.
    held: Vec<(bool, Resource)>,
}

impl Model {
    fn new(entries: &[(bool, u8)]) -> Self {
        let of = |high: bool| {
            let first = entries.iter().find(|entry| entry.0 == high);
            let requests = first.map_or(1_024, |(_, max)| u32::from(max % 5));
            [requests, 1_024, 1_024, 3, u32::MAX]
        };
        Self { max: [of(false), of(true)], per_host: [u32::MAX; 2], held: Vec::new() }
    }

    fn max(&self, high: bool, resource: Resource) -> u32 {
        self.max[usize::from(high)][index(resource)]
    }

    fn in_use(&self, high: bool, resource: Resource) -> u32 {
        self.held.iter().filter(|held| **held == (high, resource)).count() as u32
    }

    fn is_free(&self, high: bool, resource: Resource) -> bool {
        self.in_use(high, resource) < self.max(high, resource)
    }

    fn take(&mut self, high: bool, resource: Resource, granted: bool) {
        self.held.extend(granted.then_some((high, resource)));
    }

    fn give(&mut self, high: bool, resource: Resource) {
        if let Some(at) = self.held.iter().position(|held| *held == (high, resource)) {
            self.held.swap_remove(at);
        }
    }

    fn compare(&self, faulty: &Faulty) -> Result<(), String> {
        for high in [false, true] {
            for resource in RESOURCES {
                let (used, max) = (self.in_use(high, resource), self.max(high, resource));
                let limits = faulty.limits(high);
                let found = (limits.in_use(resource), faulty.is_full(high, resource));
                if found != (used, used >= max) {
                    return Err(format!("{resource:?}: {found:?}, in use {used} of {max}"));
                }
                if limits.remaining(resource) != max.saturating_sub(used) {
                    return Err(format!("{resource:?}: {} remain", limits.remaining(resource)));
                }
            }
        }
        Ok(())
    }
}

/// The machine, or a twin that is wrong on purpose.
struct Faulty {
    limits: [Limits; 2],
    fault: Option<usize>,
}

impl Faulty {
    fn new(entries: &[(bool, u8)], fault: Option<usize>) -> Self {
        let mut entries: Vec<_> = entries.iter().map(|&(high, max)| entry(high, max)).collect();
        if fault == Some(6) {
            entries.reverse();
        }
        let priorities: Priorities = entries.into_iter().collect();
        let limits = Priority::ALL.map(|priority| Limits::new(priorities.get(priority).limits()));
        Self { limits, fault }
    }

    fn limits(&self, high: bool) -> &Limits {
        &self.limits[usize::from(high && self.fault != Some(3))]
    }

    fn acquire(&self, high: bool, resource: Resource) -> Result<Permit, Full> {
        let limits = self.limits(high);
        let taken = limits.try_acquire(resource);
        if self.fault == Some(0) && limits.in_use(resource) == limits.config().max(resource) {
            return taken.or_else(|_| Ok(limits.force_acquire(resource)));
        }
        taken
    }

    fn force(&self, high: bool, resource: Resource) -> Permit {
        let limits = self.limits(high);
        let permit = limits.force_acquire(resource);
        if self.fault == Some(5) {
            let another = limits.force_acquire(resource);
            limits.release(permit);
            limits.release(another);
            // A permit for which no slot is in use.
            return Limits::new(Config::unlimited()).force_acquire(resource);
        }
        permit
    }

    fn connect(&self, high: bool, open: u32) -> Result<Permit, Full> {
        let open = if self.fault == Some(4) { 0 } else { open };
        self.limits(high).try_connect(open)
    }

    fn release(&self, high: bool, permit: Permit) {
        if self.fault != Some(1) {
            self.limits(high).release(permit);
        }
    }

    fn set(&mut self, high: bool, change: impl Fn(Config) -> Config) {
        let config = change(self.limits(high).config());
        if self.fault == Some(2) {
            self.limits[usize::from(high)] = Limits::new(config);
        }
        self.limits(high).set_config(&config);
    }

    fn is_full(&self, high: bool, resource: Resource) -> bool {
        let limits = self.limits(high);
        limits.is_full(resource) || (self.fault == Some(7) && limits.remaining(resource) == 1)
    }
}

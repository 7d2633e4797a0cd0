use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

#[test]
fn defaults_are_envoys() {
    let limits = Limits::default();
    assert_eq!(Resource::ALL.map(|r| limits.remaining(r)), [1_024, 1_024, 1_024, 3, u32::MAX]);
    assert_eq!(limits.config(), Config::default());
}

#[test]
fn zero_refuses_everything() {
    let limits = Limits::new(Config::default().with_max_pending(0));
    let full = limits.try_acquire(Resource::Pending).unwrap_err();
    assert_eq!((full.resource(), full.limit()), (Resource::Pending, 0));
    assert_eq!(full.to_string(), "max_pending of 0 reached");
}

#[test]
fn unlimited_still_counts() {
    let limits = Limits::new(Config::unlimited());
    let permits: Vec<_> =
        (0..5_000).map(|_| limits.try_acquire(Resource::Requests).unwrap()).collect();
    assert_eq!(limits.in_use(Resource::Requests), 5_000);
    permits.into_iter().for_each(|permit| limits.release(permit));
    assert_eq!(limits.in_use(Resource::Requests), 0);
}

#[test]
fn a_forced_slot_may_exceed_the_limit_and_holds_others_back() {
    let limits = Limits::new(Config::default().with_max_connections(1));
    let first = limits.try_acquire(Resource::Connections).unwrap();
    let forced = limits.force_acquire(Resource::Connections);
    assert_eq!(limits.in_use(Resource::Connections), 2);
    assert_eq!(limits.remaining(Resource::Connections), 0);
    limits.release(first);
    assert!(limits.try_acquire(Resource::Connections).is_err(), "the forced one still counts");
    limits.release(forced);
    assert!(limits.try_acquire(Resource::Connections).is_ok());
}

#[test]
fn resources_do_not_share_slots() {
    let limits = Limits::new(Config::default().with_max_requests(1).with_max_retries(1));
    let request = limits.try_acquire(Resource::Requests).unwrap();
    let retry = limits.try_acquire(Resource::Retries).unwrap();
    assert_eq!((request.resource(), retry.resource()), (Resource::Requests, Resource::Retries));
    limits.release(request);
    assert_eq!(limits.in_use(Resource::Retries), 1);
    limits.release(retry);
}

#[test]
fn threads_never_exceed_the_limit_and_give_everything_back() {
    const MAX: u32 = 3;
    let limits = Limits::new(Config::default().with_max_requests(MAX));
    let (running, peak) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let Ok(permit) = limits.try_acquire(Resource::Requests) else { continue };
                    let now_running = running.fetch_add(1, Ordering::SeqCst) + 1;
                    peak.fetch_max(now_running, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    limits.release(permit);
                }
            });
        }
    });
    assert!(peak.load(Ordering::SeqCst) <= MAX);
    assert_eq!(limits.in_use(Resource::Requests), 0);
}

/// What can happen to the limits.
#[derive(Clone, Debug)]
enum Operation {
    Acquire(Resource),
    Force(Resource),
    /// Releases one of the permits held, if any.
    Release(usize),
    SetMax(Resource, u32),
}

fn operation() -> impl Strategy<Value = Operation> {
    let resource = || proptest::sample::select(Resource::ALL.to_vec());
    prop_oneof![
        4 => resource().prop_map(Operation::Acquire),
        1 => resource().prop_map(Operation::Force),
        3 => any::<usize>().prop_map(Operation::Release),
        1 => (resource(), 0..4u32).prop_map(|(resource, max)| Operation::SetMax(resource, max)),
    ]
}

/// The limits under test, or a twin of them that is wrong on purpose.
trait Subject {
    fn acquire(&mut self, resource: Resource) -> Option<Permit>;
    fn force(&mut self, resource: Resource) -> Permit;
    fn release(&mut self, permit: Permit);
    fn set_max(&mut self, resource: Resource, max: u32);
    fn in_use(&self, resource: Resource) -> u32;
}

impl Subject for Limits {
    fn acquire(&mut self, resource: Resource) -> Option<Permit> {
        self.try_acquire(resource).ok()
    }

    fn force(&mut self, resource: Resource) -> Permit {
        self.force_acquire(resource)
    }

    fn release(&mut self, permit: Permit) {
        Self::release(self, permit);
    }

    fn set_max(&mut self, resource: Resource, max: u32) {
        let config = self.config();
        self.set_config(&match resource {
            Resource::Requests => config.with_max_requests(max),
            Resource::Pending => config.with_max_pending(max),
            Resource::Connections => config.with_max_connections(max),
            Resource::Retries => config.with_max_retries(max),
            Resource::ConnectionPools => config.with_max_connection_pools(max),
        });
    }

    fn in_use(&self, resource: Resource) -> u32 {
        Self::in_use(self, resource)
    }
}

/// Against a list of permits held: granted iff fewer are held than allowed; held and in use agree after each step;
/// at rest nothing is in use.
fn check(subject: &mut impl Subject, operations: &[Operation]) -> Result<(), String> {
    let mut held: Vec<Permit> = Vec::new();
    let mut max = [1_024u32, 1_024, 1_024, 3, u32::MAX];
    let count = |held: &[Permit], resource| {
        held.iter().filter(|permit| permit.resource() == resource).count() as u32
    };
    for operation in operations {
        match *operation {
            Operation::Acquire(resource) => {
                let expected = count(&held, resource) < max[resource as usize];
                let granted = subject.acquire(resource);
                if granted.is_some() != expected {
                    return Err(format!("{operation:?} granted: {}", granted.is_some()));
                }
                held.extend(granted);
            }
            Operation::Force(resource) => held.push(subject.force(resource)),
            Operation::Release(_) if held.is_empty() => {}
            Operation::Release(index) => {
                let permit = held.swap_remove(index % held.len());
                subject.release(permit);
            }
            Operation::SetMax(resource, new) => {
                max[resource as usize] = new;
                subject.set_max(resource, new);
            }
        }
        for resource in Resource::ALL {
            if subject.in_use(resource) != count(&held, resource) {
                return Err(format!("{resource:?}: {} in use", subject.in_use(resource)));
            }
        }
    }
    held.into_iter().for_each(|permit| subject.release(permit));
    match Resource::ALL.into_iter().find(|&resource| subject.in_use(resource) != 0) {
        Some(resource) => Err(format!("{resource:?} in use at rest")),
        None => Ok(()),
    }
}

proptest! {
    #[test]
    fn slots_are_granted_as_by_the_list(operations in prop::collection::vec(operation(), 0..80)) {
        prop_assert_eq!(check(&mut Limits::default(), &operations), Ok(()));
    }
}

/// Wrong in one way each.
struct Twin {
    limits: Limits,
    fault: Fault,
}

#[derive(PartialEq)]
enum Fault {
    OneTooMany,
    ForgetsRelease,
    ResizeMintsSlots,
}

impl Subject for Twin {
    fn acquire(&mut self, resource: Resource) -> Option<Permit> {
        let last = self.limits.remaining(resource) == 0;
        let exactly_full = self.limits.in_use(resource) == self.limits.config().max(resource);
        if self.fault == Fault::OneTooMany && last && exactly_full {
            return Some(self.limits.force_acquire(resource));
        }
        self.limits.try_acquire(resource).ok()
    }

    fn force(&mut self, resource: Resource) -> Permit {
        self.limits.force_acquire(resource)
    }

    fn release(&mut self, permit: Permit) {
        if self.fault != Fault::ForgetsRelease {
            self.limits.release(permit);
        }
    }

    fn set_max(&mut self, resource: Resource, max: u32) {
        if self.fault == Fault::ResizeMintsSlots {
            self.limits = Limits::new(self.limits.config());
        }
        self.limits.set_max(resource, max);
    }

    fn in_use(&self, resource: Resource) -> u32 {
        self.limits.in_use(resource)
    }
}

#[test]
fn the_check_catches_each_broken_twin() {
    let retries = Resource::Retries;
    let operations = [
        Operation::SetMax(retries, 1),
        Operation::Acquire(retries),
        Operation::Acquire(retries),
        Operation::SetMax(retries, 2),
        Operation::Release(0),
    ];
    assert_eq!(check(&mut Limits::default(), &operations), Ok(()));
    for fault in [Fault::OneTooMany, Fault::ForgetsRelease, Fault::ResizeMintsSlots] {
        let mut twin = Twin { limits: Limits::default(), fault };
        assert!(check(&mut twin, &operations).is_err());
    }
}

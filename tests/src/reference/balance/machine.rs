//! The machine under check, and its broken twins.

use mesh_core::{
    SplitMix64, Timestamp, Weight,
    balance::{
        Balancer, Candidate, Load, Weighted,
        report::{Report, Reported},
    },
};

use super::model::{Host, Model};

/// The machine, or a twin that is wrong on purpose.
pub(super) struct Faulty {
    fault: Option<usize>,
    pub(super) turns: Balancer,
}

impl Faulty {
    pub(super) fn new(model: &Model, fault: Option<usize>) -> Self {
        let turns = Balancer::starting_at(model.settings.config(fault), model.turn);
        Self { fault, turns }
    }

    pub(super) fn pick(&self, model: &Model, seed: u8, avoid: usize) -> Option<usize> {
        let is = |number| self.fault == Some(number);
        let config = model.settings.config(self.fault);
        let now = Timestamp::from_secs(model.second);
        let members = model.hosts.iter().zip(0..).map(|(host, index)| {
            let mut member = Member::of(host, index);
            member.is_up |= is(0);
            member.weight = if is(2) { Weight::ONE } else { member.weight };
            member.load = if is(3) { Load::new() } else { member.load };
            if let Some(says) = host.says.filter(|_| !is(5)) {
                let report = Report::new(f64::from(says), 1.0);
                member.reported.on_report(config.report(), now, &report);
            }
            member
        });
        let members = Weighted::scheduled(members.collect(), &config, now);
        let fresh = Balancer::new(config);
        let balancer = if is(9) { &fresh } else { &self.turns };
        let mut rng = SplitMix64::new(seed.into());
        balancer.pick(now, &mut rng, &members, |member| member.index == avoid && !is(1))
    }
}

pub(super) struct Member {
    index: usize,
    weight: Weight,
    load: Load,
    is_up: bool,
    since: Option<Timestamp>,
    reported: Reported,
}

impl Member {
    pub(super) fn of(host: &Host, index: usize) -> Self {
        let load = Load::new();
        (0..host.active.get()).for_each(|_| _ = load.on_start(Timestamp::ZERO));
        Self {
            index,
            weight: Weight::new(host.weight).unwrap_or_default(),
            load,
            is_up: !host.down.get(),
            since: host.since.get().map(Timestamp::from_secs),
            reported: Reported::new(),
        }
    }
}

impl Candidate for Member {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> Weight {
        self.weight
    }

    fn is_available(&self, _: Timestamp) -> bool {
        self.is_up
    }

    fn available_since(&self) -> Option<Timestamp> {
        self.since
    }

    fn reported(&self) -> Option<&Reported> {
        Some(&self.reported)
    }
}

//! `balance`: picks of every strategy, with the same random numbers.

mod machine;
mod model;

use std::{rc::Rc, time::Duration};

use arbitrary::{Arbitrary, Result as Decoded, Unstructured};
use mesh_core::{
    Ratio,
    balance::{Choices, Config, Order, SlowStart, report},
};

use self::{
    machine::Faulty,
    model::{Host, Model},
};
use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "balance",
    faults: &[
        "who is down is picked",
        "the wish to avoid is ignored",
        "the weights are ignored",
        "the load is ignored",
        "the order is the even one",
        "reports are ignored",
        "one draw less",
        "the bias is ignored",
        "slow start is ignored",
        "each pick begins the rotation anew",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    /// With these random numbers, and that one to avoid.
    Pick(u8, u8),
    /// That many requests in flight, on that one.
    Occupy(u8, u8),
    Toggle(u8),
    /// It comes anew.
    Restart(u8),
    /// Seconds.
    Wait(u8),
    Change(Settings),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    strategy: u8,
    choices: u8,
    bias: Option<u8>,
    slow: bool,
}

const LONGEST: usize = 200;

/// Seconds of slow start.
const WINDOW: u64 = 64;

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let count = usize::from(input.arbitrary::<u8>()? % 7);
    let hosts: Vec<Rc<Host>> = (0..count)
        .map(|_| Ok(Rc::new(Host::new(input.arbitrary::<u8>()? % 6, input.arbitrary()?))))
        .collect::<Decoded<_>>()?;
    let mut model = Model { hosts, settings: Settings::arbitrary(input)?, turn: 0, second: 1_000 };
    let faulty = Faulty::new(&model, fault);
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        let host = |which: u8| model.hosts.get(usize::from(which) % count.max(1));
        match operation {
            Operation::Pick(seed, avoid) => {
                let avoid = usize::from(avoid % 8);
                let found = faulty.pick(&model, seed, avoid);
                let result = model.pick(u64::from(seed), avoid, found);
                if let Err(error) = result {
                    let error = format!("{error}, {:?}, {:?}", model.settings, model.hosts);
                    return Ok(Err(format!("step {step}, {operation:?}: {error}")));
                }
            }
            Operation::Occupy(which, active) => {
                if let Some(host) = host(which) {
                    host.active.set(u32::from(active % 6));
                }
            }
            Operation::Toggle(which) => {
                if let Some(host) = host(which) {
                    host.down.set(!host.down.get());
                }
            }
            Operation::Restart(which) => {
                if let Some(host) = host(which) {
                    host.since.set(Some(model.second));
                }
            }
            Operation::Wait(seconds) => model.second += u64::from(seconds % 16),
            Operation::Change(settings) => {
                model.settings = settings;
                faulty.turns.set_config(&settings.config(fault));
            }
        }
    }
    Ok(Ok(()))
}

impl Settings {
    fn is_even(self) -> bool {
        self.strategy.is_multiple_of(6)
    }

    fn is_deadline(self) -> bool {
        self.strategy % 6 == 1
    }

    fn is_random(self) -> bool {
        self.strategy % 6 == 2
    }

    fn is_reported(self) -> bool {
        self.strategy % 6 == 3
    }

    /// 0 for two different ones, 1 for all.
    fn choices(self) -> u8 {
        self.choices % 4
    }

    /// In per cent.
    fn bias(self) -> Option<u32> {
        self.bias.map(|bias| u32::from(bias % 3) * 100)
    }

    fn config(self, fault: Option<usize>) -> Config {
        let is = |number| fault == Some(number);
        let choices = match self.choices() {
            0 => Choices::TWO,
            1 => Choices::ALL,
            count => Choices::drawn(u32::from(count) + u32::from(!is(6))).unwrap_or(Choices::TWO),
        };
        let order = if self.is_deadline() && !is(4) { Order::Deadline } else { Order::Even };
        let config = match self.strategy % 6 {
            0 | 1 => Config::round_robin(),
            2 => Config::random(),
            3 => Config::reported(),
            _ => Config::least_request(),
        };
        let bias = self.bias().filter(|_| !is(7));
        let slow = SlowStart::new(Duration::from_secs(WINDOW)).ok();
        config
            .with_order(order)
            .with_choices(choices)
            .with_active_request_bias(bias.map(Ratio::from_percent))
            .with_slow_start(slow.filter(|_| self.slow && !is(8)))
            .with_report(report::Config::default().with_blackout_period(Duration::ZERO))
    }
}

//! `throttle`: both rules, all classes, and changes from one to another.
//!
//! The model keeps the slots of each window in a list, and adds them up anew at each question.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Outcome, Ratio, Timestamp,
    throttle::{Answer, Config, Criteria, Criticality, Permit, Throttle},
};

use super::{Machine, Ran, to_the_end};
use crate::Always;

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "throttle",
    faults: &[
        "what is refused is sent all the same",
        "outcomes are forgotten",
        "a request that was cancelled has failed",
        "all classes share a window",
        "the window is twice as long",
        "the clock runs at half its speed",
        "the aggression is ignored",
        "any share may be refused",
        "the threshold of the rate is ignored",
        "the multiplier is one",
        "the criteria are the other peer's",
        "a new rule forgets what was recorded",
        "the draw is compared the other way round",
        "a refused request is not recorded",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    /// With that random number.
    Acquire(u8, u16),
    /// A few requests at once, all failing or all accepted.
    Many(u8, u8, bool),
    Outcome(u8, u8),
    Drop(u8),
    /// Tenths of a second.
    Wait(u8),
    /// Seconds.
    WaitLong(u8),
    /// The clock goes back by that many tenths of a second.
    Back(u8),
    Change(Settings),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    admission: bool,
    ratio: u8,
    aggression: u8,
    rps: u8,
    cap: u8,
    window: u8,
}

const LONGEST: usize = 300;

const ANSWERS: [(Answer, Option<bool>, Option<bool>); 9] = [
    // With what the adaptive rule makes of it, and the admission rule.
    (Answer::Status(200), Some(true), Some(true)),
    (Answer::Status(500), Some(true), Some(false)),
    (Answer::Status(503), Some(false), Some(false)),
    (Answer::Status(429), Some(false), Some(true)),
    (Answer::Grpc(8), Some(false), Some(false)),
    (Answer::Grpc(13), Some(true), Some(false)),
    (Answer::Grpc(0), Some(true), Some(true)),
    (Answer::Outcome(Outcome::Timeout), Some(false), Some(false)),
    (Answer::Outcome(Outcome::Cancelled), None, None),
];

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let settings = Settings::arbitrary(input)?;
    let mut faulty = match settings.config(fault) {
        Ok(config) => Faulty { throttle: Throttle::new(config), fault },
        Err(error) => return Ok(Err(error)),
    };
    let mut model = Model { settings, windows: Default::default(), tenths: 10 };
    let mut held: Vec<(Permit, Held)> = Vec::new();
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        let result = match operation {
            Operation::Acquire(class, random) => {
                let class = usize::from(class % 4);
                let expected = model.acquire(class, random);
                let granted = faulty.acquire(model.tenths, class, random);
                match (granted, expected) {
                    (Ok(permit), Some(expected)) => {
                        held.extend(permit.map(|permit| (permit, expected)));
                        Ok(())
                    }
                    (Err(()), None) => Ok(()),
                    (granted, _) => Err(format!("granted: {}", granted.is_ok())),
                }
            }
            Operation::Many(class, count, accepted) => {
                let class = usize::from(class % 4);
                let answer = if accepted { 0 } else { 2 };
                for _ in 0..count % 32 {
                    let expected = model.acquire(class, 9_999);
                    let granted = faulty.acquire(model.tenths, class, 9_999).ok().flatten();
                    if let (Some(permit), Some(expected)) = (granted, expected) {
                        model.outcome(expected, answer);
                        faulty.outcome(model.tenths, permit, answer);
                    }
                }
                Ok(())
            }
            Operation::Outcome(which, answer) if !held.is_empty() => {
                let (permit, expected) = held.swap_remove(usize::from(which) % held.len());
                let answer = usize::from(answer) % ANSWERS.len();
                model.outcome(expected, answer);
                faulty.outcome(model.tenths, permit, answer);
                Ok(())
            }
            Operation::Drop(which) if !held.is_empty() => {
                let _forgotten = held.swap_remove(usize::from(which) % held.len());
                Ok(())
            }
            Operation::Outcome(..) | Operation::Drop(_) => Ok(()),
            Operation::Wait(tenths) => {
                model.tenths += u64::from(tenths % 16);
                Ok(())
            }
            Operation::WaitLong(seconds) => {
                model.tenths += u64::from(seconds % 16) * 10;
                Ok(())
            }
            Operation::Back(tenths) => {
                model.tenths = model.tenths.saturating_sub(u64::from(tenths % 32));
                Ok(())
            }
            Operation::Change(settings) => {
                model.settings = settings;
                faulty.change(settings)
            }
        };
        if let Err(error) = result.and_then(|()| model.compare(&faulty)) {
            return Ok(Err(format!("step {step}, {operation:?}, {:?}: {error}", model.settings)));
        }
    }
    Ok(Ok(()))
}

impl Settings {
    /// 2 s to 17 s.
    fn seconds(self) -> u64 {
        u64::from(self.window % 16) + 2
    }

    /// The adaptive rule's multiplier, 1 to 3; the admission rule's success rate, 50 % to 100 %.
    fn ratio(self) -> Ratio {
        let percent = u32::from(self.ratio);
        Ratio::from_percent(if self.admission { 50 + percent % 51 } else { 100 + percent % 201 })
    }

    /// 1 to 2 and a half.
    fn aggression(self) -> Ratio {
        Ratio::from_percent(u32::from(self.aggression).max(100))
    }

    fn cap(self) -> Ratio {
        Ratio::from_percent(u32::from(self.cap % 101))
    }

    fn config(self, fault: Option<usize>) -> Result<Config, String> {
        let is = |number| fault == Some(number);
        let seconds = if is(4) { self.seconds() * 2 } else { self.seconds() };
        let config = if self.admission {
            Config::admission(self.ratio())
                .map(
                    |config| if is(6) { config } else { config.with_aggression(self.aggression()) },
                )
                .map(|config| {
                    config.with_rps_threshold(if is(8) { 0 } else { (self.rps % 8).into() })
                })
                .and_then(|config| {
                    config.with_max_rejection(if is(7) { Ratio::ONE } else { self.cap() })
                })
        } else {
            Config::adaptive(if is(9) { Ratio::ONE } else { self.ratio() })
        };
        let criteria = if self.admission == is(10) { Criteria::sre() } else { Criteria::envoy() };
        config
            .and_then(|config| config.with_window(Duration::from_secs(seconds)))
            .map(|config| config.with_criteria(criteria))
            .map_err(|error| error.to_string())
    }
}

/// A permit, as the model knows it: its window, and whether its request was recorded already.
#[derive(Clone, Copy, Debug)]
struct Held {
    window: usize,
    is_counted: bool,
}

struct Slot {
    /// In tenths of a second.
    began: u64,
    requests: u64,
    accepts: u64,
}

struct Model {
    settings: Settings,
    windows: [Vec<Slot>; 4],
    tenths: u64,
}

impl Model {
    /// Looks at the windows that the rule uses.
    fn look(&mut self) {
        let used = if self.settings.admission { 1 } else { 4 };
        (0..used).for_each(|window| self.look_at(window));
    }

    /// Drops what is too old, and begins a slot where the newest is a second old.
    fn look_at(&mut self, window: usize) {
        let (now, length) = (self.tenths, self.settings.seconds() * 10);
        let window = &mut self.windows[window];
        window.retain(|slot| now.saturating_sub(slot.began) < length);
        if window.last().is_none_or(|newest| now.saturating_sub(newest.began) >= 10) {
            window.push(Slot { began: now, requests: 0, accepts: 0 });
        }
    }

    fn window_of(&self, class: usize) -> usize {
        if self.settings.admission { 0 } else { class }
    }

    fn counts(&self, class: usize) -> (u64, u64) {
        let window = &self.windows[self.window_of(class)];
        let sum = |of: fn(&Slot) -> u64| window.iter().map(of).sum();
        (sum(|slot| slot.requests), sum(|slot| slot.accepts))
    }

    fn probability(&self, class: usize) -> f64 {
        let (requests, accepts) = self.counts(class);
        let share = |ratio: Ratio| f64::from(ratio.as_ppm()) / 1e6;
        let (n, accepts) = (requests as f64, accepts as f64);
        let ratio = share(self.settings.ratio());
        if !self.settings.admission {
            return ((n - ratio * accepts) / (n + 1.0)).max(0.0);
        }
        if requests / self.settings.seconds() < u64::from(self.settings.rps % 8) {
            return 0.0;
        }
        let base = ((n - accepts / ratio) / (n + 1.0)).max(0.0);
        base.powf(1.0 / share(self.settings.aggression())).min(share(self.settings.cap()))
    }

    fn record(&mut self, window: usize, requests: u64, accepts: u64) {
        // Of a request from before a change of the rule, it may be one that is not in use now.
        self.look_at(window);
        if let Some(newest) = self.windows[window].last_mut() {
            newest.requests += requests;
            newest.accepts += accepts;
        }
    }

    /// `None` if it is refused.
    fn acquire(&mut self, class: usize, random: u16) -> Option<Held> {
        self.look_at(self.window_of(class));
        let refused = 10_000.0 * self.probability(class) > f64::from(random % 10_000);
        let (window, is_counted) = (self.window_of(class), !self.settings.admission);
        if is_counted {
            self.record(window, 1, 0);
        }
        (!refused).then_some(Held { window, is_counted })
    }

    fn outcome(&mut self, held: Held, answer: usize) {
        let (_, adaptive, admission) = ANSWERS[answer];
        let accepted = if self.settings.admission { admission } else { adaptive };
        let requests = u64::from(!held.is_counted);
        // What adds nothing begins no slot either.
        if let Some(accepted) = accepted
            && (accepted || requests > 0)
        {
            self.record(held.window, requests, u64::from(accepted));
        }
    }

    fn compare(&mut self, faulty: &Faulty) -> Result<(), String> {
        self.look();
        for class in 0..4 {
            let now = faulty.at(self.tenths);
            let criticality = faulty.class(class);
            let found = faulty.throttle.counts(now, criticality);
            if found != self.counts(class) {
                return Err(format!("{criticality:?}: {found:?} is not {:?}", self.counts(class)));
            }
            let found = faulty.throttle.probability(now, criticality);
            if (found - self.probability(class)).abs() > 1e-12 {
                return Err(format!("{criticality:?}: {found} is not {}", self.probability(class)));
            }
        }
        Ok(())
    }
}

/// The machine, or a twin that is wrong on purpose.
struct Faulty {
    throttle: Throttle,
    fault: Option<usize>,
}

impl Faulty {
    fn is(&self, fault: usize) -> bool {
        self.fault == Some(fault)
    }

    fn at(&self, tenths: u64) -> Timestamp {
        Timestamp::from_millis(if self.is(5) { tenths * 50 } else { tenths * 100 })
    }

    fn class(&self, class: usize) -> Criticality {
        Criticality::ALL[if self.is(3) { 1 } else { class }]
    }

    /// `Ok(None)` is a request that is sent without a permit.
    fn acquire(&self, tenths: u64, class: usize, random: u16) -> Result<Option<Permit>, ()> {
        let random = u64::from(random);
        let random = if self.is(12) { 9_999 - random % 10_000 } else { random };
        let (now, class) = (self.at(tenths), self.class(class));
        if self.is(13) && 10_000.0 * self.throttle.probability(now, class) > random as f64 {
            return Err(());
        }
        match self.throttle.try_acquire(now, class, &mut Always(random)) {
            Ok(permit) => Ok(Some(permit)),
            Err(_) if self.is(0) => Ok(None),
            Err(_) => Err(()),
        }
    }

    fn outcome(&self, tenths: u64, permit: Permit, answer: usize) {
        let (mut answer, ..) = ANSWERS[answer];
        if self.is(2) && answer == Answer::Outcome(Outcome::Cancelled) {
            answer = Answer::Outcome(Outcome::Reset);
        }
        if !self.is(1) {
            self.throttle.on_outcome(self.at(tenths), permit, answer);
        }
    }

    fn change(&mut self, settings: Settings) -> Result<(), String> {
        let config = settings.config(self.fault)?;
        if self.is(11) {
            self.throttle = Throttle::new(config);
        } else {
            self.throttle.set_config(config);
        }
        Ok(())
    }
}

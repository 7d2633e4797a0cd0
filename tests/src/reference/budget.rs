//! `budget`: every kind of budget, and changes from one to another.
//!
//! The model of a token window is a list of all deposits and withdrawals, summed up anew at each question; those of the
//! other kinds are plain counts.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Ratio, Timestamp,
    budget::{Budget, Config, Withdrawal},
};

use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "budget",
    faults: &[
        "fractions of a token are cut",
        "a retry deposits like a request",
        "the clock runs at half its speed",
        "one retry too many is granted",
        "a retry that is over stays in flight",
        "a request that is over stays active",
        "a failure takes nothing",
        "a success counts twice",
        "half of the tokens is enough",
        "the interval is ignored",
        "all slices are aligned",
        "no slices are aligned",
        "a new rule forgets what was counted",
        "the reserve is one retry too small",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Request,
    RequestEnd,
    Withdraw,
    RetryEnd,
    Success,
    Failure,
    /// Hundredths of a second.
    Wait(u8),
    /// Tenths of a second.
    WaitLong(u8),
    /// The clock goes back by that many milliseconds.
    Back(u8),
    /// Of the same kind, or another.
    Change(Settings),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    kind: u8,
    /// In per cent, up to 255; a share of ten thousand where that is finer.
    ratio: u8,
    floor: u8,
}

/// Of the windows, in milliseconds.
const TTL: u64 = 1_000;
const LONGEST: usize = 300;

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let settings = Settings::arbitrary(input)?;
    let mut faulty = match Faulty::new(settings, fault) {
        Ok(faulty) => faulty,
        Err(error) => return Ok(Err(error)),
    };
    let mut model = Model::new(settings);
    let mut millis = 0u64;
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        model.look(millis);
        let result = match operation {
            Operation::Request => {
                faulty.request(millis);
                model.request();
                Ok(())
            }
            Operation::RequestEnd if model.active > 0 => {
                faulty.request_end();
                model.active -= 1;
                Ok(())
            }
            Operation::Withdraw => {
                let granted = faulty.withdraw(millis);
                let expected = model.allows();
                model.withdraw(granted);
                if granted == expected { Ok(()) } else { Err(format!("granted: {granted}")) }
            }
            Operation::RetryEnd if model.in_flight > 0 => {
                faulty.retry_end();
                model.in_flight -= 1;
                Ok(())
            }
            Operation::RequestEnd | Operation::RetryEnd => Ok(()),
            Operation::Success => {
                faulty.success();
                model.bucket =
                    (model.bucket + model.settings.token_ratio()).min(model.settings.max());
                Ok(())
            }
            Operation::Failure => {
                faulty.failure();
                model.bucket = (model.bucket - 1_000).max(0);
                Ok(())
            }
            Operation::Wait(hundredths) => {
                millis += u64::from(hundredths % 32) * 10;
                Ok(())
            }
            Operation::WaitLong(tenths) => {
                millis += u64::from(tenths) * 100;
                Ok(())
            }
            Operation::Back(back) => {
                millis = millis.saturating_sub(back.into());
                Ok(())
            }
            Operation::Change(settings) => {
                model.change(settings, millis);
                faulty.change(settings, millis)
            }
        };
        let compared = result.and_then(|()| model.compare(&faulty, millis));
        if let Err(error) = compared {
            return Ok(Err(format!("step {step}, {operation:?}, {:?}: {error}", model.settings)));
        }
    }
    Ok(Ok(()))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Tokens { aligned: bool },
    Concurrent,
    Recent,
    Throttle,
    Unlimited,
}

impl Settings {
    fn kind(self) -> Kind {
        match self.kind % 8 {
            0 | 1 => Kind::Tokens { aligned: true },
            2 | 3 => Kind::Tokens { aligned: false },
            4 => Kind::Concurrent,
            5 => Kind::Recent,
            6 => Kind::Throttle,
            _ => Kind::Unlimited,
        }
    }

    fn ratio(self) -> Ratio {
        Ratio::from_ppm(u32::from(self.ratio) * 9_973)
    }

    /// Retries without a request.
    fn floor(self) -> u32 {
        u32::from(self.floor % 6)
    }

    /// In thousandths of a token.
    fn max(self) -> i64 {
        i64::from(self.floor() + 1) * 1_000
    }

    fn token_ratio(self) -> i64 {
        i64::from(self.ratio().as_ppm().max(1_000) / 1_000)
    }

    fn config(self) -> Result<Config, String> {
        let ttl = Duration::from_millis(TTL);
        let config = match self.kind() {
            Kind::Tokens { aligned } => Config::leaky(self.ratio(), self.floor(), ttl)
                .map(|config| config.with_aligned_slices(aligned)),
            Kind::Concurrent => Ok(Config::concurrent(self.ratio(), self.floor())),
            Kind::Recent => Config::concurrent(self.ratio(), self.floor()).with_interval(ttl),
            Kind::Throttle => {
                let ratio = Ratio::from_ppm(self.ratio().as_ppm().max(1_000));
                Config::throttle(self.floor() + 1, ratio)
            }
            Kind::Unlimited => Ok(Config::unlimited()),
        };
        config.map_err(|error| error.to_string())
    }
}

struct Model {
    settings: Settings,
    active: u64,
    in_flight: u64,
    /// Slot and amount, in millionths, of everything that was ever put into or taken out of the window.
    events: Vec<(u64, i64)>,
    /// The running slot, and when it began, in milliseconds.
    slot: u64,
    began: u64,
    /// In thousandths.
    bucket: i64,
}

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            active: 0,
            in_flight: 0,
            events: Vec::new(),
            slot: 0,
            began: 0,
            bucket: settings.max(),
        }
    }

    /// Moves on to the slot of now.
    fn look(&mut self, millis: u64) {
        let ended = millis.saturating_sub(self.began) / (TTL / 10);
        self.slot += ended;
        match self.settings.kind() {
            Kind::Tokens { aligned: false } if ended > 0 => self.began = millis,
            Kind::Tokens { aligned: true }
            | Kind::Tokens { aligned: false }
            | Kind::Concurrent
            | Kind::Recent
            | Kind::Throttle
            | Kind::Unlimited => self.began += ended * (TTL / 10),
        }
    }

    fn window(&self) -> i64 {
        let live = self.events.iter().filter(|(slot, _)| slot + 10 > self.slot);
        live.map(|(_, amount)| amount).sum()
    }

    fn request(&mut self) {
        self.active += 1;
        match self.settings.kind() {
            Kind::Tokens { .. } => {
                self.events.push((self.slot, i64::from(self.settings.ratio().as_ppm())));
            }
            Kind::Recent => self.events.push((self.slot, 1_000_000)),
            Kind::Concurrent | Kind::Throttle | Kind::Unlimited => {}
        }
    }

    fn withdraw(&mut self, granted: bool) {
        if granted {
            self.in_flight += 1;
            if let Kind::Tokens { .. } = self.settings.kind() {
                self.events.push((self.slot, -1_000_000));
            }
        }
    }

    fn balance(&self) -> u64 {
        let (ratio, floor) = (self.settings.ratio(), u64::from(self.settings.floor()));
        let concurrent = |base: u64| ratio.of(base).max(floor).saturating_sub(self.in_flight);
        match self.settings.kind() {
            Kind::Tokens { .. } => {
                (floor as i64 * 1_000_000 + self.window()).max(0) as u64 / 1_000_000
            }
            Kind::Concurrent => concurrent(self.active),
            Kind::Recent => concurrent(self.active + self.window() as u64 / 1_000_000),
            Kind::Throttle if self.bucket * 2 <= self.settings.max() => 0,
            Kind::Throttle | Kind::Unlimited => u64::MAX,
        }
    }

    fn allows(&self) -> bool {
        self.balance() > 0
    }

    fn change(&mut self, settings: Settings, millis: u64) {
        let (old, new) = (self.settings.kind(), settings.kind());
        let keeps = |kind: Kind| matches!(kind, Kind::Tokens { .. } | Kind::Recent);
        let same = std::mem::discriminant(&old) == std::mem::discriminant(&new);
        if !same || !keeps(new) {
            self.events.clear();
            (self.slot, self.began) = (self.slot + 10, millis);
        }
        self.bucket = if same && new == Kind::Throttle {
            self.bucket * settings.max() / self.settings.max()
        } else {
            settings.max()
        };
        self.settings = settings;
    }

    fn compare(&mut self, faulty: &Faulty, millis: u64) -> Result<(), String> {
        self.look(millis);
        let now = faulty.at(millis);
        let budget = &faulty.budget;
        if budget.balance(now) != self.balance() {
            return Err(format!("balance {} is not {}", budget.balance(now), self.balance()));
        }
        let counted = (u64::from(budget.active_requests()), u64::from(budget.retries_in_flight()));
        if counted != (self.active, self.in_flight) {
            return Err(format!("{counted:?} is not {:?}", (self.active, self.in_flight)));
        }
        let tokens = match self.settings.kind() {
            Kind::Tokens { .. } => {
                Some(i64::from(self.settings.floor()) * 1_000_000 + self.window())
            }
            Kind::Throttle => Some(self.bucket * 1_000),
            Kind::Concurrent | Kind::Recent | Kind::Unlimited => None,
        };
        if budget.tokens(now) != tokens {
            return Err(format!("tokens {:?} is not {tokens:?}", budget.tokens(now)));
        }
        Ok(())
    }
}

/// The machine, or a twin that is wrong on purpose.
struct Faulty {
    budget: Budget,
    settings: Settings,
    held: Vec<Withdrawal>,
    fault: Option<usize>,
}

impl Faulty {
    fn new(settings: Settings, fault: Option<usize>) -> Result<Self, String> {
        let budget = Budget::new(Self::config(settings, fault)?, Timestamp::ZERO);
        Ok(Self { budget, settings, held: Vec::new(), fault })
    }

    fn config(settings: Settings, fault: Option<usize>) -> Result<Config, String> {
        let config = settings.config()?;
        Ok(match fault {
            Some(0) => {
                // tower's way: what a retry costs is a whole number of requests.
                let percent = settings.ratio().as_ppm() / 100_000 * 10;
                match settings.kind() {
                    Kind::Tokens { aligned } => Config::leaky(
                        Ratio::from_percent(percent),
                        settings.floor(),
                        Duration::from_millis(TTL),
                    )
                    .map_err(|error| error.to_string())?
                    .with_aligned_slices(aligned),
                    Kind::Concurrent | Kind::Recent | Kind::Throttle | Kind::Unlimited => config,
                }
            }
            Some(9) => config.with_interval(Duration::ZERO).map_err(|error| error.to_string())?,
            Some(10) => config.with_aligned_slices(true),
            Some(11) => config.with_aligned_slices(false),
            Some(13) => {
                Settings { floor: settings.floor.saturating_sub(1), ..settings }.config()?
            }
            Some(_) | None => config,
        })
    }

    fn at(&self, millis: u64) -> Timestamp {
        Timestamp::from_millis(if self.fault == Some(2) { millis / 2 } else { millis })
    }

    fn request(&self, millis: u64) {
        self.budget.on_request(self.at(millis));
    }

    fn request_end(&self) {
        if self.fault != Some(5) {
            self.budget.on_request_end();
        }
    }

    fn withdraw(&mut self, millis: u64) -> bool {
        let now = self.at(millis);
        let granted = self.budget.try_withdraw(now).ok();
        let is_granted = granted.is_some();
        self.held.extend(granted);
        if is_granted && self.fault == Some(1) {
            self.budget.on_request(now);
            self.budget.on_request_end();
        }
        let half = self.settings.kind() == Kind::Throttle
            && self.budget.tokens(now) == Some(self.settings.max() * 500);
        is_granted
            || (self.fault == Some(8) && half)
            || (self.fault == Some(3) && self.budget.retries_in_flight() == self.settings.floor())
    }

    fn retry_end(&mut self) {
        if let Some(withdrawal) = self.held.pop()
            && self.fault != Some(4)
        {
            self.budget.on_retry_end(withdrawal);
        }
    }

    fn success(&self) {
        self.budget.on_success();
        if self.fault == Some(7) {
            self.budget.on_success();
        }
    }

    fn failure(&self) {
        if self.fault != Some(6) {
            self.budget.on_failure();
        }
    }

    fn change(&mut self, settings: Settings, millis: u64) -> Result<(), String> {
        let config = Self::config(settings, self.fault)?;
        let now = self.at(millis);
        if self.fault == Some(12) {
            self.budget = Budget::new(config, now);
        } else {
            self.budget.set_config(config, now);
        }
        self.settings = settings;
        Ok(())
    }
}

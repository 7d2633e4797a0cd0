//! The checks of one endpoint, against a list of their verdicts.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    InvalidConfig, Ratio, SplitMix64, Timestamp,
    health::{Check, Checker, Config, State, Transition, Verdict},
};

use super::Machine;

/// The check.
pub(super) const MACHINE: Machine = Machine {
    name: "health",
    faults: &[
        "takes an answer that says ill for none",
        "hears what comes too late",
        "waits for ever for an answer",
        "lets checks overlap",
        "asks before it is due",
        "tells of a change twice",
        "asks the ill as seldom as the well",
        "knows no first check",
    ],
    check,
};

#[derive(Clone, Copy, Debug, Arbitrary)]
struct Setup {
    interval: u8,
    unhealthy_interval: u8,
    edges: Option<(u8, u8)>,
    timeout: u8,
    unhealthy_threshold: u8,
    healthy_threshold: u8,
    jitter_percent: u8,
    initial_jitter: u8,
    trusts: bool,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Operation {
    /// Hundredths of a second.
    Wait(u8),
    /// The clock goes back.
    Back(u8),
    /// To the next moment that the machine names.
    Next,
    Start,
    /// One of the checks that were begun, the last one mostly.
    End(u8, Told),
    Timeout,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Told {
    Passed,
    Failed,
    Unhealthy,
}

impl Setup {
    fn config(self, is_slow: bool) -> Result<Config, InvalidConfig> {
        let mut config = Config::default()
            .with_interval(time(self.interval))?
            .with_timeout(time(self.timeout))?
            .with_unhealthy_threshold(u32::from(self.unhealthy_threshold % 4) + 1)?
            .with_healthy_threshold(u32::from(self.healthy_threshold % 4) + 1)?
            .with_interval_jitter(Ratio::from_percent(u32::from(self.jitter_percent)))
            .with_initial_jitter(time(self.initial_jitter))
            .with_trust_until_checked(self.trusts);
        if !is_slow {
            config = config.with_unhealthy_interval(time(self.unhealthy_interval))?;
        }
        if let Some((healthy, unhealthy)) = self.edges {
            config = config
                .with_healthy_edge_interval(time(healthy))?
                .with_unhealthy_edge_interval(time(unhealthy))?;
        }
        Ok(config)
    }

    fn wait(self, is_well: bool, edge: bool) -> Duration {
        time(match (self.edges, edge, is_well) {
            (Some((healthy, _)), true, true) => healthy,
            (Some((_, unhealthy)), true, false) => unhealthy,
            (_, _, true) => self.interval,
            (_, _, false) => self.unhealthy_interval,
        })
    }
}

/// At least the shortest that is allowed.
fn time(hundredths: u8) -> Duration {
    Duration::from_millis(10 * (u64::from(hundredths) + 1))
}

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut bytes = Unstructured::new(data);
    let Ok(setup) = Setup::arbitrary(&mut bytes) else { return Ok(()) };
    let config = setup.config(fault == Some(6)).map_err(|error| error.to_string())?;
    let mut rng = SplitMix64::new(1);
    let mut now = Timestamp::from_secs(100);
    let mut checker = Checker::new(&config, now, &mut rng);
    let mut model = Model::new(setup, now);
    model.follow(now, checker.poll_timeout(), time(setup.initial_jitter))?;
    let mut begun: Vec<(usize, Check)> = Vec::new();
    let mut last = None;
    if fault == Some(7) {
        // A first verdict that nobody has given.
        let start = checker.poll_timeout();
        if let Some(check) = checker.try_start(&config, start) {
            checker.on_verdict(&config, start, &mut rng, check, Verdict::Passed);
        }
        model.due = checker.poll_timeout();
    }
    for _ in 0..200 {
        if bytes.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut bytes) else { break };
        let told = |ours: Option<Transition>, theirs: Option<Transition>| {
            if ours == theirs {
                Ok(())
            } else {
                Err(format!("{operation:?}: {ours:?}, not {theirs:?}"))
            }
        };
        match operation {
            Operation::Wait(hundredths) => now = now + time(hundredths),
            Operation::Back(hundredths) => now = now - time(hundredths),
            Operation::Next => now = now.max(checker.poll_timeout()),
            Operation::Start => {
                let due = checker.poll_timeout();
                if fault == Some(3) {
                    checker.on_timeout(&config, due, &mut rng);
                }
                let at = if matches!(fault, Some(3 | 4)) { checker.poll_timeout() } else { now };
                let check = checker.try_start(&config, at);
                let number = model.start(now);
                if check.is_some() != number.is_some() {
                    return Err(format!("at {now:?}: {check:?}, not {number:?}"));
                }
                begun.extend(number.zip(check));
            }
            Operation::End(back, verdict) if !begun.is_empty() => {
                let (number, mut check) =
                    begun.remove(begun.len() - 1 - usize::from(back / 64) % begun.len());
                let heard = match verdict {
                    Told::Passed => Verdict::Passed,
                    Told::Failed => Verdict::Failed,
                    Told::Unhealthy => Verdict::Unhealthy,
                };
                let said = match heard {
                    Verdict::Unhealthy if fault == Some(0) => Verdict::Failed,
                    Verdict::Passed | Verdict::Failed | Verdict::Unhealthy => heard,
                };
                if fault == Some(1) && model.under_way != Some(number) {
                    let due = checker.poll_timeout();
                    check = checker.try_start(&config, due).unwrap_or(check);
                }
                let mut ours = checker.on_verdict(&config, now, &mut rng, check, said);
                if fault == Some(5) {
                    last = ours.or(last);
                    ours = last;
                }
                told(ours, model.end(number, heard, now, checker.poll_timeout())?)?;
            }
            Operation::End(..) => {}
            Operation::Timeout => {
                let ours = match fault {
                    Some(2) => None,
                    _ => checker.on_timeout(&config, now, &mut rng),
                };
                let theirs = model.timeout(now, checker.poll_timeout())?;
                told(ours, theirs)?;
            }
        }
        model.compare(&config, &checker).map_err(|error| format!("{operation:?}: {error}"))?;
    }
    Ok(())
}

struct Model {
    setup: Setup,
    state: State,
    /// Since the state was entered.
    verdicts: Vec<Verdict>,
    due: Timestamp,
    begun: usize,
    under_way: Option<usize>,
}

impl Model {
    fn new(setup: Setup, now: Timestamp) -> Self {
        let (state, verdicts) = (State::Unchecked, Vec::new());
        Self { setup, state, verdicts, due: now, begun: 0, under_way: None }
    }

    fn start(&mut self, now: Timestamp) -> Option<usize> {
        if self.under_way.is_some() || now < self.due {
            return None;
        }
        self.begun += 1;
        self.under_way = Some(self.begun);
        self.due = now + time(self.setup.timeout);
        self.under_way
    }

    fn timeout(&mut self, now: Timestamp, named: Timestamp) -> Result<Option<Transition>, String> {
        match self.under_way.filter(|_| now >= self.due) {
            Some(number) => self.end(number, Verdict::Failed, now, named),
            None => Ok(None),
        }
    }

    fn end(
        &mut self,
        number: usize,
        verdict: Verdict,
        now: Timestamp,
        named: Timestamp,
    ) -> Result<Option<Transition>, String> {
        if self.under_way != Some(number) {
            return Ok(None);
        }
        self.under_way = None;
        self.verdicts.push(verdict);
        let next = self.next();
        let transition = match next {
            _ if next == self.state => None,
            State::Healthy => Some(Transition::BecameHealthy),
            State::Unhealthy | State::Unchecked => Some(Transition::BecameUnhealthy),
        };
        if transition.is_some() {
            self.state = next;
            self.verdicts.clear();
        }
        let wait = self.setup.wait(self.state == State::Healthy, transition.is_some());
        let jitter = wait.mul_f64(f64::from(self.setup.jitter_percent) / 100.0);
        self.follow(now + wait, named, jitter)?;
        Ok(transition)
    }

    fn next(&self) -> State {
        let passed = |verdict: &&Verdict| **verdict == Verdict::Passed;
        let passes = self.verdicts.iter().rev().take_while(passed).count();
        let failures = self.verdicts.iter().rev().take_while(|verdict| !passed(verdict)).count();
        let says_ill = self.verdicts.last() == Some(&Verdict::Unhealthy);
        match self.state {
            State::Unchecked if passes > 0 => State::Healthy,
            State::Unchecked => State::Unhealthy,
            State::Healthy
                if says_ill || failures > usize::from(self.setup.unhealthy_threshold % 4) =>
            {
                State::Unhealthy
            }
            State::Unhealthy if passes > usize::from(self.setup.healthy_threshold % 4) => {
                State::Healthy
            }
            State::Healthy | State::Unhealthy => self.state,
        }
    }

    /// The machine draws within bounds, and the model goes along.
    fn follow(
        &mut self,
        least: Timestamp,
        named: Timestamp,
        jitter: Duration,
    ) -> Result<(), String> {
        self.due = named;
        let most = least + jitter + Duration::from_nanos(1);
        if named < least || named > most {
            return Err(format!("the next is at {named:?}, not {least:?} to {most:?}"));
        }
        Ok(())
    }

    fn compare(&self, config: &Config, checker: &Checker) -> Result<(), String> {
        let ours = (checker.state(), checker.poll_timeout(), checker.is_available(config));
        let is_available = match self.state {
            State::Healthy => true,
            State::Unhealthy => false,
            State::Unchecked => self.setup.trusts,
        };
        let theirs = (self.state, self.due, is_available);
        if ours == theirs { Ok(()) } else { Err(format!("{ours:?}, not {theirs:?}")) }
    }
}

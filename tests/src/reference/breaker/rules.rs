//! What the model's rules make of what it has kept.

use std::time::Duration;

use mesh_core::{
    Outcome, Ratio, Timestamp,
    breaker::{Reason, Throttled, Trip, Waits, Window},
};

use super::{
    model::{Call, Model},
    setup::{Kind, RatioRule, Rule},
};

impl Model {
    pub(super) fn run_counts(&self) -> bool {
        self.setup.consecutive.is_some() || self.setup.has_accrual()
    }

    /// How long the rules in `met` hold.
    pub(super) fn wait(&self, met: [bool; 3]) -> Duration {
        if self.setup.trip == Trip::OpenUntilReset {
            return Duration::MAX;
        }
        let waits = (0..3).filter(|rule| met[*rule]).map(|rule| self.next(rule));
        let wait = if self.is(19) { waits.min() } else { waits.max() }.unwrap_or_default();
        wait + Duration::from_nanos(u64::from(self.setup.strict != self.is(10)))
    }

    /// The next wait of a rule.
    pub(super) fn next(&self, rule: usize) -> Duration {
        let (count, last) = self.waits[rule];
        if rule == 0 {
            if count == 0 || self.is(6) {
                return self.setup.wait;
            }
            let grown = Duration::from_nanos(self.setup.growth.of(last.as_nanos() as u64));
            return grown.clamp(self.setup.wait, self.setup.max_wait);
        }
        let listed = self.setup.accruals[rule - 1].and_then(|rule| rule.waits.get(count).copied());
        listed.map_or(Waits::AFTER_LIST, Duration::from_millis)
    }

    /// Whether the call failed, and what becomes of the run: longer, ended, or neither.
    pub(super) fn read(&self, outcome: Outcome) -> (bool, Option<bool>) {
        if outcome != Outcome::Throttled {
            let failed = outcome.is_failure();
            return (failed, Some(failed));
        }
        let (failed, run) = match self.setup.throttled {
            Throttled::ForRatiosEndsRun => (true, Some(false)),
            Throttled::AsSuccess => (false, Some(false)),
            Throttled::AsFailure => (true, Some(true)),
            Throttled::ForRatios | _ => (true, None),
        };
        (failed && !self.is(9), if self.is(8) { Some(true) } else { run })
    }

    /// Asks the accrual about a failure that has just been counted.
    pub(super) fn accrual_met(&self, rule: Rule, run: u32) -> Option<Reason> {
        let elapsed = |at: Timestamp| at.since(self.since).as_millis() as u64;
        let (required, window) = match rule.kind {
            Kind::Consecutive(failures) => {
                return (run >= failures).then_some(Reason::ConsecutiveFailures(run));
            }
            Kind::Requests { required, requests } => {
                if (self.results.len() as u32) < requests && !self.is(22) {
                    return None;
                }
                (required, f64::from(requests))
            }
            Kind::Within { required, window, minimum } => {
                let part =
                    |at: Timestamp| at.since(self.since).as_nanos() as u64 / (window * 200_000);
                let now = part(self.now);
                let recent = self.results.iter().filter(|(at, _)| now - part(*at) < 5).count();
                let passed = elapsed(self.now) >= window || self.is(22);
                if !passed || recent < minimum as usize {
                    return None;
                }
                (required, window as f64)
            }
        };
        let by_time = matches!(rule.kind, Kind::Within { .. }) && !self.is(21);
        let (mut average, mut last) = (None, 0);
        for (at, success) in &self.results {
            let step = if by_time { elapsed(*at) - last } else { 1 };
            last = elapsed(*at);
            let (value, weight) = (f64::from(*success), (-(step as f64) / window).exp());
            average = Some(average.map_or(value, |old| value * (1.0 - weight) + old * weight));
        }
        let average = average?;
        let is_met = average < f64::from(required.as_ppm()) / 1e6;
        is_met.then(|| Reason::AverageSuccess(Ratio::from_ppm((average * 1e6) as u32)))
    }

    /// The calls that the window holds now.
    pub(super) fn window(&self) -> Vec<Call> {
        let Some(rule) = self.setup.ratio else { return Vec::new() };
        let in_parts = |width: u64, count: u64, start: Timestamp| {
            let part = |at: Timestamp| at.since(start).as_nanos() as u64 / width;
            let now = part(self.now);
            self.calls.iter().filter(|call| now - part(call.at) < count).copied().collect()
        };
        match rule.window {
            _ if self.is(1) => self.calls.clone(),
            Window::Count(n) => self.calls.iter().rev().take(n as usize).copied().collect(),
            Window::Time(span) => {
                let start = if self.is(24) { Timestamp::ZERO } else { self.since };
                in_parts(span.as_nanos() as u64 / 10, 10, start)
            }
            Window::Seconds(seconds) => {
                in_parts(1_000_000_000, u64::from(seconds), Timestamp::ZERO)
            }
        }
    }

    pub(super) fn ratio_met(&self) -> Option<Reason> {
        let rule = self.setup.ratio?;
        let minimum = match rule.window {
            Window::Count(n) => rule.minimum.min(n),
            Window::Time(_) | Window::Seconds(_) => rule.minimum,
        };
        self.judge(rule, &self.window(), minimum)
    }

    pub(super) fn judge(&self, rule: RatioRule, calls: &[Call], minimum: u32) -> Option<Reason> {
        let (calls, failures, slow) = sum(calls);
        if calls < u64::from(minimum) {
            return None;
        }
        let (share, ppm) = (|part: u64| part * 1_000_000, u64::from(rule.threshold.as_ppm()));
        let is_met = if rule.successes {
            share(calls - failures) < ppm * calls
                || (self.is(17) && share(calls - failures) == ppm * calls)
        } else {
            share(failures) >= ppm * calls
        };
        if is_met {
            return Some(Reason::FailureRatio { failures, calls });
        }
        let ppm = u64::from(rule.slow?.as_ppm());
        (share(slow) >= ppm * calls).then_some(Reason::SlowCalls { slow, calls })
    }
}

pub(super) fn sum(calls: &[Call]) -> (u64, u64, u64) {
    let count = |is: fn(&Call) -> bool| calls.iter().filter(|call| is(call)).count() as u64;
    (calls.len() as u64, count(|call| call.failed), count(|call| call.slow))
}

//! The obviously right breaker.

use std::time::Duration;

use mesh_core::{
    Outcome, Ratio, Timestamp,
    breaker::{Evaluation, Expiry, Reason, State, Throttled, Trip, Verdict, Waits, Window},
};

use super::setup::{Kind, RatioRule, Rule, SLOW, Setup};

pub(super) const FAULTS: &[&str] = &[
    "a late answer counts as if it were of today",
    "the window counts since the last transition",
    "a dropped probe keeps its permit",
    "a good answer brings its permit back",
    "a hanging probe hangs for ever",
    "a hanging probe fails when that is noticed",
    "a failed probe does not make the wait longer",
    "a recovery does not make the wait short again",
    "a throttled call is always a failure in a row",
    "a throttled call never counts",
    "the wait is over the other way round: strictly or not",
    "a good call opens it though only failures are looked at",
    "a good call does not open it though every call is looked at",
    "a call is slow at the threshold",
    "the ratios of probes are looked at from the first one on",
    "half-open never expires",
    "what expired is always open",
    "a success rate that is met exactly opens it",
    "snapshots look at every call",
    "of two rules the shorter wait holds",
    "an average forgets with each opening",
    "an average weighs by the count where it should by time",
    "the window of an average need not have passed",
    "a told rule goes on counting",
    "parts of a window begin at the origin of time",
];

/// Its place in [`FAULTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault(usize);

impl Fault {
    pub(super) fn of(index: usize) -> Self {
        Self(index)
    }
}

/// A `Transition`, that only the machine can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) reason: Reason,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    at: Timestamp,
    failed: bool,
    slow: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ModelPermit {
    id: u32,
    phase: u32,
    start: Timestamp,
}

pub(super) struct Model {
    fault: Option<Fault>,
    setup: Setup,
    pub(super) now: Timestamp,
    pub(super) state: State,
    phase: u32,
    /// When it began to count.
    since: Timestamp,
    run: u32,
    calls: Vec<Call>,
    /// Successes and failures for the averages.
    results: Vec<(Timestamp, bool)>,
    /// Waits so far of the rules, and the last one.
    waits: [(usize, Duration); 3],
    met: [bool; 3],
    probes: Vec<(u32, Timestamp)>,
    answers: Vec<Call>,
    ends: Timestamp,
    snapshot: Timestamp,
    pub(super) permits: Vec<ModelPermit>,
    next_permit: u32,
}

const BASE: [bool; 3] = [true, false, false];

impl Model {
    pub(super) fn new(setup: Setup, now: Timestamp, fault: Option<Fault>) -> Self {
        let mut model = Self {
            fault,
            setup,
            now,
            state: State::Closed,
            phase: 0,
            since: now,
            run: 0,
            calls: Vec::new(),
            results: Vec::new(),
            waits: [(0, Duration::ZERO); 3],
            met: BASE,
            probes: Vec::new(),
            answers: Vec::new(),
            ends: Timestamp::MAX,
            snapshot: Timestamp::MAX,
            permits: Vec::new(),
            next_permit: 0,
        };
        model.begin(State::Closed, now);
        model
    }

    fn is(&self, fault: usize) -> bool {
        self.fault == Some(Fault(fault))
    }

    // === questions ===

    pub(super) fn would_admit(&self) -> bool {
        match self.state {
            State::Closed => {
                !self.samples() || self.setup.trip == Trip::Tell || self.ratio_met().is_none()
            }
            State::ForcedClosed | State::MetricsOnly => true,
            State::ForcedOpen => false,
            State::Open { until } => self.now >= until,
            State::HalfOpen { permits_left } => match self.overdue() {
                Some((_, false)) if self.expires() == Expiry::Close => true,
                Some((at, _)) => self.now >= at + self.wait(self.met),
                None => permits_left > 0,
            },
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let due = match self.state {
            State::HalfOpen { .. } => self.earliest().0,
            State::Closed => self.snapshot,
            State::Open { .. } | State::ForcedOpen | State::ForcedClosed | State::MetricsOnly => {
                Timestamp::MAX
            }
        };
        (due < Timestamp::MAX).then_some(due)
    }

    pub(super) fn rule_met(&self) -> Option<Reason> {
        if !matches!(self.state, State::Closed | State::MetricsOnly) {
            return None;
        }
        let by_run =
            self.setup.consecutive.filter(|threshold| self.run_counts() && self.run >= *threshold);
        by_run.map(|_| Reason::ConsecutiveFailures(self.run)).or_else(|| self.ratio_met())
    }

    pub(super) fn counts(&self) -> (u64, u64, u64) {
        match self.state {
            State::HalfOpen { .. } => sum(&self.answers),
            State::Closed | State::MetricsOnly => sum(&self.window()),
            State::Open { .. } | State::ForcedOpen | State::ForcedClosed => (0, 0, 0),
        }
    }

    fn run_counts(&self) -> bool {
        self.setup.consecutive.is_some() || self.setup.has_accrual()
    }

    // === phases ===

    fn enter(&mut self, to: State, reason: Reason) -> Change {
        let from = std::mem::replace(&mut self.state, to);
        self.phase += 1;
        self.calls.clear();
        self.probes.clear();
        self.answers.clear();
        Change { from, to, reason }
    }

    /// A phase that counts.
    fn begin(&mut self, to: State, since: Timestamp) {
        self.enter(to, Reason::Reset);
        (self.since, self.run, self.met) = (since, 0, BASE);
        self.results.clear();
        if !self.is(7) {
            self.waits = [(0, Duration::ZERO); 3];
        }
        self.snapshot = match self.setup.evaluation {
            Evaluation::Snapshots(interval) if to == State::Closed => since + interval,
            _ => Timestamp::MAX,
        };
    }

    fn close(&mut self, since: Timestamp, reason: Reason) -> Change {
        let from = self.state;
        self.begin(State::Closed, since);
        Change { from, to: State::Closed, reason }
    }

    /// Opens because of the rules in `met`: the longest of their waits holds, and all of them go on.
    fn open(&mut self, met: [bool; 3], since: Timestamp, reason: Reason) -> Change {
        let until = since + self.wait(met);
        for rule in 0..3 {
            if met[rule] {
                self.waits[rule] = (self.waits[rule].0 + 1, self.next(rule));
            }
        }
        self.met = met;
        if self.is(20) {
            self.results.clear();
        }
        self.enter(State::Open { until }, reason)
    }

    fn wait(&self, met: [bool; 3]) -> Duration {
        if self.setup.trip == Trip::OpenUntilReset {
            return Duration::MAX;
        }
        let waits = (0..3).filter(|rule| met[*rule]).map(|rule| self.next(rule));
        let wait = if self.is(19) { waits.min() } else { waits.max() }.unwrap_or_default();
        wait + Duration::from_nanos(u64::from(self.setup.strict != self.is(10)))
    }

    /// The next wait of a rule.
    fn next(&self, rule: usize) -> Duration {
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

    fn half_open(&mut self, reason: Reason) -> Change {
        let permits_left = self.setup.permits;
        let longest = self.setup.max_half_open.filter(|_| !self.is(15));
        self.ends = longest.map_or(Timestamp::MAX, |(longest, _)| self.now + longest);
        self.enter(State::HalfOpen { permits_left }, reason)
    }

    fn expires(&self) -> Expiry {
        match self.setup.max_half_open {
            Some((_, Expiry::Close)) if !self.is(16) => Expiry::Close,
            _ => Expiry::Open,
        }
    }

    /// What is due first, and whether it is a probe.
    fn earliest(&self) -> (Timestamp, bool) {
        let probe = self.probes.iter().map(|(_, deadline)| *deadline).min();
        match probe.filter(|_| !self.is(4)) {
            Some(deadline) if deadline <= self.ends => (deadline, true),
            _ => (self.ends, false),
        }
    }

    fn overdue(&self) -> Option<(Timestamp, bool)> {
        let (at, probe) = self.earliest();
        (at <= self.now && at < Timestamp::MAX).then_some((at, probe))
    }

    fn on_due(&mut self, (at, probe): (Timestamp, bool)) -> Change {
        let reason = if probe { Reason::ProbeDeadline } else { Reason::HalfOpenExpired };
        if !probe && self.expires() == Expiry::Close {
            return self.close(at, reason);
        }
        let since = if self.is(5) { self.now } else { at };
        self.open(self.met, since, reason)
    }

    // === what happens ===

    pub(super) fn acquire(&mut self) -> (bool, Option<Change>) {
        let admits = self.would_admit();
        let transition = match self.state {
            State::Closed if !admits => self.sample(),
            State::Open { .. } if admits => Some(self.half_open(Reason::WaitElapsed)),
            State::HalfOpen { .. } => self.overdue().map(|due| {
                let from = self.state;
                let mut transition = self.on_due(due);
                if admits && transition.to != State::Closed {
                    let reason = transition.reason;
                    transition = self.half_open(reason);
                }
                Change { from, ..transition }
            }),
            _ => {
                if self.setup.trip != Trip::Tell && self.state == State::Closed {
                    self.sample();
                }
                None
            }
        };
        if !admits {
            return (false, transition);
        }
        if let State::HalfOpen { permits_left } = &mut self.state {
            *permits_left -= 1;
            self.probes.push((self.next_permit, self.now + self.setup.deadline));
        }
        let (id, phase) = (self.next_permit, self.phase);
        self.permits.push(ModelPermit { id, phase, start: self.now });
        self.next_permit += 1;
        let to = self.state;
        (true, transition.map(|transition| Change { to, ..transition }))
    }

    pub(super) fn answered(&mut self, index: usize, outcome: Outcome) -> Option<Change> {
        let permit = self.permits.swap_remove(index);
        if permit.phase != self.phase && !self.is(0) {
            return None;
        }
        let latency = self.now.since(permit.start);
        let slow = self.setup.ratio.is_some_and(|rule| rule.slow.is_some())
            && (latency > SLOW || (self.is(13) && latency == SLOW));
        match self.state {
            State::Closed | State::MetricsOnly => self.counted(outcome, slow),
            State::HalfOpen { .. } => self.probed(permit, outcome, slow),
            State::Open { .. } | State::ForcedOpen | State::ForcedClosed => None,
        }
    }

    pub(super) fn dropped(&mut self, index: usize) -> Option<Change> {
        let permit = self.permits.swap_remove(index);
        let probes = matches!(self.state, State::HalfOpen { .. }) && permit.phase == self.phase;
        if probes { self.probed(permit, Outcome::Cancelled, false) } else { None }
    }

    /// Whether the call failed, and what becomes of the run: longer, ended, or neither.
    fn read(&self, outcome: Outcome) -> (bool, Option<bool>) {
        if outcome != Outcome::Throttled {
            let failed = outcome.is_failure();
            return (failed, Some(failed));
        }
        let (failed, run) = match self.setup.throttled {
            Throttled::ForRatiosEndsRun => (true, Some(false)),
            Throttled::AsSuccess => (false, Some(false)),
            Throttled::AsFailure => (true, Some(true)),
            _ => (true, None),
        };
        (failed && !self.is(9), if self.is(8) { Some(true) } else { run })
    }

    fn counted(&mut self, outcome: Outcome, slow: bool) -> Option<Change> {
        if outcome == Outcome::Cancelled {
            return None;
        }
        let watches = self.state == State::MetricsOnly;
        if !watches && let Some(transition) = self.sample() {
            return Some(transition);
        }
        let (failed, run) = self.read(outcome);
        match run {
            Some(true) if self.run_counts() => self.run += 1,
            Some(_) => self.run = 0,
            None => {}
        }
        self.calls.push(Call { at: self.now, failed, slow });
        self.results.push((self.now, !failed));
        let longer = run == Some(true);
        let in_a_row = self.setup.consecutive.filter(|threshold| longer && self.run >= *threshold);
        let by_run = in_a_row.map(|_| Reason::ConsecutiveFailures(self.run));
        let looks = match self.setup.evaluation {
            Evaluation::OnFailure => failed || slow || self.is(11),
            Evaluation::OnEveryCall => failed || slow || !self.is(12),
            _ => self.is(18) || watches,
        };
        if watches {
            return None;
        }
        if self.setup.trip == Trip::Tell
            && let Some(reason) = by_run
        {
            if !self.is(23) {
                self.run = 0;
            }
            return Some(Change { from: State::Closed, to: State::Closed, reason });
        }
        let by_ratio = if looks { self.ratio_met() } else { None };
        let mut reason = by_run.or(by_ratio);
        let mut met = [reason.is_some(), false, false];
        for (at, accrual) in self.setup.accruals.into_iter().enumerate() {
            let run = if longer { self.run } else { 0 };
            let why = accrual.filter(|_| failed).and_then(|rule| self.accrual_met(rule, run));
            met[at + 1] = why.is_some();
            reason = reason.or(why);
        }
        self.on_met(met, reason?)
    }

    fn on_met(&mut self, met: [bool; 3], reason: Reason) -> Option<Change> {
        if self.setup.trip == Trip::Tell {
            return Some(self.close(self.now, reason));
        }
        let (run, results) = (self.run, self.results.clone());
        let transition = self.open(met, self.now, reason);
        self.run = run;
        if !self.is(20) {
            self.results = results;
        }
        Some(transition)
    }

    fn samples(&self) -> bool {
        self.now >= self.snapshot
    }

    fn sample(&mut self) -> Option<Change> {
        let Evaluation::Snapshots(interval) = self.setup.evaluation else { return None };
        if !self.samples() {
            return None;
        }
        while self.snapshot <= self.now {
            self.snapshot = self.snapshot + interval;
        }
        let reason = self.ratio_met()?;
        self.on_met(BASE, reason)
    }

    /// Asks the accrual about a failure that has just been counted.
    fn accrual_met(&self, rule: Rule, run: u32) -> Option<Reason> {
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
    fn window(&self) -> Vec<Call> {
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

    fn ratio_met(&self) -> Option<Reason> {
        let rule = self.setup.ratio?;
        let minimum = match rule.window {
            Window::Count(n) => rule.minimum.min(n),
            Window::Time(_) | Window::Seconds(_) => rule.minimum,
        };
        self.judge(rule, &self.window(), minimum)
    }

    fn judge(&self, rule: RatioRule, calls: &[Call], minimum: u32) -> Option<Reason> {
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

    fn probed(&mut self, permit: ModelPermit, outcome: Outcome, slow: bool) -> Option<Change> {
        let at = self.probes.iter().position(|(id, _)| *id == permit.id);
        let own = at.map(|at| self.probes.remove(at).1);
        let dropped = outcome == Outcome::Cancelled;
        // Its own deadline counts for an answer only when it lies strictly behind.
        let late =
            own.filter(|own| !self.is(4) && (*own < self.now || (dropped && *own == self.now)));
        let others = self.overdue();
        if let Some(due) =
            late.map(|own| (own, true)).into_iter().chain(others).min_by_key(|due| due.0)
        {
            return Some(self.on_due(due));
        }
        let State::HalfOpen { permits_left } = &mut self.state else { return None };
        if dropped {
            *permits_left += u32::from(self.fault != Some(Fault(2)) && own.is_some());
            return None;
        }
        *permits_left += u32::from(self.fault == Some(Fault(3)));
        let (failed, _) = self.read(outcome);
        if self.setup.verdict == Verdict::Ratios {
            return self.probed_by_ratios(failed, slow);
        }
        let failed = failed || slow;
        self.answers.push(Call { at: self.now, failed, slow: false });
        if failed {
            return self.probe_failed();
        }
        let good = self.answers.iter().filter(|call| !call.failed).count() as u32;
        (good >= self.setup.successes).then(|| self.close(self.now, Reason::ProbesSucceeded))
    }

    fn probed_by_ratios(&mut self, failed: bool, slow: bool) -> Option<Change> {
        let rule = self.setup.ratio?;
        self.answers.push(Call { at: self.now, failed, slow });
        let minimum = match rule.window {
            Window::Count(n) => rule.minimum.min(n),
            Window::Time(_) | Window::Seconds(_) => rule.minimum,
        };
        let minimum = if self.is(14) { 1 } else { minimum.min(self.setup.permits) };
        if (self.answers.len() as u32) < minimum {
            return None;
        }
        match self.judge(rule, &self.answers, minimum) {
            Some(reason) => Some(self.open(self.met, self.now, reason)),
            None => Some(self.close(self.now, Reason::ProbesSucceeded)),
        }
    }

    fn probe_failed(&mut self) -> Option<Change> {
        let mut met = [self.met[0], false, false];
        if self.setup.has_accrual() {
            self.run += 1;
            self.results.push((self.now, false));
            for (at, accrual) in self.setup.accruals.into_iter().enumerate() {
                met[at + 1] =
                    accrual.is_some_and(|rule| self.accrual_met(rule, self.run).is_some());
            }
        } else {
            met = self.met;
        }
        if met == [false; 3] {
            // The question is still open: the next probe, please.
            if let State::HalfOpen { permits_left } = &mut self.state {
                *permits_left += 1;
            }
            return None;
        }
        Some(self.open(met, self.now, Reason::ProbeFailed))
    }

    pub(super) fn timeout(&mut self) -> Option<Change> {
        match self.state {
            State::HalfOpen { .. } => self.overdue().map(|due| self.on_due(due)),
            State::Closed => self.sample(),
            State::Open { .. } | State::ForcedOpen | State::ForcedClosed | State::MetricsOnly => {
                None
            }
        }
    }

    pub(super) fn force(&mut self, to: State) -> Option<Change> {
        let (from, since) = (self.state, self.since);
        self.begin(to, self.now);
        if matches!(to, State::ForcedOpen | State::ForcedClosed) {
            self.since = since;
        }
        let reason = if to == State::Closed { Reason::Reset } else { Reason::Forced };
        (from != to).then_some(Change { from, to, reason })
    }

    pub(super) fn trip_by_hand(&mut self) -> Option<Change> {
        match self.state {
            State::Open { .. } => None,
            State::HalfOpen { .. } => Some(self.open(self.met, self.now, Reason::Forced)),
            _ => Some(self.open(BASE, self.now, Reason::Forced)),
        }
    }

    pub(super) fn probe_by_hand(&mut self) -> Option<Change> {
        let probes = matches!(self.state, State::HalfOpen { .. });
        (!probes).then(|| self.half_open(Reason::Forced))
    }
}

fn sum(calls: &[Call]) -> (u64, u64, u64) {
    let count = |is: fn(&Call) -> bool| calls.iter().filter(|call| is(call)).count() as u64;
    (calls.len() as u64, count(|call| call.failed), count(|call| call.slow))
}

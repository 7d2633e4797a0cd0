//! The obviously right breaker.

use std::time::Duration;

use mesh_core::{
    Outcome, Timestamp,
    breaker::{Evaluation, Expiry, Reason, State, Trip, Verdict, Window},
};

use super::{
    rules::sum,
    setup::{SLOW, Setup},
};

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
pub(super) struct Call {
    pub(super) at: Timestamp,
    pub(super) failed: bool,
    pub(super) slow: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ModelPermit {
    id: u32,
    phase: u32,
    start: Timestamp,
}

pub(super) struct Model {
    fault: Option<Fault>,
    pub(super) setup: Setup,
    pub(super) now: Timestamp,
    pub(super) state: State,
    phase: u32,
    /// When it began to count.
    pub(super) since: Timestamp,
    run: u32,
    pub(super) calls: Vec<Call>,
    /// Successes and failures for the averages.
    pub(super) results: Vec<(Timestamp, bool)>,
    /// Waits so far of the rules, and the last one.
    pub(super) waits: [(usize, Duration); 3],
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

    pub(super) fn is(&self, fault: usize) -> bool {
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
            Evaluation::OnFailure | Evaluation::OnEveryCall | Evaluation::Snapshots(_) | _ => {
                Timestamp::MAX
            }
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
        for (rule, _) in met.into_iter().enumerate().filter(|(_, met)| *met) {
            self.waits[rule] = (self.waits[rule].0 + 1, self.next(rule));
        }
        self.met = met;
        if self.is(20) {
            self.results.clear();
        }
        self.enter(State::Open { until }, reason)
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
            State::Closed => {
                if self.setup.trip != Trip::Tell {
                    self.sample();
                }
                None
            }
            State::Open { .. } | State::ForcedOpen | State::ForcedClosed | State::MetricsOnly => {
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
            Evaluation::Snapshots(_) | _ => self.is(18) || watches,
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
            State::Closed | State::ForcedOpen | State::ForcedClosed | State::MetricsOnly => {
                Some(self.open(BASE, self.now, Reason::Forced))
            }
        }
    }

    pub(super) fn probe_by_hand(&mut self) -> Option<Change> {
        let probes = matches!(self.state, State::HalfOpen { .. });
        (!probes).then(|| self.half_open(Reason::Forced))
    }
}

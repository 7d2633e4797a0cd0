use std::time::Duration;

use super::{
    Config, Evaluation, Expiry, Reason, Trip, Verdict,
    accruals::Met,
    state::Phase,
    waits::{Schedule, Series, Wait},
};
use crate::{Rng, Timestamp, stats::Tally, time::saturating_nanos};

/// What a breaker knows besides its word: the configuration, the waits, and the probes on their way.
///
/// Memory: 16 bytes for each half-open permit, kept for the next time.
#[derive(Debug)]
pub(super) struct Probes {
    pub(super) config: Config,
    waits: [Turn; 3],
    /// The rules that opened the breaker the last time.
    met: Met,
    /// The last closed phase: the averages are its own.
    pub(super) generation: u32,
    /// Failures in a row, as they stood when the breaker opened and with each failed probe since.
    pub(super) run: u32,
    slots: Vec<Slot>,
    /// The answers of this half-open phase.
    pub(super) tally: Tally,
    /// Of the configuration with which the phase was entered.
    needed: u32,
    pub(super) verdict: Verdict,
    deadline: Duration,
    /// The end of the phase itself; [`Timestamp::MAX`] if it may last.
    ends: Timestamp,
    pub(super) expiry: Expiry,
}

/// The waits of one rule, or of all that share theirs.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    series: Series,
    /// The wait after the present half-open phase, should it fail. Drawn when the phase begins: whoever finds out
    /// that a probe hangs may have no source of chance at hand.
    next: Wait,
}

/// One permit of the half-open phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Probing { deadline: Timestamp },
    Answered,
}

/// What is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Probe,
    Phase,
}

impl Due {
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::Probe => Reason::ProbeDeadline,
            Self::Phase => Reason::HalfOpenExpired,
        }
    }
}

impl Probes {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            waits: [Turn::default(); 3],
            met: Met::BASE,
            generation: 0,
            run: 0,
            slots: Vec::new(),
            tally: Tally::default(),
            needed: 1,
            verdict: config.verdict(),
            deadline: config.probe_deadline(),
            ends: Timestamp::MAX,
            expiry: Expiry::Open,
        }
    }

    /// The breaker closes: the waits begin anew.
    pub(super) fn restart(&mut self, generation: u32) {
        self.waits = [Turn::default(); 3];
        self.generation = generation;
        self.met = Met::BASE;
        self.run = 0;
        self.slots.clear();
    }

    /// The breaker opens because of `met`, after a closed phase; gives the wait.
    pub(super) fn draw(&mut self, met: Met, rng: &mut impl Rng) -> Duration {
        self.draw_all(rng);
        self.take(met)
    }

    /// The breaker opens because of `met`, after a half-open phase; gives the wait that was drawn in advance.
    pub(super) fn take(&mut self, met: Met) -> Duration {
        let wait = self.longest(met);
        for (turn, bit) in self.waits.iter_mut().zip(RULES) {
            if met.has(bit) {
                turn.series.advance(turn.next);
            }
        }
        self.met = met;
        wait
    }

    /// The rules whose waits go on if a probe is overdue: those that opened the breaker.
    pub(super) fn last_met(&self) -> Met {
        self.met
    }

    /// Half-open begins at `now`; gives the number of its permits.
    pub(super) fn enter(&mut self, now: Timestamp, rng: &mut impl Rng) -> u32 {
        self.draw_all(rng);
        self.slots.clear();
        self.slots.resize(self.config.half_open_permits() as usize, Slot::Free);
        self.tally = Tally::default();
        self.needed = self.config.half_open_successes();
        self.verdict = self.config.verdict();
        self.deadline = self.config.probe_deadline();
        let (ends, expiry) = match self.config.max_half_open() {
            Some((longest, expiry)) => (now + longest, expiry),
            None => (Timestamp::MAX, Expiry::Open),
        };
        (self.ends, self.expiry) = (ends, expiry);
        self.config.half_open_permits()
    }

    /// How the breaker is closed.
    pub(super) fn closed_phase(&self) -> Phase {
        match self.config.evaluation() {
            Evaluation::Snapshots(_) => Phase::Sampled,
            Evaluation::OnFailure | Evaluation::OnEveryCall => Phase::Closed,
        }
    }

    /// Nanoseconds from one snapshot to the next.
    pub(super) fn snapshots(&self) -> u64 {
        match self.config.evaluation() {
            Evaluation::Snapshots(interval) => saturating_nanos(interval).max(1),
            Evaluation::OnFailure | Evaluation::OnEveryCall => u64::MAX,
        }
    }

    /// Half-open ends.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// Takes a permit.
    pub(super) fn admit(&mut self, now: Timestamp) -> Option<u16> {
        let free = self.slots.iter().position(|slot| *slot == Slot::Free)?;
        self.slots[free] = Slot::Probing { deadline: now + self.deadline };
        Some(free as u16)
    }

    /// A probe is over; gives the deadline it had. One without an answer frees its permit.
    pub(super) fn settle(&mut self, slot: u16, dropped: bool) -> Timestamp {
        let Some(slot) = self.slots.get_mut(usize::from(slot)) else { return Timestamp::MAX };
        let settled = if dropped { Slot::Free } else { Slot::Answered };
        match std::mem::replace(slot, settled) {
            Slot::Probing { deadline } => deadline,
            Slot::Free | Slot::Answered => Timestamp::MAX,
        }
    }

    /// Counts an answer.
    pub(super) fn answered(&mut self, failed: bool, slow: bool) {
        self.tally.calls += 1;
        self.tally.failures += u64::from(failed);
        self.tally.slow += u64::from(slow);
    }

    /// Whether enough answers were good, if each must be.
    pub(super) fn is_enough(&self) -> bool {
        self.tally.calls - self.tally.failures >= u64::from(self.needed)
    }

    pub(super) fn permits(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn left(&self) -> u32 {
        self.slots.iter().filter(|slot| **slot == Slot::Free).count() as u32
    }

    /// What is due first, a probe or the phase, and when; [`Timestamp::MAX`] if nothing is.
    pub(super) fn earliest(&self) -> (Timestamp, Due) {
        let deadlines = self.slots.iter().filter_map(|slot| match *slot {
            Slot::Probing { deadline } => Some(deadline),
            Slot::Free | Slot::Answered => None,
        });
        match deadlines.min() {
            Some(deadline) if deadline <= self.ends => (deadline, Due::Probe),
            Some(_) | None => (self.ends, Due::Phase),
        }
    }

    /// What is overdue first, and since when.
    pub(super) fn overdue(&self, now: Timestamp) -> Option<(Timestamp, Due)> {
        let (earliest, due) = self.earliest();
        (earliest <= now && earliest < Timestamp::MAX).then_some((earliest, due))
    }

    /// How long the breaker will be open if `due` ends the phase.
    pub(super) fn next_wait(&self, due: Due) -> Duration {
        match (due, self.expiry) {
            (Due::Phase, Expiry::Close) => Duration::ZERO,
            (Due::Phase, Expiry::Open) | (Due::Probe, _) => self.longest(self.met),
        }
    }

    fn longest(&self, met: Met) -> Duration {
        if self.config.trip() == Trip::OpenUntilReset {
            return Duration::MAX;
        }
        let waits = self.waits.iter().zip(RULES).filter(|(_, bit)| met.has(*bit));
        let wait = waits.map(|(turn, _)| turn.next.drawn).max().unwrap_or_default();
        // Over strictly after its end is over at the next moment.
        wait.saturating_add(Duration::from_nanos(u64::from(self.config.strict_wait())))
    }

    fn draw_all(&mut self, rng: &mut impl Rng) {
        for (turn, schedule) in self.waits.iter_mut().zip(schedules(&self.config)) {
            if let Some(schedule) = schedule {
                turn.next = turn.series.draw(schedule, rng);
            }
        }
    }
}

const RULES: [Met; 3] = [Met::BASE, Met::ACCRUALS[0], Met::ACCRUALS[1]];

fn schedules(config: &Config) -> [Option<Schedule>; 3] {
    let (first, second) = config.accrual().map_or((None, None), |(a, b)| (Some(a), b));
    let accrual = |accrual: super::Accrual| accrual.waits().0;
    [Some(config.schedule()), first.map(accrual), second.map(accrual)]
}

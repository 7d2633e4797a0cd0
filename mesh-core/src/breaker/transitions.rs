//! Everything rare: one at a time, under the lock.

use super::{
    Breaker, Permit, Reason, Rejected, State, Transition,
    permit::Entered,
    probes::Probes,
    state::{Phase, Word},
};
use crate::{Outcome, Rng, Timestamp, sync::Ordering::Relaxed, time::saturating_nanos};

impl Breaker {
    #[cold]
    pub(super) fn try_probe(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        seen: Word,
    ) -> Result<Permit, Rejected> {
        // Most callers are refused: without the lock.
        let until = match seen.phase() {
            Phase::ForcedOpen => return Err(Rejected { retry_after: None, transition: None }),
            Phase::Open => self.until.load(Relaxed),
            // No probe on its way and no permit left: another thread is between two stores. Ask it.
            Phase::HalfOpen if seen.count() == 0 => match self.overdue_at.load(Relaxed) {
                u64::MAX => 0,
                overdue_at => overdue_at,
            },
            Phase::HalfOpen | Phase::Closed | Phase::ForcedClosed => 0,
        };
        if now.as_nanos() < until {
            return Err(rejected_until(now, until, None));
        }
        let mut probes = self.lock();
        let word = self.word();
        match word.phase() {
            Phase::Closed | Phase::ForcedClosed => Ok(Permit::plain(now, word.generation())),
            Phase::ForcedOpen => Err(Rejected { retry_after: None, transition: None }),
            Phase::Open => {
                let until = self.until.load(Relaxed);
                if now.as_nanos() < until {
                    return Err(rejected_until(now, until, None));
                }
                let permits_left = probes.enter(rng) as u16 - 1;
                let until = Timestamp::from_nanos(until);
                let entered = Entered::FromOpen { until, permits_left };
                Ok(self.admit_first(&mut probes, word, now, entered))
            }
            Phase::HalfOpen => self.try_half_open(&mut probes, now, rng, word),
        }
    }

    fn try_half_open(
        &self,
        probes: &mut Probes,
        now: Timestamp,
        rng: &mut impl Rng,
        word: Word,
    ) -> Result<Permit, Rejected> {
        if let Some(overdue_at) = probes.overdue(now) {
            let until = overdue_at + probes.next_wait();
            if now < until {
                let opened = self.reopen(probes, word, overdue_at, Reason::ProbeDeadline);
                return Err(rejected_until(now, until.as_nanos(), Some(opened)));
            }
            probes.grow();
            let permits_before = word.count() as u16;
            let permits_left = probes.enter(rng) as u16 - 1;
            let entered = Entered::FromHalfOpen { permits_before, permits_left };
            return Ok(self.admit_first(probes, word, now, entered));
        }
        match probes.admit(now) {
            Some(slot) => {
                self.overdue_at.store(probes.earliest().as_nanos(), Relaxed);
                self.publish(word.with_count(probes.left()));
                Ok(Permit::probe(now, word.generation(), slot, Entered::Not))
            }
            None => Err(rejected_until(now, probes.earliest().as_nanos(), None)),
        }
    }

    /// The first probe of a half-open phase that was just entered.
    fn admit_first(
        &self,
        probes: &mut Probes,
        word: Word,
        now: Timestamp,
        entered: Entered,
    ) -> Permit {
        let slot = probes.admit(now).unwrap_or_default();
        self.overdue_at.store(probes.earliest().as_nanos(), Relaxed);
        self.next_wait.store(saturating_nanos(probes.next_wait()), Relaxed);
        let next = word.next(Phase::HalfOpen, probes.left());
        self.publish(next);
        Permit::probe(now, next.generation(), slot, entered)
    }

    #[cold]
    pub(super) fn on_probe(
        &self,
        now: Timestamp,
        permit: &Permit,
        outcome: Outcome,
    ) -> Option<Transition> {
        let mut probes = self.lock();
        let word = self.word();
        if word.generation() != permit.generation || !permit.is_probe() {
            return None;
        }
        let deadline = probes.settle(permit.slot, outcome == Outcome::Cancelled);
        // An answer at the very deadline still counts, silence at it does not.
        let late = if outcome == Outcome::Cancelled { now >= deadline } else { now > deadline };
        let overdue = [late.then_some(deadline), probes.overdue(now)].into_iter().flatten().min();
        if let Some(overdue_at) = overdue {
            return Some(self.reopen(&mut probes, word, overdue_at, Reason::ProbeDeadline));
        }
        match outcome {
            Outcome::Cancelled => {}
            Outcome::Success if !self.rules.is_slow(now, permit.start) => {
                if probes.succeed() {
                    return Some(self.close(&mut probes, word));
                }
            }
            Outcome::Success
            | Outcome::Throttled
            | Outcome::ServerError
            | Outcome::GatewayError
            | Outcome::ConnectFailed
            | Outcome::Timeout
            | Outcome::Reset => {
                return Some(self.reopen(&mut probes, word, now, Reason::ProbeFailed));
            }
        }
        self.overdue_at.store(probes.earliest().as_nanos(), Relaxed);
        self.publish(word.with_count(probes.left()));
        None
    }

    /// Half-open to open: `since` is when the probe failed, not when that was noticed.
    pub(super) fn reopen(
        &self,
        probes: &mut Probes,
        word: Word,
        since: Timestamp,
        reason: Reason,
    ) -> Transition {
        let from = self.state_of(word);
        probes.grow();
        self.open(probes, word, from, since, reason)
    }

    pub(super) fn open(
        &self,
        probes: &mut Probes,
        word: Word,
        from: State,
        since: Timestamp,
        reason: Reason,
    ) -> Transition {
        let until = since + probes.wait();
        probes.clear();
        self.until.store(until.as_nanos(), Relaxed);
        self.publish(word.next(Phase::Open, 0));
        Transition { from, to: State::Open { until }, reason }
    }

    fn close(&self, probes: &mut Probes, word: Word) -> Transition {
        let from = self.state_of(word);
        probes.clear();
        self.publish(word.next(Phase::Closed, 0));
        Transition { from, to: State::Closed, reason: Reason::ProbesSucceeded }
    }

    pub(super) fn force(&self, phase: Phase, reason: Reason) -> Option<Transition> {
        let mut probes = self.lock();
        let word = self.word();
        let from = self.state_of(word);
        probes.clear();
        let next = word.next(phase, 0);
        self.publish(next);
        let to = self.state_of(next);
        (word.phase() != phase).then_some(Transition { from, to, reason })
    }
}

fn rejected_until(now: Timestamp, until: u64, transition: Option<Transition>) -> Rejected {
    Rejected { retry_after: Some(Timestamp::from_nanos(until).since(now)), transition }
}

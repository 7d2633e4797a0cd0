//! Everything rare: one at a time, under the lock.

use super::{
    Breaker, Expiry, Permit, Reason, Rejected, State, Transition, Verdict,
    accruals::Met,
    permit::Entered,
    probes::{Due, Probes},
    rules::{Answer, Flags},
    state::{Phase, Word},
};
use crate::{Outcome, Rng, Timestamp, sync::Ordering::Relaxed, time::saturating_nanos};

impl Breaker {
    /// When it would admit an attempt again. `None` if it [would](Self::would_admit) now, and if no time is known: it
    /// waits for a reset, was forced open, or waits for the answers of its probes.
    ///
    /// ```
    /// use mesh_core::{Outcome, Ratio, SplitMix64, Timestamp, breaker::{Breaker, Config}};
    /// use std::time::Duration;
    ///
    /// let config = Config::builder()
    ///     .with_consecutive_failures(Some(1))
    ///     .with_open_for(Duration::from_secs(5))
    ///     .with_jitter(Ratio::ZERO)
    ///     .build()?;
    /// let (now, mut rng) = (Timestamp::ZERO, SplitMix64::new(1));
    /// let breaker = Breaker::new(config, now);
    /// assert_eq!(breaker.ready_at(now), None);
    ///
    /// let permit = breaker.try_acquire(now, &mut rng).unwrap();
    /// breaker.on_outcome(now, &mut rng, permit, Outcome::ServerError);
    /// assert_eq!(breaker.ready_at(now), Some(now + Duration::from_secs(5)));
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn ready_at(&self, now: Timestamp) -> Option<Timestamp> {
        let word = self.word();
        let until = Timestamp::from_nanos(self.until.load(Relaxed));
        let is_known = word.phase() == Phase::Open && until < Timestamp::MAX;
        (is_known && now < until).then_some(until)
    }

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
            // Who is only told of it is told with an outcome, which can say so.
            Phase::Sampled if self.rules.flags().has(Flags::TELL) => {
                return Ok(Permit::plain(now, seen.generation()));
            }
            Phase::Sampled => match self.sample(now, rng) {
                None => return Ok(Permit::plain(now, seen.generation())),
                Some(opened) => {
                    let until = self.until.load(Relaxed);
                    return Err(rejected_until(now, until, Some(opened)));
                }
            },
            Phase::HalfOpen | Phase::Closed | Phase::ForcedClosed | Phase::MetricsOnly => 0,
        };
        if now.as_nanos() < until {
            return Err(rejected_until(now, until, None));
        }
        let mut probes = self.lock();
        let word = self.word();
        match word.phase() {
            Phase::Closed | Phase::ForcedClosed | Phase::MetricsOnly | Phase::Sampled => {
                Ok(Permit::plain(now, word.generation()))
            }
            Phase::ForcedOpen => Err(Rejected { retry_after: None, transition: None }),
            Phase::Open => {
                let until = self.until.load(Relaxed);
                if now.as_nanos() < until {
                    return Err(rejected_until(now, until, None));
                }
                let permits_left = probes.enter(now, rng) as u16 - 1;
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
        if let Some((overdue_at, due)) = probes.overdue(now) {
            let permits_before = word.count() as u16;
            if due == Due::Phase && probes.expiry == Expiry::Close {
                self.close(probes, word, overdue_at, Reason::HalfOpenExpired);
                return Ok(Permit::closing(now, self.word().generation(), permits_before));
            }
            let until = overdue_at + probes.next_wait(due);
            if now < until {
                let opened = self.reopen(probes, word, overdue_at, due.reason());
                return Err(rejected_until(now, self.until.load(Relaxed), Some(opened)));
            }
            probes.take(probes.last_met());
            let permits_left = probes.enter(now, rng) as u16 - 1;
            let entered = Entered::FromHalfOpen { permits_before, permits_left, due };
            return Ok(self.admit_first(probes, word, now, entered));
        }
        match probes.admit(now) {
            Some(slot) => {
                self.await_probes(probes);
                self.publish(word.with_count(probes.left()));
                Ok(Permit::probe(now, word.generation(), slot, Entered::Not))
            }
            None => Err(rejected_until(now, probes.earliest().0.as_nanos(), None)),
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
        self.await_probes(probes);
        let next = word.next(Phase::HalfOpen, probes.left());
        self.publish(next);
        Permit::probe(now, next.generation(), slot, entered)
    }

    /// Says when something will be overdue, and what follows then.
    fn await_probes(&self, probes: &Probes) {
        let (earliest, due) = probes.earliest();
        self.next_wait.store(saturating_nanos(probes.next_wait(due)), Relaxed);
        self.overdue_at.store(earliest.as_nanos(), Relaxed);
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
        let answer = self.rules.flags().read(outcome);
        let deadline = probes.settle(permit.slot, answer.is_none());
        // An answer at the very deadline still counts, silence at it does not.
        let late = if answer.is_none() { now >= deadline } else { now > deadline };
        let late = late.then_some((deadline, Due::Probe));
        let overdue = [late, probes.overdue(now)].into_iter().flatten().min_by_key(|due| due.0);
        if let Some((overdue_at, due)) = overdue {
            return Some(self.on_due(&mut probes, word, overdue_at, due));
        }
        if let Some(Answer { failed, .. }) = answer {
            let slow = self.rules.is_slow(now, permit.start);
            let decided = match probes.verdict {
                Verdict::EachProbe => {
                    self.on_each(&mut probes, word, now, permit.slot, failed || slow)
                }
                Verdict::Ratios => self.on_ratios(&mut probes, word, now, failed, slow),
            };
            if decided.is_some() {
                return decided;
            }
        }
        self.await_probes(&probes);
        self.publish(word.with_count(probes.left()));
        None
    }

    /// One bad answer decides, or enough good ones.
    fn on_each(
        &self,
        probes: &mut Probes,
        word: Word,
        now: Timestamp,
        slot: u16,
        failed: bool,
    ) -> Option<Transition> {
        probes.answered(failed, false);
        if !failed {
            let is_enough = probes.is_enough();
            return is_enough.then(|| self.close(probes, word, now, Reason::ProbesSucceeded));
        }
        if probes.config.accrual().is_none() {
            return Some(self.reopen(probes, word, now, Reason::ProbeFailed));
        }
        // One more failure for rules that remember: if none of them is met, the question is still open (Finagle).
        probes.run = probes.run.saturating_add(1);
        let (met, _) = self.accrue(now, probes.generation, true, probes.run);
        let base = if probes.last_met().has(Met::BASE) { Met::BASE } else { Met::NONE };
        let met = met.and(base);
        if met == Met::NONE {
            probes.settle(slot, true);
            return None;
        }
        let wait = probes.take(met);
        Some(self.open_for(probes, word, now, wait, Reason::ProbeFailed))
    }

    /// The ratios over all answers decide.
    fn on_ratios(
        &self,
        probes: &mut Probes,
        word: Word,
        now: Timestamp,
        failed: bool,
        slow: bool,
    ) -> Option<Transition> {
        probes.answered(failed, slow);
        match self.rules.judge_probes(probes.tally, probes.permits())? {
            Some(reason) => Some(self.reopen(probes, word, now, reason)),
            None => Some(self.close(probes, word, now, Reason::ProbesSucceeded)),
        }
    }

    /// A probe or the phase is overdue since `at`.
    pub(super) fn on_due(
        &self,
        probes: &mut Probes,
        word: Word,
        at: Timestamp,
        due: Due,
    ) -> Transition {
        if due == Due::Phase && probes.expiry == Expiry::Close {
            return self.close(probes, word, at, due.reason());
        }
        self.reopen(probes, word, at, due.reason())
    }

    /// Half-open to open: `since` is when the probe failed, not when that was noticed.
    pub(super) fn reopen(
        &self,
        probes: &mut Probes,
        word: Word,
        since: Timestamp,
        reason: Reason,
    ) -> Transition {
        let wait = probes.take(probes.last_met());
        self.open_for(probes, word, since, wait, reason)
    }

    pub(super) fn open_for(
        &self,
        probes: &mut Probes,
        word: Word,
        since: Timestamp,
        wait: std::time::Duration,
        reason: Reason,
    ) -> Transition {
        let from = self.state_of(word);
        let until = since + wait;
        probes.clear();
        self.until.store(until.as_nanos(), Relaxed);
        self.publish(word.next(Phase::Open, 0));
        Transition { from, to: State::Open { until }, reason }
    }

    fn close(
        &self,
        probes: &mut Probes,
        word: Word,
        since: Timestamp,
        reason: Reason,
    ) -> Transition {
        let from = self.state_of(word);
        let phase = probes.closed_phase();
        self.begin(probes, word, since, phase);
        Transition { from, to: State::Closed, reason }
    }

    /// A phase that counts: with an empty window, and the first wait.
    pub(super) fn begin(&self, probes: &mut Probes, word: Word, since: Timestamp, phase: Phase) {
        let next = word.next(phase, 0);
        probes.restart(next.generation());
        self.count_from(probes, next, since);
        self.publish(next);
    }

    /// Prepares all that is kept beside the word for a generation that counts.
    pub(super) fn count_from(&self, probes: &Probes, word: Word, since: Timestamp) {
        self.since.store(since.as_nanos(), Relaxed);
        if let Some(accruals) = self.accruals.get() {
            accruals.restart(word.generation());
        }
        if word.phase() == Phase::Sampled {
            let next = since.as_nanos().saturating_add(probes.snapshots());
            self.overdue_at.store(next, Relaxed);
        }
    }

    /// By hand, to a phase that counts nothing: all that was counted is forgotten.
    pub(super) fn force(&self, phase: Phase, reason: Reason) -> Option<Transition> {
        let mut probes = self.lock();
        let word = self.word();
        let from = self.state_of(word);
        let next = word.next(phase, 0);
        probes.restart(next.generation());
        if let Some(accruals) = self.accruals.get() {
            accruals.restart(next.generation());
        }
        self.publish(next);
        let to = self.state_of(next);
        (from != to).then_some(Transition { from, to, reason })
    }

    /// By hand, to a phase that counts; `None`: closed.
    pub(super) fn force_begin(
        &self,
        now: Timestamp,
        phase: Option<Phase>,
        reason: Reason,
    ) -> Option<Transition> {
        let mut probes = self.lock();
        let word = self.word();
        let from = self.state_of(word);
        let phase = phase.unwrap_or_else(|| probes.closed_phase());
        self.begin(&mut probes, word, now, phase);
        let to = self.state_of(self.word());
        (from != to).then_some(Transition { from, to, reason })
    }

    /// By hand, as if a rule had been met or a probe had failed.
    pub(super) fn force_trip(&self, now: Timestamp, rng: &mut impl Rng) -> Option<Transition> {
        let mut probes = self.lock();
        let word = self.word();
        let wait = match word.phase() {
            Phase::Open => return None,
            Phase::HalfOpen => {
                let met = probes.last_met();
                probes.take(met)
            }
            Phase::Closed | Phase::Sampled | Phase::MetricsOnly => {
                probes.run = word.count();
                probes.draw(Met::BASE, rng)
            }
            Phase::ForcedOpen | Phase::ForcedClosed => probes.draw(Met::BASE, rng),
        };
        Some(self.open_for(&mut probes, word, now, wait, Reason::Forced))
    }

    /// By hand, as if the wait were over.
    pub(super) fn force_probes(&self, now: Timestamp, rng: &mut impl Rng) -> Option<Transition> {
        let mut probes = self.lock();
        let word = self.word();
        let from = self.state_of(word);
        match word.phase() {
            Phase::HalfOpen => return None,
            Phase::Closed | Phase::Sampled | Phase::MetricsOnly => probes.run = word.count(),
            Phase::Open | Phase::ForcedOpen | Phase::ForcedClosed => {}
        }
        let permits_left = probes.enter(now, rng);
        self.await_probes(&probes);
        self.publish(word.next(Phase::HalfOpen, permits_left));
        Some(Transition { from, to: State::HalfOpen { permits_left }, reason: Reason::Forced })
    }
}

/// At the end of time nobody knows.
fn rejected_until(now: Timestamp, until: u64, transition: Option<Transition>) -> Rejected {
    let until = Timestamp::from_nanos(until);
    let retry_after = (until < Timestamp::MAX).then(|| until.since(now));
    Rejected { retry_after, transition }
}

//! The path of almost every outcome: no lock unless a rule is met.

use super::{
    Breaker, Reason, State, Transition, Trip,
    accruals::{Met, Result},
    rules::{Answer, Flags, Run},
    state::{Phase, Word},
};
use crate::{Outcome, Rng, Timestamp, stats::Call, sync::Ordering::Relaxed};

impl Breaker {
    #[inline]
    pub(super) fn record(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        word: Word,
        start: Timestamp,
        outcome: Outcome,
    ) -> Option<Transition> {
        let flags = self.rules.flags();
        if outcome == Outcome::Success && word.count() == 0 {
            if !flags.has(Flags::COUNTS) {
                return None;
            }
            if !flags.has(Flags::ACCRUAL) && word.phase() != Phase::Sampled {
                return self.record_good(now, rng, word, start, flags);
            }
        }
        self.record_all(now, rng, word, start, outcome, flags)
    }

    /// What is left of [`record_all`](Self::record_all) for a success that ends no run: only the window hears of it.
    #[inline(never)]
    fn record_good(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        word: Word,
        start: Timestamp,
        flags: Flags,
    ) -> Option<Transition> {
        let reason = self.count(now, word, start, false, flags)?;
        self.on_met(now, rng, word.generation(), Met::BASE, reason)
    }

    /// Apart from the path above, which is to stay short.
    #[inline(never)]
    fn record_all(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        word: Word,
        start: Timestamp,
        outcome: Outcome,
        flags: Flags,
    ) -> Option<Transition> {
        let Answer { failed, run } = flags.read(outcome)?;
        if word.phase() == Phase::Sampled
            && let Some(opened) = self.sample(now, rng)
        {
            return Some(opened);
        }
        let (run, told) = match run {
            Run::Ends => {
                if word.count() != 0 {
                    self.end_run(word);
                }
                (0, None)
            }
            Run::Stays => (0, None),
            Run::Grows => self.extend_run(word, flags)?,
        };
        let by_run = self.rules.consecutive().filter(|threshold| run >= *threshold);
        let by_run = by_run.map(|_| Reason::ConsecutiveFailures(run));
        let by_window = if flags.has(Flags::COUNTS) {
            self.count(now, word, start, failed, flags)
        } else {
            None
        };
        let mut reason = by_run.or(by_window);
        let mut met = if reason.is_some() { Met::BASE } else { Met::NONE };
        if flags.has(Flags::ACCRUAL) {
            let (also, why) = self.accrue(now, word.generation(), failed, run);
            (met, reason) = (met.and(also), reason.or(why));
        }
        match told {
            Some(failures) => Some(tell(Reason::ConsecutiveFailures(failures))),
            None => self.on_met(now, rng, word.generation(), met, reason?),
        }
    }

    /// Adds a failure to the run, and gives its length; with the length to tell if that is all there is to do. `None` if
    /// the breaker has moved on meanwhile.
    fn extend_run(&self, mut word: Word, flags: Flags) -> Option<(u32, Option<u32>)> {
        let threshold = self.rules.consecutive();
        if threshold.is_none() && !flags.has(Flags::ACCRUAL) {
            return Some((0, None));
        }
        // Who tells begins anew in the same step: of failures that come at once, each threshold is told once.
        let tells =
            threshold.filter(|_| flags.has(Flags::TELL) && word.phase() != Phase::MetricsOnly);
        let generation = word.generation();
        loop {
            let longer = word.with_count(word.count() + 1);
            // At least, not exactly: the threshold may have been lowered below a run that already stands.
            let tell = tells.is_some_and(|threshold| longer.count() >= threshold);
            let next = if tell { word.with_count(0) } else { longer };
            match self.word.compare_exchange_weak(word.to_bits(), next.to_bits(), Relaxed, Relaxed)
            {
                Ok(_) if tell => return Some((0, Some(longer.count()))),
                Ok(_) => return Some((longer.count(), None)),
                Err(bits) => word = Word::from_bits(bits),
            }
            if word.generation() != generation {
                return None;
            }
        }
    }

    fn end_run(&self, mut word: Word) {
        let generation = word.generation();
        while word.generation() == generation && word.count() != 0 {
            let ended = word.with_count(0);
            match self.word.compare_exchange_weak(word.to_bits(), ended.to_bits(), Relaxed, Relaxed)
            {
                Ok(_) => return,
                Err(bits) => word = Word::from_bits(bits),
            }
        }
    }

    #[inline]
    fn count(
        &self,
        now: Timestamp,
        word: Word,
        start: Timestamp,
        failed: bool,
        flags: Flags,
    ) -> Option<Reason> {
        let shape = self.rules.shape();
        let call = Call { failed, slow: self.rules.is_slow(now, start) };
        let (times, always) = ((self.since(), now), flags.has(Flags::EVERY_CALL));
        let tally = self.results.record(shape, word.generation(), times, call, always)?;
        if word.phase() == Phase::Sampled {
            return None;
        }
        self.rules.judge(tally)
    }

    #[cold]
    pub(super) fn accrue(
        &self,
        now: Timestamp,
        generation: u32,
        failed: bool,
        run: u32,
    ) -> (Met, Option<Reason>) {
        let since = self.since();
        match self.accruals.get() {
            Some(accruals) => accruals.add(Result { generation, since, now, failed, run }),
            None => (Met::NONE, None),
        }
    }

    #[cold]
    fn on_met(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        generation: u32,
        met: Met,
        reason: Reason,
    ) -> Option<Transition> {
        let mut probes = self.lock();
        let word = self.word();
        // Of all that saw the rule tip, one makes the transition.
        if word.generation() != generation || word.phase() == Phase::MetricsOnly {
            return None;
        }
        if probes.config.trip() == Trip::Tell {
            let phase = probes.closed_phase();
            self.begin(&mut probes, word, now, phase);
            return Some(tell(reason));
        }
        probes.run = word.count();
        let wait = probes.draw(met, rng);
        Some(self.open_for(&mut probes, word, now, wait, reason))
    }

    /// Looks at the ratios, if a snapshot is due. A word that the caller has seen before may be older than what comes
    /// of this.
    pub(super) fn sample(&self, now: Timestamp, rng: &mut impl Rng) -> Option<Transition> {
        if now.as_nanos() < self.overdue_at.load(Relaxed) {
            return None;
        }
        let word = self.word();
        let reason = {
            let probes = self.lock();
            let word = self.word();
            let due = self.overdue_at.load(Relaxed);
            if word.phase() != Phase::Sampled || now.as_nanos() < due {
                return None;
            }
            let interval = probes.snapshots();
            let behind = (now.as_nanos() - due) % interval;
            self.overdue_at.store((now.as_nanos() - behind).saturating_add(interval), Relaxed);
            self.ratio_met(word, now)?
        };
        self.on_met(now, rng, word.generation(), Met::BASE, reason)
    }

    /// The ratio that the window reaches at `now`.
    pub(super) fn ratio_met(&self, word: Word, now: Timestamp) -> Option<Reason> {
        let times = (self.since(), now);
        self.rules.judge(self.results.tally(self.rules.shape(), word.generation(), times))
    }
}

fn tell(reason: Reason) -> Transition {
    Transition { from: State::Closed, to: State::Closed, reason }
}

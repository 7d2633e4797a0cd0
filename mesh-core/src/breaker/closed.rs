//! The path of almost every outcome: no lock unless a rule trips.

use super::{Breaker, Reason, State, Transition, state::Word};
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
        let reason = match outcome {
            Outcome::Cancelled => return None,
            Outcome::Success => {
                if word.count() != 0 {
                    self.end_run(word);
                }
                None
            }
            // Not ill, but not to be pressed: neither lengthens the run nor breaks it (Linkerd, unified).
            Outcome::Throttled => None,
            Outcome::ServerError
            | Outcome::GatewayError
            | Outcome::ConnectFailed
            | Outcome::Timeout
            | Outcome::Reset => self.extend_run(word)?,
        };
        let failed = outcome != Outcome::Success;
        let reason = reason.or_else(|| self.count(now, word, start, failed))?;
        self.trip(now, rng, word.generation(), reason)
    }

    /// Adds a failure to the run. `None` if the breaker has moved on meanwhile.
    fn extend_run(&self, mut word: Word) -> Option<Option<Reason>> {
        let Some(threshold) = self.rules.consecutive() else { return Some(None) };
        let generation = word.generation();
        loop {
            let longer = word.with_count(word.count() + 1);
            match self.word.compare_exchange_weak(
                word.to_bits(),
                longer.to_bits(),
                Relaxed,
                Relaxed,
            ) {
                // At least, not exactly: the threshold may have been lowered below a run that already stands.
                Ok(_) if longer.count() >= threshold => {
                    return Some(Some(Reason::ConsecutiveFailures(longer.count())));
                }
                Ok(_) => return Some(None),
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

    fn count(&self, now: Timestamp, word: Word, start: Timestamp, failed: bool) -> Option<Reason> {
        let shape = self.rules.shape();
        let call = Call { failed, slow: self.rules.is_slow(now, start) };
        let tally = self.results.record(shape, word.generation(), now, call)?;
        self.rules.judge(tally)
    }

    #[cold]
    fn trip(
        &self,
        now: Timestamp,
        rng: &mut impl Rng,
        generation: u32,
        reason: Reason,
    ) -> Option<Transition> {
        let mut probes = self.lock();
        let word = self.word();
        // Of all that saw the rule tip, one makes the transition.
        if word.generation() != generation {
            return None;
        }
        probes.draw_first_wait(rng);
        Some(self.open(&mut probes, word, State::Closed, now, reason))
    }
}

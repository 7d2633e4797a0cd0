use std::time::Duration;

use super::{
    Config, Learned, aimd, config::Kind, gradient, gradient2, samples::Samples, samples::Summary,
    vegas,
};
use crate::{Rng, Timestamp, time::saturating_nanos};

/// What is behind the lock: the configuration, and what its algorithm has learnt.
#[derive(Debug)]
pub(super) struct Learning {
    pub(super) config: Config,
    state: State,
    /// The first nanosecond at which a sample ends the window; not for the gradient controller.
    window_due: u64,
    /// The samples so far are of a time that is over. While this stands, nothing is learnt from any.
    void: bool,
}

#[derive(Debug)]
enum State {
    Aimd(aimd::Aimd, u32),
    Vegas(vegas::Vegas, vegas::State),
    Gradient2(gradient2::Gradient2, gradient2::State),
    Gradient(gradient::Gradient, gradient::State),
}

impl Learning {
    pub(super) fn new(config: Config, now: Timestamp, learned: Learned) -> Self {
        let limit = learned.limit().max(1);
        let rtt = learned.min_rtt();
        let nanos = rtt.map(|rtt| saturating_nanos(rtt).max(1));
        let state = match *config.kind() {
            Kind::Aimd(aimd) => State::Aimd(aimd, limit),
            Kind::Vegas(vegas) => State::Vegas(vegas, vegas::State::new(limit, nanos)),
            Kind::Gradient2(config) => {
                State::Gradient2(config, gradient2::State::new(limit, nanos))
            }
            Kind::Gradient(config) => {
                State::Gradient(config, gradient::State::new(&config, now, limit, rtt))
            }
        };
        let window_due = config.window().first_due(now.as_nanos());
        Self { config, state, window_due, void: false }
    }

    /// Begins anew under `config` with what was learnt.
    pub(super) fn replace(&mut self, config: Config, now: Timestamp) {
        let learned = self.learned();
        let limit = learned.limit().min(config.max_limit()).max(config.min_limit());
        let mut within = Learned::new(limit);
        if let Some(min_rtt) = learned.min_rtt() {
            within = within.with_min_rtt(min_rtt);
        }
        *self = Self { void: true, ..Self::new(config, now, within) };
    }

    pub(super) fn learned(&self) -> Learned {
        let learned = Learned::new(self.before().unwrap_or_else(|| self.limit()));
        match self.min_rtt() {
            Some(nanos) => learned.with_min_rtt(Duration::from_nanos(nanos)),
            None => learned,
        }
    }

    /// Empties the samples if they are void. False if that has to wait.
    pub(super) fn settle(&mut self, samples: &Samples) -> bool {
        if self.void {
            let Some(side) = samples.close(true) else { return false };
            side.discard();
            self.void = false;
        }
        true
    }

    /// Does what is due at `now`.
    pub(super) fn turn(&mut self, now: Timestamp, samples: &Samples, rng: &mut impl Rng) {
        if let State::Gradient(config, state) = &mut self.state {
            self.void = state.turn(config, now, samples, rng) == gradient::Then::Void;
            return;
        }
        if now.as_nanos() < self.window_due || samples.count() == 0 {
            return;
        }
        let Some(summary) = samples.close(false).and_then(|side| side.take()) else { return };
        self.window_due = self.config.window().due(now.as_nanos(), summary.least);
        if summary.count >= self.config.window().min_samples() {
            self.learn(&summary, rng);
        }
    }

    fn learn(&mut self, window: &Summary, rng: &mut impl Rng) {
        let Summary { mean, most_in_flight, dropped, .. } = *window;
        match &mut self.state {
            State::Aimd(config, limit) => {
                *limit = config.update(*limit, mean, most_in_flight, dropped);
            }
            State::Vegas(config, state) => {
                state.update(config, mean, most_in_flight, dropped, rng);
            }
            State::Gradient2(config, state) => state.update(config, mean, most_in_flight),
            State::Gradient(..) => {}
        }
    }

    pub(super) fn has_void_samples(&self) -> bool {
        self.void
    }

    pub(super) fn is_gradient(&self) -> bool {
        self.gradient_state().is_some()
    }

    /// At least 1: from 0 there is no way back.
    pub(super) fn limit(&self) -> u32 {
        (self.estimate() as u32).max(1)
    }

    pub(super) fn estimate(&self) -> f64 {
        match &self.state {
            State::Aimd(_, limit) => f64::from(*limit),
            State::Vegas(_, state) => state.estimate,
            State::Gradient2(_, state) => state.estimate,
            State::Gradient(_, state) => f64::from(state.limit),
        }
    }

    /// In nanoseconds.
    pub(super) fn min_rtt(&self) -> Option<u64> {
        match &self.state {
            State::Aimd(..) => None,
            State::Vegas(_, state) => state.best,
            State::Gradient2(_, state) => Some(state.long as u64).filter(|long| *long > 0),
            State::Gradient(_, state) => state.min_rtt.map(|micros| micros.saturating_mul(1_000)),
        }
    }

    pub(super) fn gradient(&self) -> Option<f64> {
        self.gradient_state()?.1.gradient
    }

    pub(super) fn before(&self) -> Option<u32> {
        self.gradient_state()?.1.before
    }

    pub(super) fn next_measurement(&self) -> Timestamp {
        self.gradient_state().map_or(Timestamp::MAX, |(_, state)| state.next_measurement)
    }

    /// When the next request, whatever it is, should call.
    pub(super) fn due(&self) -> u64 {
        match self.gradient_state() {
            _ if self.void => 0,
            Some((_, state)) => state.due().as_nanos(),
            None => u64::MAX,
        }
    }

    /// When the next sample should.
    pub(super) fn sample_due(&self) -> u64 {
        if self.is_gradient() { u64::MAX } else { self.window_due }
    }

    /// How many samples should.
    pub(super) fn enough(&self) -> u32 {
        match self.gradient_state() {
            Some((config, state)) if state.before.is_some() && !self.void => config.request_count(),
            Some(_) | None => u32::MAX,
        }
    }

    fn gradient_state(&self) -> Option<(&gradient::Gradient, &gradient::State)> {
        match &self.state {
            State::Gradient(config, state) => Some((config, state)),
            State::Aimd(..) | State::Vegas(..) | State::Gradient2(..) => None,
        }
    }
}

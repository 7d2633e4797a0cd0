use super::{Choices, Config, Order, Peak, SlowStart, Strategy, load::Average};
use crate::{
    Ratio,
    sync::{AtomicU64, Ordering},
};

/// The part of a [`Config`] that picks read, each word by itself.
///
/// One that is replaced meanwhile may be read half old, half new: no pick is wrong for that, as each setting is.
#[derive(Debug)]
pub(super) struct Shared {
    mode: AtomicU64,
    decay: AtomicU64,
    default_rtt: AtomicU64,
    /// A factor: the bits of an `f64`.
    tolerance: AtomicU64,
    failure_penalty: AtomicU64,
    penalty: AtomicU64,
    each: AtomicU64,
    window: AtomicU64,
    /// Aggression, and min weight.
    curve: AtomicU64,
}

impl Shared {
    pub(super) fn new(config: &Config) -> Self {
        let zero = || AtomicU64::new(0);
        let shared = Self {
            mode: zero(),
            decay: zero(),
            default_rtt: zero(),
            tolerance: zero(),
            failure_penalty: zero(),
            penalty: zero(),
            each: zero(),
            window: zero(),
            curve: zero(),
        };
        shared.set(config);
        shared
    }

    pub(super) fn set(&self, config: &Config) {
        let store = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
        let (penalty, each) = config.average.unanswered.unwrap_or_default();
        store(&self.decay, config.average.decay);
        store(&self.default_rtt, config.average.default_rtt);
        let tolerance = f64::from(config.tolerance.as_ppm()) / f64::from(Ratio::ONE.as_ppm());
        store(&self.tolerance, tolerance.to_bits());
        store(&self.failure_penalty, config.average.failure_penalty);
        store(&self.penalty, penalty);
        store(&self.each, each);
        if let Some(slow_start) = config.slow_start {
            store(&self.window, slow_start.window);
            let [aggression, min_weight] = [slow_start.aggression, slow_start.min_weight];
            let high = u64::from(aggression.as_ppm()) << 32;
            store(&self.curve, high | u64::from(min_weight.as_ppm()));
        }
        store(&self.mode, Mode::of(config).0);
    }

    pub(super) fn mode(&self) -> Mode {
        Mode(self.mode.load(Ordering::Relaxed))
    }

    /// What the plain comparison of two estimates needs: the decay, and the default round trip time.
    pub(super) fn estimate(&self) -> (u64, u64) {
        (self.decay.load(Ordering::Relaxed), self.default_rtt.load(Ordering::Relaxed))
    }

    /// How many times as high an estimate must be to count; 1 is any.
    pub(super) fn tolerance(&self) -> f64 {
        f64::from_bits(self.tolerance.load(Ordering::Relaxed))
    }

    pub(super) fn average(&self, mode: Mode) -> Average {
        let (decay, default_rtt) = self.estimate();
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Average {
            decay,
            default_rtt,
            failure_penalty: load(&self.failure_penalty),
            unanswered: mode.has(UNANSWERED).then(|| (load(&self.penalty), load(&self.each))),
            peak: if mode.has(STORED) { Peak::Stored } else { Peak::Decayed },
        }
    }

    pub(super) fn slow_start(&self, mode: Mode) -> Option<SlowStart> {
        mode.has(SLOW_START).then(|| {
            let curve = self.curve.load(Ordering::Relaxed);
            SlowStart {
                window: self.window.load(Ordering::Relaxed),
                aggression: Ratio::from_ppm((curve >> 32) as u32),
                min_weight: Ratio::from_ppm(curve as u32),
            }
        })
    }
}

/// The strategy and its options, in one word: those that the strategy does not use are left out.
///
/// From below: the strategy, the choices, the flags (8, 8 and 16 bits), the bias (32 bits).
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode(u64);

const DEADLINE: u64 = 1 << 16;
const BIAS: u64 = 1 << 17;
const UNANSWERED: u64 = 1 << 18;
const STORED: u64 = 1 << 19;
const SLOW_START: u64 = 1 << 20;

impl Mode {
    fn of(config: &Config) -> Self {
        let flag = |flag, is_set| if is_set { flag } else { 0 };
        let choices = u64::from(config.choices.to_u8()) << 8;
        let options = match config.strategy {
            Strategy::RoundRobin => flag(DEADLINE, config.order == Order::Deadline),
            Strategy::LeastRequest => {
                let bias = config.active_request_bias;
                choices | bias.map_or(0, |bias| BIAS | u64::from(bias.as_ppm()) << 32)
            }
            Strategy::PeakEwma => {
                choices
                    | flag(UNANSWERED, config.average.unanswered.is_some())
                    | flag(STORED, config.average.peak == Peak::Stored)
            }
            Strategy::Random | Strategy::Reported => 0,
        };
        let strategy = match config.strategy {
            Strategy::RoundRobin => 0,
            Strategy::LeastRequest => 1,
            Strategy::PeakEwma => 2,
            Strategy::Random => 3,
            Strategy::Reported => 4,
        };
        Self(strategy | options | flag(SLOW_START, config.slow_start.is_some()))
    }

    /// The strategy, if it is one of the first three, without options.
    pub(super) fn plain(self) -> Option<Strategy> {
        match self.0 {
            0 => Some(Strategy::RoundRobin),
            1 => Some(Strategy::LeastRequest),
            2 => Some(Strategy::PeakEwma),
            _ => None,
        }
    }

    pub(super) fn strategy(self) -> Strategy {
        match self.0 as u8 {
            0 => Strategy::RoundRobin,
            1 => Strategy::LeastRequest,
            2 => Strategy::PeakEwma,
            3 => Strategy::Random,
            _ => Strategy::Reported,
        }
    }

    pub(super) fn choices(self) -> Choices {
        Choices::from_u8((self.0 >> 8) as u8)
    }

    pub(super) fn bias(self) -> Option<Ratio> {
        self.has(BIAS).then(|| Ratio::from_ppm((self.0 >> 32) as u32))
    }

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

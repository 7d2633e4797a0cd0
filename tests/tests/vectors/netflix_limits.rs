use std::time::Duration;

use mesh_core::{
    InvalidConfig, Ratio, SplitMix64, Timestamp,
    limit::adaptive::{self, Aimd, Gradient2, Limiter, Sample, Vegas, Window},
};
use serde::Deserialize;

use crate::case::Case;

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let config: Config = case.config()?;
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    let config = config.build()?.map_err(|error| error.to_string())?;
    let limiter = Limiter::new(config.with_window(Window::EVERY_SAMPLE), Timestamp::ZERO);
    let mut rng = SplitMix64::new(1);
    let counts = [expect.limit_after_each.len(), expect.internal_estimate_after_each.len()];
    if counts != [steps.len(); 2] {
        return Err(format!("{} samples, but {counts:?} results", steps.len()));
    }
    for (index, step) in steps.iter().enumerate() {
        let Step::Sample { at_ms, rtt_ms, inflight, dropped } = *step;
        let sample = Sample::new(millis(rtt_ms), inflight).with_dropped(dropped);
        limiter.on_sample(Timestamp::ZERO + millis(at_ms), &mut rng, sample);
        let (estimate, limit) = (limiter.estimate(), limiter.limit());
        let wanted = expect.internal_estimate_after_each[index];
        if (estimate - wanted).abs() > expect.estimate_tolerance {
            return Err(format!("sample {index}: estimate {estimate}, expected {wanted}"));
        }
        // An estimate that is a whole number up to the last bit may be cut to the one below.
        let whole = (wanted - wanted.round()).abs() <= expect.estimate_tolerance;
        let off = limit.abs_diff(expect.limit_after_each[index]);
        if off > u32::from(whole && estimate != wanted) {
            let wanted = expect.limit_after_each[index];
            return Err(format!("sample {index}: limit {limit}, expected {wanted}"));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Config {
    Aimd {
        initial_limit: Option<u32>,
        min_limit: Option<u32>,
        max_limit: Option<u32>,
        #[serde(alias = "backoff")]
        backoff_ratio: Option<f64>,
        timeout_ms: Option<f64>,
    },
    Vegas {
        initial_limit: Option<u32>,
        max_limit: Option<u32>,
        alpha: Option<u32>,
        beta: Option<u32>,
        decrease_fn: Option<Decrease>,
        smoothing: Option<f64>,
        probe_multiplier: Option<u32>,
    },
    Gradient2 {
        initial_limit: Option<u32>,
        min_limit: Option<u32>,
        max_limit: Option<u32>,
        smoothing: Option<f64>,
        #[serde(alias = "queue")]
        queue_size: Option<u32>,
        long_window: Option<u32>,
        #[serde(alias = "tolerance")]
        rtt_tolerance: Option<f64>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Decrease {
    Half,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Sample { at_ms: f64, rtt_ms: f64, inflight: u32, dropped: bool },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    limit_after_each: Vec<u32>,
    internal_estimate_after_each: Vec<f64>,
    estimate_tolerance: f64,
}

impl Config {
    fn build(self) -> Result<Result<adaptive::Config, InvalidConfig>, String> {
        Ok(match self {
            Self::Aimd { initial_limit, min_limit, max_limit, backoff_ratio, timeout_ms } => {
                let config = Aimd::default();
                let config = set(config, initial_limit, Aimd::with_initial_limit);
                let config = set(config, min_limit, Aimd::with_min_limit);
                let config = set(config, max_limit, Aimd::with_max_limit);
                let config = set(config, ratio(backoff_ratio)?, Aimd::with_backoff_ratio);
                set(config, timeout_ms.map(millis), Aimd::with_timeout).build()
            }
            Self::Vegas {
                initial_limit,
                max_limit,
                alpha,
                beta,
                decrease_fn,
                smoothing,
                probe_multiplier,
            } => {
                let decrease = decrease_fn.map(|Decrease::Half| Ratio::from_percent(50));
                let config = Vegas::default();
                let config = set(config, initial_limit, Vegas::with_initial_limit);
                let config = set(config, max_limit, Vegas::with_max_limit);
                let config = set(config, alpha, Vegas::with_alpha);
                let config = set(config, beta, Vegas::with_beta);
                let config = set(config, decrease, Vegas::with_decrease_to);
                let config = set(config, ratio(smoothing)?, Vegas::with_smoothing);
                set(config, probe_multiplier, Vegas::with_probe_multiplier).build()
            }
            Self::Gradient2 {
                initial_limit,
                min_limit,
                max_limit,
                smoothing,
                queue_size,
                long_window,
                rtt_tolerance,
            } => {
                let config = Gradient2::default();
                let config = set(config, initial_limit, Gradient2::with_initial_limit);
                let config = set(config, min_limit, Gradient2::with_min_limit);
                let config = set(config, max_limit, Gradient2::with_max_limit);
                let config = set(config, ratio(smoothing)?, Gradient2::with_smoothing);
                let config = set(config, queue_size, Gradient2::with_queue_size);
                let config = set(config, long_window, Gradient2::with_long_window);
                set(config, ratio(rtt_tolerance)?, Gradient2::with_rtt_tolerance).build()
            }
        })
    }
}

fn set<C, V>(config: C, value: Option<V>, with: fn(C, V) -> C) -> C {
    match value {
        Some(value) => with(config, value),
        None => config,
    }
}

fn ratio(value: Option<f64>) -> Result<Option<Ratio>, String> {
    value
        .map(|value| value.to_string().parse().map_err(|error: InvalidConfig| error.to_string()))
        .transpose()
}

fn millis(millis: f64) -> Duration {
    Duration::from_nanos((millis * 1e6).round() as u64)
}

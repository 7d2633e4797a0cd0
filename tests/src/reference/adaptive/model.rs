use std::time::Duration;

use mesh_core::{
    Outcome, Ratio,
    limit::adaptive::{Aimd, Config, Gradient, Gradient2, Limiter, Vegas, Window},
};

use super::{Faulty, MILLI, START, Settings, at};

/// What the model knows of a permit.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) start: u64,
    pub(super) in_flight: u32,
    pub(super) measurements: u32,
}

#[derive(Clone, Copy)]
pub(super) struct Seen {
    rtt: u64,
    in_flight: u32,
    dropped: bool,
}

impl Seen {
    pub(super) fn new(rtt: u64, in_flight: u32, dropped: bool) -> Self {
        Self { rtt: rtt.max(1), in_flight, dropped }
    }
}

pub(super) struct Model {
    pub(super) now: u64,
    pub(super) in_flight: u32,
    /// The limit, before it is cut to a whole number.
    estimate: f64,
    min: f64,
    max: f64,
    samples: Vec<Seen>,
    pub(super) measurements: u32,
    algorithm: Algorithm,
    windowed: bool,
    /// The window ends with the first sample after this.
    window_end: u64,
}

enum Algorithm {
    Aimd,
    Vegas { best: Option<u64>, samples: u64 },
    Gradient2 { long: f64, first: Vec<f64> },
    Envoy(Envoy),
}

struct Envoy {
    requests: usize,
    min_rtt: Option<f64>,
    fixed: bool,
    /// Within a measurement: the limit of before.
    before: Option<f64>,
    update_at: u64,
    measure_at: u64,
    at_least: u32,
}

const UPDATE: u64 = 100 * MILLI;
const MEASURE: u64 = 2_000 * MILLI;
const FIXED_RTT: u64 = 5 * MILLI;

impl Settings {
    /// A broken twin may be one that was built otherwise.
    pub(super) fn build(&self, fault: Option<usize>) -> Result<(Config, Model), String> {
        let has = |number| fault == Some(number);
        let min = u32::from(self.min % 20);
        let max = min.max(1) + u32::from(self.spread % 60);
        let initial = u32::from(self.initial % 80).max(1);
        let window = if self.windowed {
            let least = if has(11) { 200 } else { 100 };
            Window::new(Duration::from_millis(least), Duration::from_millis(300))
                .and_then(|window| window.with_min_samples(if has(7) { 11 } else { 10 }))
                .map_err(|error| error.to_string())?
        } else {
            Window::EVERY_SAMPLE
        };
        let (mut initial, mut min) = (initial, min.max(1));
        let (config, algorithm) = match self.algorithm % 4 {
            0 => {
                let config = Aimd::default()
                    .with_initial_limit(initial)
                    .with_min_limit(min)
                    .with_max_limit(max)
                    .with_timeout(Duration::from_millis(50));
                (config.build(), Algorithm::Aimd)
            }
            1 => {
                min = 1;
                let config = Vegas::default()
                    .with_initial_limit(initial)
                    .with_max_limit(max)
                    .with_smoothing(Ratio::from_percent(80))
                    .with_probe_multiplier(2);
                (config.build(), Algorithm::Vegas { best: None, samples: 0 })
            }
            2 => {
                let config = Gradient2::default()
                    .with_initial_limit(initial)
                    .with_min_limit(min)
                    .with_max_limit(max)
                    .with_long_window(30);
                (config.build(), Algorithm::Gradient2 { long: 0.0, first: Vec::new() })
            }
            _ => {
                let requests = u32::from(self.requests % 8) + 1;
                let fixed = self.fixed.then_some(Duration::from_nanos(FIXED_RTT));
                let config = Gradient::default()
                    .with_min_concurrency(min)
                    .with_max_limit(max)
                    .with_request_count(requests + u32::from(has(10)))
                    .with_update_interval(Duration::from_nanos(if has(8) {
                        UPDATE + 1
                    } else {
                        UPDATE
                    }))
                    .with_min_rtt_interval(Duration::from_nanos(MEASURE))
                    .with_jitter(Ratio::from_percent(if has(9) { 20 } else { 10 }))
                    .with_fixed_min_rtt(fixed);
                initial = min;
                let envoy = Envoy {
                    requests: requests as usize,
                    min_rtt: self.fixed.then_some(FIXED_RTT as f64 / 1e3),
                    fixed: self.fixed,
                    before: (!self.fixed).then_some(f64::from(min)),
                    update_at: START + UPDATE,
                    measure_at: START + MEASURE,
                    at_least: 0,
                };
                (config.build(), Algorithm::Envoy(envoy))
            }
        };
        let config = config.map_err(|error| error.to_string())?.with_window(window);
        let model = Model {
            now: START,
            in_flight: 0,
            estimate: f64::from(initial),
            min: f64::from(min),
            max: f64::from(max),
            samples: Vec::new(),
            measurements: 0,
            algorithm,
            windowed: self.windowed,
            window_end: START,
        };
        Ok((config, model))
    }
}

impl Model {
    fn limit(&self) -> u32 {
        self.estimate.floor() as u32
    }

    pub(super) fn compare(&mut self, machine: &Faulty) -> Result<(), String> {
        let limiter = &machine.limiter;
        if limiter.in_flight() != self.in_flight {
            return Err(format!("{} in flight, not {}", limiter.in_flight(), self.in_flight));
        }
        let estimate = limiter.estimate();
        if (estimate - self.estimate).abs() > 1e-9 * self.estimate {
            return Err(format!("an estimate of {estimate}, not {}", self.estimate));
        }
        // The last bits depend on the order of the terms; they must not add up, nor decide at a border.
        self.estimate = estimate;
        if machine.limit() != self.limit() {
            return Err(format!("a limit of {}, not {}", machine.limit(), self.limit()));
        }
        if limiter.limit() == 0 {
            return Err("a limit of 0".to_owned());
        }
        let measuring = matches!(&self.algorithm, Algorithm::Envoy(Envoy { before: Some(_), .. }));
        if limiter.is_measuring() != measuring {
            return Err(format!("measuring: {}", limiter.is_measuring()));
        }
        if let Algorithm::Envoy(envoy) = &self.algorithm
            && let Some(next) = limiter.next_measurement()
            && next != at(envoy.measure_at)
        {
            return Err(format!("measures at {next:?}, not {:?}", at(envoy.measure_at)));
        }
        Ok(())
    }

    pub(super) fn acquire(&mut self, real: &Limiter) -> Result<Option<Held>, String> {
        self.timers(real)?;
        if self.in_flight >= self.limit() {
            return Ok(None);
        }
        self.in_flight += 1;
        let (start, in_flight) = (self.now, self.in_flight);
        Ok(Some(Held { start, in_flight, measurements: self.measurements }))
    }

    pub(super) fn outcome(
        &mut self,
        real: &Limiter,
        held: Held,
        outcome: Outcome,
        random: u64,
    ) -> Result<(), String> {
        self.timers(real)?;
        let is_envoy = matches!(self.algorithm, Algorithm::Envoy(_));
        let dropped = match outcome {
            Outcome::Cancelled => return Ok(()),
            Outcome::ServerError | Outcome::ConnectFailed | Outcome::Reset if !is_envoy => {
                return Ok(());
            }
            Outcome::Timeout | Outcome::GatewayError | Outcome::Throttled => true,
            Outcome::Success | Outcome::ServerError | Outcome::ConnectFailed | Outcome::Reset => {
                false
            }
        };
        if held.measurements != self.measurements {
            return Ok(());
        }
        self.learn(real, Seen::new(self.now - held.start, held.in_flight, dropped), random)
    }

    pub(super) fn sample(&mut self, real: &Limiter, seen: Seen, random: u64) -> Result<(), String> {
        self.timers(real)?;
        self.learn(real, seen, random)
    }

    fn learn(&mut self, real: &Limiter, seen: Seen, random: u64) -> Result<(), String> {
        if let Algorithm::Envoy(envoy) = &mut self.algorithm {
            self.samples.push(seen);
            if let Some(before) = envoy.before
                && self.samples.len() >= envoy.requests
            {
                let median = median(&mut self.samples);
                let got = real.min_rtt().ok_or("nothing was measured")?.as_nanos() as f64 / 1e3;
                near("the least latency", got, median, 0.07)?;
                envoy.min_rtt = Some(got);
                envoy.before = None;
                envoy.at_least = 0;
                envoy.update_at = self.now + UPDATE;
                envoy.measure_at = self.now + MEASURE + random % (MEASURE / MILLI / 10) * MILLI;
                self.estimate = before;
            }
            return Ok(());
        }
        if self.windowed && seen.rtt < MILLI / 10 {
            return Ok(());
        }
        self.samples.push(seen);
        if self.windowed && self.now <= self.window_end {
            return Ok(());
        }
        let samples = std::mem::take(&mut self.samples);
        let least = samples.iter().map(|sample| sample.rtt).min().unwrap_or(1);
        self.window_end = self.now + (2 * least).clamp(100 * MILLI, 300 * MILLI);
        if self.windowed && samples.len() < 10 {
            return Ok(());
        }
        let mean = samples.iter().map(|sample| sample.rtt).sum::<u64>() / samples.len() as u64;
        let most = samples.iter().map(|sample| sample.in_flight).max().unwrap_or(0);
        self.netflix(mean, f64::from(most), samples.iter().any(|sample| sample.dropped), random);
        Ok(())
    }

    fn netflix(&mut self, rtt: u64, in_flight: f64, dropped: bool, random: u64) {
        let limit = self.estimate;
        match &mut self.algorithm {
            Algorithm::Aimd => {
                let wanted = if dropped || rtt > 50 * MILLI {
                    (limit * 0.9).floor()
                } else if in_flight * 2.0 >= limit {
                    limit + 1.0
                } else {
                    limit
                };
                self.estimate = wanted.min(self.max).max(self.min);
            }
            Algorithm::Vegas { best, samples } => {
                *samples += 1;
                let jitter = 0.5 + (random >> 11) as f64 / (1u64 << 53) as f64 / 2.0;
                if *samples as f64 >= jitter * 2.0 * limit {
                    (*best, *samples) = (Some(rtt), 0);
                    return;
                }
                let Some(known) = best.filter(|best| *best <= rtt) else {
                    *best = Some(rtt);
                    return;
                };
                let step = (limit.floor().log10().floor()).max(1.0);
                let queue = (limit * (1.0 - known as f64 / rtt as f64)).ceil();
                let change = if dropped {
                    -step
                } else if in_flight * 2.0 < limit {
                    return;
                } else if queue <= step {
                    6.0 * step
                } else if queue < 3.0 * step {
                    step
                } else if queue > 6.0 * step {
                    -step
                } else {
                    return;
                };
                let wanted = (limit + change).min(self.max).max(1.0);
                self.estimate = 0.2 * limit + 0.8 * wanted;
            }
            Algorithm::Gradient2 { long, first } => {
                let short = rtt as f64;
                if first.len() < 10 {
                    first.push(short);
                    *long = first.iter().sum::<f64>() / first.len() as f64;
                } else {
                    *long += (short - *long) * 2.0 / 31.0;
                }
                let average = *long;
                if average > 2.0 * short {
                    *long = average * 0.95;
                }
                if in_flight < limit / 2.0 {
                    return;
                }
                let gradient = (1.5 * average / short).clamp(0.5, 1.0);
                let wanted = 0.8 * limit + 0.2 * (limit * gradient + 4.0);
                self.estimate = wanted.min(self.max).max(self.min);
            }
            Algorithm::Envoy(_) => {}
        }
    }

    /// Envoy's timers, each at its time.
    pub(super) fn timers(&mut self, real: &Limiter) -> Result<(), String> {
        let Algorithm::Envoy(envoy) = &mut self.algorithm else { return Ok(()) };
        while envoy.before.is_none() {
            let measure_at = if envoy.fixed { u64::MAX } else { envoy.measure_at };
            if envoy.update_at.min(measure_at) > self.now {
                break;
            }
            if envoy.update_at <= measure_at {
                envoy.update_at += UPDATE;
                if !self.samples.is_empty() {
                    let median = median(&mut self.samples);
                    let min_rtt = envoy.min_rtt.ok_or("no latency is known")?;
                    let expected = (min_rtt * 1.25 / median).clamp(0.5, 2.0);
                    let gradient = real.gradient().ok_or("nothing was updated")?;
                    near("the gradient", gradient, expected, 0.07)?;
                    let grown = self.estimate * gradient;
                    let wanted = (grown + grown.sqrt()).floor().min(self.max).max(self.min);
                    let stays = self.estimate == self.min && wanted == self.min;
                    envoy.at_least = if stays { envoy.at_least + 1 } else { 0 };
                    self.estimate = wanted;
                }
                if envoy.at_least < 5 || envoy.fixed {
                    continue;
                }
            }
            envoy.before = Some(self.estimate);
            self.estimate = self.min;
            self.samples.clear();
            self.measurements += 1;
        }
        Ok(())
    }
}

/// In microseconds, and no samples are left.
fn median(samples: &mut Vec<Seen>) -> f64 {
    samples.sort_unstable_by_key(|sample| sample.rtt);
    let median = samples[(samples.len() - 1) / 2].rtt / 1_000;
    samples.clear();
    median.max(1) as f64
}

fn near(what: &str, got: f64, exact: f64, tolerance: f64) -> Result<(), String> {
    if (got - exact).abs() > exact * tolerance {
        return Err(format!("{what} is {got}, not {exact}"));
    }
    Ok(())
}

//! `limit::adaptive`: every algorithm, every way to give a permit back.
//!
//! The model keeps every sample in a list, and Envoy's timers fire when they are due; the machine has neither.

use std::time::Duration;

use arbitrary::{Arbitrary, Result as Decoded, Unstructured};
use mesh_core::{
    Outcome, Ratio, Rng, Timestamp,
    limit::adaptive::{Aimd, Config, Gradient, Gradient2, Limiter, Permit, Sample, Vegas, Window},
};

use super::Machine;

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "adaptive",
    faults: &[
        "a dropped permit keeps its slot",
        "a cancelled request is a sample",
        "a timeout is a success",
        "requests of before a measurement are part of it",
        "one more than the limit is admitted",
        "latency counts from the begin of the run",
        "the limit never falls",
        "a window needs eleven samples",
        "updates come late",
        "the way to the next measurement is drawn from twice the range",
        "a measurement takes one more sample",
        "a short window is a long one",
    ],
    check,
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    /// Up to 40 ms by fifths of one, or up to 2.8 s.
    Advance(u8),
    Acquire,
    Outcome(u8, u8),
    Drop(u8),
    /// In tenths of a millisecond, and the most in flight.
    Sample(u16, u8, bool),
    Timeout,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    algorithm: u8,
    initial: u8,
    min: u8,
    spread: u8,
    windowed: bool,
    /// All that the generator ever says.
    random: u64,
    requests: u8,
    fixed: bool,
}

const START: u64 = 1_000_000_000_000;
const MILLI: u64 = 1_000_000;
const LONGEST: usize = 300;

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut input = Unstructured::new(data);
    run(&mut input, fault).unwrap_or(Ok(()))
}

/// The outer error is the end of the bytes.
fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Decoded<Result<(), String>> {
    let settings = Settings::arbitrary(input)?;
    let (config, mut model) = match settings.build(fault) {
        Ok(built) => built,
        Err(error) => return Ok(Err(error)),
    };
    let limiter = Limiter::new(config, Timestamp::from_nanos(START));
    let mut machine = Faulty { limiter, fault, limit: 0 };
    let mut rng = Fixed(settings.random);
    let mut permits: Vec<(Permit, Held)> = Vec::new();
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        match operation {
            Operation::Advance(fifths @ ..200) => model.now += u64::from(fifths) * MILLI / 5,
            Operation::Advance(far) => model.now += u64::from(far - 199) * MILLI * 50,
            Operation::Acquire => {
                let permit = machine.acquire(model.now, &mut rng);
                let admitted = model.acquire(&machine.limiter);
                match (permit, admitted) {
                    (Some(permit), Ok(Some(held))) => permits.push((permit, held)),
                    (None, Ok(None)) => {}
                    (_, Err(error)) => return Ok(Err(format!("step {step}: {error}"))),
                    (got, Ok(_)) => {
                        let got = got.is_some();
                        return Ok(Err(format!("step {step}: admitted: {got}")));
                    }
                }
            }
            Operation::Outcome(which, outcome) if !permits.is_empty() => {
                let (permit, held) = permits.swap_remove(usize::from(which) % permits.len());
                let outcome = OUTCOMES[usize::from(outcome) % OUTCOMES.len()];
                machine.on_outcome(model.now, &mut rng, permit, outcome, held, &model);
                model.in_flight -= 1;
                if let Err(error) = model.outcome(&machine.limiter, held, outcome, settings.random)
                {
                    return Ok(Err(format!("step {step}: {error}")));
                }
            }
            Operation::Drop(which) if !permits.is_empty() => {
                let (permit, _) = permits.swap_remove(usize::from(which) % permits.len());
                machine.on_drop(permit);
                model.in_flight -= 1;
            }
            Operation::Outcome(..) | Operation::Drop(_) => {}
            Operation::Sample(tenths, in_flight, dropped) => {
                let rtt = Duration::from_nanos(u64::from(tenths) * MILLI / 10);
                let sample = Sample::new(rtt, in_flight.into()).with_dropped(dropped);
                machine.limiter.on_sample(at(model.now), &mut rng, sample);
                let seen = Seen::new(rtt.as_nanos() as u64, in_flight.into(), dropped);
                if let Err(error) = model.sample(&machine.limiter, seen, settings.random) {
                    return Ok(Err(format!("step {step}: {error}")));
                }
            }
            Operation::Timeout => {
                machine.limiter.on_timeout(at(model.now), &mut rng);
                if let Err(error) = model.timers(&machine.limiter) {
                    return Ok(Err(format!("step {step}: {error}")));
                }
            }
        }
        machine.note();
        if let Err(error) = model.compare(&machine) {
            return Ok(Err(format!("step {step}, {operation:?}, {settings:?}: {error}")));
        }
    }
    Ok(Ok(()))
}

const OUTCOMES: [Outcome; 8] = [
    Outcome::Success,
    Outcome::ServerError,
    Outcome::GatewayError,
    Outcome::ConnectFailed,
    Outcome::Timeout,
    Outcome::Reset,
    Outcome::Throttled,
    Outcome::Cancelled,
];

/// Always the same number: how often it is drawn does not matter.
struct Fixed(u64);

impl Rng for Fixed {
    fn next_u64(&mut self) -> u64 {
        self.0
    }
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

/// The machine, or a broken twin of it.
struct Faulty {
    limiter: Limiter,
    fault: Option<usize>,
    /// The greatest limit so far.
    limit: u32,
}

impl Faulty {
    fn has(&self, fault: usize) -> bool {
        self.fault == Some(fault)
    }

    fn acquire(&self, now: u64, rng: &mut Fixed) -> Option<Permit> {
        if let Ok(permit) = self.limiter.try_acquire(at(now), rng) {
            return Some(permit);
        }
        if !self.has(4) {
            return None;
        }
        // A permit from nowhere.
        let other = Limiter::new(Config::aimd(), at(now));
        other.try_acquire(at(now), rng).ok()
    }

    fn on_outcome(
        &self,
        now: u64,
        rng: &mut Fixed,
        permit: Permit,
        outcome: Outcome,
        held: Held,
        model: &Model,
    ) {
        let limiter = &self.limiter;
        let is_wrong = (outcome == Outcome::Cancelled && self.has(1))
            || (outcome == Outcome::Timeout && self.has(2));
        let outcome = if is_wrong { Outcome::Success } else { outcome };
        let now = at(now);
        if self.has(5) || (self.has(3) && held.measurements != model.measurements) {
            let from = if self.has(5) { START } else { held.start };
            let rtt = now.since(at(from));
            limiter.on_drop(permit);
            limiter.on_sample(now, rng, Sample::new(rtt, held.in_flight));
        } else {
            limiter.on_outcome(now, rng, permit, outcome);
        }
    }

    fn on_drop(&self, permit: Permit) {
        if !self.has(0) {
            self.limiter.on_drop(permit);
        }
    }

    fn note(&mut self) {
        self.limit = self.limit.max(self.limiter.limit());
    }

    fn limit(&self) -> u32 {
        if self.has(6) { self.limit } else { self.limiter.limit() }
    }
}

/// What the model knows of a permit.
#[derive(Clone, Copy)]
struct Held {
    start: u64,
    in_flight: u32,
    measurements: u32,
}

#[derive(Clone, Copy)]
struct Seen {
    rtt: u64,
    in_flight: u32,
    dropped: bool,
}

impl Seen {
    fn new(rtt: u64, in_flight: u32, dropped: bool) -> Self {
        Self { rtt: rtt.max(1), in_flight, dropped }
    }
}

struct Model {
    now: u64,
    in_flight: u32,
    /// The limit, before it is cut to a whole number.
    estimate: f64,
    min: f64,
    max: f64,
    samples: Vec<Seen>,
    measurements: u32,
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
    fn build(&self, fault: Option<usize>) -> Result<(Config, Model), String> {
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

    fn compare(&mut self, machine: &Faulty) -> Result<(), String> {
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

    fn acquire(&mut self, real: &Limiter) -> Result<Option<Held>, String> {
        self.timers(real)?;
        if self.in_flight >= self.limit() {
            return Ok(None);
        }
        self.in_flight += 1;
        let (start, in_flight) = (self.now, self.in_flight);
        Ok(Some(Held { start, in_flight, measurements: self.measurements }))
    }

    fn outcome(
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

    fn sample(&mut self, real: &Limiter, seen: Seen, random: u64) -> Result<(), String> {
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
    fn timers(&mut self, real: &Limiter) -> Result<(), String> {
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

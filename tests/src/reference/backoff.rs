//! The waits of each rule, against sequences that are counted step by step.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{Ratio, backoff::Config};

use super::Machine;
use crate::Always;

/// The check.
pub(super) const MACHINE: Machine = Machine {
    name: "backoff",
    faults: &["one step ahead", "no jitter", "no growth", "no ceiling", "begins at zero"],
    check,
};

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Rule {
    Envoy { base: u16, more: u16 },
    LowerBound { min: u16 },
    Linkerd { min: u16, more: u16, jitter: u8 },
    Finagle { start: u16, more: u16 },
    Grpc { initial: u16, max: u16, percent: u16 },
    Fixed { wait: u16 },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct Operation {
    retry: u8,
    random: u64,
}

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut bytes = Unstructured::new(data);
    let Ok(rule) = Rule::arbitrary(&mut bytes) else { return Ok(()) };
    let config = config(rule).map_err(|error| error.to_string())?;
    for _ in 0..100 {
        if bytes.is_empty() {
            break;
        }
        let Ok(Operation { retry, random }) = Operation::arbitrary(&mut bytes) else { break };
        let wait = twin(fault, &config, u32::from(retry), random);
        let (least, most) = model(rule, retry, random);
        let nanos = wait.as_nanos();
        if nanos < least || nanos > most {
            return Err(format!("{rule:?}, retry {retry}: {nanos} is not in {least}..={most}"));
        }
        let (from, below) = config.bounds(u32::from(retry));
        if fault.is_none() && (wait < from || wait > below) {
            return Err(format!("{rule:?}, retry {retry}: {wait:?} is not in {from:?}..{below:?}"));
        }
    }
    Ok(())
}

fn config(rule: Rule) -> Result<Config, mesh_core::InvalidConfig> {
    let ms = |millis: u32| Duration::from_millis(millis.into());
    let over = |base: u16, more: u16| (u32::from(base) + 1, u32::from(base) + 1 + u32::from(more));
    match rule {
        Rule::Envoy { base, more } => {
            let (base, max) = over(base, more);
            Config::envoy(ms(base), ms(max))
        }
        Rule::LowerBound { min } => Config::envoy_lower_bound(ms(u32::from(min) + 1)),
        Rule::Linkerd { min, more, jitter } => {
            let (min, max) = over(min, more);
            Config::linkerd(ms(min), ms(max), Ratio::from_percent(jitter.into()))
        }
        Rule::Finagle { start, more } => {
            let (start, max) = over(start, more);
            Config::finagle(ms(start), ms(max))
        }
        Rule::Grpc { initial, max, percent } => Config::grpc(
            ms(u32::from(initial) + 1),
            ms(u32::from(max) + 1),
            Ratio::from_percent(u32::from(percent) + 1),
        ),
        Rule::Fixed { wait } => Ok(Config::fixed(ms(wait.into()))),
    }
}

fn twin(fault: Option<usize>, config: &Config, retry: u32, random: u64) -> Duration {
    let rng = &mut Always(random);
    match fault {
        Some(0) => config.delay(retry.max(1) + 1, rng),
        Some(1) => config.bounds(retry).0,
        Some(2) => config.delay(1, rng),
        Some(3) => config.bounds(1).1.saturating_mul(1 << retry.min(20)),
        Some(4) => Duration::from_nanos(random % (config.bounds(retry).1.as_nanos() as u64 + 1)),
        _ => config.delay(retry, rng),
    }
}

/// The least and the greatest wait that is right, in nanoseconds.
fn model(rule: Rule, retry: u8, random: u64) -> (u128, u128) {
    const MS: u128 = 1_000_000;
    let steps = retry.max(1) - 1;
    let below = |n: u128| (u128::from(random) * n) >> 64;
    let exact = |nanos: u128| (nanos, nanos);
    match rule {
        Rule::Envoy { base, more } => {
            let mut next = u64::from(base) + 1;
            let max = next + u64::from(more);
            for _ in 0..steps {
                next = if next < max / 2 { next * 2 } else { max };
            }
            exact(u128::from(random % next) * MS)
        }
        Rule::LowerBound { min } => {
            let min = u64::from(min) + 1;
            let jitter = if min < 2 { 0 } else { random % (min / 2) };
            exact(u128::from(min + jitter) * MS)
        }
        Rule::Linkerd { min, more, jitter } => {
            let mut base = (u128::from(min) + 1) * MS;
            let max = base + u128::from(more) * MS;
            for _ in 0..steps {
                base = (base * 2).min(max);
            }
            exact((base + below(base * u128::from(jitter) / 100)).min(max))
        }
        Rule::Finagle { start, more } => {
            // With its state, as Finagle has it: once at the maximum it stays there.
            let start = (u128::from(start) + 1) * MS;
            let max = start + u128::from(more) * MS;
            let mut now = start;
            for step in 0..steps {
                let shift = 1u128 << step.min(62);
                let half = if start >= max / shift { max } else { start * shift };
                now = if now == max { max } else { (half + below(half)).min(max) };
            }
            exact(now)
        }
        Rule::Grpc { initial, max, percent } => {
            let max = (f64::from(max) + 1.0) * 1e6;
            let factor = (f64::from(percent) + 1.0) / 100.0;
            let mut middle = ((f64::from(initial) + 1.0) * 1e6).min(max);
            for _ in 0..steps {
                middle = (middle * factor).min(max);
            }
            let wait = middle * (0.8 + 0.4 * (random as f64 / u64::MAX as f64));
            // A whole nanosecond is lost in each step at most, and grows with what follows.
            let slack = 300.0 + middle * 1e-3;
            ((wait - slack).max(0.0) as u128, (wait + slack) as u128)
        }
        Rule::Fixed { wait } => exact(u128::from(wait) * MS),
    }
}

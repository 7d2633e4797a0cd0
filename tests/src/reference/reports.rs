//! `balance::report`: the weight of one endpoint, against a list of all that it said.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Ratio, Timestamp,
    balance::report::{Config, Report, Reported},
};

use super::{Machine, Ran, to_the_end};

/// See [`Machine`].
pub(super) const MACHINE: Machine = Machine {
    name: "reports",
    faults: &[
        "an unusable report renews the last",
        "errors are not counted",
        "the blackout never begins anew",
        "a new connection is not told",
        "the processor counts before the application",
        "the clock runs at half its speed",
    ],
    check: |data, fault| to_the_end(data, fault, run),
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    /// Requests, errors, application and processor in tenths.
    Report(u8, u8, u8, u8),
    Ready,
    /// Seconds.
    Wait(u8),
    Back(u8),
}

const LONGEST: usize = 200;

fn run(input: &mut Unstructured<'_>, fault: Option<usize>) -> Ran {
    let is = |number| fault == Some(number);
    let (percent, blackout, expiration) =
        (u32::arbitrary(input)? % 300, u64::from(input.arbitrary::<u8>()? % 32), 64);
    let config = Config::default()
        .with_error_utilization_penalty(Ratio::from_percent(percent))
        .with_blackout_period(Duration::from_secs(blackout))
        .with_weight_expiration_period(Duration::from_secs(expiration));
    let reported = Reported::new();
    let at =
        |second: u64| Timestamp::from_millis(if is(5) { second * 500 } else { second * 1_000 });
    // When each usable report since the last connection came, and its weight.
    let (mut list, mut now): (Vec<(u64, f64)>, u64) = (vec![], 100);
    for step in 0..LONGEST {
        let operation = Operation::arbitrary(input)?;
        match operation {
            Operation::Report(qps, errors, application, cpu) => {
                let (qps, errors) = (f64::from(qps / 2), f64::from(errors % 16));
                let tenths = |of: u8| f64::from(of % 12) / 10.0;
                let busy = if tenths(application) > 0.0 { application } else { cpu };
                let shown = if is(4) && tenths(cpu) > 0.0 { cpu } else { application };
                let report = Report::new(qps, tenths(shown))
                    .with_cpu_utilization(tenths(cpu))
                    .with_errors_per_second(if is(1) { 0.0 } else { errors });
                let report = if is(0) && report.weight(&config).is_none() {
                    Report::new(1.0, 1.0)
                } else {
                    report
                };
                if is(2) && !list.is_empty() {
                    // A report in between, so that the last one is never old.
                    for second in list[list.len() - 1].0..now {
                        reported.on_report(&config, at(second), &report);
                    }
                }
                reported.on_report(&config, at(now), &report);
                if qps > 0.0 && tenths(busy) > 0.0 {
                    let penalty = f64::from(percent) / 100.0;
                    list.push((now, qps / (tenths(busy) + errors / qps * penalty)));
                }
            }
            Operation::Ready => {
                list.clear();
                if !is(3) {
                    reported.on_ready();
                }
            }
            Operation::Wait(seconds) => now += u64::from(seconds % 80),
            Operation::Back(seconds) => now = now.saturating_sub(u64::from(seconds % 4)),
        }
        let expected = weight(&list, now, blackout, expiration);
        let found = reported.weight(&config, at(now));
        let is_near = match (found, expected) {
            (Some(found), Some(expected)) => (found - expected).abs() <= expected * 1e-9,
            (found, expected) => found.is_none() && expected.is_none(),
        };
        if !is_near {
            let error = format!("step {step}, {operation:?}: {found:?} is not {expected:?}");
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// Walks back over the list, to the first report after a gap: there the blackout began.
fn weight(list: &[(u64, f64)], now: u64, blackout: u64, expiration: u64) -> Option<f64> {
    let &(last, weight) = list.last()?;
    let gap = |pair: &[(u64, f64)]| pair[1].0.saturating_sub(pair[0].0) >= expiration;
    let begin = list.windows(2).rposition(gap).map_or(0, |before| before + 1);
    let age = |at: u64| now.saturating_sub(at);
    (age(last) < expiration && age(list[begin].0) >= blackout).then_some(weight)
}

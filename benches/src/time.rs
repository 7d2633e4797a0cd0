//! Time of a call, on one thread and on two.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::Case;

/// What a call takes, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// On the wall.
    pub wall: f64,
    /// On the CPU: what other programs do on the machine does not count.
    pub cpu: f64,
}

/// What a call takes on one thread, and with two threads at once.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Times {
    /// One thread.
    pub one: Cost,
    /// Each of two threads; `None` where the work cannot be shared.
    pub two: Option<Cost>,
}

/// Medians of so many repetitions of about so long each.
///
/// The cases take turns, so that whatever else the machine does falls on all of them.
pub fn measure(cases: &[Case], repetitions: usize, span: Duration) -> Vec<Times> {
    let calls: Vec<u64> = cases.iter().map(|case| calls_in(case, span)).collect();
    let mut one = vec![Vec::with_capacity(repetitions); cases.len()];
    let mut two = vec![Vec::with_capacity(repetitions); cases.len()];
    for _ in 0..repetitions {
        for (index, (case, &calls)) in cases.iter().zip(&calls).enumerate() {
            one[index].push(clocked(calls, 1, || case.run(calls)));
            let mut shared = false;
            let cost = clocked(calls, 2, || shared = case.run_on_two_threads(calls));
            if shared {
                two[index].push(cost);
            }
        }
    }
    let times = |(one, two): (Vec<Cost>, Vec<Cost>)| Times {
        one: median(&one),
        two: (!two.is_empty()).then(|| median(&two)),
    };
    one.into_iter().zip(two).map(times).collect()
}

/// How many calls take about `span`. Warms up on the way.
fn calls_in(case: &Case, span: Duration) -> u64 {
    // What is made at the first call is not measured.
    case.run(1);
    let mut calls = case.calls().min(64);
    loop {
        let start = Instant::now();
        case.run(calls);
        let took = start.elapsed();
        if took * 4 > span || calls > 1 << 40 {
            let share = span.as_secs_f64() / took.as_secs_f64();
            return ((calls as f64 * share) as u64).max(1);
        }
        calls *= 4;
    }
}

/// One thread is this one. Two are others, or the workers of a runtime, which only the clock of the whole process sees;
/// it is less exact by some milliseconds of threads that have just ended.
fn clocked(calls: u64, threads: u32, run: impl FnOnce()) -> Cost {
    let clock = if threads == 1 { ClockId::ThreadCPUTime } else { ClockId::ProcessCPUTime };
    let cpu_time = || Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    let (wall, cpu) = (Instant::now(), cpu_time());
    run();
    let (wall, cpu) = (wall.elapsed(), cpu_time().saturating_sub(cpu));
    let nanos = |span: Duration| span.as_nanos() as f64 / calls as f64;
    Cost { wall: nanos(wall), cpu: nanos(cpu) / f64::from(threads) }
}

fn median(costs: &[Cost]) -> Cost {
    let of = |part: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Cost { wall: of(|cost| cost.wall), cpu: of(|cost| cost.cpu) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_taken_of_each_clock() {
        let cost = |wall, cpu| Cost { wall, cpu };
        let costs = [cost(9.0, 1.0), cost(1.0, 3.0), cost(5.0, 2.0)];
        assert_eq!(median(&costs), cost(5.0, 2.0));
    }

    #[test]
    fn two_threads_burn_the_time_of_two() {
        let spin = Case::shared("spin", (), |(), calls| {
            (0..calls).for_each(|call| _ = std::hint::black_box(call));
        });
        let [times] = measure(&[spin], 3, Duration::from_millis(2))[..] else { unreachable!() };
        assert!(times.one.cpu > 0.0 && times.two.unwrap().cpu > 0.0);
    }
}

use std::{fmt, ops::Range, time::Duration};

use mesh_core::{Outcome, Timestamp};

use super::{END, ENDPOINTS, FALL_ILL, HEAL, ILL};

/// The titles of what a [`Report`] shows.
pub const COLUMNS: [&str; 7] =
    ["p50", "p99", "p99.9", "failed", "share of the fair one", "noticed after", "back after"];

/// Seconds in a row that make a change of a share, and not a whim of chance.
const IN_A_ROW: usize = 3;

/// What became of the requests of a run. Figures without a time are of those sent while endpoints were ill.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// In microseconds.
    latencies: Vec<u32>,
    failed: usize,
    /// Requests of each second, to each of the ill ones, and to all.
    sent: Vec<([u32; ILL.len()], u32)>,
}

impl Report {
    pub(super) fn new() -> Self {
        let seconds = END.since(Timestamp::ZERO).as_secs() as usize;
        Self { latencies: Vec::new(), failed: 0, sent: vec![Default::default(); seconds] }
    }

    pub(super) fn count(
        &mut self,
        now: Timestamp,
        endpoint: usize,
        latency: Duration,
        outcome: Outcome,
    ) {
        let (ill, all) = &mut self.sent[second(now)];
        *all += 1;
        if let Some(sent) = ill.get_mut(endpoint) {
            *sent += 1;
        }
        if now >= FALL_ILL && now < HEAL {
            self.latencies.push(latency.as_micros() as u32);
            self.failed += usize::from(outcome.is_failure());
        }
    }

    /// How long so many in a thousand took at most, failed or not.
    pub fn quantile(&self, per_mille: usize) -> Duration {
        let mut latencies = self.latencies.clone();
        let nth = latencies.len().saturating_sub(1) * per_mille / 1_000;
        Duration::from_micros(latencies.select_nth_unstable(nth).1.to_owned().into())
    }

    /// The part of the requests that failed.
    pub fn failed(&self) -> f64 {
        self.failed as f64 / self.latencies.len() as f64
    }

    /// What that endpoint got: 1 is its fair share.
    pub fn share(&self, ill: usize) -> f64 {
        self.share_of(ill, second(FALL_ILL)..second(HEAL))
    }

    /// The same of the whole run, for each `step` seconds.
    pub fn shares(&self, ill: usize, step: usize) -> impl Iterator<Item = f64> {
        (0..self.sent.len() / step).map(move |nth| self.share_of(ill, nth * step..(nth + 1) * step))
    }

    /// Seconds from the begin of the illness until the endpoint gets less than half of its fair share, three seconds in
    /// a row; `None` if that does not happen while it is ill.
    pub fn noticed(&self, ill: usize) -> Option<usize> {
        self.first(ill, second(FALL_ILL)..second(HEAL), |share| share < 0.5)
    }

    /// Seconds from the end of the illness until it gets more than half of it; `None` if that does not happen.
    pub fn came_back(&self, ill: usize) -> Option<usize> {
        self.first(ill, second(HEAL)..self.sent.len(), |share| share > 0.5)
    }

    fn first(
        &self,
        ill: usize,
        seconds: Range<usize>,
        is_so: impl Fn(f64) -> bool,
    ) -> Option<usize> {
        let so: Vec<bool> = seconds.map(|at| is_so(self.share_of(ill, at..at + 1))).collect();
        so.windows(IN_A_ROW).position(|row| row.iter().all(|so| *so))
    }

    fn share_of(&self, ill: usize, seconds: Range<usize>) -> f64 {
        let sum = |(to, of): (u32, u32), (ill_ones, all): &([u32; ILL.len()], u32)| {
            (to + ill_ones[ill], of + all)
        };
        let (to, of) = self.sent[seconds].iter().fold((0, 0), sum);
        f64::from(to) * ENDPOINTS as f64 / f64::from(of.max(1))
    }
}

/// Cells of a table, under [`COLUMNS`]. Where there are four figures, they are those of the [`ILL`] ones.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for per_mille in [500, 990, 999] {
            write!(f, "{:.0} ms | ", self.quantile(per_mille).as_secs_f64() * 1e3)?;
        }
        write!(f, "{:.2} %", self.failed() * 100.0)?;
        let seconds =
            |time: Option<usize>| time.map_or_else(|| "–".into(), |time| format!("{time} s"));
        let share = |ill| format!("{:.2}", self.share(ill));
        let noticed = |ill| seconds(self.noticed(ill));
        let back = |ill| seconds(self.noticed(ill).and_then(|_| self.came_back(ill)));
        let figures: [&dyn Fn(usize) -> String; 3] = [&share, &noticed, &back];
        figures.iter().try_for_each(|of| write!(f, " | {}", [0, 1, 2, 3].map(of).join(", ")))
    }
}

fn second(at: Timestamp) -> usize {
    at.since(Timestamp::ZERO).as_secs() as usize
}

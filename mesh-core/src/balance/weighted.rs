use std::ops::Deref;

use super::{Candidate, Config, Order, Strategy, deadlines::Deadlines, stride::Stride};
use crate::{
    Rng, Timestamp,
    sync::{AtomicU64, Ordering},
};

/// Candidates and the table of their weights: built once for each change of the endpoints, read by every pick.
///
/// The weights stand side by side on a line, so that a point on it is a candidate: a random point draws in
/// proportion to the weights, and evenly spread points share exactly. A guide of one or two entries for each
/// candidate says where to begin the search, which then takes two steps on average, however many there are
/// (Chen and Asau 1974). At most 16 bytes for each candidate; none if all weights are equal.
///
/// ```
/// # use mesh_core::{Timestamp, Weight, balance::{Candidate, Load}};
/// # struct Host { load: Load, weight: Weight }
/// # impl Candidate for Host {
/// #     fn load(&self) -> &Load { &self.load }
/// #     fn weight(&self) -> Weight { self.weight }
/// #     fn is_available(&self, _: Timestamp) -> bool { true }
/// # }
/// # let host = |weight| Host { load: Load::new(), weight: Weight::new(weight).unwrap() };
/// use mesh_core::balance::Weighted;
///
/// let hosts = Weighted::new(vec![host(3), host(1)]);
/// assert_eq!(hosts.len(), 2);
/// assert_eq!(hosts.cycle(), 4);
/// assert_eq!(Weighted::new(vec![host(7), host(7)]).cycle(), 2);
/// ```
///
/// # Schedules
///
/// Two orders are written down beside the table, for configurations that ask for them ([`Weighted::scheduled`]):
///
/// | configuration | schedule | built from | cost to build, and size |
/// | --- | --- | --- | --- |
/// | [`Order::Deadline`] | Envoy's order, in whole cycles | the weights | O(turns × log n); 4 bytes a turn, at most 256 KiB |
/// | [`Strategy::Reported`] | gRPC's static stride | the reports as of then | O(n); 2 bytes for each candidate |
///
/// *Envoy's order*: each candidate has a deadline, at first `1 / weight`; the earliest is served, and gets one that is
/// `1 / weight` later; of two at the same time, the one that was put in first. As many cycles are written down as
/// make 2,048 turns, and one at least. The deadlines are sums of rounded numbers, as in Envoy, so that ties fall as
/// there. It differs from Envoy in three points: after the last turn the order begins anew, where Envoy's
/// roundings go on; who is not available is passed over, where Envoy builds an order of the others; and a cycle of
/// more than 65,536 turns (weights without a common divisor that sum up to more) is not written down: such weights
/// are served in [`Order::Even`], whose shares are the same.
///
/// Without a schedule, every strategy works by the weights alone. With 10,000 candidates of weights 1 to 7 the table takes
/// 0.3 ms to build, and the order of deadlines 3 ms (40,000 turns).
#[derive(Clone, Debug)]
pub struct Weighted<C> {
    candidates: Vec<C>,
    table: Option<Table>,
    pub(super) schedule: Option<Schedule>,
    /// Since when the candidate was there that was there first.
    /// `None` if one was always there.
    oldest: Option<Timestamp>,
    stale_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) enum Schedule {
    Deadlines(Deadlines),
    Stride(Stride),
    /// Where the stride would pass over too many: the same weights, evenly.
    Sparse(Stride, Table),
}

impl<C> Weighted<C> {
    /// Reads the weights, and builds the table. O(n).
    pub fn new(candidates: Vec<C>) -> Self
    where
        C: Candidate,
    {
        let weight = |candidate: &C| u64::from(candidate.weight().get());
        let table = Table::new(|| candidates.iter().map(weight));
        // None is less than any time.
        let oldest = candidates.iter().map(C::available_since).min().flatten();
        Self { candidates, table, schedule: None, oldest, stale_at: None }
    }

    /// The same with the schedule that `config` asks for, if it asks for one.
    ///
    /// ```
    /// # use mesh_core::{SplitMix64, Timestamp, Weight, balance::{Candidate, Load}};
    /// # struct Host { load: Load, weight: Weight }
    /// # impl Candidate for Host {
    /// #     fn load(&self) -> &Load { &self.load }
    /// #     fn weight(&self) -> Weight { self.weight }
    /// #     fn is_available(&self, _: Timestamp) -> bool { true }
    /// # }
    /// # let host = |weight| Host { load: Load::new(), weight: Weight::new(weight).unwrap() };
    /// use mesh_core::balance::{Balancer, Config, Order, Weighted};
    ///
    /// let config = Config::round_robin().with_order(Order::Deadline);
    /// let (now, rng) = (Timestamp::ZERO, &mut SplitMix64::new(1));
    /// let hosts = Weighted::scheduled(vec![host(1), host(2), host(3)], &config, now);
    /// let balancer = Balancer::new(config);
    /// let picks = [(); 6].map(|()| balancer.pick(now, rng, &hosts, |_| false).unwrap());
    /// assert_eq!(picks, [2, 1, 2, 0, 1, 2]);
    /// ```
    pub fn scheduled(candidates: Vec<C>, config: &Config, now: Timestamp) -> Self
    where
        C: Candidate,
    {
        let mut weighted = Self::new(candidates);
        match config.strategy {
            Strategy::RoundRobin if config.order == Order::Deadline && weighted.is_weighted() => {
                let deadlines = Deadlines::new(&weighted, |candidate| candidate.weight().get());
                weighted.schedule = deadlines.map(Schedule::Deadlines);
            }
            Strategy::Reported => {
                let known = |candidate: &C| {
                    candidate.reported().and_then(|of| of.weight(&config.report, now))
                };
                let known: Vec<f64> =
                    weighted.iter().map(|candidate| known(candidate).unwrap_or(0.0)).collect();
                weighted.schedule = Stride::new(&known).map(Schedule::by_reports);
                weighted.stale_at = Some(now + config.report.weight_update_period());
            }
            Strategy::RoundRobin
            | Strategy::Random
            | Strategy::LeastRequest
            | Strategy::PeakEwma => {}
        }
        weighted
    }

    /// When the schedule should be built anew, from reports that have come since; `None` if it depends on nothing that
    /// changes with time.
    pub fn stale_at(&self) -> Option<Timestamp> {
        self.stale_at
    }

    /// Turns after which the order that was written down begins anew; `None` if there is none.
    pub fn deadlines(&self) -> Option<usize> {
        match &self.schedule {
            Some(Schedule::Deadlines(deadlines)) => Some(deadlines.len()),
            Some(Schedule::Stride(_) | Schedule::Sparse(..)) | None => None,
        }
    }

    /// The weights of the reports, scaled: 65,535 is the greatest. `None` if fewer than two are known.
    pub fn reported_weights(&self) -> Option<&[u16]> {
        match &self.schedule {
            Some(Schedule::Stride(stride) | Schedule::Sparse(stride, _)) => Some(stride.weights()),
            Some(Schedule::Deadlines(_)) | None => None,
        }
    }

    /// The candidates, in their order.
    pub fn as_slice(&self) -> &[C] {
        &self.candidates
    }

    /// The candidates, for another build.
    pub fn into_candidates(self) -> Vec<C> {
        self.candidates
    }

    /// Picks of round robin after which each candidate has had exactly its share: the sum of the weights over
    /// their greatest common divisor.
    pub fn cycle(&self) -> u64 {
        self.table.as_ref().map_or(self.candidates.len() as u64, |table| table.total)
    }

    /// Whether weights differ.
    pub(super) fn is_weighted(&self) -> bool {
        self.table.is_some()
    }

    /// The weight that its share is in proportion to.
    pub(super) fn share(&self, index: usize) -> u64 {
        self.table.as_ref().map_or(1, |table| table.share(index))
    }

    /// Since when the candidate was there that was there first, as of the build.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.oldest
    }

    /// The next in the order of the schedule, or of the plain rotation. There must be candidates.
    pub(super) fn follow(&self, turn: &AtomicU64) -> usize {
        let next = || turn.fetch_add(1, Ordering::Relaxed);
        match &self.schedule {
            Some(Schedule::Deadlines(deadlines)) => deadlines.turn(next()),
            Some(Schedule::Stride(stride)) => stride.next(turn),
            Some(Schedule::Sparse(_, table)) => table.find(table.point(next())),
            None => self.rotate(next()),
        }
    }

    /// Draws an index in proportion to the weights. There must be candidates.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> usize {
        match &self.table {
            None => rng.below(self.candidates.len() as u64) as usize,
            Some(table) => table.find(rng.below(table.total)),
        }
    }

    /// The `turn`-th of a rotation that shares exactly. There must be candidates.
    pub(super) fn rotate(&self, turn: u64) -> usize {
        match &self.table {
            None => (turn % self.candidates.len() as u64) as usize,
            Some(table) => table.find(table.point(turn)),
        }
    }
}

impl Schedule {
    fn by_reports(stride: Stride) -> Self {
        let weights = || stride.weights().iter().map(|weight| u64::from(*weight));
        let table = if stride.is_sparse() { Table::new(weights) } else { None };
        match table {
            Some(table) => Self::Sparse(stride, table),
            None => Self::Stride(stride),
        }
    }
}

impl<C> Deref for Weighted<C> {
    type Target = [C];

    fn deref(&self) -> &[C] {
        &self.candidates
    }
}

impl<C: Candidate> FromIterator<C> for Weighted<C> {
    fn from_iter<I: IntoIterator<Item = C>>(candidates: I) -> Self {
        Self::new(candidates.into_iter().collect())
    }
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Where each candidate's range on the line ends.
    ends: Vec<u64>,
    /// For each part of the line, 2^`shift` long, the candidate at its begin: a shift finds the part, where parts
    /// of equal number would take a division.
    guide: Vec<u32>,
    shift: u32,
    total: u64,
    /// Coprime to `total`.
    stride: u64,
}

impl Table {
    /// `None` if all weights are equal.
    fn new<I: Iterator<Item = u64>>(weights: impl Fn() -> I) -> Option<Self> {
        let first = weights().next()?;
        if weights().all(|weight| weight == first) {
            return None;
        }
        let divisor = weights().fold(0, gcd);
        let ends: Vec<u64> = weights()
            .scan(0, |end, weight| {
                *end += weight / divisor;
                Some(*end)
            })
            .collect();
        let total = ends.last().copied()?;
        let shift = (total / ends.len() as u64).max(1).ilog2();
        let guide = (0..=(total - 1) >> shift)
            .map(|part| ends.partition_point(|&end| end <= part << shift) as u32)
            .collect();
        Some(Self { ends, guide, shift, total, stride: stride(total) })
    }

    fn share(&self, index: usize) -> u64 {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.ends[index] - start
    }

    /// The candidate at `point`, which is less than `total`.
    fn find(&self, point: u64) -> usize {
        let part = (point >> self.shift) as usize;
        let mut index = self.guide[part] as usize;
        while self.ends[index] <= point {
            index += 1;
        }
        index
    }

    /// A walk over the line by a stride that is coprime to its length visits each point once in a cycle, hence
    /// each candidate exactly as often as its share; any `total` turns in a row are a cycle. A stride near the
    /// golden section spreads the points evenly on the way (Weyl, Knuth 6.4), so the heavy
    /// candidate gets no burst, neither at the start nor later.
    fn point(&self, turn: u64) -> u64 {
        let turn = turn % self.total;
        match turn.checked_mul(self.stride) {
            Some(point) => point % self.total,
            // Only where the weights sum up to more than 2³²: such a division is slow.
            None => {
                let point = u128::from(turn) * u128::from(self.stride);
                (point % u128::from(self.total)) as u64
            }
        }
    }
}

/// A number near `total / φ`, coprime to `total`, by whose multiples the points spread most evenly.
///
/// Near is not enough: 0.6181 of 10,000 is also near 89/144, and then 144 steps come back almost to the same
/// point, time after time. How evenly the multiples of a fraction spread is told by the quotients of its continued
/// fraction: the smaller their sum, the better (Niederreiter 1977). All ones would be the golden section.
fn stride(total: u64) -> u64 {
    // 2⁶⁴ / φ
    const GOLDEN: u128 = 0x9E37_79B9_7F4A_7C15;
    // More bring next to nothing, and this is done at each change of the endpoints.
    const CANDIDATES: u64 = 64;
    let golden = ((u128::from(total) * GOLDEN) >> 64) as u64;
    let near = golden.saturating_sub(CANDIDATES).max(1)..total.min(golden + CANDIDATES);
    // Next to `total` itself there is always a coprime: `total − 1`, or 1.
    near.chain([total - 1, 1])
        .filter_map(|stride| Some((quotients_if_coprime(total, stride)?, stride)))
        .min()
        .map_or(1, |(_, stride)| stride)
}

/// The sum of the quotients of the continued fraction of `a / b`.
fn quotients_if_coprime(mut a: u64, mut b: u64) -> Option<u64> {
    let mut sum = 0;
    while b != 0 {
        sum += a / b;
        (a, b) = (b, a % b);
    }
    (a == 1).then_some(sum)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

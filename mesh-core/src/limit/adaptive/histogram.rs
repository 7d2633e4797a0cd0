use crate::{
    Ratio,
    sync::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// Latencies in microseconds, by magnitude: exact below 32 µs, then 16 buckets for each doubling, up to 71 minutes.
///
/// Not a list of samples: 5.5 KiB whatever the traffic. Not the usual counts alone either: a bucket knows the sum
/// of what it holds, so a percentile is the mean of its bucket, and samples that are all alike come out exactly.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: [AtomicU32; BUCKETS],
    sums: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
            sums: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Histogram {
    pub(super) fn add(&self, micros: u64) {
        let micros = micros.min(LARGEST);
        let place = bucket(micros);
        self.counts[place].fetch_add(1, Relaxed);
        self.sums[place].fetch_add(micros, Relaxed);
    }

    /// The latency that `share` of the samples do not exceed (the nearest rank), and an empty histogram. `None` if it
    /// is empty already. For the one who holds this histogram alone.
    pub(super) fn take(&self, share: Ratio) -> Option<u64> {
        let total: u64 = self.counts.iter().map(|count| u64::from(count.load(Relaxed))).sum();
        let rank = (total * u64::from(share.as_ppm())).div_ceil(1_000_000).clamp(1, total.max(1));
        let (mut seen, mut found) = (0, None);
        for (count, sum) in self.counts.iter().zip(&self.sums) {
            if count.load(Relaxed) == 0 {
                continue;
            }
            let (count, sum) = (u64::from(count.swap(0, Relaxed)), sum.swap(0, Relaxed));
            seen += count;
            if seen >= rank && found.is_none() {
                found = Some(sum / count);
            }
        }
        found
    }
}

const LARGEST: u64 = u32::MAX as u64;

#[cfg(not(loom))]
const BUCKETS: usize = 464;
/// A model of the protocol needs no precision, and pays for each atomic.
#[cfg(loom)]
const BUCKETS: usize = 2;

/// The bucket of `micros`, which is at most [`LARGEST`].
fn bucket(micros: u64) -> usize {
    let place = match micros.checked_ilog2() {
        Some(magnitude @ 5..) => {
            32 + (magnitude as usize - 5) * 16 + ((micros >> (magnitude - 4)) & 15) as usize
        }
        Some(_) | None => micros as usize,
    };
    place.min(BUCKETS - 1)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_buckets_cover_everything_in_order() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(31), 31);
        assert_eq!(bucket(32), 32);
        assert_eq!(bucket(LARGEST), BUCKETS - 1);
        let mut last = 0;
        for micros in (0..100_000).chain((17..32).flat_map(|bit| [(1 << bit) - 1, 1 << bit])) {
            let place = bucket(micros);
            assert!(place == last || place == last + 1 || micros > 100_000, "{micros}");
            assert!(place >= last);
            last = place;
        }
    }

    #[test]
    fn alike_samples_come_out_exactly_and_only_once() {
        let histogram = Histogram::default();
        assert_eq!(histogram.take(Ratio::from_percent(50)), None);
        for _ in 0..7 {
            histogram.add(123_457);
        }
        assert_eq!(histogram.take(Ratio::from_percent(50)), Some(123_457));
        assert_eq!(histogram.take(Ratio::from_percent(50)), None);
        histogram.add(u64::MAX);
        assert_eq!(histogram.take(Ratio::ZERO), Some(LARGEST));
    }

    proptest! {
        /// Within a bucket of the nearest rank of the sorted list: a sixteenth at most.
        #[test]
        fn a_percentile_is_that_of_the_list(
            mut list in proptest::collection::vec(0u64..10_000_000, 1..200),
            percent in 0u32..=100,
        ) {
            let histogram = Histogram::default();
            list.iter().for_each(|micros| histogram.add(*micros));
            list.sort_unstable();
            let rank = (list.len() * percent as usize).div_ceil(100).max(1);
            let (exact, got) = (list[rank - 1], histogram.take(Ratio::from_percent(percent)).unwrap());
            prop_assert!(got.abs_diff(exact) <= exact / 16, "{got} for {exact}");
            // The broken twin: the next rank is told apart where the samples differ enough.
            if let Some(next) = list.get(rank) && *next > exact + exact / 8 + 1 {
                prop_assert!(got.abs_diff(*next) > next / 16);
            }
        }
    }
}

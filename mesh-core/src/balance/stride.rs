use crate::sync::{AtomicU64, Ordering};

/// The static stride scheduler of gRPC: immutable weights, and a sequence of numbers that all picks share.
///
/// A number is a candidate (its remainder) and a generation (its quotient). A candidate of weight `w` is served in
/// `w` of 65,535 generations, and passed over in the others; which ones is decided by the number alone.
#[derive(Clone, Debug)]
pub(super) struct Stride {
    weights: Box<[u16]>,
    /// All of them are the same: nobody is ever passed over.
    is_even: bool,
}

const MAX: u16 = u16::MAX;

/// Of the weights that services report, the mean is rarely below a fifth of the greatest.
const MOST_PASSED_OVER: u64 = 15;

impl Stride {
    /// Of weights of which 0 is unknown; `None` if fewer than two are known.
    ///
    /// As grpc-go: the heaviest is scaled to 65,535, and what is unknown gets the mean of what is known. But none becomes
    /// 0, which would never be served.
    pub(super) fn new(known: &[f64]) -> Option<Self> {
        let count = known.iter().filter(|weight| **weight > 0.0).count();
        if count < 2 {
            return None;
        }
        let heaviest = known.iter().copied().fold(0.0, f64::max);
        let scale = f64::from(MAX) / heaviest;
        // The greatest numbers may sum up to more than there is: then their mean counts as the heaviest.
        let mean = (known.iter().sum::<f64>() / count as f64).min(heaviest);
        let scaled = |weight: f64| match (scale * weight).round() {
            scaled if scaled >= 1.0 => scaled as u16,
            _ => 1,
        };
        let unknown = scaled(mean);
        let weights: Box<[u16]> = known
            .iter()
            .map(|&weight| if weight > 0.0 { scaled(weight) } else { unknown })
            .collect();
        let is_even = weights.iter().all(|weight| *weight == unknown);
        Some(Self { weights, is_even })
    }

    /// Whether a pick would pass over more than [`MOST_PASSED_OVER`] on average.
    pub(super) fn is_sparse(&self) -> bool {
        let sum: u64 = self.weights.iter().map(|weight| u64::from(*weight)).sum();
        let all = u64::from(MAX) * self.weights.len() as u64;
        !self.is_even && all > sum * (MOST_PASSED_OVER + 1)
    }

    pub(super) fn weights(&self) -> &[u16] {
        &self.weights
    }

    pub(super) fn next(&self, sequence: &AtomicU64) -> usize {
        let n = self.weights.len() as u64;
        let max = u64::from(MAX);
        loop {
            let number = sequence.fetch_add(1, Ordering::Relaxed);
            let index = number % n;
            if self.is_even {
                return index as usize;
            }
            // The generation repeats after 65,535; its remainder keeps the product in range.
            let generation = number / n % max;
            let weight = u64::from(self.weights[index as usize]);
            // Half a turn between neighbours, so that two of the same weight are not passed over together.
            if (weight * generation + index * (max / 2)) % max >= max - weight {
                return index as usize;
            }
        }
    }
}

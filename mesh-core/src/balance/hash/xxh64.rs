use std::fmt;

/// XXH64 of `bytes` (Collet, <https://github.com/Cyan4973/xxHash>): the hash of Envoy's tables and of its request keys.
///
/// Not for secrets: who knows the seed can choose keys that collide.
///
/// ```
/// use mesh_core::balance::hash::xxhash64;
///
/// assert_eq!(xxhash64(b"abc", 0), 4_952_883_123_889_572_249);
/// assert_ne!(xxhash64(b"abc", 0), xxhash64(b"abc", 1));
/// ```
pub fn xxhash64(bytes: &[u8], seed: u64) -> u64 {
    let mut hasher = XxHash64::new(seed);
    hasher.write(bytes);
    hasher.finish()
}

/// [`xxhash64`] of several parts, without a buffer to join them in.
///
/// It is [`fmt::Write`] too, so that an address can be hashed as its text.
///
/// ```
/// use mesh_core::balance::hash::{XxHash64, xxhash64};
/// use std::{fmt::Write, net::Ipv4Addr};
///
/// let mut hasher = XxHash64::new(0);
/// hasher.write(b"127.0.0.1:90");
/// hasher.write(b"_0");
/// assert_eq!(hasher.finish(), xxhash64(b"127.0.0.1:90_0", 0));
///
/// let mut hasher = XxHash64::new(0);
/// write!(hasher, "{}", Ipv4Addr::LOCALHOST).unwrap();
/// assert_eq!(hasher.finish(), xxhash64(b"127.0.0.1", 0));
/// ```
#[derive(Clone, Debug)]
pub struct XxHash64 {
    seed: u64,
    lanes: [u64; 4],
    /// What does not fill a stripe yet: the first `length % STRIPE` bytes.
    rest: [u8; STRIPE],
    length: u64,
}

impl XxHash64 {
    /// Of nothing yet.
    pub const fn new(seed: u64) -> Self {
        let lanes = [
            seed.wrapping_add(P1).wrapping_add(P2),
            seed.wrapping_add(P2),
            seed,
            seed.wrapping_sub(P1),
        ];
        Self { seed, lanes, rest: [0; STRIPE], length: 0 }
    }

    /// Adds `bytes` at the end.
    pub fn write(&mut self, mut bytes: &[u8]) {
        let held = self.held();
        self.length += bytes.len() as u64;
        if held > 0 {
            let (fill, after) = bytes.split_at(bytes.len().min(STRIPE - held));
            self.rest[held..held + fill.len()].copy_from_slice(fill);
            if held + fill.len() < STRIPE {
                return;
            }
            let stripe = self.rest;
            self.consume(&stripe);
            bytes = after;
        }
        let (stripes, rest) = bytes.as_chunks::<STRIPE>();
        for stripe in stripes {
            self.consume(stripe);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// The hash of all that was written.
    pub fn finish(&self) -> u64 {
        let mut hash = if self.length < STRIPE as u64 {
            self.seed.wrapping_add(P5)
        } else {
            let [a, b, c, d] = self.lanes;
            let sum = a
                .rotate_left(1)
                .wrapping_add(b.rotate_left(7))
                .wrapping_add(c.rotate_left(12))
                .wrapping_add(d.rotate_left(18));
            self.lanes
                .iter()
                .fold(sum, |hash, &lane| (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4))
        };
        hash = hash.wrapping_add(self.length);
        let (words, rest) = self.rest[..self.held()].as_chunks::<8>();
        for word in words {
            hash ^= round(0, u64::from_le_bytes(*word));
            hash = hash.rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        }
        let (halves, rest) = rest.as_chunks::<4>();
        for half in halves {
            hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(P1);
            hash = hash.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        }
        for byte in rest {
            hash ^= u64::from(*byte).wrapping_mul(P5);
            hash = hash.rotate_left(11).wrapping_mul(P1);
        }
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(P2);
        hash ^= hash >> 29;
        hash = hash.wrapping_mul(P3);
        hash ^ (hash >> 32)
    }

    fn held(&self) -> usize {
        (self.length % STRIPE as u64) as usize
    }

    fn consume(&mut self, stripe: &[u8; STRIPE]) {
        let (words, _) = stripe.as_chunks::<8>();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }
}

impl fmt::Write for XxHash64 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

const fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

/// Four lanes of eight bytes.
const STRIPE: usize = 32;

// The primes of the specification.
const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::{Rng, SplitMix64};

    /// The first bytes of the buffer with which the reference implementation checks itself.
    fn buffer() -> Vec<u8> {
        let squares = std::iter::successors(Some(PRIME), |state| Some(state.wrapping_mul(*state)));
        squares.map(|state| (state >> 24) as u8).take(101).collect()
    }

    const PRIME: u32 = 2_654_435_761;

    #[test]
    fn the_reference_values_hold() {
        for (length, unseeded, seeded) in [
            (0, 0xEF46_DB37_51D8_E999, 0xAC75_FDA2_929B_17EF),
            (1, 0x4FCE_394C_C889_52D8, 0x7398_40CB_819F_A723),
            (14, 0xCFFA_8DB8_81BC_3A3D, 0x5B96_1158_5EFC_C9CB),
            (101, 0x0EAB_5433_84F8_78AD, 0xCAA6_5939_306F_1E21),
        ] {
            let bytes = &buffer()[..length];
            assert_eq!(xxhash64(bytes, 0), unseeded, "{length} bytes");
            assert_eq!(xxhash64(bytes, PRIME.into()), seeded, "{length} bytes, seeded");
        }
    }

    #[test]
    fn parts_hash_as_the_whole() {
        let mut rng = SplitMix64::new(64);
        let bytes: Vec<u8> = (0..300).map(|_| rng.below(256) as u8).collect();
        for length in 0..bytes.len() {
            let (whole, mut rest) = (&bytes[..length], &bytes[..length]);
            let mut hasher = XxHash64::new(7);
            while !rest.is_empty() {
                let (part, after) = rest.split_at(1 + rng.below(rest.len() as u64) as usize);
                hasher.write(part);
                hasher.write(b"");
                rest = after;
            }
            assert_eq!(hasher.finish(), xxhash64(whole, 7), "{length} bytes");
        }
    }
}

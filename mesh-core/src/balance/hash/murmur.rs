/// MurmurHash2 for 64 bits (Appleby; the variant that libstdc++ hashes strings with), with the seed that Envoy
/// takes for `MURMUR_HASH_2`.
pub(super) fn murmur2(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MUL);
    for word in words {
        let word = shift_mix(u64::from_le_bytes(*word).wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    shift_mix(shift_mix(hash).wrapping_mul(MUL))
}

const fn shift_mix(hash: u64) -> u64 {
    hash ^ (hash >> 47)
}

const SEED: u64 = 0xC70F_6907;
const MUL: u64 = 0xC6A4_A793_5BD1_E995;

use super::{Function, murmur::murmur2, weights::Placed, xxh64::xxhash64};

/// Entries of all endpoints, sorted by their hashes (Ketama; Envoy `ring_hash_lb.cc`).
#[derive(Clone, Debug)]
pub(super) struct Ring {
    hashes: Vec<u64>,
    hosts: Vec<u32>,
    /// For the leading bits of a hash, the first entry with these bits or later ones. Hashes are spread evenly, so
    /// about one entry lies between two of these, however many there are.
    guide: Vec<u32>,
    shift: u32,
}

impl Ring {
    /// ```text
    /// scale = min(ceil(least share × min) / least share, max)
    /// for each endpoint: target += scale × share; while placed < target: hash("key_i") for i = 0, 1, ...
    /// ```
    ///
    /// So the lightest endpoint gets a whole number of entries, and equal ones get equally many. Equal hashes, which
    /// come from equal keys, stay in the order of the endpoints.
    pub(super) fn new(placed: &[Placed<'_>], min: u32, max: u32, function: Function) -> Self {
        let least = placed.iter().map(|host| host.share).fold(1.0, f64::min);
        let scale = ((least * f64::from(min)).ceil() / least).min(f64::from(max));
        let mut entries =
            Vec::with_capacity(if placed.is_empty() { 0 } else { scale as usize + 1 });
        let (mut count, mut target) = (0.0, 0.0);
        let mut key = Vec::new();
        for host in placed {
            key.clear();
            key.extend_from_slice(host.key.as_bytes());
            key.push(b'_');
            let prefix = key.len();
            target += scale * host.share;
            let mut i = 0u32;
            while count < target {
                key.truncate(prefix);
                push_decimal(&mut key, i);
                let hash = match function {
                    Function::XxHash64 => xxhash64(&key, 0),
                    Function::Murmur2 => murmur2(&key),
                };
                entries.push((hash, host.index));
                count += 1.0;
                i += 1;
            }
        }
        entries.sort_unstable();
        Self::of(&entries)
    }

    fn of(entries: &[(u64, u32)]) -> Self {
        let bits = entries.len().max(2).next_power_of_two().ilog2();
        let shift = u64::BITS - bits;
        let mut guide = Vec::with_capacity((1 << bits) + 1);
        for (position, (hash, _)) in entries.iter().enumerate() {
            while guide.len() as u64 <= hash >> shift {
                guide.push(position as u32);
            }
        }
        guide.resize((1 << bits) + 1, entries.len() as u32);
        Self {
            hashes: entries.iter().map(|(hash, _)| *hash).collect(),
            hosts: entries.iter().map(|(_, host)| *host).collect(),
            guide,
            shift,
        }
    }

    /// The first entry at `hash` or after it, round the end.
    pub(super) fn position(&self, hash: u64) -> usize {
        let part = (hash >> self.shift) as usize;
        let (from, to) = (self.guide[part] as usize, self.guide[part + 1] as usize);
        let found = from + self.hashes[from..to].partition_point(|&entry| entry < hash);
        if found < self.hashes.len() { found } else { 0 }
    }

    pub(super) fn hosts(&self) -> &[u32] {
        &self.hosts
    }

    pub(super) fn hashes(&self) -> &[u64] {
        &self.hashes
    }
}

fn push_decimal(text: &mut Vec<u8>, mut number: u32) {
    let start = text.len();
    loop {
        text.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text[start..].reverse();
}

use super::{
    Config, Host,
    bounded::{Bound, Probes},
    config::Shape,
    maglev,
    ring::Ring,
    weights::{self, Placed},
    xxh64::xxhash64,
};
use crate::{SplitMix64, Timestamp, balance::Candidate};

/// Which endpoint a key belongs to: built once for each change of the endpoints, read by every pick.
///
/// It refers to the endpoints by their position in the list that it was built from, so the two belong into one
/// snapshot. An endpoint that is removed, or ejected, before the next table is there is just not available: see
/// [`Table::pick`].
///
/// # Cost
///
/// | | ring of R entries | Maglev with M slots |
/// | --- | --- | --- |
/// | pick | a step or two, whatever R | one, whatever M |
/// | pick where a part f of the endpoints is not available | 1 / (1 − f) steps | the same |
/// | build | R hashes, and a sort of them | 2 n hashes, about M ln M steps over the table |
/// | memory | up to 20 bytes × R, and 20 × n | 4 bytes × M, and 20 × n |
///
/// A build belongs off the way of requests; [`Rebuild`](super::Rebuild) makes one of a burst of updates.
#[derive(Clone, Debug)]
pub struct Table {
    slots: Slots,
    balance_factor: Option<u32>,
    /// The positions with a share, in their order: the list that Envoy shuffles.
    placed: Vec<u32>,
    /// For each position its share; 0 where it has none.
    shares: Vec<f64>,
    /// For each position the hash of its key.
    keys: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Slots {
    Ring(Ring),
    Maglev(Vec<u32>),
}

impl Table {
    /// Builds the table of `hosts`.
    ///
    /// *Bad lists* have defined tables. No endpoint: no key belongs to anybody. Two of the same key: on a ring they
    /// share their places, and the first gets the keys; Maglev lets them share. More endpoints than entries or slots:
    /// some get no key ([`Table::min_entries`] is 0), and are used only when the others are not available.
    pub fn new(config: &Config, hosts: &[Host<'_>]) -> Self {
        Self::by_locality(config, &[(1, hosts)])
    }

    /// The same where localities have weights (Envoy `locality_weighted_lb_config`): first they share, then their
    /// endpoints among themselves. Positions count through. A locality of weight 0 gets no key.
    ///
    /// ```
    /// use mesh_core::{Weight, balance::hash::{Config, Host, Table}};
    ///
    /// let host = |key| Host::new(key, Weight::ONE);
    /// let (near, far) = ([host("10.0.0.1:80")], [host("10.1.0.1:80"), host("10.1.0.2:80")]);
    /// let table = Table::by_locality(&Config::maglev(), &[(9, &near), (1, &far)]);
    /// assert_eq!(table.entries(0), 58_983, "nine tenths of 65,537");
    /// assert_eq!(table.entries(1) + table.entries(2), 6_554);
    /// ```
    pub fn by_locality(config: &Config, localities: &[(u32, &[Host<'_>])]) -> Self {
        let hosts = || localities.iter().flat_map(|(_, hosts)| hosts.iter());
        let keys: Vec<u64> = hosts().map(|host| xxhash64(host.key().as_bytes(), 0)).collect();
        let placed = weights::shares(localities);
        let mut shares = vec![0.0; keys.len()];
        for &Placed { index, share, .. } in &placed {
            shares[index as usize] = share;
        }
        let slots = match config.shape {
            Shape::Ring { min, max, function } => {
                Slots::Ring(Ring::new(&placed, min, max, function))
            }
            Shape::Maglev { size } => Slots::Maglev(maglev::fill(&placed, size)),
        };
        Self {
            slots,
            balance_factor: config.balance_factor,
            placed: placed.iter().map(|host| host.index).collect(),
            shares,
            keys,
        }
    }

    /// Whom the key `hash` belongs to, whatever its state; `None` if there is nobody. For `attempt` 0 it is the
    /// endpoint itself; further attempts are those of Envoy's retry host predicates, which may name the same
    /// endpoint again:
    ///
    /// | | attempt n |
    /// | --- | --- |
    /// | ring | n entries further on |
    /// | Maglev | the slot of `hash ^ (2⁶⁴ − n)` |
    ///
    /// [`Table::pick`] is what requests ask.
    pub fn owner(&self, hash: u64, attempt: u32) -> Option<usize> {
        let slots = self.slots.hosts();
        let attempt = u64::from(attempt);
        let slot = match &self.slots {
            Slots::Ring(_) => self.slots.position(hash)? as u64 + attempt,
            // 0 − 0 leaves the hash as it is.
            Slots::Maglev(_) => hash ^ 0u64.wrapping_sub(attempt),
        };
        let len = slots.len() as u64;
        slot.checked_rem(len).map(|slot| slots[slot as usize] as usize)
    }

    /// The position of the candidate that gets a request of the key `hash`; `None` if none is available.
    ///
    /// `candidates` are those that the table was built from, in the same order. `in_flight` is asked only with a
    /// balance factor: the requests in flight over all candidates, from a counter beside them. `avoid` is a wish, as in
    /// [`Balancer::pick`](crate::balance::Balancer::pick). (Istio drops it with `consistentHash`, so that a
    /// retry meets the same endpoint again: pass `|_| false`.)
    ///
    /// 1. The owner, or going on from its place the next who is available and not to be avoided. On a ring that is
    ///    the owner as if those before it did not exist. After 64 places, of all these the one with the least
    ///    `−ln(u) / share`, `u` from the key and the endpoint (weighted rendezvous): O(n), the same for the same key.
    /// 2. With a balance factor, and if that one is full: the first that is not, in an order that the key gives;
    ///    of 64 full ones the least full.
    /// 3. If there is nobody but those to avoid, the same among them.
    pub fn pick<C: Candidate>(
        &self,
        now: Timestamp,
        hash: u64,
        candidates: &[C],
        in_flight: impl FnOnce() -> u64,
        avoid: impl Fn(&C) -> bool,
    ) -> Option<usize> {
        self.pick_by(now, hash, |index| candidates.get(index), in_flight, avoid)
    }

    /// [`Table::pick`] where the candidates do not stand in the order of the table any more: `candidate` finds the one of a
    /// position, as long as it is there. Who is gone is stepped over, as who is not available.
    ///
    /// ```
    /// use mesh_core::{Timestamp, Weight};
    /// use mesh_core::balance::{Candidate, Load, hash::{Config, Host, Table}};
    ///
    /// #[derive(Default)]
    /// struct Cache(Load);
    ///
    /// impl Candidate for Cache {
    ///     fn load(&self) -> &Load { &self.0 }
    ///     fn weight(&self) -> Weight { Weight::ONE }
    ///     fn is_available(&self, _now: Timestamp) -> bool { true }
    /// }
    ///
    /// let hosts = ["10.0.0.1:80", "10.0.0.2:80"].map(|key| Host::new(key, Weight::ONE));
    /// let table = Table::new(&Config::maglev(), &hosts);
    /// // The first is gone, and the next table is not built yet.
    /// let left = Cache::default();
    /// let find = |position: usize| (position == 1).then_some(&left);
    /// for key in 0..10 {
    ///     assert_eq!(table.pick_by(Timestamp::ZERO, key, find, || 0, |_| false), Some(1));
    /// }
    /// ```
    pub fn pick_by<'a, C: Candidate + 'a>(
        &self,
        now: Timestamp,
        hash: u64,
        candidate: impl Fn(usize) -> Option<&'a C>,
        in_flight: impl FnOnce() -> u64,
        avoid: impl Fn(&C) -> bool,
    ) -> Option<usize> {
        let available = |index: usize| candidate(index).filter(|found| found.is_available(now));
        let is_available = |index: usize| available(index).is_some();
        let is_wanted = |index: usize| available(index).is_some_and(|found| !avoid(found));
        let Some(first) = self.walk(hash, is_wanted) else {
            return self.walk(hash, is_available);
        };
        let Some(factor) = self.balance_factor else { return Some(first) };
        let bound = Bound::new(in_flight(), factor);
        let fullness = |index: usize| {
            let active = candidate(index).map_or(0, |found| found.load().active());
            bound.fullness(active, self.shares[index])
        };
        Some(self.with_room(hash, first, fullness, is_wanted))
    }

    /// How many entries or slots the endpoint at `index` has; O(size of the table).
    pub fn entries(&self, index: usize) -> usize {
        self.slots.hosts().iter().filter(|&&host| host as usize == index).count()
    }

    /// The fewest entries of an endpoint with a share (Envoy `min_hashes_per_host`, `min_entries_per_host`), O(size of
    /// the table). At 0 some get no key: the table is too small.
    pub fn min_entries(&self) -> usize {
        let counts = self.counts();
        self.placed.iter().map(|&index| counts[index as usize]).min().unwrap_or(0)
    }

    /// The most entries of an endpoint (Envoy `max_hashes_per_host`, `max_entries_per_host`).
    pub fn max_entries(&self) -> usize {
        self.counts().into_iter().max().unwrap_or(0)
    }

    /// All entries of the ring, or all slots. 0 if nobody has a share.
    pub fn len(&self) -> usize {
        self.slots.hosts().len()
    }

    /// Whether no key belongs to anybody.
    pub fn is_empty(&self) -> bool {
        self.slots.hosts().is_empty()
    }

    /// The position of the owner of each entry or slot, in order.
    pub fn owners(&self) -> impl ExactSizeIterator<Item = usize> {
        self.slots.hosts().iter().map(|&host| host as usize)
    }

    /// Where the entries of the ring lie, in order; nothing for Maglev.
    pub fn hashes(&self) -> &[u64] {
        match &self.slots {
            Slots::Ring(ring) => ring.hashes(),
            Slots::Maglev(_) => &[],
        }
    }

    fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.shares.len()];
        for owner in self.owners() {
            counts[owner] += 1;
        }
        counts
    }

    fn walk(&self, hash: u64, accepts: impl Fn(usize) -> bool) -> Option<usize> {
        let hosts = self.slots.hosts();
        let mut slot = self.slots.position(hash).unwrap_or(0);
        for _ in 0..hosts.len().min(STEPS) {
            let index = hosts[slot] as usize;
            if accepts(index) {
                return Some(index);
            }
            slot = if slot + 1 < hosts.len() { slot + 1 } else { 0 };
        }
        self.rendezvous(hash, accepts)
    }

    /// Who is nobody's substitute on 64 places in a row is rare, or the table is small.
    fn rendezvous(&self, hash: u64, accepts: impl Fn(usize) -> bool) -> Option<usize> {
        let cost = |index: usize| {
            let bits = SplitMix64::mix(hash ^ self.keys[index]) >> 11;
            let u = (bits + 1) as f64 / (1u64 << 53) as f64;
            -u.ln() / self.shares[index]
        };
        let accepted = (0..self.keys.len()).filter(|&index| self.shares[index] > 0.0);
        let best = accepted
            .filter(|&index| accepts(index))
            .map(|index| (cost(index), index))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        best.map(|(_, index)| index)
    }

    fn with_room(
        &self,
        hash: u64,
        first: usize,
        fullness: impl Fn(usize) -> f64,
        accepts: impl Fn(usize) -> bool,
    ) -> usize {
        let mut least = (fullness(first), first);
        if least.0 <= 1.0 {
            return first;
        }
        for probe in Probes::new(hash, self.placed.len()) {
            let index = self.placed[probe] as usize;
            if index == first || !accepts(index) {
                continue;
            }
            let full = fullness(index);
            if full <= 1.0 {
                return index;
            }
            if full < least.0 {
                least = (full, index);
            }
        }
        least.1
    }
}

/// With half of the endpoints down, one pick in 2⁶⁴ gets that far; with nine of ten, one in a thousand.
const STEPS: usize = 64;

impl Slots {
    fn hosts(&self) -> &[u32] {
        match self {
            Self::Ring(ring) => ring.hosts(),
            Self::Maglev(hosts) => hosts,
        }
    }

    /// Where the owner of `hash` is; `None` if there is nobody.
    fn position(&self, hash: u64) -> Option<usize> {
        match self {
            Self::Ring(ring) => (!ring.hosts().is_empty()).then(|| ring.position(hash)),
            Self::Maglev(hosts) => hash.checked_rem(hosts.len() as u64).map(|slot| slot as usize),
        }
    }
}

use crate::InvalidConfig;

/// The hash that places endpoints on a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a caller that maps a configuration decides on each")]
pub enum Function {
    /// Envoy `XX_HASH`, the default.
    #[default]
    XxHash64,
    /// Envoy `MURMUR_HASH_2`: for tables that must agree with an old fleet.
    Murmur2,
}

/// The shape of a [`Table`](super::Table).
///
/// The default is [`Config::ring`], as Istio takes it for `consistentHash` where nothing else is said. For more than
/// some tens of endpoints [`Config::maglev`] spreads the keys more evenly: see the [table](super#which-table).
///
/// ```
/// use mesh_core::balance::hash::Config;
///
/// let config = Config::maglev().with_balance_factor(125)?;
/// assert_eq!(config.table_size(), Some(65_537));
///
/// let error = Config::maglev().with_table_size(65_536).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "table_size: 65536 (the next prime is 65537) is not allowed, expected a prime of at most 5000011",
/// );
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    pub(super) shape: Shape,
    /// In per cent.
    pub(super) balance_factor: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    Ring { min: u32, max: u32, function: Function },
    Maglev { size: u32 },
}

impl Config {
    /// The largest ring: 8,388,608 entries (Envoy). With an endpoint of weight 1 beside one of 2³²−1 a ring gets that
    /// large, and takes 134 MB and seconds to build, unless [`Config::with_ring_size`] says less.
    pub const MAX_RING_SIZE: u32 = 8_388_608;

    /// The largest table of Maglev: 5,000,011 slots (Envoy). They take 20 MB.
    pub const MAX_TABLE_SIZE: u32 = 5_000_011;

    /// A ring of at least 1,024 entries (Envoy `minimum_ring_size`, Istio `ringHash.minimumRingSize`), placed by
    /// XXH64.
    pub const fn ring() -> Self {
        let shape =
            Shape::Ring { min: 1_024, max: Self::MAX_RING_SIZE, function: Function::XxHash64 };
        Self { shape, balance_factor: None }
    }

    /// A table of Maglev with 65,537 slots (Envoy `table_size`, Istio `maglev.tableSize`).
    pub const fn maglev() -> Self {
        Self { shape: Shape::Maglev { size: 65_537 }, balance_factor: None }
    }

    /// A ring of at least `min` entries, and of at most `max` if the weights would make it larger. gRPC caps both at
    /// 4,096 (A42). [`Function`] stays; a Maglev table becomes a ring.
    ///
    /// The entries are shared out by weight. An endpoint for which none is left gets no key: see
    /// [`Table::min_entries`](super::Table::min_entries).
    ///
    /// # Errors
    ///
    /// If `min` is 0 or above `max`, or `max` above [`Config::MAX_RING_SIZE`].
    pub fn with_ring_size(mut self, min: u32, max: u32) -> Result<Self, InvalidConfig> {
        if !(1..=Self::MAX_RING_SIZE).contains(&max) {
            return Err(InvalidConfig::new("maximum_ring_size", max, "1 to 8388608"));
        }
        if !(1..=max).contains(&min) {
            return Err(InvalidConfig::new("minimum_ring_size", min, "1 to maximum_ring_size"));
        }
        self.shape = Shape::Ring { min, max, function: self.function() };
        Ok(self)
    }

    /// The hash that places endpoints on the ring. A table of Maglev has no choice: XXH64, as in Envoy.
    #[must_use]
    pub const fn with_function(mut self, to: Function) -> Self {
        if let Shape::Ring { function, .. } = &mut self.shape {
            *function = to;
        }
        self
    }

    /// A table of Maglev with so many slots. The paper and Envoy advise at least a hundred for each endpoint.
    ///
    /// # Errors
    ///
    /// If the size is not a prime, or above [`Config::MAX_TABLE_SIZE`]. With any other the steps of an endpoint over
    /// the table would come back before they have seen all of it. The error names the next prime.
    pub fn with_table_size(mut self, size: u32) -> Result<Self, InvalidConfig> {
        const EXPECTED: &str = "a prime of at most 5000011";
        if size > Self::MAX_TABLE_SIZE {
            return Err(InvalidConfig::new("table_size", size, EXPECTED));
        }
        if !is_prime(size) {
            // There is one: the bound is a prime itself.
            let next = (size..=Self::MAX_TABLE_SIZE).find(|&next| is_prime(next));
            let next = next.unwrap_or(Self::MAX_TABLE_SIZE);
            let value = format!("{size} (the next prime is {next})");
            return Err(InvalidConfig::new("table_size", value, EXPECTED));
        }
        self.shape = Shape::Maglev { size };
        Ok(self)
    }

    /// Bounded load (Envoy `hash_balance_factor`): an endpoint that carries more than `percent` per cent of its share of
    /// the requests in flight is passed over. Off by default; 120 to 200 is usual. The lower, the more keys move away
    /// from their endpoint, and the more endpoints are looked at.
    ///
    /// # Errors
    ///
    /// Below 100: then not even all endpoints together could carry all requests.
    pub fn with_balance_factor(mut self, percent: u32) -> Result<Self, InvalidConfig> {
        if percent < 100 {
            return Err(InvalidConfig::new("hash_balance_factor", percent, "at least 100"));
        }
        self.balance_factor = Some(percent);
        Ok(self)
    }

    /// The same without bounded load.
    #[must_use]
    pub const fn without_balance_factor(mut self) -> Self {
        self.balance_factor = None;
        self
    }

    /// See [`Config::with_balance_factor`].
    pub const fn balance_factor(&self) -> Option<u32> {
        self.balance_factor
    }

    /// The smallest and the largest size of a ring; `None` for Maglev.
    pub const fn ring_size(&self) -> Option<(u32, u32)> {
        match self.shape {
            Shape::Ring { min, max, .. } => Some((min, max)),
            Shape::Maglev { .. } => None,
        }
    }

    /// The slots of a Maglev table; `None` for a ring.
    pub const fn table_size(&self) -> Option<u32> {
        match self.shape {
            Shape::Ring { .. } => None,
            Shape::Maglev { size } => Some(size),
        }
    }

    /// The hash that places endpoints.
    pub const fn function(&self) -> Function {
        match self.shape {
            Shape::Ring { function, .. } => function,
            Shape::Maglev { .. } => Function::XxHash64,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::ring()
    }
}

/// By trial division: at most 2,236 steps, once for each configuration.
fn is_prime(n: u32) -> bool {
    n >= 2 && (2u32..).take_while(|divisor| divisor * divisor <= n).all(|d| !n.is_multiple_of(d))
}

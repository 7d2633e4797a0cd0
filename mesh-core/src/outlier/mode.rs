//! The part of a configuration that every outcome needs, read by one load.

use super::Config;

/// What each outcome needs of the configuration, in one word: `[flags: 32][threshold of the local-origin run: 32]`.
#[derive(Clone, Copy)]
pub(super) struct Mode(pub(super) u64);

impl Mode {
    pub(super) const SPLITS: u64 = 1 << 32;
    /// Hosts are compared.
    pub(super) const COUNTS: u64 = 1 << 33;
    pub(super) const BLAMES_FOR_THROTTLING: u64 = 1 << 34;

    pub(super) fn of(config: &Config) -> Self {
        let flags = [
            (config.split_local_origin(), Self::SPLITS),
            (config.compares_hosts(), Self::COUNTS),
            (config.rules().blames_for_throttling(), Self::BLAMES_FOR_THROTTLING),
        ];
        let threshold = u64::from(config.consecutive_local_origin());
        Self(flags.iter().filter(|(is_set, _)| *is_set).fold(threshold, |bits, flag| bits | flag.1))
    }

    #[inline]
    pub(super) fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    #[inline]
    pub(super) fn splits(self) -> bool {
        self.has(Self::SPLITS)
    }

    pub(super) fn local_threshold(self) -> u32 {
        self.0 as u32
    }
}

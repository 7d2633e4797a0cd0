use crate::sync::{AtomicU64, Ordering};

/// gRPC's throttle (gRFC A6) in one word, so that no count can meet the bounds of another configuration:
/// `[ratio: 20][max: 20][tokens: 20]`, all in thousandths of a token. 1,000 tokens, the most allowed, fit 20 bits.
#[derive(Debug)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// A full bucket.
    pub(super) fn new(max: u32, ratio: u32) -> Self {
        Self(AtomicU64::new(Word::new(u64::from(max), u64::from(ratio), u64::from(max)).0))
    }

    /// Keeps the share of the tokens that is left, as gRPC's C core does when a service config changes.
    pub(super) fn reconfigure(&self, max: u32, ratio: u32) {
        let (max, ratio) = (u64::from(max), u64::from(ratio));
        self.update(|word| Word::new(max, ratio, word.tokens() * max / word.max().max(1)));
    }

    pub(super) fn restart(&self, max: u32, ratio: u32) {
        let (max, ratio) = (u64::from(max), u64::from(ratio));
        self.update(|_| Word::new(max, ratio, max));
    }

    pub(super) fn on_success(&self) {
        self.update(|word| word.with_tokens((word.tokens() + word.ratio()).min(word.max())));
    }

    pub(super) fn on_failure(&self) {
        self.update(|word| word.with_tokens(word.tokens().saturating_sub(TOKEN)));
    }

    /// Whether retries are granted: more than half is left.
    pub(super) fn is_open(&self) -> bool {
        let word = self.load();
        2 * word.tokens() > word.max()
    }

    /// In thousandths.
    pub(super) fn tokens(&self) -> u64 {
        self.load().tokens()
    }

    fn load(&self) -> Word {
        Word(self.0.load(Ordering::Relaxed))
    }

    /// A full bucket stays untouched when it is filled, an empty one when it is drained: no write for nothing.
    fn update(&self, change: impl Fn(Word) -> Word) {
        let step = |word| Some(change(Word(word)).0).filter(|new| *new != word);
        let _unchanged = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }
}

/// One token.
const TOKEN: u64 = 1_000;

#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    const BITS: u32 = 20;
    const MASK: u64 = (1 << Self::BITS) - 1;

    fn new(max: u64, ratio: u64, tokens: u64) -> Self {
        // A larger ratio fills the bucket all the same.
        let ratio = ratio.min(max);
        Self(ratio << (2 * Self::BITS) | max << Self::BITS | tokens)
    }

    fn with_tokens(self, tokens: u64) -> Self {
        Self(self.0 & !Self::MASK | tokens)
    }

    fn tokens(self) -> u64 {
        self.0 & Self::MASK
    }

    fn max(self) -> u64 {
        self.0 >> Self::BITS & Self::MASK
    }

    fn ratio(self) -> u64 {
        self.0 >> (2 * Self::BITS) & Self::MASK
    }
}

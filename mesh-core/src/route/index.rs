use std::{cmp::Ordering, slice::SliceIndex};

use super::path::Key;

/// Which entries of a table may match a path: those whose path begins so. Letters of ASCII are compared in lower case, so
/// that entries which ignore case are found too.
///
/// The entries under one key stand in the table's order.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    exact: Keys,
    prefixes: Keys,
    /// The lengths of the prefixes, each once, the longest first.
    lengths: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Keys {
    /// In order; with where its entries end in `entries`.
    keys: Vec<(Box<[u8]>, usize)>,
    entries: Vec<u32>,
}

impl Index {
    /// O(n log n) in the number of entries.
    pub(super) fn new<'a>(entries: impl Iterator<Item = Key<'a>>) -> Self {
        let (mut exact, mut prefixes) = (Vec::new(), Vec::new());
        for (entry, key) in (0u32..).zip(entries) {
            match key {
                Key::Exact(path) => exact.push((path.to_ascii_lowercase(), entry)),
                Key::Prefix(path) => prefixes.push((path.to_ascii_lowercase(), entry)),
            }
        }
        let mut lengths: Vec<_> = prefixes.iter().map(|(path, _)| path.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { exact: Keys::new(exact), prefixes: Keys::new(prefixes), lengths }
    }

    /// The entries that may match, as lists in the order of the table.
    pub(super) fn candidates<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a [u32]> {
        let path = Folded::new(path.as_bytes());
        let prefixes = self.lengths.iter().filter_map(move |length| path.part(..*length));
        let prefixed = prefixes.map(|prefix| self.prefixes.get(prefix));
        std::iter::once(self.exact.get(path)).chain(prefixed)
    }
}

impl Keys {
    fn new(mut pairs: Vec<(String, u32)>) -> Self {
        pairs.sort_unstable();
        let mut this = Self::default();
        for (key, entry) in pairs {
            this.entries.push(entry);
            let end = this.entries.len();
            match this.keys.last_mut() {
                Some((last, until)) if **last == *key.as_bytes() => *until = end,
                _ => this.keys.push((key.into_bytes().into(), end)),
            }
        }
        this
    }

    fn get(&self, path: Folded<'_>) -> &[u32] {
        let Ok(at) = self.keys.binary_search_by(|(key, _)| path.compare(key)) else {
            return &[];
        };
        let start = at.checked_sub(1).map_or(0, |before| self.keys[before].1);
        &self.entries[start..self.keys[at].1]
    }
}

/// A text that is compared as if its letters of ASCII were in lower case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded<'a> {
    text: &'a [u8],
    /// Most are: then it is compared as it stands, and not letter by letter.
    is_lower: bool,
}

impl<'a> Folded<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, is_lower: !text.iter().any(u8::is_ascii_uppercase) }
    }

    pub(super) fn part(self, range: impl SliceIndex<[u8], Output = [u8]>) -> Option<Self> {
        Some(Self { text: self.text.get(range)?, ..self })
    }

    pub(super) fn len(self) -> usize {
        self.text.len()
    }

    /// The order of `lower`, which is in lower case, and this.
    pub(super) fn compare(self, lower: &[u8]) -> Ordering {
        match self.is_lower {
            true => lower.cmp(self.text),
            false => lower.iter().copied().cmp(self.text.iter().map(u8::to_ascii_lowercase)),
        }
    }
}

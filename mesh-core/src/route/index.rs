use std::{cmp::Ordering, collections::BTreeMap, slice::SliceIndex};

use super::{head::Head, path::Key};

/// Which entries of a table may match a request: those whose path begins so. Letters of ASCII are compared in lower case, so
/// that entries which ignore case are found too. Of many under one path those are left out that want another value of a
/// header or parameter.
///
/// The entries of one list stand in the table's order.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    exact: Keys,
    prefixes: Keys,
    /// The lengths of the prefixes, each once, the longest first.
    lengths: Vec<usize>,
}

/// What an entry can be found by: its path, and a header or parameter that must have one value.
pub(super) type Found<'a> = (Key<'a>, Wanted<'a>);

/// The value that a part of a request must have.
type Wanted<'a> = Option<(Facet<'a>, &'a str)>;

/// A part of a request besides its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Facet<'a> {
    /// By its name in lower case.
    Header(&'a str),
    Param(&'a str),
}

/// So many are asked one by one sooner than looked up.
const FEW: usize = 8;

#[derive(Clone, Debug, Default)]
struct Keys {
    /// In order; with where its entries end in `entries`.
    keys: Vec<(Box<[u8]>, usize)>,
    entries: Vec<u32>,
    /// The other entries of keys that have many, by the number of the key.
    faceted: BTreeMap<usize, Vec<Values>>,
}

/// Entries that want a value each of one header or parameter.
#[derive(Clone, Debug)]
struct Values {
    is_header: bool,
    name: Box<str>,
    /// In order; with where its entries end in `entries`.
    values: Vec<(Box<[u8]>, usize)>,
    entries: Vec<u32>,
}

impl Index {
    /// O(n log n) in the number of entries.
    pub(super) fn new<'a>(entries: impl Iterator<Item = Found<'a>>) -> Self {
        let (mut exact, mut prefixes) = (Vec::new(), Vec::new());
        for (entry, (key, facet)) in (0u32..).zip(entries) {
            match key {
                Key::Exact(path) => exact.push((path.to_ascii_lowercase(), entry, facet)),
                Key::Prefix(path) => prefixes.push((path.to_ascii_lowercase(), entry, facet)),
            }
        }
        let mut lengths: Vec<_> = prefixes.iter().map(|(path, ..)| path.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { exact: Keys::new(exact), prefixes: Keys::new(prefixes), lengths }
    }

    /// The entries that may match, as lists in the order of the table.
    pub(super) fn candidates<'a>(&'a self, head: &'a impl Head) -> impl Iterator<Item = &'a [u32]> {
        let path = Folded::new(head.path().as_bytes());
        let prefixes = self.lengths.iter().filter_map(move |length| path.part(..*length));
        let prefixed = prefixes.flat_map(move |prefix| self.prefixes.get(prefix, head));
        self.exact.get(path, head).chain(prefixed)
    }
}

impl Keys {
    fn new(mut pairs: Vec<(String, u32, Wanted<'_>)>) -> Self {
        pairs.sort_unstable();
        let mut this = Self::default();
        for of_key in pairs.chunk_by(|(one, ..), (other, ..)| one == other) {
            let mut by_facet: BTreeMap<Facet<'_>, Vec<(&str, u32)>> = BTreeMap::new();
            let entries = of_key.iter().filter(|_| of_key.len() > FEW);
            for (_, entry, facet) in entries {
                if let Some((facet, value)) = facet {
                    by_facet.entry(*facet).or_default().push((value, *entry));
                }
            }
            by_facet.retain(|_, entries| entries.len() > FEW);
            let is_faceted =
                |facet: &Wanted<'_>| facet.is_some_and(|(facet, _)| by_facet.contains_key(&facet));
            let plain = of_key.iter().filter(|(_, _, facet)| !is_faceted(facet));
            this.entries.extend(plain.map(|(_, entry, _)| *entry));
            if !by_facet.is_empty() {
                let values = by_facet.into_iter().map(|(facet, pairs)| Values::new(facet, pairs));
                this.faceted.insert(this.keys.len(), values.collect());
            }
            this.keys.push((of_key[0].0.as_bytes().into(), this.entries.len()));
        }
        this
    }

    fn get<'a, H: Head>(
        &'a self,
        path: Folded<'_>,
        head: &'a H,
    ) -> impl Iterator<Item = &'a [u32]> + use<'a, H> {
        let found = self.keys.binary_search_by(|(key, _)| path.compare(key)).ok();
        let plain = found.map(|at| {
            let start = at.checked_sub(1).map_or(0, |before| self.keys[before].1);
            &self.entries[start..self.keys[at].1]
        });
        let faceted = found.filter(|_| !self.faceted.is_empty());
        let faceted = faceted.and_then(|at| self.faceted.get(&at)).into_iter().flatten();
        plain.into_iter().chain(faceted.map(move |values| values.get(head)))
    }
}

impl Values {
    fn new(facet: Facet<'_>, mut pairs: Vec<(&str, u32)>) -> Self {
        pairs.sort_unstable();
        let (is_header, name) = match facet {
            Facet::Header(name) => (true, name),
            Facet::Param(name) => (false, name),
        };
        let (mut values, mut entries) = (Vec::new(), Vec::new());
        for of_value in pairs.chunk_by(|(one, _), (other, _)| one == other) {
            entries.extend(of_value.iter().map(|(_, entry)| *entry));
            values.push((of_value[0].0.as_bytes().into(), entries.len()));
        }
        Self { is_header, name: name.into(), values, entries }
    }

    fn get(&self, head: &impl Head) -> &[u32] {
        match self.is_header {
            true => head.header(&self.name).map_or(&[], |value| self.of(&value)),
            false => head.param(&self.name).map_or(&[], |value| self.of(value.as_bytes())),
        }
    }

    fn of(&self, value: &[u8]) -> &[u32] {
        let found = self.values.binary_search_by(|(known, _)| (**known).cmp(value));
        let Ok(at) = found else { return &[] };
        let start = at.checked_sub(1).map_or(0, |before| self.values[before].1);
        &self.entries[start..self.values[at].1]
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

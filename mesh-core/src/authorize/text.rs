use std::net::IpAddr;

/// A text with at most one `*`, at one of its ends.
#[derive(Clone, Debug)]
pub(super) enum Text {
    /// `*`: not empty.
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
}

impl Text {
    pub(super) fn new(value: &str) -> Self {
        match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (Some(""), _) => Self::Any,
            (Some(suffix), _) => Self::Suffix(suffix.into()),
            (None, Some(prefix)) => Self::Prefix(prefix.into()),
            (None, None) => Self::Exact(value.into()),
        }
    }

    /// The same of other letters.
    pub(super) fn map(&self, change: impl Fn(&str) -> Box<str>) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::Exact(exact) => Self::Exact(change(exact)),
            Self::Prefix(prefix) => Self::Prefix(change(prefix)),
            Self::Suffix(suffix) => Self::Suffix(change(suffix)),
        }
    }

    pub(super) fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Any => !text.is_empty(),
            Self::Exact(exact) => text == exact.as_bytes(),
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
        }
    }

    /// The same of a text that is not written in one place.
    pub(super) fn matches_letters<L>(&self, letters: impl Fn() -> L) -> bool
    where
        L: Iterator<Item = u8>,
    {
        match self {
            Self::Any => letters().next().is_some(),
            Self::Exact(exact) => letters().eq(exact.bytes()),
            Self::Prefix(prefix) => letters().take(prefix.len()).eq(prefix.bytes()),
            Self::Suffix(suffix) => {
                let length = letters().count();
                length >= suffix.len() && letters().skip(length - suffix.len()).eq(suffix.bytes())
            }
        }
    }

    /// The same, whatever the case of ASCII's letters.
    pub(super) fn matches_any_case(&self, text: &[u8]) -> bool {
        let same = |part: Option<&[u8]>, wanted: &str| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(wanted.as_bytes()))
        };
        match self {
            Self::Any => !text.is_empty(),
            Self::Exact(exact) => same(Some(text), exact),
            Self::Prefix(prefix) => same(text.get(..prefix.len()), prefix),
            Self::Suffix(suffix) => {
                let start = text.len().checked_sub(suffix.len());
                same(start.and_then(|start| text.get(start..)), suffix)
            }
        }
    }
}

/// Whether a text is of this form, in which each `*` stands for any letters.
pub(super) fn is_glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // The first place where a part stands leaves the most room for those behind it.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    bits: u128,
    mask: u128,
    is_v4: bool,
}

impl Block {
    /// An address, or one with the length of a prefix: `10.0.0.0/8`. IPv4 in IPv6 is IPv4.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().ok()?;
        let most = if written.is_ipv4() { 32 } else { 128 };
        let length = match length {
            // `+8` and `08` are numbers to Rust.
            Some(length)
                if length.starts_with('+') || (length.len() > 1 && length.starts_with('0')) =>
            {
                return None;
            }
            Some(length) => length.parse::<u32>().ok().filter(|length| *length <= most)?,
            None => most,
        };
        let address = written.to_canonical();
        let (length, width) = match (written.is_ipv4(), address.is_ipv4()) {
            // The 96 bits that say that it is IPv4 must be a part of the prefix.
            (false, true) => (length.checked_sub(96)?, 32),
            (true, _) => (length, 32),
            (false, false) => (length, 128),
        };
        let mask = u128::MAX.checked_shl(width - length).unwrap_or(0);
        Some(Self { bits: bits(address) & mask, mask, is_v4: address.is_ipv4() })
    }

    /// Whether it is one of them. `address` is canonical.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_v4 && bits(address) & self.mask == self.bits
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

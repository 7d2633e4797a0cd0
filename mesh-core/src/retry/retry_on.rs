use std::{
    fmt,
    ops::{BitOr, BitOrAssign},
    str::FromStr,
};

use super::overrides::words;
use crate::InvalidConfig;

/// The conditions under which an attempt may be retried: Envoy's `retry_on`, with the status codes that go with
/// `retriable-status-codes`.
///
/// | condition | HTTP status | gRPC status in the headers | no answer |
/// | --- | --- | --- | --- |
/// | `5xx` | 500–599 | | every reset |
/// | `gateway-error` | 502, 503, 504 | | every reset |
/// | `reset` | | | every reset |
/// | `connect-failure` | | | no connection |
/// | `reset-before-request` | | | no connection; reset before the request was written |
/// | `refused-stream` | | | stream refused by the peer |
/// | `retriable-4xx` | 409 | | |
/// | `retriable-status-codes` | the codes listed | | |
/// | `retriable-headers` | any, if the caller's header match says so | | |
/// | `envoy-ratelimited` | any, if the answer says that it was rate limited | | |
/// | `http3-post-connect-failure` | | | any but a failed connection, if the attempt went over HTTP/3 |
/// | `cancelled`, `deadline-exceeded`, `resource-exhausted`, `internal`, `unavailable` | | 1, 4, 8, 13, 14 | |
///
/// An answer that says it was rate limited (`x-envoy-ratelimited`) matches nothing but `envoy-ratelimited`.
/// What our own policy refused ([`Reset::Overflow`](super::Reset::Overflow)) matches nothing at all. A gRPC
/// status in the trailers comes too late to match: the answer has been passed on.
///
/// 425 (Too Early) among the codes is tried again at once, without a back-off, unless the request itself came as early
/// data; a failure of HTTP/3 likewise, for the next attempt goes over TCP.
///
/// The text form is Envoy's and Istio's comma list. As in Istio, a number is a status code, and implies
/// `retriable-status-codes`.
///
/// ```
/// use mesh_core::retry::RetryOn;
///
/// let retry_on: RetryOn = "connect-failure, 503".parse().unwrap();
/// assert_eq!(retry_on.to_string(), "connect-failure,retriable-status-codes,503");
/// assert_eq!(retry_on, (RetryOn::CONNECT_FAILURE | RetryOn::NONE).with_status_code(503).unwrap());
///
/// let error = "5xx,sometimes".parse::<RetryOn>().unwrap_err();
/// assert_eq!(error.value(), "sometimes");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RetryOn {
    conditions: u16,
    /// Bit `i` is status `100 + i`.
    codes: [u64; CODE_WORDS],
}

impl RetryOn {
    /// Nothing is retried.
    pub const NONE: Self = Self { conditions: 0, codes: [0; CODE_WORDS] };
    /// `5xx`
    pub const SERVER_ERROR: Self = Self::condition(0);
    /// `gateway-error`
    pub const GATEWAY_ERROR: Self = Self::condition(1);
    /// `connect-failure`
    pub const CONNECT_FAILURE: Self = Self::condition(2);
    /// `refused-stream`
    pub const REFUSED_STREAM: Self = Self::condition(3);
    /// `reset`
    pub const RESET: Self = Self::condition(4);
    /// `reset-before-request`
    pub const RESET_BEFORE_REQUEST: Self = Self::condition(5);
    /// `retriable-4xx`
    pub const RETRIABLE_4XX: Self = Self::condition(6);
    /// `retriable-status-codes`
    pub const STATUS_CODES: Self = Self::condition(7);
    /// `retriable-headers`
    pub const HEADERS: Self = Self::condition(8);
    /// `envoy-ratelimited`
    pub const RATE_LIMITED: Self = Self::condition(9);
    /// `cancelled`
    pub const CANCELLED: Self = Self::condition(10);
    /// `deadline-exceeded`
    pub const DEADLINE_EXCEEDED: Self = Self::condition(11);
    /// `resource-exhausted`
    pub const RESOURCE_EXHAUSTED: Self = Self::condition(12);
    /// `internal`
    pub const INTERNAL: Self = Self::condition(13);
    /// `unavailable`
    pub const UNAVAILABLE: Self = Self::condition(14);

    /// `http3-post-connect-failure`
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self::condition(15);

    const fn condition(bit: u32) -> Self {
        Self { conditions: 1 << bit, codes: [0; CODE_WORDS] }
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(mut self, other: Self) -> Self {
        self.conditions |= other.conditions;
        let mut word = 0;
        while word < CODE_WORDS {
            self.codes[word] |= other.codes[word];
            word += 1;
        }
        self
    }

    /// Adds a status code, and with it the condition `retriable-status-codes`.
    ///
    /// # Errors
    ///
    /// A code outside 100 to 999 is no HTTP status.
    ///
    /// ```
    /// use mesh_core::retry::RetryOn;
    ///
    /// assert!(RetryOn::NONE.with_status_code(503).unwrap().contains(RetryOn::STATUS_CODES));
    /// assert!(RetryOn::NONE.with_status_code(99).is_err());
    /// ```
    pub fn with_status_code(mut self, code: u16) -> Result<Self, InvalidConfig> {
        let (word, bit) = code_bit(code)
            .ok_or_else(|| InvalidConfig::new("retriable_status_codes", code, "100 to 999"))?;
        self.codes[word] |= bit;
        Ok(self.union(Self::STATUS_CODES))
    }

    /// Lists status codes without turning `retriable-status-codes` on: Envoy keeps the two in fields of their own, and
    /// a list without the condition means nothing.
    ///
    /// # Errors
    ///
    /// A code outside 100 to 999.
    ///
    /// ```
    /// use mesh_core::retry::{Answer, RetryOn};
    ///
    /// let listed = RetryOn::RESET.with_codes([503]).unwrap();
    /// assert!(!Answer::status(503).matches(&listed));
    /// assert!(Answer::status(503).matches(&(listed | RetryOn::STATUS_CODES)));
    /// ```
    pub fn with_codes(self, codes: impl IntoIterator<Item = u16>) -> Result<Self, InvalidConfig> {
        let listed = codes.into_iter().try_fold(self, Self::with_status_code)?;
        Ok(Self { conditions: self.conditions, codes: listed.codes })
    }

    /// The conditions named in a header, without those that are unknown: the gRPC ones, or the others.
    pub(super) fn known_words(text: &str, grpc: bool) -> Self {
        const GRPC: u16 = 0b0111_1100_0000_0000;
        let found = words(text)
            .filter_map(|word| NAMES.iter().position(|name| *name == word))
            .fold(Self::NONE, |set, bit| set.union(Self::condition(bit as u32)));
        let wanted = if grpc { GRPC } else { !GRPC };
        Self { conditions: found.conditions & wanted, codes: found.codes }
    }

    /// Whether every condition and code of `other` is here too.
    pub fn contains(&self, other: Self) -> bool {
        self.union(other) == *self
    }

    /// Whether there is no condition.
    pub const fn is_empty(&self) -> bool {
        self.conditions == 0
    }

    /// The status codes listed, in order.
    pub fn status_codes(&self) -> impl Iterator<Item = u16> {
        (FIRST_CODE..=LAST_CODE).filter(|&code| self.has_code(code))
    }

    /// Takes the conditions of `self` and the codes of `other`.
    pub(super) const fn with_codes_of(mut self, other: Self) -> Self {
        self.codes = other.codes;
        self
    }

    pub(super) const fn has_any(&self, other: Self) -> bool {
        self.conditions & other.conditions != 0
    }

    pub(super) fn has_code(&self, code: u16) -> bool {
        code_bit(code).is_some_and(|(word, bit)| self.codes[word] & bit != 0)
    }
}

impl BitOr for RetryOn {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for RetryOn {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl FromStr for RetryOn {
    type Err = InvalidConfig;

    /// Reads a comma list of conditions and status codes; blanks around them, and empty words, are ignored.
    fn from_str(text: &str) -> Result<Self, InvalidConfig> {
        words(text).try_fold(Self::NONE, |set, word| {
            if let Some(bit) = NAMES.iter().position(|name| *name == word) {
                return Ok(set.union(Self::condition(bit as u32)));
            }
            let unknown =
                || InvalidConfig::new("retry_on", word, "Envoy's conditions or HTTP codes");
            // `parse` alone would also take "+503".
            let digits = word.bytes().all(|byte| byte.is_ascii_digit());
            let code = digits.then(|| word.parse().ok()).flatten().ok_or_else(unknown)?;
            set.with_status_code(code).map_err(|_| unknown())
        })
    }
}

impl fmt::Display for RetryOn {
    /// The comma list that [`RetryOn::from_str`] reads: conditions in a fixed order, then the codes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let set = (0..NAMES.len()).filter(|bit| self.conditions & (1 << bit) != 0);
        for bit in set {
            write!(f, "{separator}{}", NAMES[bit])?;
            separator = ",";
        }
        for code in self.status_codes() {
            write!(f, "{separator}{code}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryOn({self})")
    }
}

/// Envoy's words; the index is the bit.
const NAMES: [&str; 16] = [
    "5xx",
    "gateway-error",
    "connect-failure",
    "refused-stream",
    "reset",
    "reset-before-request",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "cancelled",
    "deadline-exceeded",
    "resource-exhausted",
    "internal",
    "unavailable",
    "http3-post-connect-failure",
];

const FIRST_CODE: u16 = 100;
const LAST_CODE: u16 = 999;
const CODE_WORDS: usize = ((LAST_CODE - FIRST_CODE) as usize).div_ceil(64);

fn code_bit(code: u16) -> Option<(usize, u64)> {
    let index = usize::from(code.checked_sub(FIRST_CODE)?);
    (code <= LAST_CODE).then_some((index / 64, 1 << (index % 64)))
}

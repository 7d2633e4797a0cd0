use std::ops::Range;

use crate::{InvalidConfig, Outcome};

/// What an attempt gave, as far as a throttle needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "an HTTP status, a gRPC code, or neither")]
pub enum Answer {
    /// An HTTP answer with this status.
    Status(u16),
    /// A gRPC answer with this code.
    Grpc(u8),
    /// No answer, or one of which only the outcome is known. It is judged as the HTTP status that has this outcome:
    /// 200, 500, 503 or 429; what has no answer is not accepted; [`Outcome::Cancelled`] is neither.
    Outcome(Outcome),
}

/// Which answers show that the upstream has accepted a request (SRE book), or done it well (Envoy `success_criteria`).
///
/// | | HTTP | gRPC | why |
/// | --- | --- | --- | --- |
/// | [`Criteria::sre`] | 100–599 but 429, 502, 503, 504 | all but `DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`, `UNAVAILABLE` | an upstream that fails has worked on the request: to throttle its callers would not help it |
/// | [`Criteria::envoy`] | 100–499 | `OK`, `CANCELLED`, `UNKNOWN`, `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`, `UNIMPLEMENTED`, `UNAUTHENTICATED` | the defaults of the `admission_control` filter |
///
/// ```
/// use mesh_core::{Outcome, throttle::{Answer, Criteria}};
///
/// let envoy = Criteria::envoy();
/// assert_eq!(envoy.accepts(Answer::Status(404)), Some(true));
/// assert_eq!(envoy.accepts(Answer::Status(500)), Some(false));
/// assert_eq!(envoy.accepts(Answer::Outcome(Outcome::Cancelled)), None);
///
/// let redirects = envoy.with_http([300..400])?;
/// assert_eq!(redirects.accepts(Answer::Status(300)), Some(true));
/// assert_eq!(redirects.accepts(Answer::Status(400)), Some(false));
/// assert!(envoy.with_http([400..400]).is_err());
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Criteria {
    /// One bit for each status from 100 on.
    http: [u64; WORDS],
    /// One bit for each code.
    grpc: u32,
}

impl Criteria {
    /// What counts as accepted by an upstream that may be overloaded.
    pub fn sre() -> Self {
        let mut criteria =
            Self { http: [0; WORDS], grpc: ALL_CODES & !(1 << 4 | 1 << 8 | 1 << 14) };
        [100..429, 430..502, 505..600].into_iter().for_each(|range| criteria.insert(range));
        criteria
    }

    /// Envoy's defaults.
    pub fn envoy() -> Self {
        let grpc =
            [0, 1, 2, 3, 5, 6, 7, 9, 11, 12, 16].iter().fold(0, |bits, code| bits | 1 << code);
        let mut criteria = Self { http: [0; WORDS], grpc };
        criteria.insert(100..500);
        criteria
    }

    /// Replaces the HTTP statuses that count as accepted, as half-open ranges (Envoy `http_success_status`).
    ///
    /// # Errors
    ///
    /// A range that is empty or not within 100 to 600.
    pub fn with_http(
        mut self,
        ranges: impl IntoIterator<Item = Range<u16>>,
    ) -> Result<Self, InvalidConfig> {
        self.http = [0; WORDS];
        for range in ranges {
            if range.is_empty() || range.start < FIRST || range.end > END {
                let value = format!("{}..{}", range.start, range.end);
                return Err(InvalidConfig::new("http", value, "a range within 100..600"));
            }
            self.insert(range);
        }
        Ok(self)
    }

    /// Replaces the gRPC codes that count as accepted (Envoy `grpc_success_status`).
    ///
    /// # Errors
    ///
    /// A code above 16.
    ///
    /// ```
    /// use mesh_core::throttle::{Answer, Criteria};
    ///
    /// let only_ok = Criteria::envoy().with_grpc([0])?;
    /// assert_eq!(only_ok.accepts(Answer::Grpc(5)), Some(false));
    /// assert!(only_ok.with_grpc([17]).is_err());
    /// # Ok::<(), mesh_core::InvalidConfig>(())
    /// ```
    pub fn with_grpc(mut self, codes: impl IntoIterator<Item = u8>) -> Result<Self, InvalidConfig> {
        self.grpc = 0;
        for code in codes {
            if code > LAST_CODE {
                return Err(InvalidConfig::new("grpc", code, "0 to 16"));
            }
            self.grpc |= 1 << code;
        }
        Ok(self)
    }

    /// Whether `answer` counts as accepted; `None` if it says nothing.
    pub fn accepts(&self, answer: Answer) -> Option<bool> {
        let status = match answer {
            Answer::Status(status) => status,
            Answer::Grpc(code) => return Some(code <= LAST_CODE && self.grpc >> code & 1 == 1),
            Answer::Outcome(outcome) => match outcome {
                Outcome::Success => 200,
                Outcome::ServerError => 500,
                Outcome::GatewayError => 503,
                Outcome::Throttled => 429,
                Outcome::ConnectFailed | Outcome::Timeout | Outcome::Reset => return Some(false),
                Outcome::Cancelled => return None,
            },
        };
        let in_range = (FIRST..END).contains(&status);
        Some(
            in_range && {
                let bit = usize::from(status - FIRST);
                self.http[bit / 64] >> (bit % 64) & 1 == 1
            },
        )
    }

    fn insert(&mut self, range: Range<u16>) {
        for bit in range.map(|status| usize::from(status - FIRST)) {
            self.http[bit / 64] |= 1 << (bit % 64);
        }
    }

    pub(super) const fn to_words(self) -> ([u64; WORDS], u32) {
        (self.http, self.grpc)
    }

    pub(super) const fn from_words(http: [u64; WORDS], grpc: u32) -> Self {
        Self { http, grpc }
    }
}

/// 500 statuses.
pub(super) const WORDS: usize = 8;
const FIRST: u16 = 100;
const END: u16 = 600;
const LAST_CODE: u8 = 16;
const ALL_CODES: u32 = (1 << (LAST_CODE + 1)) - 1;

use std::{fmt, str::FromStr};

use crate::InvalidConfig;

/// A set of gRPC status codes other than `OK`: gRFC A6's `retryableStatusCodes` and `nonFatalStatusCodes`.
///
/// The text form is a comma list of names as gRPC's service config writes them; a number is taken too.
///
/// ```
/// use mesh_core::retry::GrpcCodes;
///
/// let codes: GrpcCodes = "UNAVAILABLE, ABORTED".parse().unwrap();
/// assert!(codes.contains(14) && !codes.contains(13));
/// assert_eq!(codes.to_string(), "ABORTED,UNAVAILABLE");
/// assert!("OK".parse::<GrpcCodes>().is_err(), "a success is not tried again");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct GrpcCodes(u32);

impl GrpcCodes {
    /// No code.
    pub const NONE: Self = Self(0);

    /// Adds a code.
    ///
    /// # Errors
    ///
    /// A code outside 1 to 16.
    ///
    /// ```
    /// use mesh_core::retry::GrpcCodes;
    ///
    /// assert!(GrpcCodes::NONE.with(14).unwrap().contains(14));
    /// assert!(GrpcCodes::NONE.with(17).is_err());
    /// ```
    pub fn with(self, code: u8) -> Result<Self, InvalidConfig> {
        if (1..NAMES.len()).contains(&usize::from(code)) {
            Ok(Self(self.0 | 1 << code))
        } else {
            Err(InvalidConfig::new("status_codes", code, "1 to 16"))
        }
    }

    /// Whether `code` is in the set.
    pub const fn contains(self, code: u8) -> bool {
        code < 32 && self.0 & (1 << code) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The codes, in order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..NAMES.len() as u8).filter(move |&code| self.contains(code))
    }
}

impl FromStr for GrpcCodes {
    type Err = InvalidConfig;

    fn from_str(text: &str) -> Result<Self, InvalidConfig> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.into_iter().try_fold(Self::NONE, |set, word| {
            let named = NAMES.iter().position(|name| *name == word).map(|code| code as u8);
            let unknown =
                || InvalidConfig::new("status_codes", word, "gRPC's status codes other than OK");
            let code = named.or_else(|| word.parse().ok()).ok_or_else(unknown)?;
            set.with(code).map_err(|_| unknown())
        })
    }
}

impl fmt::Display for GrpcCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, code) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{}", NAMES[usize::from(code)])?;
        }
        Ok(())
    }
}

impl fmt::Debug for GrpcCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcCodes({self})")
    }
}

/// The index is the code.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

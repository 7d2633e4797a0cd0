use std::{fmt, time::Duration};

use crate::InvalidConfig;

/// A cookie that holds a caller's key (Envoy `hash_policy.cookie`, Istio `consistentHash.httpCookie`).
///
/// With a time to live it is given to callers that have none; without, only the callers' own cookies count.
///
/// ```
/// use mesh_core::balance::hash::Cookie;
/// use std::time::Duration;
///
/// let cookie = Cookie::new("user")?.with_path("/")?.with_ttl(Duration::from_secs(60));
/// assert_eq!(cookie.ttl(), Some(Duration::from_secs(60)));
/// assert!(Cookie::new("user name").is_err());
/// assert!(cookie.with_path("/; Domain=example.org").is_err(), "it would add an attribute");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cookie {
    name: String,
    path: String,
    ttl: Option<Duration>,
}

impl Cookie {
    /// A cookie of the name `name`, without path and time to live.
    ///
    /// # Errors
    ///
    /// If it is not a token as RFC 6265 wants it.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidConfig> {
        let name = name.into();
        if !is_token(&name) {
            return Err(InvalidConfig::new(
                "cookie.name",
                name,
                "letters, digits and !#$%&'*+-.^_`|~",
            ));
        }
        Ok(Self { name, path: String::new(), ttl: None })
    }

    /// The path that a cookie which is given is good for. Default: none.
    ///
    /// # Errors
    ///
    /// If it has a `;`, or a character that no header may have.
    pub fn with_path(mut self, path: impl Into<String>) -> Result<Self, InvalidConfig> {
        let path = path.into();
        if !path.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b';') {
            return Err(InvalidConfig::new("cookie.path", path, "printable ASCII without ;"));
        }
        self.path = path;
        Ok(self)
    }

    /// Gives callers without the cookie one that lives so long, in whole seconds; zero is until the end of their
    /// session. Default: they get none.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`Cookie::with_path`].
    pub fn path(&self) -> &str {
        &self.path
    }

    /// See [`Cookie::with_ttl`].
    pub const fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Its value in a `cookie` header: the first of the name, without quotes around it. An empty one is none.
    pub(super) fn find<'h>(&self, header: &'h [u8]) -> Option<&'h [u8]> {
        header.split(|&byte| byte == b';').find_map(|pair| {
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            let (name, value) = (pair[..equals].trim_ascii_start(), &pair[equals + 1..]);
            let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            (name == self.name.as_bytes()).then_some(unquoted.unwrap_or(value))
        })
    }
}

/// The cookie that the answer to a request must set, so that the caller comes back to the same endpoint. Its text
/// is the value of a `set-cookie` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetCookie<'a> {
    pub(super) cookie: &'a Cookie,
    pub(super) value: u64,
}

impl SetCookie<'_> {
    /// Which one.
    pub const fn cookie(&self) -> &Cookie {
        self.cookie
    }

    /// Its value: 16 hexadecimal digits.
    pub fn value(&self) -> [u8; 16] {
        std::array::from_fn(|at| {
            let digit = (self.value >> (60 - 4 * at)) as u8 & 0xF;
            if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
        })
    }
}

impl fmt::Display for SetCookie<'_> {
    /// `user="0123456789abcdef"; Max-Age=60; Path=/; HttpOnly`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=\"{:016x}\"", self.cookie.name, self.value)?;
        let seconds = self.cookie.ttl.map_or(0, |ttl| ttl.as_secs());
        if seconds > 0 {
            write!(f, "; Max-Age={seconds}")?;
        }
        if !self.cookie.path.is_empty() {
            write!(f, "; Path={}", self.cookie.path)?;
        }
        f.write_str("; HttpOnly")
    }
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

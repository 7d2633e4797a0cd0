use std::fmt::Write;

use super::{
    Cookie, Head, SetCookie,
    cookie::is_token,
    xxh64::{XxHash64, xxhash64},
};
use crate::{InvalidConfig, Rng};

/// What of a request is its key (Envoy `RouteAction.hash_policy`; Istio `consistentHash` names one part).
///
/// The parts are taken in order, and those that the request has not are left out:
///
/// ```text
/// hash = rotate_left(hash, 1) ^ XXH64(part)      from 0; a terminal part that is there ends it
/// ```
///
/// | part | what is hashed |
/// | --- | --- |
/// | header | its value; of several the sorted values, each seeded with the hash of the one before |
/// | cookie | its value without quotes; if it is absent and has a time to live, a new value that the answer must set |
/// | query parameter | the first value, as it was sent, not decoded |
/// | source address | the text of the IP address, without the port |
/// | custom | what [`Head::custom`] says, as it is |
///
/// With no part there is no key: pick with a random one, `rng.next_u64()`, as Envoy, Istio and gRPC do.
///
/// *Where it differs from Envoy*: the value of a new cookie comes from both addresses of the connection as there, and
/// where they are not known from `rng`; Envoy then has no key. No regular expression rewrites a header.
///
/// ```
/// use mesh_core::{SplitMix64, balance::hash::{Head, Part, Policy, xxhash64}};
///
/// # struct Request<'a>(&'a str);
/// # impl Head for Request<'_> {
/// #     fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
/// #         (name == "x-user").then_some(self.0.as_bytes()).into_iter()
/// #     }
/// #     fn query(&self) -> Option<&str> { None }
/// # }
/// let policy = Policy::new([Part::header("x-user")?.terminal(), Part::source_address()]);
/// let request = Request("ann"); // its header `x-user`
/// let key = policy.hash(&request, &mut SplitMix64::new(1), |_| unreachable!("no cookie here"));
/// assert_eq!(key, Some(xxhash64(b"ann", 0)));
///
/// assert!(Part::header("two words").is_err());
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    parts: Vec<Part>,
}

impl Policy {
    /// A key of these parts, in this order.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        Self { parts: parts.into_iter().collect() }
    }

    /// The parts.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The key of a request; `None` if it has none of the parts.
    ///
    /// `set_cookie` is called for each cookie that the caller has not got and shall have: set it on the answer.
    /// Nothing is allocated, unless a header is there more than eight times.
    pub fn hash(
        &self,
        head: &impl Head,
        rng: &mut impl Rng,
        mut set_cookie: impl FnMut(SetCookie<'_>),
    ) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for part in &self.parts {
            if let Some(new) = part.hash(head, rng, &mut set_cookie) {
                hash = Some(hash.map_or(0, |old| old.rotate_left(1)) ^ new);
            }
            // So says Envoy: a terminal part that is absent ends it too, once there is a key.
            if part.terminal && hash.is_some() {
                break;
            }
        }
        hash
    }
}

/// One part of a [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    source: Source,
    terminal: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Header(String),
    Cookie(Cookie),
    Query(String),
    Address,
    Custom(String),
}

impl Part {
    /// A header, or a pseudo header such as `:authority` (Istio `httpHeaderName`).
    ///
    /// # Errors
    ///
    /// If it is no name of a header.
    pub fn header(name: impl Into<String>) -> Result<Self, InvalidConfig> {
        let name = name.into();
        if !is_token(name.strip_prefix(':').unwrap_or(&name)) {
            return Err(InvalidConfig::new("header_name", name, "the name of a header"));
        }
        Ok(Self::of(Source::Header(name.to_ascii_lowercase())))
    }

    /// A cookie (Istio `httpCookie`).
    pub const fn cookie(cookie: Cookie) -> Self {
        Self::of(Source::Cookie(cookie))
    }

    /// A parameter of the query (Istio `httpQueryParameterName`).
    ///
    /// # Errors
    ///
    /// If the name is empty, or has a character that would end it: `&`, `=` or `#`.
    pub fn query_parameter(name: impl Into<String>) -> Result<Self, InvalidConfig> {
        let name = name.into();
        if name.is_empty() || name.contains(['&', '=', '#']) {
            return Err(InvalidConfig::new("query_parameter", name, "a name without & = #"));
        }
        Ok(Self::of(Source::Query(name)))
    }

    /// The address that the request came from (Istio `useSourceIp`).
    pub const fn source_address() -> Self {
        Self::of(Source::Address)
    }

    /// What the program says: see [`Head::custom`].
    pub fn custom(name: impl Into<String>) -> Self {
        Self::of(Source::Custom(name.into()))
    }

    /// If there is a key after this part, the parts after it are not looked at (Envoy `terminal`).
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Whether it is terminal.
    pub const fn is_terminal(&self) -> bool {
        self.terminal
    }

    const fn of(source: Source) -> Self {
        Self { source, terminal: false }
    }

    fn hash(
        &self,
        head: &impl Head,
        rng: &mut impl Rng,
        set_cookie: &mut impl FnMut(SetCookie<'_>),
    ) -> Option<u64> {
        match &self.source {
            Source::Header(name) => of_values(head.header(name)),
            Source::Cookie(cookie) => {
                let value = head.header("cookie").find_map(|header| cookie.find(header));
                match value.filter(|value| !value.is_empty()) {
                    Some(value) => Some(xxhash64(value, 0)),
                    None => cookie.ttl().map(|_| {
                        let value = of_connection(head).unwrap_or_else(|| rng.next_u64());
                        let cookie = SetCookie { cookie, value };
                        set_cookie(cookie);
                        xxhash64(&cookie.value(), 0)
                    }),
                }
            }
            Source::Query(name) => of_parameter(head.query()?, name),
            Source::Address => {
                let mut hasher = XxHash64::new(0);
                write!(hasher, "{}", head.remote()?.ip()).ok()?;
                Some(hasher.finish())
            }
            Source::Custom(name) => head.custom(name),
        }
    }
}

/// The order in which the values were sent does not count.
fn of_values<'v>(mut values: impl Iterator<Item = &'v [u8]>) -> Option<u64> {
    let mut few: [&[u8]; 8] = [values.next()?; 8];
    let mut count = 1;
    for value in values.by_ref().take(few.len() - 1) {
        few[count] = value;
        count += 1;
    }
    let chained = |values: &[&[u8]]| values.iter().fold(0, |seed, value| xxhash64(value, seed));
    let Some(ninth) = values.next() else {
        few[..count].sort_unstable();
        return Some(chained(&few[..count]));
    };
    let mut many: Vec<&[u8]> = few.into_iter().chain([ninth]).chain(values).collect();
    many.sort_unstable();
    Some(chained(&many))
}

/// `name=value` or `name` alone, which has the empty value.
fn of_parameter(query: &str, name: &str) -> Option<u64> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| xxhash64(value.as_bytes(), 0))
    })
}

/// Both addresses, one after the other, as text.
fn of_connection(head: &impl Head) -> Option<u64> {
    let mut hasher = XxHash64::new(0);
    write!(hasher, "{}{}", head.remote()?, head.local()?).ok()?;
    Some(hasher.finish())
}

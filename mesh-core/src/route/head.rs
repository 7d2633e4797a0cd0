use std::borrow::Cow;

/// What matching may look at: the head of a request. Implemented by whoever carries requests.
///
/// Nothing is decoded: a path with `%2F` in it has no slash there (Envoy matches the same bytes).
pub trait Head {
    /// The method, such as `GET`. Its case counts.
    fn method(&self) -> &str;

    /// `http` or `https`; empty if unknown.
    fn scheme(&self) -> &str;

    /// The host and, where it was sent, the port: `Host` or `:authority`.
    fn authority(&self) -> &str;

    /// The path, without `?` and what follows it.
    fn path(&self) -> &str;

    /// What follows the `?`; empty if there is nothing.
    fn query(&self) -> &str;

    /// The port that the request was sent to.
    fn port(&self) -> Option<u16>;

    /// The value of a header by its name in lower case; several values are one, joined by `,` (Envoy). `None` if there
    /// is no such header. Should borrow, but for several values.
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;

    /// The first value of a parameter of the query; empty for one without `=`.
    ///
    /// ```
    /// use mesh_core::route::{Head, PlainHead};
    ///
    /// let head = PlainHead::new("GET", "/a?x=1&flag&x=2");
    /// assert_eq!((head.param("x"), head.param("flag"), head.param("y")), (Some("1"), Some(""), None));
    /// ```
    fn param(&self, name: &str) -> Option<&str> {
        let params = self.query().split('&').filter(|param| !param.is_empty());
        let mut pairs = params.map(|param| param.split_once('=').unwrap_or((param, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// A head of plain values: for tests, examples, and for asking where a request would go.
///
/// ```
/// use mesh_core::route::{Head, PlainHead};
///
/// let head = PlainHead::new("GET", "/cart?id=7").with_authority("shop:8080").with_header("X-User", "7");
/// assert_eq!((head.path(), head.query(), head.port()), ("/cart", "id=7", Some(8080)));
/// assert_eq!(head.header("x-user").as_deref(), Some(&b"7"[..]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlainHead {
    method: String,
    scheme: String,
    authority: String,
    path: String,
    query: String,
    port: Option<u16>,
    headers: Vec<(String, String)>,
}

impl PlainHead {
    /// A request for `target`, a path with or without a query, over `http` to nobody.
    pub fn new(method: impl Into<String>, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method: method.into(),
            scheme: "http".to_owned(),
            authority: String::new(),
            path: path.to_owned(),
            query: query.to_owned(),
            port: None,
            headers: Vec::new(),
        }
    }

    /// Sets the scheme.
    #[must_use]
    pub fn with_scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into();
        self
    }

    /// Sets the authority, and with it the port if it names one.
    #[must_use]
    pub fn with_authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = authority.into();
        self
    }

    /// Sets the port that the request was sent to, whatever the authority says.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }
}

impl Head for PlainHead {
    fn method(&self) -> &str {
        &self.method
    }

    fn scheme(&self) -> &str {
        &self.scheme
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> &str {
        &self.query
    }

    fn port(&self) -> Option<u16> {
        self.port.or_else(|| split_port(&self.authority).1)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name);
        let first = values.next()?.1.as_bytes();
        Some(values.fold(Cow::Borrowed(first), |joined, (_, value)| {
            Cow::Owned([&joined, b",".as_slice(), value.as_bytes()].concat())
        }))
    }
}

/// Host and port of an authority; an address of IPv6 stands in brackets.
///
/// ```
/// use mesh_core::route::split_port;
///
/// assert_eq!(split_port("shop:8080"), ("shop", Some(8080)));
/// assert_eq!(split_port("[::1]:80"), ("[::1]", Some(80)));
/// assert_eq!(split_port("::1"), ("::1", None));
/// ```
pub fn split_port(authority: &str) -> (&str, Option<u16>) {
    let Some((host, port)) = authority.rsplit_once(':') else { return (authority, None) };
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if is_number && (!host.contains(':') || host.ends_with(']')) => (host, Some(port)),
        _ => (authority, None),
    }
}

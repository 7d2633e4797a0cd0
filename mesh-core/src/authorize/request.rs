use std::net::IpAddr;

/// What is known of the connection that a request came by. What is not set is absent.
///
/// ```
/// use mesh_core::authorize::Connection;
///
/// let connection = Connection::default()
///     .with_principal("spiffe://cluster.local/ns/shop/sa/cart")
///     .with_source_ip([10, 0, 0, 7].into())
///     .with_port(8080);
/// assert_eq!(connection.principal(), Some("cluster.local/ns/shop/sa/cart"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Connection<'a> {
    principal: Option<&'a str>,
    source_ip: Option<IpAddr>,
    remote_ip: Option<IpAddr>,
    destination_ip: Option<IpAddr>,
    port: Option<u16>,
    sni: Option<&'a str>,
}

impl<'a> Connection<'a> {
    /// The SPIFFE ID that the peer has proved, with or without `spiffe://`; an empty one is none. Never what a header says.
    #[must_use]
    pub fn with_principal(mut self, id: &'a str) -> Self {
        let id = id.strip_prefix("spiffe://").unwrap_or(id);
        self.principal = (!id.is_empty()).then_some(id);
        self
    }

    /// The address that the connection comes from. An IPv4 address in IPv6 is the IPv4 address.
    #[must_use]
    pub fn with_source_ip(mut self, ip: IpAddr) -> Self {
        self.source_ip = Some(ip.to_canonical());
        self
    }

    /// The address that the request came from first: of `x-forwarded-for` or a PROXY header, as far as whoever wrote it is
    /// trusted.
    #[must_use]
    pub fn with_remote_ip(mut self, ip: IpAddr) -> Self {
        self.remote_ip = Some(ip.to_canonical());
        self
    }

    /// The address that the connection came to.
    #[must_use]
    pub fn with_destination_ip(mut self, ip: IpAddr) -> Self {
        self.destination_ip = Some(ip.to_canonical());
        self
    }

    /// The port of the workload that the connection came to.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The server name that the client asked for in its TLS handshake.
    #[must_use]
    pub fn with_sni(mut self, name: &'a str) -> Self {
        self.sni = (!name.is_empty()).then_some(name);
        self
    }

    /// The peer's SPIFFE ID without `spiffe://`.
    pub fn principal(&self) -> Option<&'a str> {
        self.principal
    }

    /// The address that the connection comes from.
    pub fn source_ip(&self) -> Option<IpAddr> {
        self.source_ip
    }

    /// The address that the request came from first.
    pub fn remote_ip(&self) -> Option<IpAddr> {
        self.remote_ip
    }

    /// The address that the connection came to.
    pub fn destination_ip(&self) -> Option<IpAddr> {
        self.destination_ip
    }

    /// The port that the connection came to.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The server name of the TLS handshake.
    pub fn sni(&self) -> Option<&'a str> {
        self.sni
    }
}

/// The head of an HTTP request, as policies look at it. Implemented by whoever carries requests.
pub trait Head {
    /// The method, such as `GET`.
    fn method(&self) -> &str;

    /// The host and, where it was sent, the port: `:authority` or `Host`. Empty if there is none.
    fn authority(&self) -> &str;

    /// The path as it was sent, without `?` and what follows it.
    fn path(&self) -> &str;

    /// The values of the header of this name, which is in lower case, in their order.
    fn header<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]>;

    /// The values of headers whose names are this one but for `_` in place of `-`: to a handler that knows headers as
    /// variables (CGI, WSGI) they are the same. By default there are none, and such a handler can be deceived.
    fn lookalikes<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let _ = name;
        std::iter::empty()
    }

    /// Whether a token was verified for the request that has the claim at `path`, with a value that is wanted. By default
    /// no token was.
    fn has_claim(&self, path: &[String], is_wanted: &mut dyn FnMut(&str) -> bool) -> bool {
        let _ = (path, is_wanted);
        false
    }
}

/// A head of plain values: for tests, examples, and for asking what would be decided.
///
/// ```
/// use mesh_core::authorize::{Head, PlainHead};
///
/// let head = PlainHead::new("GET", "/cart?id=7").with_authority("shop:8080").with_header("X-User", "7");
/// assert_eq!((head.path(), head.authority()), ("/cart", "shop:8080"));
/// assert_eq!(head.header("x-user").next(), Some(&b"7"[..]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlainHead {
    method: String,
    authority: String,
    path: String,
    headers: Vec<(String, String)>,
    claims: Vec<(Vec<String>, String)>,
}

impl PlainHead {
    /// A request for `target`, a path with or without a query, to nobody.
    pub fn new(method: impl Into<String>, target: &str) -> Self {
        Self {
            method: method.into(),
            authority: String::new(),
            path: target.split(['?', '#']).next().unwrap_or_default().to_owned(),
            headers: Vec::new(),
            claims: Vec::new(),
        }
    }

    /// Sets the authority.
    #[must_use]
    pub fn with_authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = authority.into();
        self
    }

    /// Adds a header, or another value of one.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Adds a claim of a verified token, or another value of one.
    #[must_use]
    pub fn with_claim<T: Into<String>>(
        mut self,
        path: impl IntoIterator<Item = T>,
        value: impl Into<String>,
    ) -> Self {
        self.claims.push((path.into_iter().map(Into::into).collect(), value.into()));
        self
    }
}

impl Head for PlainHead {
    fn method(&self) -> &str {
        &self.method
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn header<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let values = self.headers.iter().filter(move |(key, _)| key == name);
        values.map(|(_, value)| value.as_bytes())
    }

    fn lookalikes<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let values = self.headers.iter().filter(move |(key, _)| is_lookalike(key, name));
        values.map(|(_, value)| value.as_bytes())
    }

    fn has_claim(&self, path: &[String], is_wanted: &mut dyn FnMut(&str) -> bool) -> bool {
        self.claims.iter().any(|(claim, value)| claim == path && is_wanted(value))
    }
}

/// Whether two names of headers, in lower case, are not the same but for `_` in place of `-`.
///
/// ```
/// use mesh_core::authorize::is_lookalike;
///
/// assert!(is_lookalike("x_user", "x-user"));
/// assert!(!is_lookalike("x-user", "x-user") && !is_lookalike("xuser", "x-user"));
/// ```
pub fn is_lookalike(name: &str, other: &str) -> bool {
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.len() == other.len() && name != other && name.bytes().map(dash).eq(other.bytes().map(dash))
}

//! Consistent hashing: the same key reaches the same endpoint.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, header, request::Parts};
use mesh_core::balance::hash::{Config, Head, Policy};

/// Sends the requests of one key to one endpoint: what the key is made of, and the table that says whose it is.
///
/// A request without a key goes to an endpoint of the table by chance. Who is ejected, or refused by its breaker, is stepped
/// over, always to the same substitute; and so is who was tried before, if the retry policy avoids it. The key stays
/// the same over all attempts.
///
/// The first table is built with the upstream, or with this setting. When endpoints or their weights change, the next one is
/// built at once, by whoever changes them, if none was in the last 100 ms
/// ([`Rebuild`](mesh_core::balance::hash::Rebuild)); else by the driver at the end of that time, once for all changes: see
/// [`Table`](mesh_core::balance::hash::Table) for what that costs. Until then requests read the last one: the keys of an
/// endpoint that is gone go to its substitutes, a new one waits for its keys. No request waits.
///
/// A cookie with a time to live is set on the response to a caller that has none.
///
/// ```
/// use mesh_core::balance::hash::{Config, Part, Policy};
/// use mesh_tower::upstream::{self, ConsistentHash};
///
/// let by_user = Policy::new([Part::header("x-user")?]);
/// let policy = upstream::Policy::default()
///     .with_hash(Some(ConsistentHash::new(Config::maglev(), by_user)));
/// assert_eq!(policy.hash().unwrap().table(), &Config::maglev());
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConsistentHash {
    table: Config,
    key: Policy,
}

impl ConsistentHash {
    /// A table of this shape, for keys made so.
    pub fn new(table: Config, key: Policy) -> Self {
        Self { table, key }
    }

    /// The shape of the table.
    pub fn table(&self) -> &Config {
        &self.table
    }

    /// What the key is made of.
    pub fn key(&self) -> &Policy {
        &self.key
    }
}

/// What a key may be made of that is not in a request's head: put it among the extensions of the request.
///
/// ```
/// use mesh_tower::upstream::KeySource;
/// use std::net::SocketAddr;
///
/// // A gateway says where the request came from.
/// let remote: SocketAddr = "192.0.2.60:4711".parse().unwrap();
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(KeySource::new().with_remote(remote));
/// ```
#[derive(Clone, Debug, Default)]
pub struct KeySource {
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
    custom: Vec<(Arc<str>, u64)>,
}

impl KeySource {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The other end of the connection that the request came in on
    /// ([`Part::source_address`](mesh_core::balance::hash::Part::source_address)).
    #[must_use]
    pub fn with_remote(mut self, remote: SocketAddr) -> Self {
        self.remote = Some(remote);
        self
    }

    /// This end of it: with the other one, it makes the value of a new cookie.
    #[must_use]
    pub fn with_local(mut self, local: SocketAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// The hash that `name` stands for ([`Part::custom`](mesh_core::balance::hash::Part::custom)).
    #[must_use]
    pub fn with_custom(mut self, name: impl Into<Arc<str>>, hash: u64) -> Self {
        self.custom.push((name.into(), hash));
        self
    }
}

/// What a key is made of.
pub(super) struct RequestHead<'a>(pub(super) &'a Parts);

impl RequestHead<'_> {
    fn source(&self) -> Option<&KeySource> {
        self.0.extensions.get()
    }

    fn pseudo(&self, name: &str) -> Option<&[u8]> {
        let Parts { uri, method, headers, .. } = self.0;
        match name {
            ":authority" => uri
                .authority()
                .map(|authority| authority.as_str().as_bytes())
                .or_else(|| headers.get(header::HOST).map(HeaderValue::as_bytes)),
            ":path" => uri.path_and_query().map(|path| path.as_str().as_bytes()),
            ":method" => Some(method.as_str().as_bytes()),
            ":scheme" => uri.scheme_str().map(str::as_bytes),
            _ => None,
        }
    }
}

impl Head for RequestHead<'_> {
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let headers: &HeaderMap = &self.0.headers;
        let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        self.pseudo(name).into_iter().chain(values)
    }

    fn query(&self) -> Option<&str> {
        self.0.uri.query()
    }

    fn remote(&self) -> Option<SocketAddr> {
        self.source()?.remote
    }

    fn local(&self) -> Option<SocketAddr> {
        self.source()?.local
    }

    fn custom(&self, name: &str) -> Option<u64> {
        let custom = &self.source()?.custom;
        custom.iter().find(|(known, _)| **known == *name).map(|(_, hash)| *hash)
    }
}

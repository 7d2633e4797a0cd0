use std::net::SocketAddr;

/// What a [`Policy`](super::Policy) may ask of a request. Implemented where requests have a type: this crate knows
/// none.
///
/// ```
/// use mesh_core::balance::hash::Head;
///
/// struct Request<'a> { headers: &'a [(&'a str, &'a str)], path_and_query: &'a str }
///
/// impl Head for Request<'_> {
///     fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
///         let named = self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name));
///         named.map(|(_, value)| value.as_bytes())
///     }
///     fn query(&self) -> Option<&str> {
///         self.path_and_query.split_once('?').map(|(_, query)| query)
///     }
/// }
///
/// let request = Request { headers: &[("X-User", "ann")], path_and_query: "/cart?id=7" };
/// assert_eq!(request.header("x-user").next(), Some(b"ann".as_slice()));
/// assert_eq!(request.query(), Some("id=7"));
/// ```
pub trait Head {
    /// The values of the header `name`, which is in lower case. A policy may name a pseudo header too
    /// (`:authority`, `:path`).
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]>;

    /// What follows the `?` of the request's target, as it was sent; `None` without a `?`.
    fn query(&self) -> Option<&str>;

    /// The other end of the connection that the request came in on. `None` for a request that began here.
    fn remote(&self) -> Option<SocketAddr> {
        None
    }

    /// This end of it.
    fn local(&self) -> Option<SocketAddr> {
        None
    }

    /// The hash that `name` stands for: whatever the program makes of a request that the other kinds cannot say
    /// (Envoy: a `filter_state` key). `None` leaves it out.
    fn custom(&self, name: &str) -> Option<u64> {
        let _ = name;
        None
    }
}

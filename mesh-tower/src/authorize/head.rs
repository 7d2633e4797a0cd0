use std::borrow::Cow;

use http::{HeaderMap, Method, Uri, header::HOST};

use super::policy::{Head, Normalization};

/// The head of a request, as policies see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    authority: &'a str,
}

impl<'a> RequestHead<'a> {
    /// Whether all who name the host name the same: `:authority` or the target, and `Host` (RFC 9113 §8.3.1, RFC 9112 §3.2).
    pub(super) fn is_of_one_host(&self) -> bool {
        let mut hosts = self.headers.get_all(HOST).iter();
        hosts.all(|host| host.as_bytes().eq_ignore_ascii_case(self.authority.as_bytes()))
    }

    pub(super) fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        let authority = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
        };
        // A name and a password before the host are nobody's name.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        Self { method, uri, headers, authority }
    }
}

impl Head for RequestHead<'_> {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn authority(&self) -> &str {
        self.authority
    }

    fn path(&self) -> &str {
        self.uri.path()
    }

    fn header<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
    }
}

/// Writes the path in its one form into the URI. Allocates only if it is not in it. `None`: it has none.
pub(super) fn normalize(uri: &mut Uri, level: Normalization) -> Option<()> {
    let Cow::Owned(path) = level.apply(uri.path()).ok()? else { return Some(()) };
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.try_into().ok()?);
    *uri = Uri::from_parts(parts).ok()?;
    Some(())
}

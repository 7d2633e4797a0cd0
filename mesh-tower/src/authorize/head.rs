use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, Uri, header::HOST};

use super::policy::{Head, Normalization, is_lookalike};

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

    fn lookalikes<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let others =
            self.headers.iter().filter(move |(other, _)| is_lookalike(other.as_str(), name));
        others.map(|(_, value)| value.as_bytes())
    }
}

/// Removes a header, also of a name that a handler may take for it.
pub(super) fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    while let Some(other) = headers.keys().find(|other| is_lookalike(other.as_str(), name.as_str()))
    {
        let other = other.clone();
        headers.remove(other);
    }
}

/// The URI with its path in its one form. Allocates only if it is not in it. `None`: it has none.
pub(super) fn normalized(uri: &Uri, level: Normalization) -> Option<Cow<'_, Uri>> {
    let Cow::Owned(path) = level.apply(uri.path()).ok()? else { return Some(Cow::Borrowed(uri)) };
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.try_into().ok()?);
    Uri::from_parts(parts).ok().map(Cow::Owned)
}

use std::borrow::Cow;

use http::{HeaderMap, Method, Uri, header::HOST, request::Parts};
use mesh_core::route::{Head, split_port};

/// The head of a request, as matching sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    authority: &'a str,
}

impl<'a> RequestHead<'a> {
    pub(super) fn new(parts: &'a Parts) -> Self {
        let authority = match parts.uri.authority() {
            Some(authority) => authority.as_str(),
            None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
        };
        // A name and a password before the host are nobody's name.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        Self { method: &parts.method, uri: &parts.uri, headers: &parts.headers, authority }
    }
}

impl Head for RequestHead<'_> {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or("http")
    }

    fn authority(&self) -> &str {
        self.authority
    }

    fn path(&self) -> &str {
        self.uri.path()
    }

    fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    fn port(&self) -> Option<u16> {
        let own = match self.scheme() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        split_port(self.authority).1.or(own)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        if name == "host" {
            // HTTP/2 has none, and means its authority.
            return (!self.authority.is_empty())
                .then_some(Cow::Borrowed(self.authority.as_bytes()));
        }
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?.as_bytes();
        Some(values.fold(Cow::Borrowed(first), |joined, value| {
            Cow::Owned([&joined, b",".as_slice(), value.as_bytes()].concat())
        }))
    }
}

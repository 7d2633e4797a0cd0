//! Gives a request the form that the wire of its connection wants. The two forms can be turned into one another,
//! since a request whose connection broke before it was sent may go out on one of the other kind.

use http::{
    HeaderValue, Request, Uri, Version,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};

/// What a request is called that does not say it itself.
#[derive(Clone, Debug)]
pub(super) struct Names {
    authority: Authority,
    /// The same as a header, made once: a request that needs it clones a pointer.
    host: HeaderValue,
    scheme: Scheme,
}

impl Names {
    /// The first of `names` that can be a host.
    pub(super) fn new(names: &[&str], scheme: Scheme) -> Self {
        let authority = names
            .iter()
            .find_map(|name| Authority::try_from(*name).ok())
            .unwrap_or_else(|| Authority::from_static("localhost"));
        let host = header(&authority);
        Self { authority, host, scheme }
    }

    /// HTTP/1.1: a path, and the host in a header (RFC 9112 §3.2).
    pub(super) fn http1<B>(&self, request: &mut Request<B>) {
        *request.version_mut() = Version::HTTP_11;
        if !request.headers().contains_key(HOST) {
            let host = match request.uri().authority() {
                // Byte by byte: to compare without case costs more than it finds.
                Some(authority) if authority.as_str() != self.authority.as_str() => {
                    header(authority)
                }
                Some(_) | None => self.host.clone(),
            };
            request.headers_mut().insert(HOST, host);
        }
        let uri = request.uri_mut();
        if uri.authority().is_some() || uri.scheme().is_some() {
            let path = std::mem::take(uri).into_parts().path_and_query;
            *uri = path.map_or_else(Uri::default, Uri::from);
        }
    }

    /// HTTP/2: scheme and authority are in the URI, and nothing is said twice (RFC 9113 §8.3.1). hyper removes
    /// what belongs to an HTTP/1 connection: `Connection` and what it names, `Keep-Alive`, `Transfer-Encoding`.
    pub(super) fn http2<B>(&self, request: &mut Request<B>) {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(HOST);
        let named = request.uri().authority();
        if request.uri().scheme().is_some() && named.is_some_and(|name| !has_user(name)) {
            return;
        }
        let authority = match named {
            Some(authority) if has_user(authority) => {
                Authority::try_from(without_user(authority)).ok()
            }
            Some(authority) => Some(authority.clone()),
            None => host.and_then(|host| Authority::try_from(host.as_bytes()).ok()),
        };
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.authority = Some(authority.unwrap_or_else(|| self.authority.clone()));
        parts.scheme.get_or_insert_with(|| self.scheme.clone());
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() =
            Uri::from_parts(parts).unwrap_or_else(|_| unreachable!("all three parts are there"));
    }
}

fn has_user(authority: &Authority) -> bool {
    authority.as_str().contains('@')
}

/// A name and a password before the host are for the caller, not for the wire.
fn without_user(authority: &Authority) -> &str {
    authority.as_str().rsplit('@').next().unwrap_or_default()
}

fn header(authority: &Authority) -> HeaderValue {
    HeaderValue::from_str(without_user(authority))
        .unwrap_or_else(|_| unreachable!("an authority is visible ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(&["shop", "10.0.0.7:80"], Scheme::HTTP)
    }

    fn request(uri: &str) -> Request<()> {
        Request::builder().uri(uri).body(()).unwrap()
    }

    #[test]
    fn http1_has_a_path_and_a_host() {
        for (uri, host, path) in [
            ("http://shop.example:81/a?b=c", "shop.example:81", "/a?b=c"),
            ("http://shop.example", "shop.example", "/"),
            ("http://me:secret@shop.example/a", "shop.example", "/a"),
            ("http://shop/a", "shop", "/a"),
            ("/a", "shop", "/a"),
            ("*", "shop", "*"),
        ] {
            let mut request = request(uri);
            *request.version_mut() = Version::HTTP_2;
            names().http1(&mut request);
            assert_eq!(request.headers()[HOST], host, "{uri}");
            assert_eq!(request.uri().to_string(), path, "{uri}");
            assert_eq!(request.version(), Version::HTTP_11);
        }
    }

    #[test]
    fn a_host_that_is_set_stays() {
        let mut request = request("http://shop.example/a");
        request.headers_mut().insert(HOST, HeaderValue::from_static("other"));
        names().http1(&mut request);
        assert_eq!(request.headers()[HOST], "other");
    }

    #[test]
    fn http2_has_a_whole_uri_and_no_host() {
        for (uri, host, whole) in [
            ("https://shop.example/a", Some("other"), "https://shop.example/a"),
            ("https://me:secret@shop.example/a", None, "https://shop.example/a"),
            ("/a?b=c", Some("shop.example:81"), "http://shop.example:81/a?b=c"),
            ("/a", Some("not a host"), "http://shop/a"),
            ("/a", None, "http://shop/a"),
        ] {
            let mut request = request(uri);
            if let Some(host) = host {
                request.headers_mut().insert(HOST, HeaderValue::from_static(host));
            }
            names().http2(&mut request);
            assert_eq!(request.uri().to_string(), whole);
            assert!(request.headers().is_empty());
            assert_eq!(request.version(), Version::HTTP_2);
        }
    }

    #[test]
    fn one_form_can_be_turned_into_the_other() {
        let mut request = request("http://shop.example/a");
        names().http1(&mut request);
        names().http2(&mut request);
        assert_eq!(request.uri().to_string(), "http://shop.example/a");
        names().http1(&mut request);
        assert_eq!(request.uri().to_string(), "/a");
        assert_eq!(request.headers()[HOST], "shop.example");
    }

    #[test]
    fn an_upstream_whose_name_is_no_host_goes_by_the_address() {
        let names = Names::new(&["two words", "10.0.0.7:80"], Scheme::HTTP);
        assert_eq!(names.authority, "10.0.0.7:80");
        assert_eq!(Names::new(&["two words"], Scheme::HTTP).authority, "localhost");
    }
}

//! What a message must not carry from one connection to the next.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Version,
    header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Who called, as Envoy writes it. Whatever a caller writes into it himself is a lie.
pub(crate) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Removes what belongs to the connection that the request came by (RFC 9110 §7.6.1). HTTP/2 has none of it: its
/// codec refuses such requests.
///
/// `TE: trailers` stays: this proxy passes trailers on.
pub(crate) fn clean_request(version: Version, headers: &mut HeaderMap) {
    if version != Version::HTTP_2 {
        let trailers = headers.remove(TE).is_some_and(|te| names_trailers(&te));
        clean(headers);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Makes `Host` say what the target says: a proxy hands on the host by which it has chosen (RFC 9112 §3.2.2).
pub(crate) fn one_host<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else { return };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    if request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::try_from(host)
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// Removes what belongs to the connection that the response came by.
pub(crate) fn clean_response(version: Version, headers: &mut HeaderMap) {
    if version != Version::HTTP_2 {
        clean(headers);
    }
}

fn clean(headers: &mut HeaderMap) {
    let lines = headers.get_all(CONNECTION).iter().map(|line| line.to_str().unwrap_or_default());
    let names = lines.flat_map(|line| line.split(','));
    // A name that is none cannot be the name of a header here.
    let names = names.filter_map(|name| HeaderName::try_from(name.trim()).ok());
    // Whom the message is for is no matter of one connection, whatever it says.
    let names: Vec<_> = names.filter(|name| *name != HOST).collect();
    for name in names {
        headers.remove(name);
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

fn names_trailers(te: &HeaderValue) -> bool {
    te.to_str()
        .unwrap_or_default()
        .split(',')
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_is_of_the_connection_goes_and_the_rest_stays() {
        let mut request = headers(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, Trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-connection", "keep-alive"),
            ("host", "shop"),
            ("trailer", "x-sum"),
        ]);
        clean_request(Version::HTTP_11, &mut request);
        assert_eq!(request, headers(&[("te", "trailers"), ("host", "shop"), ("trailer", "x-sum")]));
    }

    #[test]
    fn every_line_that_names_headers_is_heard() {
        let mut request = headers(&[("x-mine", "1"), ("x-yours", "1"), ("x-ours", "1")]);
        request.append("connection", HeaderValue::from_static("x-mine"));
        request.append("connection", HeaderValue::from_static("close, x-yours"));
        clean_request(Version::HTTP_11, &mut request);
        assert_eq!(request, headers(&[("x-ours", "1")]));
    }

    #[test]
    fn whom_it_is_for_is_no_matter_of_a_connection() {
        let mut request =
            headers(&[("connection", "host, x-mine"), ("host", "a"), ("x-mine", "1")]);
        clean_request(Version::HTTP_11, &mut request);
        assert_eq!(request, headers(&[("host", "a")]));
    }

    #[test]
    fn the_target_says_whom_it_is_for() {
        for (target, expected) in [("http://u@shop:80/x", "shop:80"), ("/x", "other")] {
            let mut request = Request::get(target).header("host", "other").body(()).unwrap();
            one_host(&mut request);
            assert_eq!(*request.headers(), headers(&[("host", expected)]), "{target}");
        }
    }

    #[test]
    fn another_te_is_not_passed_on() {
        let mut request = headers(&[("te", "gzip")]);
        clean_request(Version::HTTP_11, &mut request);
        assert!(request.is_empty());
    }

    #[test]
    fn http2_is_left_alone() {
        let mut request = headers(&[("te", "trailers")]);
        clean_request(Version::HTTP_2, &mut request);
        assert_eq!(request, headers(&[("te", "trailers")]));
    }
}

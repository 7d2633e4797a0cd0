//! Where an HTTP/1.1 response ends, so that a connection that drains ends behind one and not inside.
//!
//! Nothing is parsed while a connection is well: a response is followed only from its first octet, and only on a
//! connection that drains. What is not understood is [`Lost`](Response::Lost), and what has no length of its own goes
//! [on](Response::UntilClose); then the grace decides.
//!
//! Whether there is a body at all depends on the request, too (RFC 9112, 6.3): a response to HEAD has the length of one
//! that never comes, and a tunnel begins behind a good response to CONNECT. So of each request that follows a
//! response the method is looked at, if it comes in one piece. One that does not is taken for any other, and so is HEAD
//! behind a `100 Continue`, where a body comes that may say anything: then a response to HEAD is not seen to end, which
//! costs the rest of the grace and nothing else.

/// More than any server of ours sends, and as much as hyper reads.
const MAX_HEAD: usize = 64 * 1024;

/// What is to be known of a request to see where its response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Head,
    Connect,
    Other,
}

/// How far a response has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// So much of its head, and what it answers.
    Head(Vec<u8>, Method),
    /// So many octets are left of its body.
    Body(u64),
    Chunks(Chunks),
    /// Its end is that of the connection: a body without a length, or another protocol from here on.
    UntilClose,
    Ended,
    Lost,
}

/// RFC 9112, 7.1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// The line with a chunk's length; whether its digits are over.
    Size(u64, bool),
    /// So many octets of data, and the line break behind them.
    Data(u64),
    /// Lines behind the last chunk; the length of the present one.
    Trailer(u64),
}

// === impl Method ===

impl Method {
    /// Of the first octets of a client behind a response. A request that does not end here has a body, or comes in
    /// pieces.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        if !bytes.ends_with(b"\r\n\r\n") {
            Self::Other
        } else if bytes.starts_with(b"HEAD ") {
            Self::Head
        } else if bytes.starts_with(b"CONNECT ") {
            Self::Connect
        } else {
            Self::Other
        }
    }
}

// === impl Response ===

impl Response {
    /// One that has not begun, to a request with this method.
    pub(crate) fn to_come(method: Method) -> Self {
        Self::Head(Vec::new(), method)
    }

    /// The next octets of the server; whether the response has ended with them.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
        *self == Self::Ended
    }

    fn step(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Head(head, method) => {
                let before = head.len();
                head.extend_from_slice(bytes);
                let from = before.saturating_sub(3);
                let end = head.get(from..).and_then(|tail| find(tail, b"\r\n\r\n"));
                let Some(end) = end.map(|at| from + at + 4) else {
                    if head.len() > MAX_HEAD {
                        *self = Self::Lost;
                    }
                    return bytes.len();
                };
                head.truncate(end);
                *self = body_of(head, *method);
                end - before
            }
            Self::Body(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                taken
            }
            Self::Chunks(chunks) => {
                let Some(byte) = bytes.first() else { return 0 };
                match chunks.step(*byte, bytes.len()) {
                    Some((taken, false)) => taken,
                    Some((taken, true)) => {
                        *self = Self::Ended;
                        taken
                    }
                    None => {
                        *self = Self::Lost;
                        bytes.len()
                    }
                }
            }
            Self::Ended => {
                // Whatever this is, it is not the response that was followed.
                *self = Self::Lost;
                bytes.len()
            }
            Self::UntilClose | Self::Lost => bytes.len(),
        }
    }
}

// === impl Chunks ===

impl Chunks {
    /// How many octets were taken, and whether the body has ended; `None` when it is not chunked after all.
    fn step(&mut self, byte: u8, available: usize) -> Option<(usize, bool)> {
        match self {
            Self::Size(size, digits_are_over) => match char::from(byte).to_digit(16) {
                Some(digit) if !*digits_are_over => {
                    *size = size.checked_mul(16)?.checked_add(u64::from(digit))?;
                }
                _ if byte == b'\n' => {
                    *self = match *size {
                        0 => Self::Trailer(0),
                        size => Self::Data(size.checked_add(2)?),
                    };
                }
                _ => *digits_are_over = true,
            },
            Self::Data(left) => {
                let taken = available.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Size(0, false);
                }
                return Some((taken, false));
            }
            Self::Trailer(0) if byte == b'\n' => return Some((1, true)),
            Self::Trailer(length) => match byte {
                b'\n' => *length = 0,
                b'\r' => {}
                _ => *length += 1,
            },
        }
        Some((1, false))
    }
}

/// Whether this begins with the first line of a response behind which the next request comes. In pieces it is not seen. Nothing
/// but the digit of the status is looked at: this is asked of each response.
#[inline]
pub(crate) fn begins_final(bytes: &[u8]) -> bool {
    matches!(bytes.get("HTTP/1.1 ".len()), Some(b'2'..=b'5'))
}

/// What follows this head.
fn body_of(head: &[u8], method: Method) -> Response {
    let Ok(head) = std::str::from_utf8(head) else { return Response::Lost };
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = status.and_then(|rest| rest.get(2..5)).and_then(|code| code.parse::<u16>().ok());
    match (status, method) {
        (None, _) => return Response::Lost,
        (Some(101), _) | (Some(200..=299), Method::Connect) => return Response::UntilClose,
        (Some(100..=199), _) => return Response::to_come(method),
        (Some(204 | 304), _) | (Some(_), Method::Head) => return Response::Ended,
        (Some(_), Method::Connect | Method::Other) => {}
    }
    let mut length = None;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("transfer-encoding") {
            let chunked = value.trim().eq_ignore_ascii_case("chunked");
            let chunks = Response::Chunks(Chunks::Size(0, false));
            return if chunked { chunks } else { Response::Lost };
        }
        if name.eq_ignore_ascii_case("content-length") {
            let Ok(said) = value.trim().parse() else { return Response::Lost };
            length = Some(said);
        }
    }
    match length {
        Some(0) => Response::Ended,
        Some(length) => Response::Body(length),
        None => Response::UntilClose,
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the response is seen to end, in pieces of this size.
    fn end(text: &str, size: usize) -> Option<usize> {
        end_of(Method::Other, text, size)
    }

    fn end_of(method: Method, text: &str, size: usize) -> Option<usize> {
        let mut response = Response::to_come(method);
        let mut at = 0;
        for piece in text.as_bytes().chunks(size) {
            at += piece.len();
            if response.pass(piece) {
                return Some(at);
            }
        }
        None
    }

    #[test]
    fn responses_end_where_they_end() {
        let rows = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", true),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", true),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\nx\r\n0\r\ntrailer: y\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", false),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello", false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", false),
            ("+OK\r\n\r\n", false),
        ];
        for (text, ends) in rows {
            for size in [1, 2, 3, 7, text.len()] {
                let expected = ends.then_some(text.len());
                assert_eq!(end(text, size), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_method_decides_whether_there_is_a_body() {
        let rows = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true, false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", true, false),
            ("HTTP/1.1 200 OK\r\n\r\n", true, false),
            ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n", true, false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true, false),
            ("HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", true, true),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", false, false),
        ];
        for (text, ends_head, ends_connect) in rows {
            for size in [1, 7, text.len()] {
                let ends = |method| end_of(method, text, size).is_some();
                assert_eq!(ends(Method::Head), ends_head, "{text:?}");
                assert_eq!(ends(Method::Connect), ends_connect, "{text:?}");
            }
        }
        // The broken twin: a length alone says that there is a body.
        assert_eq!(end(rows[0].0, 1), None);
    }

    #[test]
    fn the_first_line_tells_the_last_word_from_one_in_between() {
        for last in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 404 ", "HTTP/1.1 503"] {
            assert!(begins_final(last.as_bytes()), "{last:?}");
        }
        for other in ["HTTP/1.1 100 Continue\r\n", "HTTP/1.1 103 ", "HTTP/1.1 ", "H", "", "hello"] {
            assert!(!begins_final(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn a_method_is_read_off_a_whole_request_only() {
        assert_eq!(Method::of(b"HEAD / HTTP/1.1\r\n\r\n"), Method::Head);
        assert_eq!(Method::of(b"CONNECT x:1 HTTP/1.1\r\n\r\n"), Method::Connect);
        for other in ["", "HEAD", "HEAD / HTTP/1.1\r\n", "HEADS / HTTP/1.1\r\n\r\n", "GET \r\n\r\n"]
        {
            assert_eq!(Method::of(other.as_bytes()), Method::Other, "{other:?}");
        }
    }

    #[test]
    fn what_comes_behind_the_end_is_not_taken_for_it() {
        let mut response = Response::to_come(Method::Other);
        assert!(!response.pass(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1"), "the next has begun");
        assert_eq!(response, Response::Lost);
    }

    #[test]
    fn a_head_without_end_is_given_up() {
        let mut response = Response::to_come(Method::Other);
        for _ in 0..=MAX_HEAD / 1024 {
            response.pass(&[b'x'; 1024]);
        }
        assert_eq!(response, Response::Lost);
    }
}

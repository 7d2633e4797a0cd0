//! Whether a client of HTTP/1.1 waits for something, told from what the server has said last.
//!
//! Kept as it comes and parsed when it is asked, because that is once in a connection's life.

use std::fmt;

use super::http1::{Method, Response};

/// The head of a response, and a short body with it.
const KEPT: usize = 1024;

/// What the server has said since the client last said something.
#[derive(Default)]
pub(super) struct Recent {
    /// The beginning of it.
    kept: Vec<u8>,
    /// The octets behind that.
    beyond: u64,
}

// === impl Recent ===

impl Recent {
    /// The first octets behind a request.
    #[inline]
    pub(super) fn begin(&mut self, bytes: &[u8]) {
        self.kept.clear();
        self.beyond = 0;
        self.push(bytes);
    }

    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.kept.capacity() - self.kept.len() {
            // The usual case, without a look at the room for more.
            self.kept.extend_from_slice(bytes);
        } else {
            self.push_what_fits(bytes);
        }
    }

    #[cold]
    fn push_what_fits(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.kept.len());
        self.kept.reserve_exact(room);
        let (kept, beyond) = bytes.split_at(bytes.len().min(room));
        self.kept.extend_from_slice(kept);
        self.beyond += beyond.len() as u64;
    }

    /// Whether it is the whole of a response to a request with this method. In doubt it is not: a long head, or chunks that
    /// end beyond what is kept.
    pub(super) fn is_whole(&self, method: Method) -> bool {
        let mut response = Response::to_come(method);
        let has_ended = response.pass(&self.kept);
        match response {
            Response::Body(left) => left == self.beyond,
            Response::Head(..)
            | Response::Chunks(_)
            | Response::UntilClose
            | Response::Ended
            | Response::Lost => has_ended && self.beyond == 0,
        }
    }
}

/// Not what was said: it may be secret.
impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, beyond } = self;
        f.debug_struct("Recent").field("kept", &kept.len()).field("beyond", beyond).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(method: Method, text: &str, size: usize) -> bool {
        let mut recent = Recent::default();
        recent.push(b"what was said before does not count");
        let mut pieces = text.as_bytes().chunks(size);
        recent.begin(pieces.next().unwrap_or_default());
        pieces.for_each(|piece| recent.push(piece));
        recent.is_whole(method)
    }

    #[test]
    fn a_whole_response_is_seen_however_long() {
        let long = |length: usize, comes: usize| {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(comes))
        };
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunks =
            |length: usize| format!("{head}{length:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(length));
        let padded = |padding: usize| {
            format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\nok", "x".repeat(padding))
        };
        let rows = [
            (Method::Other, long(5, 5), true),
            (Method::Other, long(5, 4), false),
            (Method::Other, long(5, 6), false),
            (Method::Other, long(100_000, 100_000), true),
            (Method::Other, long(100_000, 99_999), false),
            (Method::Other, long(100_000, 100_001), false),
            (Method::Head, long(100_000, 0), true),
            (Method::Connect, long(0, 0), false),
            (Method::Other, chunks(100), true),
            (Method::Other, head.to_owned(), false),
            // In doubt not.
            (Method::Other, chunks(KEPT), false),
            (Method::Other, padded(KEPT), false),
            (Method::Other, padded(KEPT / 2), true),
            (Method::Other, "HTTP/1.1 200 OK\r\n\r\nuntil the end".to_owned(), false),
            (Method::Other, "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(), false),
            (Method::Other, String::new(), false),
        ];
        for (method, text, expected) in rows {
            for size in [1, 7, KEPT - 1, KEPT, text.len().max(1)] {
                let shown = &text[..text.len().min(60)];
                assert_eq!(
                    is_whole(method, &text, size),
                    expected,
                    "{shown:?} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn it_shows_nothing_that_was_said() {
        let mut recent = Recent::default();
        recent.push(b"set-cookie: secret");
        assert_eq!(format!("{recent:?}"), "Recent { kept: 18, beyond: 0 }");
    }
}

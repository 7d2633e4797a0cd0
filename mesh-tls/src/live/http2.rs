//! Where in a stream of bytes an HTTP/2 server may say GOAWAY.
//!
//! axum and tonic serve a connection to its end and offer no way to end one of many gently. HTTP/2 has a frame for
//! it, and a frame can stand between any two others: so the stream itself says it, whoever serves above. On a
//! client the same frame is put before the bytes that are read, and the client above believes its server said it.
//!
//! The first octets of the client's preface (RFC 9113, 3.4) tell HTTP/2 from HTTP/1: no method is called `PRI`. From
//! the server's first octet on, frames are counted: nine octets of header, of which three are the length (4.1). A
//! header block that goes on in CONTINUATION frames must not be interrupted (6.10), and SETTINGS come first (3.4).
//! A server that has said GOAWAY itself has said enough: ours names the highest stream there is, and the second of two
//! must not name a higher one than the first (6.8).

/// GOAWAY on stream 0, NO_ERROR, last stream 2^31-1: what is on its way is finished, nothing new is begun (6.8).
pub(crate) const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
const HEADER: usize = 9;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const GOING_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Both directions of a connection, as far as GOAWAY needs them.
#[derive(Debug, Default)]
pub(crate) struct Http2 {
    protocol: Protocol,
    frames: Frames,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// So many octets of the preface have matched.
    Matching(usize),
    Http2,
    Other,
}

/// The frames of the server's direction.
#[derive(Debug, Clone, Default)]
struct Frames {
    header: [u8; HEADER],
    /// How much of the header is there.
    have: usize,
    /// How much of the payload is still to come.
    left: usize,
    in_header_block: bool,
    begun: bool,
    /// The server says GOAWAY, or has.
    goes_away: bool,
}

// === impl Http2 ===

impl Http2 {
    /// Octets from client to server have passed.
    pub(crate) fn client_said(&mut self, bytes: &[u8]) {
        let Protocol::Matching(matched) = self.protocol else { return };
        let wanted = PREFACE.get(matched..).unwrap_or_default();
        let same = bytes.iter().zip(wanted).take_while(|(is, wanted)| is == wanted).count();
        self.protocol = if same < bytes.len().min(wanted.len()) {
            Protocol::Other
        } else if same == wanted.len() {
            Protocol::Http2
        } else {
            Protocol::Matching(matched + same)
        };
    }

    /// Octets from server to client have passed.
    #[inline]
    pub(crate) fn server_said(&mut self, bytes: &[u8]) {
        if self.protocol != Protocol::Other {
            self.frames.pass(bytes);
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.protocol == Protocol::Http2
    }

    /// Whether a GOAWAY of ours is still of use.
    pub(crate) fn wants_goaway(&self) -> bool {
        self.is_http2() && !self.frames.goes_away
    }

    /// Whether the server's next octet may be the first of a GOAWAY.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.is_http2() && self.frames.is_between()
    }

    /// How many of the server's next octets lead to a place between frames; all of them if none does.
    pub(crate) fn up_to_next_place(&self, bytes: &[u8]) -> usize {
        let mut frames = self.frames.clone();
        let mut passed = 0;
        while passed < bytes.len() {
            passed += frames.step(bytes.get(passed..).unwrap_or_default());
            if frames.is_between() {
                break;
            }
        }
        passed
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::Matching(0)
    }
}

// === impl Frames ===

impl Frames {
    fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Takes octets up to the end of a header or of a payload; how many. Never none of some.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            return taken;
        }
        let room = self.header.get_mut(self.have..).unwrap_or_default();
        let taken = room.len().min(bytes.len());
        for (place, byte) in room.iter_mut().zip(bytes) {
            *place = *byte;
        }
        self.have += taken;
        if self.have == HEADER {
            self.have = 0;
            self.begin_payload();
        }
        taken
    }

    fn begin_payload(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.begun = true;
        if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.in_header_block = flags & END_HEADERS == 0;
        }
        self.goes_away |= kind == GOING_AWAY;
    }

    fn is_between(&self) -> bool {
        self.begun && self.have == 0 && self.left == 0 && !self.in_header_block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + payload, 0xaa);
        frame
    }

    fn http2() -> Http2 {
        let mut http2 = Http2::default();
        http2.client_said(PREFACE);
        http2
    }

    /// SETTINGS; a header block in three frames; DATA; an empty DATA.
    fn conversation() -> (Vec<u8>, Vec<usize>) {
        let frames = [
            frame(4, 0, 12),
            frame(1, 0, 300),
            frame(9, 0, 5),
            frame(9, 4, 7),
            frame(0, 0, 1000),
            frame(0, 1, 0),
        ];
        let mut ends: Vec<usize> = frames
            .iter()
            .scan(0, |sum, frame| {
                *sum += frame.len();
                Some(*sum)
            })
            .collect();
        // Not after HEADERS, not after the first CONTINUATION.
        ends.drain(1..3);
        (frames.concat(), ends)
    }

    /// Knows lengths, and nothing of header blocks: the broken twin.
    fn careless(bytes: &[u8]) -> Vec<usize> {
        let (mut at, mut ends) = (0, Vec::new());
        while at < bytes.len() {
            at += HEADER + (usize::from(bytes[at + 1]) << 8) + usize::from(bytes[at + 2]);
            ends.push(at);
        }
        ends
    }

    #[test]
    fn places_are_the_same_however_the_octets_come() {
        let (bytes, expected) = conversation();
        for size in [1, 2, 3, 8, 9, 10, 64, bytes.len()] {
            let mut http2 = http2();
            let mut places = Vec::new();
            let mut at = 0;
            for piece in bytes.chunks(size) {
                http2.server_said(piece);
                at += piece.len();
                if http2.is_between_frames() {
                    places.push(at);
                }
            }
            let reachable: Vec<_> =
                expected.iter().copied().filter(|e| e % size == 0 || *e == bytes.len()).collect();
            assert_eq!(places, reachable, "in pieces of {size}");
        }
        assert_ne!(careless(&bytes), expected, "the twin interrupts a header block");
    }

    #[test]
    fn a_writer_is_held_to_the_next_place() {
        let (bytes, expected) = conversation();
        let mut http2 = http2();
        let mut places = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let step = http2.up_to_next_place(&bytes[at..]);
            http2.server_said(&bytes[at..at + step]);
            at += step;
            places.push(at);
        }
        assert_eq!(places, expected);
        // In the middle of a frame that does not end here, everything may pass.
        let mut http2 = self::http2();
        http2.server_said(&bytes[..3]);
        assert_eq!(http2.up_to_next_place(&bytes[3..10]), 7);
    }

    #[test]
    fn only_the_preface_makes_it_http2() {
        for size in [1, 2, 7, 100] {
            let mut http2 = Http2::default();
            for piece in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".chunks(size) {
                http2.client_said(piece);
            }
            assert!(http2.is_http2());
            assert!(!http2.is_between_frames(), "SETTINGS come first");
        }
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"PRO", b"PRI * HTTP/1.1\r\n", b"\x16\x03\x01"] {
            let mut http2 = Http2::default();
            for piece in other.chunks(1) {
                http2.client_said(piece);
            }
            http2.server_said(&frame(4, 0, 0));
            assert!(!http2.is_http2() && !http2.is_between_frames());
        }
    }

    #[test]
    fn the_frame_is_well_formed() {
        let mut http2 = http2();
        http2.server_said(&frame(4, 0, 0));
        http2.server_said(&GOAWAY);
        assert!(http2.is_between_frames());
    }

    #[test]
    fn one_goaway_is_enough() {
        for size in [1, 5, 17] {
            let mut http2 = http2();
            http2.server_said(&frame(4, 0, 7));
            assert!(http2.wants_goaway());
            GOAWAY.chunks(size).for_each(|piece| http2.server_said(piece));
            assert!(!http2.wants_goaway());
            http2.server_said(&frame(0, 0, 100));
            assert!(!http2.wants_goaway());
        }
    }
}

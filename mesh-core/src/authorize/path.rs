use std::borrow::Cow;

use super::reading::unescaped;

/// How paths are brought into one form before they are matched, and handed on in it (Istio `meshConfig.pathNormalization`).
///
/// | level | also | `/a//..%2Fb/%2e/%41` becomes |
/// | --- | --- | --- |
/// | `None` | | as it was sent |
/// | `Base` | `\` is `/`; `%41` is `A`, for letters, digits and `-._~` (RFC 3986 §6.2.2.2); `.` and `..` are resolved (§5.2.4) | `/a//..%2Fb/A` |
/// | `MergeSlashes` | then several `/` are one | `/a/..%2Fb/A` |
/// | `DecodeAndMergeSlashes` | before all that `%2F` and `%5C` are `/` | `/a/b/A` |
///
/// A path is the more often what its handler understands by it, the further down. But `%2F` may be meant: hence the choice.
/// A handler must get the path in the form in which it was judged, or judge and handler disagree about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "Istio's levels")]
pub enum Normalization {
    /// The path as it was sent.
    None,
    /// Escapes that need not be, and dots (Istio `BASE`, its default).
    #[default]
    Base,
    /// The same, and slashes in a row (Istio `MERGE_SLASHES`).
    MergeSlashes,
    /// The same, and slashes that were escaped (Istio `DECODE_AND_MERGE_SLASHES`).
    DecodeAndMergeSlashes,
}

/// A path that cannot be brought into one form: `%` without two hexadecimal digits behind it, or a `%00`; where doubts are
/// refused, also one whose escapes hide others more than three deep, or whose dots lead elsewhere before the escapes are off than
/// behind (`/a/%252e%252e%2f..`). To be answered by 400.
///
/// Istio's proxy passes these on. What a handler makes of `%2%66` is anybody's guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BadPath;

impl std::fmt::Display for BadPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the path has an escape that is none")
    }
}

impl std::error::Error for BadPath {}

impl Normalization {
    /// The path, without its query, in the form of this level. Allocates only if it is not in that form already. Twice is
    /// the same as once.
    ///
    /// What does not begin with `/` is no path of a resource (`*`, or nothing) and stays.
    ///
    /// # Errors
    ///
    /// [`BadPath`], except at `None`.
    ///
    /// ```
    /// use mesh_core::authorize::Normalization::*;
    ///
    /// let path = "/a//..%2Fb/%2e/%41";
    /// let at = |level: mesh_core::authorize::Normalization| level.apply(path).unwrap();
    /// assert_eq!([at(None), at(Base)], ["/a//..%2Fb/%2e/%41", "/a//..%2Fb/A"]);
    /// assert_eq!([at(MergeSlashes), at(DecodeAndMergeSlashes)], ["/a/..%2Fb/A", "/a/b/A"]);
    /// assert!(Base.apply("/%2%66").is_err());
    /// ```
    pub fn apply<'p>(self, path: &'p str) -> Result<Cow<'p, str>, BadPath> {
        if self == Self::None || !path.starts_with('/') {
            return Ok(Cow::Borrowed(path));
        }
        if self.is_normal(path)? {
            return Ok(Cow::Borrowed(path));
        }
        Ok(Cow::Owned(self.merge(&self.decode(path))))
    }

    /// Whether nothing is to be done. One look at each byte: most paths are as they should be.
    pub(super) fn is_normal(self, path: &str) -> Result<bool, BadPath> {
        let bytes = path.as_bytes();
        let mut normal = true;
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'%' => normal &= self.decoded(escape(&bytes[at..])?).is_none(),
                b'\\' => normal = false,
                b'/' => {
                    normal &= match &bytes[at + 1..] {
                        [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..] => false,
                        [b'/', ..] => self == Self::Base,
                        _ => true,
                    };
                }
                _ => {}
            }
        }
        Ok(normal)
    }

    /// What an escaped byte is better written as.
    fn decoded(self, byte: u8) -> Option<char> {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                Some(char::from(byte))
            }
            b'/' | b'\\' if self == Self::DecodeAndMergeSlashes => Some('/'),
            _ => None,
        }
    }

    /// Without escapes that need not be. The path has no bad one.
    pub(super) fn decode(self, path: &str) -> String {
        let mut decoded = String::with_capacity(path.len());
        let mut rest = path;
        while let Some(at) = rest.find(['%', '\\']) {
            decoded.push_str(&rest[..at]);
            let mark = &rest.as_bytes()[at..];
            let (length, plain) = match escape(mark) {
                _ if mark[0] == b'\\' => (1, Some('/')),
                Ok(byte) => (3, self.decoded(byte)),
                Err(BadPath) => (1, None),
            };
            match plain {
                Some(plain) => decoded.push(plain),
                None => decoded.push_str(&rest[at..at + length]),
            }
            rest = &rest[at + length..];
        }
        decoded + rest
    }

    /// Without `.` and `..`, and then perhaps without empty segments (Envoy `normalize_path` before `merge_slashes`).
    pub(super) fn merge(self, path: &str) -> String {
        let mut kept: Vec<&str> = Vec::new();
        let mut segments = path.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let is_dots = matches!(segment, "." | "..");
            if segment == ".." {
                kept.pop();
            }
            if !is_dots {
                kept.push(segment);
            } else if segments.peek().is_none() {
                // What ends in dots is a folder.
                kept.push("");
            }
        }
        if self != Self::Base {
            let last = kept.len().saturating_sub(1);
            let mut at = 0;
            kept.retain(|segment| {
                at += 1;
                !segment.is_empty() || at > last
            });
        }
        let mut merged = String::with_capacity(path.len());
        for segment in kept {
            merged.push('/');
            merged.push_str(segment);
        }
        if merged.is_empty() { "/".to_owned() } else { merged }
    }
}

/// The byte that is escaped at the beginning of `text`.
pub(super) fn escape(text: &[u8]) -> Result<u8, BadPath> {
    let digit = |at: usize| {
        let digit = text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        digit.and_then(|digit| u8::try_from(digit).ok()).ok_or(BadPath)
    };
    match digit(1)? << 4 | digit(2)? {
        0 => Err(BadPath),
        byte => Ok(byte),
    }
}

/// A path with `{*}` for one segment and `{**}` for any letters, slashes too (Envoy `uri_template`).
#[derive(Clone, Debug)]
pub(super) struct Template(Box<[Part]>);

#[derive(Clone, Debug)]
enum Part {
    /// Letters that stand there, slashes among them.
    Literal(Box<str>),
    /// One segment or the rest of one: not empty.
    One,
    /// Anything or nothing.
    Any,
}

impl Template {
    /// `None`: it is no template.
    pub(super) fn parse(text: &str) -> Option<Result<Self, &'static str>> {
        if !text.contains("{*}") && !text.contains("{**}") {
            return None;
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut is_closed = false;
        for (index, segment) in text.split('/').enumerate() {
            if index > 0 {
                literal.push('/');
            }
            let part = match segment {
                "{*}" => Part::One,
                "{**}" => Part::Any,
                _ if segment.contains(['{', '}', '*']) => {
                    return Some(Err("a template with {*} and {**} as whole segments"));
                }
                _ if !segment.bytes().all(is_pchar) => {
                    return Some(Err("a template of letters that a path can have"));
                }
                _ => {
                    literal.push_str(segment);
                    continue;
                }
            };
            if is_closed {
                return Some(Err("a template in which {**} is the last operator"));
            }
            is_closed = matches!(part, Part::Any);
            parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            parts.push(part);
        }
        parts.push(Part::Literal(literal.into()));
        Some(Ok(Self(parts.into())))
    }

    /// The same with no escape left in its letters.
    pub(super) fn unescaped(&self) -> Self {
        let part = |part: &Part| match part {
            Part::Literal(text) => Part::Literal(unescaped(text).into()),
            Part::One | Part::Any => part.clone(),
        };
        Self(self.0.iter().map(part).collect())
    }

    /// Whether the path has this form. In a wide sense, a segment has any letters; else those of a path (Envoy).
    pub(super) fn matches(&self, path: &str, wide: bool) -> bool {
        let mut rest = path;
        let mut is_open = false;
        for part in &self.0 {
            match part {
                Part::Literal(text) if is_open => {
                    // {**} is the last operator, and this the end: the rest must end so.
                    let Some(between) = rest.strip_suffix(&**text) else { return false };
                    return wide || between.bytes().all(|byte| byte == b'/' || is_pchar(byte));
                }
                Part::Literal(text) => {
                    let Some(after) = rest.strip_prefix(&**text) else { return false };
                    rest = after;
                }
                Part::One => {
                    let end = rest.find('/').unwrap_or(rest.len());
                    let (segment, after) = rest.split_at(end);
                    if segment.is_empty() || !(wide || segment.bytes().all(is_pchar)) {
                        return false;
                    }
                    rest = after;
                }
                Part::Any => is_open = true,
            }
        }
        rest.is_empty()
    }
}

/// RFC 3986 `pchar`, without `*`, which Envoy leaves out; `%` begins an escape.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

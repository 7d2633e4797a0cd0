//! How else a path may be read than as it is handed on.

use std::{borrow::Cow, cell::OnceCell};

use super::path::{BadPath, Normalization, escape};

/// So many escapes are taken off, one for each who may do so on the way. Nobody writes more by mistake; and each more is another
/// copy of the path for whoever wants to keep us busy.
const MOST_LAYERS: usize = 3;

const MOST: Normalization = Normalization::DecodeAndMergeSlashes;

/// A path as it is judged.
#[derive(Debug)]
pub(super) struct Seen<'p> {
    /// As it is handed on.
    pub(super) path: Cow<'p, str>,
    /// Not `*`, nor the nothing of a tunnel.
    pub(super) is_path: bool,
    /// As it may be read otherwise, by segments: with dots that are not resolved yet, with slashes that were escaped.
    pub(super) others: Vec<String>,
    /// As it may be meant, once a policy that refuses asks for it.
    meant: OnceCell<Vec<String>>,
}

impl<'p> Seen<'p> {
    /// Of what has no path.
    pub(super) fn none() -> Self {
        Self::plain(Cow::Borrowed(""))
    }

    fn plain(path: Cow<'p, str>) -> Self {
        let is_path = path.starts_with('/');
        Self { path, is_path, others: Vec::new(), meant: OnceCell::new() }
    }

    /// Allocates only for what is written oddly.
    pub(super) fn new(sent: &'p str, level: Normalization, doubts: bool) -> Result<Self, BadPath> {
        if is_plain(sent) {
            return Ok(Self::plain(Cow::Borrowed(sent)));
        }
        let path = level.apply(sent)?;
        if !doubts || !path.starts_with('/') {
            return Ok(Self::plain(path));
        }
        let is_escaped = !MOST.is_normal(&path)?;
        let is_dotted = path.contains(';') && has_dots(&path);
        let is_layered = path.contains('%') && has_layers(&path);
        let is_rewritten = matches!(path, Cow::Owned(_));
        if !(is_escaped || is_dotted || is_layered || is_rewritten) {
            return Ok(Self::plain(path));
        }
        let layers = layers(&path)?;
        if is_torn(&path, &layers) {
            return Err(BadPath);
        }
        let mut others = Vec::new();
        if is_rewritten {
            // Where it was routed before it came here, its dots were segments.
            let unresolved = level.decode(sent);
            if has_dots(&unresolved) {
                others.push(unresolved);
            }
        }
        let decoded = MOST.decode(&path);
        if is_escaped || is_dotted {
            push_readings(&mut others, &decoded);
        }
        if is_layered {
            for layer in layers {
                let is_changed = slashes(&layer) != slashes(&decoded) || has_dots(&layer);
                if is_changed {
                    push_readings(&mut others, &layer);
                }
            }
        }
        Ok(Self { path, is_path: true, others, meant: OnceCell::new() })
    }

    /// The same with no escape left, without parameters, and up to a `?` or `#` that was escaped: `%40` is `@` to most
    /// handlers, and `/a;b` is `/a` to some. Here nothing is told apart any more that may be the same, so it is only good
    /// to refuse.
    pub(super) fn meant(&self) -> &[String] {
        self.meant.get_or_init(|| {
            let mut meant = Vec::new();
            // With dots that were not resolved it is the first of the others.
            let unresolved = self.others.first().filter(|other| has_dots(other));
            for path in [&*self.path].into_iter().chain(unresolved.map(String::as_str)) {
                if !path.contains(['%', ';']) {
                    continue;
                }
                let layers = layers(path).unwrap_or_default();
                for layer in layers.iter().map(String::as_str).chain([path]) {
                    let from = meant.len();
                    push_readings(&mut meant, layer);
                    push_bare(&mut meant, layer);
                    if has_dots(layer) {
                        // One resolves them, and the next takes off what is left.
                        for at in from..meant.len() {
                            let reading = meant[at].clone();
                            push_bare(&mut meant, &reading);
                        }
                    }
                }
            }
            meant
        })
    }
}

/// Whether there is but one way to read it. One look at each byte: most paths are such.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    for byte in path.bytes() {
        match byte {
            b'%' | b'\\' | b';' => return false,
            b'/' | b'.' if before == b'/' => return false,
            _ => before = byte,
        }
    }
    true
}

/// With dots resolved, also by those who take parameters off before, as servlets do; and with dots that are segments.
fn push_readings(readings: &mut Vec<String>, path: &str) {
    let mut push = |path: String| {
        if !readings.contains(&path) {
            readings.push(path);
        }
    };
    resolved(path).into_iter().for_each(&mut push);
    if has_dots(path) {
        let bare = without_parameters(path);
        resolved(&bare).into_iter().for_each(&mut push);
        push(path.replace('\\', "/"));
    }
}

/// Up to the end that was escaped, with parameters and without.
fn push_bare(readings: &mut Vec<String>, path: &str) {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let cut = &path[..end];
    let bare = without_parameters(cut);
    for other in [cut, &bare] {
        if other != path {
            push_readings(readings, other);
        }
    }
}

/// Some resolve dots first, as the RFC does; others merge slashes first, as file systems do.
fn resolved(path: &str) -> [String; 2] {
    let path = path.replace('\\', "/");
    let mut merged: Vec<_> = path.split('/').skip(1).collect();
    let last = merged.pop().unwrap_or_default();
    merged.retain(|segment| !segment.is_empty());
    merged.push(last);
    let merged = format!("/{}", merged.join("/"));
    [MOST.merge(&path), MOST.merge(&merged)]
}

/// What it becomes by taking its escapes off, again and again. One that hides more layers than anybody takes off has no one
/// form, and neither has one that hides its end.
fn layers(path: &str) -> Result<Vec<String>, BadPath> {
    let mut layers: Vec<String> = Vec::new();
    loop {
        let last = layers.last().map_or(path, String::as_str);
        let next = match unescaped(last) {
            Cow::Owned(next) if next != last => next,
            Cow::Owned(_) | Cow::Borrowed(_) => return Ok(layers),
        };
        if layers.len() == MOST_LAYERS || next.contains("%00") {
            return Err(BadPath);
        }
        layers.push(next);
    }
}

/// Whether dots stand before escapes that hide more dots or slashes: who resolves them before the escapes are off goes
/// elsewhere than who does so behind, and there may be one of each on the way. Where escapes hide neither, the order of the two
/// does not matter.
fn is_torn(path: &str, layers: &[String]) -> bool {
    let Some(deepest) = layers.last() else { return false };
    let shape = |path: &str| (slashes(path), dots(path));
    let before = [path].into_iter().chain(layers.iter().map(String::as_str));
    before.filter(|layer| has_dots(layer)).any(|layer| shape(layer) != shape(deepest))
}

/// Whether an escape hides another one, or the beginning of a parameter.
fn has_layers(path: &str) -> bool {
    path.match_indices('%')
        .any(|(at, _)| matches!(path.as_bytes().get(at + 1..at + 3), Some(b"25" | b"3b" | b"3B")))
}

/// Whether a segment is dots but for its parameters.
fn has_dots(path: &str) -> bool {
    path.split(['/', '\\']).any(is_dots)
}

fn dots(path: &str) -> usize {
    path.split(['/', '\\']).filter(|segment| is_dots(segment)).count()
}

fn is_dots(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

fn slashes(path: &str) -> usize {
    path.bytes().filter(|byte| matches!(byte, b'/' | b'\\')).count()
}

/// Without what stands in a segment from its `;` on (RFC 3986 §3.3).
fn without_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

/// Without any escape.
pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let (length, byte) = match escape(&bytes[at..]) {
            Ok(escaped) if *byte == b'%' => (3, escaped),
            Ok(_) | Err(BadPath) => (1, *byte),
        };
        plain.push(byte);
        at += length;
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}

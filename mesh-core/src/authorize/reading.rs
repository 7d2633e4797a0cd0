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
        Self { path, others: Vec::new(), meant: OnceCell::new() }
    }

    /// Allocates only for what is written oddly.
    pub(super) fn new(sent: &'p str, level: Normalization, doubts: bool) -> Result<Self, BadPath> {
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
            for layer in layers(&path)? {
                let is_changed = slashes(&layer) != slashes(&decoded) || has_dots(&layer);
                if is_changed {
                    push_readings(&mut others, &layer);
                }
            }
        }
        Ok(Self { path, others, meant: OnceCell::new() })
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
                    push_readings(&mut meant, layer);
                    let end = layer.find(['?', '#']).unwrap_or(layer.len());
                    let bare = without_parameters(&layer[..end]);
                    if bare != layer {
                        push_readings(&mut meant, &bare);
                    }
                }
            }
            meant
        })
    }
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

/// Whether an escape hides another one, or the beginning of a parameter.
fn has_layers(path: &str) -> bool {
    path.match_indices('%')
        .any(|(at, _)| matches!(path.as_bytes().get(at + 1..at + 3), Some(b"25" | b"3b" | b"3B")))
}

/// Whether a segment is dots but for its parameters.
fn has_dots(path: &str) -> bool {
    let mut segments = path.split(['/', '\\']);
    segments.any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
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

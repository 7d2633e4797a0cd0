//! A YAML document as a tree that remembers where each part stands.
//!
//! Why not structs with derived deserialisers: they stop at the first error, and what they do not know they either
//! ignore or refuse without a place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{MessageFormatter, Options, Spanned, UserMessageFormatter};

/// Longer texts are refused: far more than a namespace's policies, little enough to hold in memory twice.
const MAX_BYTES: usize = 1 << 20;
/// Values of all documents together, aliases expanded. A text of [`MAX_BYTES`] without aliases has fewer.
const MAX_NODES: usize = 300_000;
/// More than any Istio resource nests.
const MAX_DEPTH: usize = 32;
/// Values that aliases may add to one document; a chain of aliases of aliases reaches it at once.
const MAX_ALIASED: usize = 10_000;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The name of a field, with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

/// Line and column from 1; 0 is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    line: u64,
    column: u64,
}

/// Why a document was not read.
#[derive(Debug)]
pub(super) enum Failure {
    Syntax(Place, String),
    Limit(Place, String),
}

/// Hands each document of `text` to `found`, with its number from 1. A document that is no YAML does not keep the
/// others from being read, as far as the parser finds its way back.
pub(super) fn documents(text: &str, mut found: impl FnMut(usize, Result<Node, Failure>)) {
    if text.len() > MAX_BYTES {
        let size = text.len();
        return found(
            0,
            Err(Failure::Limit(
                Place::default(),
                format!("{size} bytes, at most {MAX_BYTES} are read"),
            )),
        );
    }
    let mut bytes = text.as_bytes();
    let mut nodes = 0usize;
    let read = serde_saphyr::read_with_options::<_, Node>(&mut bytes, options());
    for (index, document) in read.enumerate() {
        let document = document.map_err(|error| Failure::from(&error));
        nodes = nodes.saturating_add(document.as_ref().map_or(1, Node::count));
        if nodes > MAX_NODES {
            let limit = format!("more than {MAX_NODES} values, the rest is not read");
            return found(index + 1, Err(Failure::Limit(Place::default(), limit)));
        }
        found(index + 1, document);
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_reader_input_bytes: Some(MAX_BYTES),
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED,
            max_replay_stack_depth: MAX_DEPTH,
        },
        // `version: on` is a text since YAML 1.2.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn first_line(text: &str) -> String {
    shorten(text.lines().next().unwrap_or("unreadable"), 200)
}

/// At most `max` characters, without control characters, which a terminal would obey.
pub(super) fn shorten(text: &str, max: usize) -> String {
    let mut short: String = text
        .chars()
        .take(max)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if text.chars().nth(max).is_some() {
        short.push('…');
    }
    short
}

// === impl Failure ===

impl From<&serde_saphyr::Error> for Failure {
    fn from(error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let place = error.location().map(Place::from).unwrap_or_default();
        let text = first_line(&UserMessageFormatter.format_message(error));
        let is_limit = matches!(error, serde_saphyr::Error::Budget { .. });
        if is_limit { Self::Limit(place, text) } else { Self::Syntax(place, text) }
    }
}

// === impl Place ===

impl Place {
    pub(super) fn line(self) -> Option<u64> {
        (self.line > 0).then_some(self.line)
    }

    pub(super) fn column(self) -> Option<u64> {
        (self.line > 0).then_some(self.column)
    }
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

// === impl Node ===

impl Node {
    fn count(&self) -> usize {
        match &self.value {
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
                1
            }
            Value::List(nodes) => 1 + nodes.iter().map(Self::count).sum::<usize>(),
            Value::Map(fields) => 1 + fields.iter().map(|(_, node)| node.count()).sum::<usize>(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { place: spanned.referenced.into(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { place: spanned.referenced.into(), name: spanned.value })
    }
}

// === impl Value ===

impl fmt::Display for Value {
    /// As it would be written in a message: short, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => write!(f, "\"{}\"", shorten(value, 60)),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a mapping"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key()? {
            fields.push((key, map.next_value()?));
        }
        Ok(Value::Map(fields))
    }
}

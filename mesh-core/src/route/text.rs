use std::convert::Infallible;

use crate::InvalidConfig;

/// What a text must be: Istio's `StringMatch`, Gateway API's match types. Case counts.
///
/// ```
/// use mesh_core::route::TextMatch;
///
/// assert_eq!(TextMatch::istio_regex("*"), TextMatch::Present, "Istio's word for presence, no regex");
/// assert_eq!(TextMatch::istio_regex("a*"), TextMatch::Regex("a*".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "whoever carries out routes must know every kind")]
pub enum TextMatch {
    /// Any text, the empty one too: the header or parameter is there.
    Present,
    /// This text.
    Exact(String),
    /// A text that begins so.
    Prefix(String),
    /// A text that an expression of RE2 matches from its beginning to its end.
    Regex(String),
}

impl TextMatch {
    /// This text.
    pub fn exact(text: impl Into<String>) -> Self {
        Self::Exact(text.into())
    }

    /// A text that begins so.
    pub fn prefix(text: impl Into<String>) -> Self {
        Self::Prefix(text.into())
    }

    /// A text that the expression matches as a whole.
    pub fn regex(text: impl Into<String>) -> Self {
        Self::Regex(text.into())
    }

    /// The same, but `*`, which is no expression, is Istio's word for presence.
    pub fn istio_regex(text: impl Into<String>) -> Self {
        match text.into() {
            text if text == "*" => Self::Present,
            text => Self::Regex(text),
        }
    }

    pub(super) fn compile<P>(self, compile: Compile<'_, P>) -> Result<Text<P>, InvalidConfig> {
        Ok(match self {
            Self::Present => Text::Present,
            Self::Exact(text) => Text::Exact(text.into()),
            Self::Prefix(text) => Text::Prefix(text.into()),
            Self::Regex(text) => Text::Pattern(compile(&text)?),
        })
    }
}

/// A compiled regular expression: of which crate, is up to whoever builds a [`Table`](super::Table).
///
/// Routes come from users and requests from strangers: it must take linear time, as RE2 does.
pub trait Pattern {
    /// Whether the expression matches all of `text`, and not only a part of it.
    fn is_full_match(&self, text: &[u8]) -> bool;

    /// `text` with every match of the expression, wherever it stands, replaced by `substitution`: RE2's form, in which
    /// `\1` is the first group, `\0` the whole match and `\\` a backslash.
    fn replace_all(&self, text: &str, substitution: &str) -> String;

    /// How many groups the expression has, the whole match apart.
    fn groups(&self) -> usize;
}

/// Compiles an expression; an error names the field and the text.
pub(super) type Compile<'a, P> = &'a mut dyn FnMut(&str) -> Result<P, InvalidConfig>;

/// The pattern of a table that has none: every expression is refused.
///
/// ```
/// use mesh_core::route::{Client, Match, NoPattern, Table, TextMatch};
///
/// let rule = Match::any().with_method(TextMatch::regex("GET|HEAD"));
/// let error = Table::new([(vec![rule], "v1")], &Client::default(), NoPattern::refuse).unwrap_err();
/// assert_eq!((error.field(), error.value()), ("regex", "GET|HEAD"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NoPattern(Infallible);

impl NoPattern {
    /// Refuses the expression.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn refuse(text: &str) -> Result<Self, InvalidConfig> {
        Err(InvalidConfig::new("regex", text, "no regular expression"))
    }
}

impl Pattern for NoPattern {
    fn is_full_match(&self, _: &[u8]) -> bool {
        match self.0 {}
    }

    fn replace_all(&self, _: &str, _: &str) -> String {
        match self.0 {}
    }

    fn groups(&self) -> usize {
        match self.0 {}
    }
}

/// A compiled [`TextMatch`].
#[derive(Clone, Debug)]
pub(super) enum Text<P> {
    Present,
    Exact(Box<str>),
    Prefix(Box<str>),
    Pattern(P),
}

impl<P: Pattern> Text<P> {
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => exact.as_bytes() == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Pattern(pattern) => pattern.is_full_match(text),
        }
    }

    pub(super) fn is_presence(&self) -> bool {
        matches!(self, Self::Present)
    }
}

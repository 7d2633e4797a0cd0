use super::text::{Compile, Pattern};
use crate::InvalidConfig;

/// What a request's path must be, its query apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "whoever carries out routes must know every kind")]
pub enum PathMatch {
    /// This path.
    Exact(String),
    /// A path that begins so, letter by letter: `/foo` takes `/foobar` (Istio's VirtualService, Envoy `prefix`).
    Prefix(String),
    /// A path that begins with these segments: `/foo` takes `/foo` and `/foo/bar`, not `/foobar`. A slash at the end
    /// means nothing (Gateway API `PathPrefix`, Envoy `path_separated_prefix`).
    Segments(String),
    /// A path that an expression of RE2 matches from its beginning to its end.
    Regex(String),
}

impl PathMatch {
    /// This path.
    pub fn exact(path: impl Into<String>) -> Self {
        Self::Exact(path.into())
    }

    /// A path that begins with these letters.
    pub fn prefix(path: impl Into<String>) -> Self {
        Self::Prefix(path.into())
    }

    /// A path that begins with these segments.
    pub fn segments(path: impl Into<String>) -> Self {
        Self::Segments(path.into())
    }

    /// A path that the expression matches as a whole.
    pub fn regex(text: impl Into<String>) -> Self {
        Self::Regex(text.into())
    }

    /// The calls of a gRPC service, of one of its methods, or of a method of that name in any service (Gateway API
    /// `GRPCRoute`).
    ///
    /// ```
    /// use mesh_core::route::PathMatch;
    ///
    /// assert_eq!(PathMatch::grpc(Some("shop.Cart"), Some("Add")), PathMatch::exact("/shop.Cart/Add"));
    /// assert_eq!(PathMatch::grpc(Some("shop.Cart"), None), PathMatch::prefix("/shop.Cart/"));
    /// assert_eq!(PathMatch::grpc(None, Some("Add")), PathMatch::regex("/[^/]+/Add"));
    /// ```
    pub fn grpc(service: Option<&str>, method: Option<&str>) -> Self {
        match (service, method) {
            (Some(service), Some(method)) => Self::Exact(format!("/{service}/{method}")),
            (Some(service), None) => Self::Prefix(format!("/{service}/")),
            (None, Some(method)) => Self::Regex(format!("/[^/]+/{method}")),
            (None, None) => Self::Prefix("/".to_owned()),
        }
    }

    /// Where paths that may match are found.
    pub(super) fn key(&self) -> Key<'_> {
        match self {
            Self::Exact(path) => Key::Exact(path),
            Self::Prefix(path) => Key::Prefix(path),
            Self::Segments(path) => Key::Prefix(path.trim_end_matches('/')),
            Self::Regex(text) => Key::Prefix(literal_prefix(text)),
        }
    }

    pub(super) fn compile<P>(
        self,
        ignore_case: bool,
        compile: Compile<'_, P>,
    ) -> Result<Path<P>, InvalidConfig> {
        let kind = match self {
            Self::Exact(path) => Kind::Exact(path.into()),
            Self::Prefix(path) => Kind::Prefix(path.into()),
            Self::Segments(path) => Kind::Segments(path.trim_end_matches('/').into()),
            Self::Regex(text) => Kind::Pattern(compile(&text)?),
        };
        Ok(Path { kind, ignore_case })
    }
}

/// The first letters of every path that a [`PathMatch`] takes, or all of them. Letters of ASCII in any case.
pub(super) enum Key<'a> {
    Exact(&'a str),
    Prefix(&'a str),
}

/// What every text must begin with that the expression matches as a whole. Errs on the short side.
fn literal_prefix(regex: &str) -> &str {
    let special = |c: char| "\\.+*?()|[]{}^$".contains(c);
    let end = regex.find(special).unwrap_or(regex.len());
    let (literal, rest) = regex.split_at(end);
    // An alternative has another beginning, and what is repeated may be absent.
    if regex.contains('|') {
        return "";
    }
    if rest.starts_with(['*', '?', '{']) {
        let last = literal.chars().next_back().map_or(0, char::len_utf8);
        return &literal[..literal.len() - last];
    }
    literal
}

/// A compiled [`PathMatch`].
#[derive(Clone, Debug)]
pub(super) struct Path<P> {
    kind: Kind<P>,
    /// Of all kinds but the pattern (Istio `ignoreUriCase`).
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum Kind<P> {
    Exact(Box<str>),
    Prefix(Box<str>),
    /// Without a slash at its end.
    Segments(Box<str>),
    Pattern(P),
}

impl<P: Pattern> Path<P> {
    /// How many bytes of `path` the match takes: all of them, or the prefix. `None`: it is no match.
    pub(super) fn matches(&self, path: &str) -> Option<usize> {
        let path = path.as_bytes();
        let begins = |with: &str| {
            let start = path.get(..with.len())?;
            let same = match self.ignore_case {
                true => start.eq_ignore_ascii_case(with.as_bytes()),
                false => start == with.as_bytes(),
            };
            same.then_some(with.len())
        };
        match &self.kind {
            Kind::Exact(exact) => begins(exact).filter(|taken| *taken == path.len()),
            Kind::Prefix(prefix) => begins(prefix),
            Kind::Segments(prefix) => {
                begins(prefix).filter(|taken| matches!(path.get(*taken), None | Some(b'/')))
            }
            Kind::Pattern(pattern) => pattern.is_full_match(path).then_some(path.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_prefix_promises_nothing_too_much() {
        for (regex, prefix) in [
            ("/foo/.*", "/foo/"),
            ("/foo", "/foo"),
            ("/foo*", "/fo"),
            ("/foo+", "/foo"),
            ("/fooé?", "/foo"),
            ("/fo{0,1}", "/f"),
            ("/a|/b", ""),
            ("(?i)/a", ""),
            ("^/a", ""),
            ("/a(b|c)", ""),
            ("", ""),
            ("*", ""),
        ] {
            assert_eq!(literal_prefix(regex), prefix, "{regex}");
        }
    }
}

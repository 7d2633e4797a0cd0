use super::{path::PathMatch, text::Pattern};
use crate::InvalidConfig;

/// What becomes of a request's path before it is sent on. The query stays.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "whoever carries out routes must know every kind")]
pub enum PathRewrite {
    /// What the match took of the path is replaced letter by letter: of a prefix the prefix, else the whole path (Istio
    /// `rewrite.uri`, Envoy `prefix_rewrite`).
    Prefix(String),
    /// The same by segments: between what is put there and the rest stands one slash (Gateway API
    /// `ReplacePrefixMatch`).
    Segments(String),
    /// The whole path is replaced (Gateway API `ReplaceFullPath`).
    Whole(String),
    /// Each match of an expression is replaced, wherever it stands (Istio `uriRegexRewrite`, Envoy `regex_rewrite`).
    Regex {
        /// The expression of RE2.
        pattern: String,
        /// What takes its place; `\1` is the first group, `\0` all of it.
        substitution: String,
    },
}

/// A compiled [`PathRewrite`].
///
/// ```
/// use mesh_core::route::{NoPattern, PathMatch, PathRewrite, Rewriter};
///
/// let rewrite = |rewrite, path: &str, taken| {
///     Rewriter::new(rewrite, &mut NoPattern::refuse).unwrap().rewrite(path, taken)
/// };
/// let prefix = |with: &str| PathRewrite::Prefix(with.into());
/// let segments = |with: &str| PathRewrite::Segments(with.into());
/// assert_eq!(rewrite(prefix("/v2/"), "/api/cart", 5), "/v2/cart");
/// assert_eq!(rewrite(prefix("/"), "/api/cart", 4), "//cart", "letter by letter");
/// assert_eq!(rewrite(segments("/"), "/api/cart", 4), "/cart");
/// assert_eq!(rewrite(segments("/v2"), "/api", 4), "/v2");
/// assert_eq!(rewrite(PathRewrite::Whole("/gone".into()), "/api/cart", 4), "/gone");
/// ```
#[derive(Clone, Debug)]
pub struct Rewriter<P>(Kind<P>);

#[derive(Clone, Debug)]
enum Kind<P> {
    Prefix(Box<str>),
    /// Without a slash at its end.
    Segments(Box<str>),
    Whole(Box<str>),
    Pattern(P, Box<str>),
}

impl<P: Pattern> Rewriter<P> {
    /// Compiles it.
    ///
    /// # Errors
    ///
    /// What `compile` refuses; a substitution with a lonely `\` or a group that the expression does not have.
    pub fn new(
        rewrite: PathRewrite,
        compile: &mut impl FnMut(&str) -> Result<P, InvalidConfig>,
    ) -> Result<Self, InvalidConfig> {
        Ok(Self(match rewrite {
            PathRewrite::Prefix(with) => Kind::Prefix(with.into()),
            PathRewrite::Segments(with) => Kind::Segments(with.trim_end_matches('/').into()),
            PathRewrite::Whole(with) => Kind::Whole(with.into()),
            PathRewrite::Regex { pattern, substitution } => {
                let pattern = compile(&pattern)?;
                check_substitution(&substitution, pattern.groups())?;
                Kind::Pattern(pattern, substitution.into())
            }
        }))
    }

    /// The new path for `path`, of which the match took `taken` bytes ([`Found::taken`](super::Found::taken)). More than
    /// there are count as all.
    pub fn rewrite(&self, path: &str, taken: usize) -> String {
        let rest = path.get(taken..).unwrap_or_default();
        match &self.0 {
            Kind::Prefix(with) => format!("{with}{rest}"),
            Kind::Segments(with) => match (&**with, rest.trim_start_matches('/')) {
                ("", rest) => format!("/{rest}"),
                (with, "") => format!("{with}{rest}"),
                (with, rest) => format!("{with}/{rest}"),
            },
            Kind::Whole(with) => with.to_string(),
            Kind::Pattern(pattern, substitution) => pattern.replace_all(path, substitution),
        }
    }
}

/// Each `\` is followed by a digit of a group that there is, or by another.
fn check_substitution(text: &str, groups: usize) -> Result<(), InvalidConfig> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        let group = match chars.next() {
            Some('\\') => continue,
            Some(next) => next.to_digit(10),
            None => None,
        };
        if group.is_none_or(|group| group as usize > groups) {
            let expected = "\\ only in front of another or of the number of a group";
            return Err(InvalidConfig::new("substitution", format!("{text:?}"), expected));
        }
    }
    Ok(())
}

impl PathRewrite {
    /// What Gateway API's `ReplacePrefixMatch` needs: a match by segments.
    ///
    /// # Errors
    ///
    /// A path that is matched otherwise, where nothing says what the prefix is.
    ///
    /// ```
    /// use mesh_core::route::{PathMatch, PathRewrite};
    ///
    /// let rewrite = PathRewrite::Segments("/v2".into());
    /// assert!(rewrite.check(Some(&PathMatch::segments("/api"))).is_ok());
    /// assert!(rewrite.check(Some(&PathMatch::regex("/api.*"))).is_err());
    /// ```
    pub fn check(&self, path: Option<&PathMatch>) -> Result<(), InvalidConfig> {
        match (self, path) {
            (Self::Segments(with), Some(PathMatch::Exact(_) | PathMatch::Regex(_))) => {
                Err(InvalidConfig::new("rewrite", with, "a path that is matched by its segments"))
            }
            (Self::Prefix(_) | Self::Segments(_) | Self::Whole(_) | Self::Regex { .. }, _) => {
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_gateway_api() {
        // kubernetes-sigs/gateway-api, HTTPPathModifier.replacePrefixMatch: prefix, replacement, request, result.
        for (prefix, with, path, expected) in [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "", "/foo/bar", "/bar"),
            ("/foo", "", "/foo/", "/"),
            ("/foo", "", "/foo", "/"),
            ("/foo", "/", "/foo/", "/"),
            ("/foo", "/", "/foo", "/"),
        ] {
            let rewriter: Rewriter<crate::route::NoPattern> = Rewriter::new(
                PathRewrite::Segments(with.to_owned()),
                &mut crate::route::NoPattern::refuse,
            )
            .unwrap();
            let taken = prefix.trim_end_matches('/').len();
            assert_eq!(rewriter.rewrite(path, taken), expected, "{prefix} {with} {path}");
        }
    }

    #[test]
    fn a_substitution_names_groups_that_there_are() {
        for (text, ok) in [
            ("/x", true),
            ("\\1/\\0", true),
            ("\\\\", true),
            ("\\2", false),
            ("\\", false),
            ("\\x", false),
        ] {
            assert_eq!(check_substitution(text, 1).is_ok(), ok, "{text}");
        }
    }
}

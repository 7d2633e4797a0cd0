use std::{collections::BTreeMap, fmt, sync::OnceLock};

use mesh_core::{InvalidConfig, route::Pattern};
use regex::bytes::{Regex as Compiled, RegexBuilder};

/// Of one compiled expression: a route that needs more is a mistake.
const SIZE_LIMIT: usize = 1 << 20;

/// A regular expression as Istio and Envoy mean it, in RE2's words: a text matches as a whole or not at all, `\d`, `\w`,
/// `\s` and `\b` are of ASCII, and the time is linear in the text, whatever the expression.
///
/// What RE2 knows and this does not is refused: `\C`, `\Q…\E`, octal numbers. What this knows beyond RE2 (`(?x)`) works.
///
/// ```
/// use mesh_core::route::Pattern;
/// use mesh_tower::route::Regex;
///
/// let regex = Regex::new("/v(\\d+)/.*").unwrap();
/// assert!(regex.is_full_match(b"/v2/cart") && !regex.is_full_match(b"/x/v2/cart"));
/// assert!(!regex.is_full_match("/v٢/cart".as_bytes()), "a digit is 0 to 9");
/// assert_eq!(Regex::new("/v(\\d+)").unwrap().replace_all("/v2/cart", "/\\1"), "/2/cart");
/// assert_eq!(Regex::new("(").unwrap_err().field(), "regex");
/// ```
#[derive(Clone)]
pub struct Regex {
    full: Compiled,
    /// The expression in the words of the crate.
    text: Box<str>,
    /// The same without anchors: only a rewrite needs it, and asks for its groups when it is built.
    part: OnceLock<regex::Regex>,
}

impl Regex {
    /// Compiles the expression.
    ///
    /// # Errors
    ///
    /// One that is none, or whose program is larger than 1 MiB.
    pub fn new(re2: &str) -> Result<Self, InvalidConfig> {
        let refused =
            || InvalidConfig::new("regex", re2, "a regular expression of RE2, of at most 1 MiB");
        let text = in_our_words(re2).into_boxed_str();
        // By itself first: `a)(b` would be one within the group.
        let build = |text: &str| RegexBuilder::new(text).size_limit(SIZE_LIMIT).build();
        build(&text).map_err(|_| refused())?;
        let full = build(&format!("\\A(?:{text})\\z")).map_err(|_| refused())?;
        Ok(Self { full, text, part: OnceLock::new() })
    }

    fn part(&self) -> &regex::Regex {
        self.part.get_or_init(|| {
            regex::Regex::new(&self.text).unwrap_or_else(|_| unreachable!("it has been compiled"))
        })
    }
}

impl Pattern for Regex {
    fn is_full_match(&self, text: &[u8]) -> bool {
        self.full.is_match(text)
    }

    fn replace_all(&self, text: &str, substitution: &str) -> String {
        self.part()
            .replace_all(text, |groups: &regex::Captures<'_>| {
                let mut made = String::new();
                let mut chars = substitution.chars();
                while let Some(c) = chars.next() {
                    let group = match c {
                        '\\' => chars.next().map(|next| (next, next.to_digit(10))),
                        _ => None,
                    };
                    match group {
                        None => made.push(c),
                        Some((_, Some(number))) => {
                            made.push_str(
                                groups.get(number as usize).map_or("", |group| group.as_str()),
                            );
                        }
                        Some((next, None)) => made.push(next),
                    }
                }
                made
            })
            .into_owned()
    }

    fn groups(&self) -> usize {
        self.part().captures_len() - 1
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({})", self.text)
    }
}

/// Compiles each text once: 100,000 routes may share ten expressions.
#[derive(Debug, Default)]
pub(super) struct Regexes(BTreeMap<String, Regex>);

impl Regexes {
    pub(super) fn get(&mut self, text: &str) -> Result<Regex, InvalidConfig> {
        if let Some(known) = self.0.get(text) {
            return Ok(known.clone());
        }
        let regex = Regex::new(text)?;
        self.0.insert(text.to_owned(), regex.clone());
        Ok(regex)
    }
}

/// What RE2 writes as the crate `regex` understands it: classes are of ASCII, `\<` and `\>` are letters, and in a
/// bracket nothing but `]`, `\`, `^`, `-` and `[:` is special.
fn in_our_words(re2: &str) -> String {
    let mut text = String::with_capacity(re2.len() + 16);
    let mut chars = re2.chars().peekable();
    // Within a bracket: how many characters it has so far.
    let mut bracket: Option<usize> = None;
    while let Some(c) = chars.next() {
        if c == '\\' {
            bracket = bracket.map(|count| count + 1);
            let Some(next) = chars.next() else {
                text.push(c);
                break;
            };
            match (class_of(next), bracket) {
                (Some((class, false)), Some(_)) => text.push_str(class),
                (Some((class, false)), None) => text.push_str(&format!("[{class}]")),
                (Some((class, true)), _) => text.push_str(&format!("[^{class}]")),
                (None, None) if matches!(next, 'b' | 'B') => {
                    text.push_str(&format!("(?-u:\\{next})"));
                }
                (None, _) if matches!(next, '<' | '>') => text.push(next),
                (None, _) => text.extend([c, next]),
            }
            continue;
        }
        let Some(count) = bracket else {
            text.push(c);
            if c == '[' {
                bracket = Some(0);
                if chars.next_if_eq(&'^').is_some() {
                    text.push('^');
                }
            }
            continue;
        };
        bracket = Some(count + 1);
        match c {
            // First of all it is itself.
            ']' if count == 0 => text.push_str("\\]"),
            ']' => {
                bracket = None;
                text.push(c);
            }
            '[' if chars.peek() == Some(&':') => {
                // `[:alpha:]` as it stands, to its own end.
                text.push(c);
                for part in chars.by_ref() {
                    text.push(part);
                    if part == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' => text.extend(['\\', c]),
            '-' if text.ends_with('-') && !text.ends_with("\\-") => text.push_str("\\-"),
            _ => text.push(c),
        }
    }
    text
}

/// What a class of RE2 has in it, and whether it is all but that.
fn class_of(letter: char) -> Option<(&'static str, bool)> {
    Some(match letter {
        'd' => ("0-9", false),
        'D' => ("0-9", true),
        'w' => ("0-9A-Za-z_", false),
        'W' => ("0-9A-Za-z_", true),
        's' => ("\\t\\n\\x0C\\r ", false),
        'S' => ("\\t\\n\\x0C\\r ", true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(regex: &str, text: &str) -> bool {
        Regex::new(regex).unwrap_or_else(|error| panic!("{error}")).is_full_match(text.as_bytes())
    }

    #[test]
    fn all_of_the_text_or_nothing() {
        assert!(full("a|ab", "ab"), "the leftmost alternative is not the last word");
        assert!(!full("user=j", "user=j; b=1") && !full("b", "ab"));
        assert!(full("", "") && !full("", "a") && full(".*", ""));
        assert!(!full(".*", "a\nb") && full("(?s).*", "a\nb"));
        assert!(full("(?i)ABC", "abc"));
        assert!(full("^abc$", "abc"), "anchors of its own do no harm");
    }

    #[test]
    fn classes_are_of_ascii() {
        for (regex, yes, no) in [
            ("\\d", "7", "٧"),
            ("\\w+", "a_9", "é"),
            ("[\\w-]+", "a-b", "é"),
            ("[^\\d]", "é", "7"),
            ("[\\D]", "٧", "7"),
            ("\\s", "\t", "\u{a0}"),
            ("a\\b.*", "a b", "ab"),
            ("\\<a\\>", "<a>", "a"),
            ("[[&&b]+", "[&b", "a"),
            ("[]a]+", "]a", "b"),
            ("[^]a]", "b", "]"),
            ("[[:alpha:]-]+", "a-", "1"),
            ("[a~~b]", "~", "c"),
            ("[+--]", ",", "a"),
            (".", "é", "éé"),
            ("\\.", ".", "a"),
            ("é*", "éé", "\u{e8}"),
        ] {
            assert!(full(regex, yes), "{regex} {yes}");
            assert!(!full(regex, no), "{regex} {no}");
        }
        assert!(!Regex::new(".").unwrap().is_full_match(b"\xff"), "a dot is a character");
    }

    #[test]
    fn what_is_none_is_refused() {
        for regex in
            ["(", "*", "a)(b", "[", "[z-a]", "\\", "\\C", "(?=a)", "((a{1000}){1000}){1000}"]
        {
            let error = Regex::new(regex).unwrap_err();
            assert_eq!((error.field(), error.value()), ("regex", regex));
        }
    }

    #[test]
    fn a_substitution_is_made_of_groups() {
        let replace = |regex: &str, text: &str, with: &str| {
            Regex::new(regex).unwrap().replace_all(text, with)
        };
        assert_eq!(replace("/(a)(b)?", "/ab/a", "[\\2\\1]"), "[ba][a]");
        assert_eq!(replace("a", "aba", "$1\\0\\\\"), "$1a\\b$1a\\");
        assert_eq!(Regex::new("(a)(?:b)(?P<c>c)").unwrap().groups(), 2);
    }

    #[test]
    fn time_is_linear() {
        let text = "a".repeat(100_000);
        assert!(!full("(a*)*b", &text));
        assert!(!full("(a|aa)+$b", &text));
    }
}

//! What a policy says of a header that has several values.

use super::{Head, check::Sense, text::Text};

/// A header of a policy, ready to be looked for.
#[derive(Clone, Debug)]
pub(super) struct HeaderText {
    text: Text,
    /// Where the value is a list itself: the same without blanks, which mean nothing around commas.
    list: Option<Text>,
}

impl HeaderText {
    pub(super) fn new(name: &str, value: &str) -> Self {
        let is_list = value.as_bytes().contains(&separator(name));
        let list = is_list.then(|| Text::new(&value.replace([' ', '\t'], "")));
        Self { text: Text::new(value), list }
    }

    pub(super) fn is_any(&self) -> bool {
        self.text.is_any()
    }

    /// Several lines are one, joined by `,` (RFC 9110 §5.3, Envoy `HeaderUtility`). In a wide sense also each line, each
    /// value of the list, the list without blanks, and those of a name that some take for the same; in a narrow one all
    /// lines, those too, and what they are together.
    pub(super) fn matches(&self, head: &impl Head, name: &str, sense: Sense) -> bool {
        let mut others = head.lookalikes(name).take_while(|_| sense != Sense::AsIs);
        let mut lines = head.header(name);
        let Some(first) = lines.next() else {
            return sense == Sense::Wide
                && others.any(|line| self.is_any() || self.is_in(line, name));
        };
        let is_alone = lines.next().is_none();
        if self.text.is_any() {
            // Presence, of an empty value too (Istio `HeaderMatcher`); but to some, an empty one is none.
            let is_there = |line: &[u8]| !line.is_empty();
            return sense != Sense::Narrow || head.header(name).chain(others).all(is_there);
        }
        let is_one = |value: &[u8]| self.text.matches(value);
        let is_whole = || match is_alone {
            true => is_one(first),
            false => self.text.matches_letters(|| letters(head, name)),
        };
        match sense {
            Sense::AsIs => is_whole(),
            Sense::Narrow => {
                is_whole() && (is_alone || head.header(name).all(is_one)) && others.all(is_one)
            }
            Sense::Wide => {
                is_whole()
                    || head.header(name).any(|line| self.is_in(line, name))
                    || self.is_listed(head, name)
                    || others.any(|line| self.is_in(line, name))
            }
        }
    }

    /// Whether a line is it, or a list with it.
    fn is_in(&self, line: &[u8], name: &str) -> bool {
        let comma = separator(name);
        self.text.matches(line)
            || line.split(|byte| *byte == comma).any(|value| self.text.matches(value.trim_ascii()))
    }

    fn is_listed(&self, head: &impl Head, name: &str) -> bool {
        self.list.as_ref().is_some_and(|list| {
            let is_blank = |letter: &u8| matches!(letter, b' ' | b'\t');
            list.matches_letters(|| letters(head, name).filter(|letter| !is_blank(letter)))
        })
    }
}

/// What stands between the values of a list. The crumbs of a cookie are joined otherwise (RFC 9113 §8.2.3), which Envoy does
/// before anybody looks at them.
fn separator(name: &str) -> u8 {
    if name == "cookie" { b';' } else { b',' }
}

/// All lines as one, where they are.
fn letters<'a>(head: &'a impl Head, name: &'a str) -> impl Iterator<Item = u8> {
    let between = if name == "cookie" { "; " } else { "," };
    head.header(name).enumerate().flat_map(move |(index, line)| {
        let between = if index > 0 { between } else { "" };
        between.bytes().chain(line.iter().copied())
    })
}

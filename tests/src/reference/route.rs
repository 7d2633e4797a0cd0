//! A table of routes, against asking one route after the other.

use std::borrow::Cow;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    InvalidConfig,
    route::{Client, Head, Match, PathMatch, Pattern, PlainHead, Table, TextMatch, gateway},
};

use super::Machine;

/// The check.
pub(super) const MACHINE: Machine = Machine {
    name: "route",
    faults: &[
        "takes the last route that matches",
        "takes the most exact route, whatever the order",
        "takes the first route of a list that has an order of its own",
        "matches a prefix by its segments",
        "matches segments letter by letter",
        "minds the case where it is to be ignored",
        "sees the query as a part of the path",
        "takes an absent header for one that matches",
        "takes an absent header for one that must not match",
        "is content with a part of an expression's text",
        "is content with one match of a block",
    ],
    check,
};

/// Few letters, so that paths meet.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Piece {
    A,
    B,
    UpperA,
    Slash,
}

#[derive(Clone, Debug, Arbitrary)]
enum Path {
    Any,
    Exact(Vec<Piece>),
    Prefix(Vec<Piece>),
    Segments(Vec<Piece>),
    /// The letters, and then anything or nothing.
    Regex(Vec<Piece>, bool),
}

#[derive(Clone, Debug, Arbitrary)]
struct Block {
    path: Path,
    ignore_case: bool,
    post: bool,
    header: Option<Value>,
    without: Option<Value>,
    param: Option<Value>,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Value {
    Present,
    Exact,
    Empty,
    Prefix,
}

#[derive(Clone, Debug, Arbitrary)]
struct Request {
    path: Vec<Piece>,
    post: bool,
    header: Option<Option<bool>>,
    param: Option<bool>,
}

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut bytes = Unstructured::new(data);
    let ranked = bool::arbitrary(&mut bytes).unwrap_or_default();
    let mut routes: Vec<Vec<Block>> = Vec::new();
    for _ in 0..usize::from(u8::arbitrary(&mut bytes).unwrap_or_default() % 12) {
        let count = u8::arbitrary(&mut bytes).unwrap_or_default() % 3;
        let blocks = (0..count).filter_map(|_| Block::arbitrary(&mut bytes).ok());
        routes.push(blocks.collect());
    }
    let table = build(&routes, ranked)?;
    for _ in 0..16 {
        let Ok(request) = Request::arbitrary(&mut bytes) else { break };
        let head = Seen { head: request.head(), query_in_path: fault == Some(6) };
        let got = table.find(&head).map(|found| *found.route());
        let right = model(&routes, ranked, &request, fault);
        if got != right {
            return Err(format!(
                "{request:?} of {routes:?}, ranked {ranked}: {got:?}, not {right:?}"
            ));
        }
    }
    Ok(())
}

fn build(routes: &[Vec<Block>], ranked: bool) -> Result<Table<usize, Letters>, String> {
    let matches = |blocks: &[Block]| blocks.iter().map(Block::to_match).collect::<Vec<_>>();
    let table = if ranked {
        let rule = |(index, blocks): (usize, &Vec<Block>)| {
            matches(blocks).into_iter().fold(gateway::Rule::new(index), gateway::Rule::with_match)
        };
        Table::by_precedence(routes.iter().enumerate().map(rule).collect(), Letters::new)
    } else {
        let routes = routes.iter().enumerate().map(|(index, blocks)| (matches(blocks), index));
        Table::new(routes, &Client::default(), Letters::new)
    };
    table.map_err(|error| error.to_string())
}

/// Every route is asked.
fn model(
    routes: &[Vec<Block>],
    ranked: bool,
    request: &Request,
    fault: Option<usize>,
) -> Option<usize> {
    let any = [Block::ANY];
    let blocks = routes.iter().enumerate().flat_map(|(index, blocks)| {
        let blocks = if blocks.is_empty() { any.as_slice() } else { blocks };
        blocks.iter().map(move |block| (block, index))
    });
    let mut taking: Vec<_> = blocks.filter(|(block, _)| block.takes(request, fault)).collect();
    if (ranked && fault != Some(2)) || (!ranked && fault == Some(1)) {
        // Stable: of equals the first.
        taking.sort_by_key(|(block, _)| std::cmp::Reverse(block.rank()));
    }
    let taken = if fault == Some(0) { taking.last() } else { taking.first() };
    taken.map(|(_, index)| *index)
}

impl Block {
    const ANY: Self = Self {
        path: Path::Any,
        ignore_case: false,
        post: false,
        header: None,
        without: None,
        param: None,
    };

    fn to_match(&self) -> Match {
        let mut one = Match::any().with_case_ignored(self.ignore_case);
        let path = match &self.path {
            Path::Any => None,
            Path::Exact(path) => Some(PathMatch::Exact(write(path))),
            Path::Prefix(path) => Some(PathMatch::Prefix(write(path))),
            Path::Segments(path) => Some(PathMatch::Segments(write(path))),
            Path::Regex(path, more) => {
                Some(PathMatch::Regex(write(path) + if *more { ".*" } else { "" }))
            }
        };
        if let Some(path) = path {
            one = one.with_path(path);
        }
        if self.post {
            one = one.with_method(TextMatch::exact("POST"));
        }
        if let Some(value) = self.header {
            one = one.with_header("X-H", value.text());
        }
        if let Some(value) = self.without {
            one = one.without_header("x-h", value.text());
        }
        if let Some(value) = self.param {
            one = one.with_query("p", value.text());
        }
        one
    }

    fn takes(&self, request: &Request, fault: Option<usize>) -> bool {
        let header = request.header();
        let conditions = [
            self.takes_path(&write(&request.path), fault),
            !self.post || request.post,
            self.header.is_none_or(|value| match header {
                Some(header) => value.takes(header),
                None => fault == Some(7),
            }),
            self.without.is_none_or(|value| match (value, header) {
                (_, None) if fault == Some(8) => false,
                (Value::Present, header) => header.is_none(),
                (value, header) => !value.takes(header.unwrap_or_default()),
            }),
            self.param.is_none_or(|value| request.param().is_some_and(|param| value.takes(param))),
        ];
        if fault == Some(10) {
            return conditions[0] || conditions[1..].iter().all(|holds| *holds);
        }
        conditions.iter().all(|holds| *holds)
    }

    fn takes_path(&self, path: &str, fault: Option<usize>) -> bool {
        let fold = |text: String| match self.ignore_case && fault != Some(5) {
            true => text.to_ascii_lowercase(),
            false => text,
        };
        let folded = fold(path.to_owned());
        let segments = |wanted: &[Piece]| {
            let wanted = fold(write(wanted));
            let wanted = wanted.trim_end_matches('/');
            folded == wanted || folded.starts_with(&format!("{wanted}/"))
        };
        let letters = |wanted: &[Piece]| folded.starts_with(&fold(write(wanted)));
        match &self.path {
            Path::Any => true,
            Path::Exact(wanted) => folded == fold(write(wanted)),
            Path::Prefix(wanted) if fault == Some(3) => segments(wanted),
            Path::Prefix(wanted) => letters(wanted),
            Path::Segments(wanted) if fault == Some(4) => letters(wanted),
            Path::Segments(wanted) => segments(wanted),
            Path::Regex(wanted, more) if *more || fault == Some(9) => {
                path.starts_with(&write(wanted))
            }
            Path::Regex(wanted, _) => path == write(wanted),
        }
    }

    fn rank(&self) -> (u8, usize, bool, usize, usize) {
        let (kind, length) = match &self.path {
            Path::Any => (0, 0),
            Path::Exact(path) => (2, write(path).len()),
            Path::Regex(path, more) => (1, write(path).len() + usize::from(*more) * 2),
            Path::Prefix(path) | Path::Segments(path) => {
                (0, write(path).trim_end_matches('/').len())
            }
        };
        (kind, length, self.post, self.header.iter().count(), self.param.iter().count())
    }
}

impl Value {
    fn text(self) -> TextMatch {
        match self {
            Self::Present => TextMatch::Present,
            Self::Exact => TextMatch::exact("yes"),
            Self::Empty => TextMatch::exact(""),
            Self::Prefix => TextMatch::prefix("y"),
        }
    }

    fn takes(self, text: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact => text == "yes",
            Self::Empty => text.is_empty(),
            Self::Prefix => text.starts_with('y'),
        }
    }
}

impl Request {
    fn header(&self) -> Option<&'static str> {
        self.header.map(|value| value.map_or("", |yes| if yes { "yes" } else { "no" }))
    }

    fn param(&self) -> Option<&'static str> {
        self.param.map(|yes| if yes { "yes" } else { "" })
    }

    fn head(&self) -> PlainHead {
        let query = self.param().map_or(String::new(), |param| format!("?p={param}"));
        let head =
            PlainHead::new(if self.post { "POST" } else { "GET" }, &(write(&self.path) + &query));
        match self.header() {
            Some(header) => head.with_header("x-h", header),
            None => head,
        }
    }
}

fn write(path: &[Piece]) -> String {
    let letter = |piece: &Piece| match piece {
        Piece::A => 'a',
        Piece::B => 'b',
        Piece::UpperA => 'A',
        Piece::Slash => '/',
    };
    // What follows the first few decides nothing that they do not.
    std::iter::once('/').chain(path.iter().take(4).map(letter)).collect()
}

/// The head as a table sees it, or as one with a fault would.
struct Seen {
    head: PlainHead,
    query_in_path: bool,
}

impl Head for Seen {
    fn method(&self) -> &str {
        self.head.method()
    }

    fn scheme(&self) -> &str {
        self.head.scheme()
    }

    fn authority(&self) -> &str {
        self.head.authority()
    }

    fn path(&self) -> &str {
        match self.query_in_path && !self.head.query().is_empty() {
            // As if it began with the query.
            true => self.head.query(),
            false => self.head.path(),
        }
    }

    fn query(&self) -> &str {
        self.head.query()
    }

    fn port(&self) -> Option<u16> {
        self.head.port()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.head.header(name)
    }
}

/// Letters, and `.*` at the end or not.
#[derive(Debug)]
struct Letters(String);

impl Letters {
    fn new(text: &str) -> Result<Self, InvalidConfig> {
        Ok(Self(text.to_owned()))
    }
}

impl Pattern for Letters {
    fn is_full_match(&self, text: &[u8]) -> bool {
        match self.0.strip_suffix(".*") {
            Some(start) => text.starts_with(start.as_bytes()),
            None => text == self.0.as_bytes(),
        }
    }

    fn replace_all(&self, text: &str, _: &str) -> String {
        text.to_owned()
    }

    fn groups(&self) -> usize {
        0
    }
}

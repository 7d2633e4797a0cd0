use std::collections::BTreeSet;

use super::{
    client::Client,
    head::Head,
    index::{Facet, Found},
    path::{Key, Path, PathMatch},
    text::{Compile, Pattern, Text, TextMatch},
};
use crate::{InvalidConfig, Labels};

/// Which requests: all that is said must hold. Istio's `HTTPMatchRequest`, Gateway API's `HTTPRouteMatch`.
///
/// | asked of | absent | rule |
/// | --- | --- | --- |
/// | path | any | [`PathMatch`]; the query is no part of it |
/// | scheme, method, authority | any | the authority is what was sent, its port included |
/// | header | does not match | several values are one, joined by `,` |
/// | header that must not match | counts as empty; with [`TextMatch::Present`] it must be absent | |
/// | query | does not match | the first parameter of the name, not decoded |
/// | port | does not match | the port that the request was sent to |
/// | source labels, source namespace, gateways | any | asked of the [`Client`] when a table is built; with gateways the source counts for nothing (Istio `sourceMatchHTTP`) |
///
/// ```
/// use mesh_core::route::{Client, Match, NoPattern, PathMatch, PlainHead, Table, TextMatch};
///
/// let beta = Match::any()
///     .with_path(PathMatch::prefix("/api"))
///     .with_header("x-beta", TextMatch::exact("1"))
///     .with_query("trace", TextMatch::Present);
/// let table = Table::new([(vec![beta], "v2")], &Client::default(), NoPattern::refuse).unwrap();
/// let request = PlainHead::new("GET", "/api/cart?trace");
/// assert!(table.find(&request).is_none());
/// assert_eq!(*table.find(&request.with_header("X-Beta", "1")).unwrap().route(), "v2");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    path: Option<PathMatch>,
    ignore_case: bool,
    scheme: Option<TextMatch>,
    method: Option<TextMatch>,
    authority: Option<TextMatch>,
    headers: Vec<(String, TextMatch)>,
    without: Vec<(String, TextMatch)>,
    params: Vec<(String, TextMatch)>,
    port: Option<u16>,
    labels: Labels,
    namespace: Option<String>,
    gateways: Vec<String>,
}

impl Match {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// The path must match.
    #[must_use]
    pub fn with_path(mut self, path: PathMatch) -> Self {
        self.path = Some(path);
        self
    }

    /// Whether the case of the path's letters (of ASCII) counts for nothing. Default false. An expression is not changed
    /// by it (Istio `ignoreUriCase`).
    #[must_use]
    pub fn with_case_ignored(mut self, on: bool) -> Self {
        self.ignore_case = on;
        self
    }

    /// The scheme must match.
    #[must_use]
    pub fn with_scheme(mut self, scheme: TextMatch) -> Self {
        self.scheme = Some(scheme);
        self
    }

    /// The method must match.
    #[must_use]
    pub fn with_method(mut self, method: TextMatch) -> Self {
        self.method = Some(method);
        self
    }

    /// The authority must match.
    #[must_use]
    pub fn with_authority(mut self, authority: TextMatch) -> Self {
        self.authority = Some(authority);
        self
    }

    /// The header must be there and match. The case of its name does not count. `host`, `:authority`, `:method` and
    /// `:scheme` are what they are elsewhere.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: TextMatch) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value));
        self
    }

    /// The header must not match; absent, it is an empty text.
    #[must_use]
    pub fn without_header(mut self, name: &str, value: TextMatch) -> Self {
        self.without.push((name.to_ascii_lowercase(), value));
        self
    }

    /// The parameter of the query must be there and match. The case of its name counts.
    #[must_use]
    pub fn with_query(mut self, name: impl Into<String>, value: TextMatch) -> Self {
        self.params.push((name.into(), value));
        self
    }

    /// The request must have been sent to this port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The client must have these labels.
    #[must_use]
    pub fn with_source_labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// The client must be of this namespace.
    #[must_use]
    pub fn with_source_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The client must be one of these gateways; then its labels and namespace count for nothing.
    #[must_use]
    pub fn with_gateways(mut self, gateways: Vec<String>) -> Self {
        self.gateways = gateways;
        self
    }

    /// What the path must be.
    pub fn path(&self) -> Option<&PathMatch> {
        self.path.as_ref()
    }

    /// What the method must be.
    pub fn method(&self) -> Option<&TextMatch> {
        self.method.as_ref()
    }

    /// The headers that must match.
    pub fn headers(&self) -> &[(String, TextMatch)] {
        &self.headers
    }

    /// The parameters that must match.
    pub fn query(&self) -> &[(String, TextMatch)] {
        &self.params
    }

    /// Whether requests of `client` can match at all.
    pub fn is_for(&self, client: &Client) -> bool {
        if !self.gateways.is_empty() {
            return self.gateways.iter().any(|gateway| gateway == client.gateway());
        }
        let namespace = self.namespace.as_deref();
        client.labels().matches(&self.labels)
            && namespace.is_none_or(|namespace| namespace == client.namespace())
    }

    /// Whether a table would take it, for whomever.
    ///
    /// # Errors
    ///
    /// As for [`Table::new`](super::Table::new).
    ///
    /// ```
    /// use mesh_core::route::{Match, NoPattern, TextMatch};
    ///
    /// assert!(Match::any().with_header("a b", TextMatch::Present).check(NoPattern::refuse).is_err());
    /// ```
    pub fn check<P>(
        &self,
        mut compile: impl FnMut(&str) -> Result<P, InvalidConfig>,
    ) -> Result<(), InvalidConfig> {
        self.clone().compile(&mut compile).map(drop)
    }

    /// Without the second header and parameter of a name (Gateway API).
    pub(super) fn with_first_of_each_name(mut self) -> Self {
        for pairs in [&mut self.headers, &mut self.params] {
            let mut seen = BTreeSet::new();
            pairs.retain(|(name, _)| seen.insert(name.clone()));
        }
        self
    }

    pub(super) fn key(&self) -> Found<'_> {
        let path = self.path.as_ref().map_or(Key::Prefix(""), PathMatch::key);
        (path, self.facet())
    }

    /// The first header or parameter that must have one value.
    fn facet(&self) -> Option<(Facet<'_>, &str)> {
        let headers = self.headers.iter().filter(|(name, _)| Part::of_header(name).is_none());
        let headers = headers.map(|(name, text)| (Facet::Header(name), text));
        let params = self.params.iter().map(|(name, text)| (Facet::Param(name), text));
        headers.chain(params).find_map(|(facet, text)| match text {
            TextMatch::Exact(value) => Some((facet, value.as_str())),
            TextMatch::Present | TextMatch::Prefix(_) | TextMatch::Regex(_) => None,
        })
    }

    pub(super) fn compile<P>(self, compile: Compile<'_, P>) -> Result<Block<P>, InvalidConfig> {
        let mut conditions = Vec::new();
        // The cheap ones first.
        if let Some(port) = self.port {
            conditions.push(Condition::Port(port));
        }
        let parts = [
            (Part::Method, self.method),
            (Part::Scheme, self.scheme),
            (Part::Authority, self.authority),
        ];
        for (part, text) in parts {
            if let Some(text) = text {
                conditions.push(Condition::Part(part, text.compile(compile)?));
            }
        }
        for (name, text) in self.headers {
            let text = text.compile(compile)?;
            conditions.push(match Part::of_header(&name) {
                Some(part) => Condition::Part(part, text),
                None => Condition::Header(header_name(name)?, text),
            });
        }
        for (name, text) in self.without {
            conditions.push(Condition::Without(header_name(name)?, text.compile(compile)?));
        }
        for (name, text) in self.params {
            if name.is_empty() {
                return Err(InvalidConfig::new("query", "\"\"", "the name of a parameter"));
            }
            conditions.push(Condition::Param(name.into(), text.compile(compile)?));
        }
        let path = self.path.map(|path| path.compile(self.ignore_case, compile)).transpose()?;
        Ok(Block { path, conditions: conditions.into() })
    }
}

/// A header's name by the grammar of HTTP.
pub(super) fn header_name(name: String) -> Result<Box<str>, InvalidConfig> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(InvalidConfig::new("header", format!("{name:?}"), "the name of a header"));
    }
    Ok(name.into())
}

/// A compiled [`Match`].
#[derive(Clone, Debug)]
pub(super) struct Block<P> {
    path: Option<Path<P>>,
    conditions: Box<[Condition<P>]>,
}

#[derive(Clone, Debug)]
enum Condition<P> {
    Port(u16),
    Part(Part, Text<P>),
    Header(Box<str>, Text<P>),
    Without(Box<str>, Text<P>),
    Param(Box<str>, Text<P>),
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Method,
    Scheme,
    Authority,
}

impl Part {
    fn of_header(name: &str) -> Option<Self> {
        match name {
            ":method" => Some(Self::Method),
            ":scheme" => Some(Self::Scheme),
            ":authority" | "host" => Some(Self::Authority),
            _ => None,
        }
    }
}

impl<P: Pattern> Block<P> {
    /// How many bytes of the path the match takes; `None`: it is no match.
    pub(super) fn matches(&self, head: &impl Head) -> Option<usize> {
        let path = head.path();
        let taken = match &self.path {
            Some(wanted) => wanted.matches(path)?,
            // Istio's word for no path is the prefix `/`.
            None => path.len().min(1),
        };
        self.conditions.iter().all(|condition| condition.holds(head)).then_some(taken)
    }
}

impl<P: Pattern> Condition<P> {
    fn holds(&self, head: &impl Head) -> bool {
        match self {
            Self::Port(port) => head.port() == Some(*port),
            Self::Part(part, text) => text.matches(
                match part {
                    Part::Method => head.method(),
                    Part::Scheme => head.scheme(),
                    Part::Authority => head.authority(),
                }
                .as_bytes(),
            ),
            Self::Header(name, text) => head.header(name).is_some_and(|value| text.matches(&value)),
            Self::Without(name, text) => match head.header(name) {
                Some(value) => !text.matches(&value),
                None => text.is_presence() || !text.matches(b""),
            },
            Self::Param(name, text) => {
                head.param(name).is_some_and(|value| text.matches(value.as_bytes()))
            }
        }
    }
}

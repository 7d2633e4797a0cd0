use std::time::Duration;

use super::{
    fault::Fault, headers::HeaderChanges, matching::Match, rewrite::PathRewrite, share::Share,
    split::Split,
};
use crate::{InvalidConfig, Labels, Ratio, Rng, retry};

/// A route in full: which requests, and what becomes of them. `T` is a destination, such as a host, subset and port.
///
/// Plain data, whatever it was read from: Istio's `HTTPRoute`, Gateway API's `HTTPRouteRule`. A [`Table`](super::Table)
/// finds it, and who carries requests carries it out.
///
/// ```
/// use mesh_core::route::{Action, Forward, Match, PathMatch, Redirect, Rule, Split};
/// use std::time::Duration;
///
/// let split = Split::new(vec![("v1", 95), ("v2", 5)]).unwrap();
/// let forward = Forward::split(split).with_timeout(Some(Duration::from_secs(2)));
/// let api = Rule::new(forward.into())
///     .with_name("api")
///     .with_match(Match::any().with_path(PathMatch::prefix("/api")));
/// let moved: Rule<&str> = Rule::new(Action::Redirect(Redirect::new().with_path("/new".into())));
/// assert_eq!((api.name(), moved.matches().len()), ("api", 0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule<T> {
    name: String,
    matches: Vec<Match>,
    fault: Fault,
    action: Action<T>,
}

impl<T> Rule<T> {
    /// A rule for every request, unless a match is added.
    pub fn new(action: Action<T>) -> Self {
        Self { name: String::new(), matches: Vec::new(), fault: Fault::none(), action }
    }

    /// Names it, for people.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds a match; one of several is enough.
    #[must_use]
    pub fn with_match(mut self, one: Match) -> Self {
        self.matches.push(one);
        self
    }

    /// Sets what goes wrong on purpose, before the action. Default nothing.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// Its name, or nothing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which requests; none: every request.
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// What goes wrong on purpose.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// What becomes of its requests.
    pub fn action(&self) -> &Action<T> {
        &self.action
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "whoever carries out routes must know every kind")]
pub enum Action<T> {
    /// It is sent on.
    Forward(Box<Forward<T>>),
    /// The caller is told to ask elsewhere.
    Redirect(Redirect),
    /// It is answered at once.
    Respond(DirectResponse),
}

impl<T> From<Forward<T>> for Action<T> {
    fn from(forward: Forward<T>) -> Self {
        Self::Forward(Box::new(forward))
    }
}

/// Requests that are sent on: where, how they are changed, and how long they may take.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forward<T> {
    split: Split<Share<T>>,
    path: Option<PathRewrite>,
    authority: Option<String>,
    request: HeaderChanges,
    response: HeaderChanges,
    timeout: Option<Duration>,
    retry: Option<retry::Config>,
    criteria: Labels,
    mirrors: Vec<Mirror<T>>,
}

impl<T> Forward<T> {
    /// To one destination.
    pub fn to(destination: T) -> Self {
        Self::shares(Split::single(Share::new(destination)))
    }

    /// To several, by their weights.
    pub fn split(split: Split<T>) -> Self {
        Self::shares(split.map(Share::new))
    }

    /// To several, each with changes of its own.
    pub fn shares(split: Split<Share<T>>) -> Self {
        Self {
            split,
            path: None,
            authority: None,
            request: HeaderChanges::none(),
            response: HeaderChanges::none(),
            timeout: None,
            retry: None,
            criteria: Labels::default(),
            mirrors: Vec::new(),
        }
    }

    /// Changes the path. Default as it is.
    #[must_use]
    pub fn with_path(mut self, rewrite: Option<PathRewrite>) -> Self {
        self.path = rewrite;
        self
    }

    /// Sets the authority, whatever a destination says. Default as it is.
    #[must_use]
    pub fn with_authority(mut self, authority: Option<String>) -> Self {
        self.authority = authority;
        self
    }

    /// Changes the requests' headers. Default nothing.
    #[must_use]
    pub fn with_request_headers(mut self, changes: HeaderChanges) -> Self {
        self.request = changes;
        self
    }

    /// Changes the responses' headers. Default nothing.
    #[must_use]
    pub fn with_response_headers(mut self, changes: HeaderChanges) -> Self {
        self.response = changes;
        self
    }

    /// The time for a request, all attempts included. Default `None`: the route sets no limit (Istio).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// How its requests are retried. Default `None`: as the destination's upstream says.
    #[must_use]
    pub fn with_retry(mut self, retry: Option<retry::Config>) -> Self {
        self.retry = retry;
        self
    }

    /// The labels that its requests want their endpoint to have (Envoy `metadata_match`): see
    /// [`balance::subset`](crate::balance::subset). Default none. A destination's [own](Share::with_criteria) are added.
    #[must_use]
    pub fn with_criteria(mut self, criteria: Labels) -> Self {
        self.criteria = criteria;
        self
    }

    /// Adds a destination that gets copies.
    #[must_use]
    pub fn with_mirror(mut self, mirror: Mirror<T>) -> Self {
        self.mirrors.push(mirror);
        self
    }

    /// The destinations by their weights.
    pub fn destinations(&self) -> &Split<Share<T>> {
        &self.split
    }

    /// What becomes of the path.
    pub fn path(&self) -> Option<&PathRewrite> {
        self.path.as_ref()
    }

    /// The authority that requests get.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The changes to the requests' headers.
    pub fn request_headers(&self) -> &HeaderChanges {
        &self.request
    }

    /// The changes to the responses' headers.
    pub fn response_headers(&self) -> &HeaderChanges {
        &self.response
    }

    /// The time for a request.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// How its requests are retried.
    pub fn retry(&self) -> Option<&retry::Config> {
        self.retry.as_ref()
    }

    /// The labels that its requests want their endpoint to have.
    pub fn criteria(&self) -> &Labels {
        &self.criteria
    }

    /// The destinations that get copies.
    pub fn mirrors(&self) -> &[Mirror<T>] {
        &self.mirrors
    }
}

/// A destination that gets copies of requests. What it answers is nobody's business.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mirror<T> {
    destination: T,
    share: Ratio,
}

impl<T> Mirror<T> {
    /// Copies of that share of the requests; above all is all. Where nothing is said, Istio and Gateway API mean all.
    pub fn new(destination: T, share: Ratio) -> Self {
        Self { destination, share }
    }

    /// Where the copies go.
    pub fn destination(&self) -> &T {
        &self.destination
    }

    /// The share of the requests.
    pub fn share(&self) -> Ratio {
        self.share
    }

    /// Whether this request is copied.
    pub fn is_drawn(&self, rng: &mut impl Rng) -> bool {
        rng.chance(self.share)
    }
}

/// An answer that sends the caller elsewhere. What is not set stays as the request has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redirect {
    status: u16,
    scheme: Option<String>,
    authority: Option<String>,
    port: Option<u16>,
    path: Option<PathRewrite>,
}

impl Redirect {
    /// 301, to where the request was sent (Istio's default; Gateway API's is 302).
    pub fn new() -> Self {
        Self { status: 301, scheme: None, authority: None, port: None, path: None }
    }

    /// Sets the status.
    ///
    /// # Errors
    ///
    /// One that is not 301, 302, 303, 307 or 308.
    pub fn with_status(mut self, status: u16) -> Result<Self, InvalidConfig> {
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            let expected = "301, 302, 303, 307 or 308";
            return Err(InvalidConfig::new("redirect_code", status, expected));
        }
        self.status = status;
        Ok(self)
    }

    /// Sets the scheme.
    #[must_use]
    pub fn with_scheme(mut self, scheme: Option<String>) -> Self {
        self.scheme = scheme;
        self
    }

    /// Sets the host, with or without a port.
    #[must_use]
    pub fn with_authority(mut self, authority: Option<String>) -> Self {
        self.authority = authority;
        self
    }

    /// Sets the port.
    #[must_use]
    pub fn with_port(mut self, port: Option<u16>) -> Self {
        self.port = port;
        self
    }

    /// Replaces the whole path.
    #[must_use]
    pub fn with_path(self, path: String) -> Self {
        self.with_rewrite(Some(PathRewrite::Whole(path)))
    }

    /// Changes the path.
    #[must_use]
    pub fn with_rewrite(mut self, path: Option<PathRewrite>) -> Self {
        self.path = path;
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What becomes of the path.
    pub fn path(&self) -> Option<&PathRewrite> {
        self.path.as_ref()
    }

    /// Where to: `scheme://authority` and `path`, which is the request's or what became of it, and its `query`.
    ///
    /// A new scheme takes the port that was in the authority with it, unless one is set, and a port that is the scheme's own
    /// is left out (Istio, Envoy).
    ///
    /// ```
    /// use mesh_core::route::Redirect;
    ///
    /// let to_https = Redirect::new().with_scheme(Some("https".into()));
    /// assert_eq!(to_https.location("http", "shop:80", "/a", "b=1"), "https://shop/a?b=1");
    /// let other = Redirect::new().with_authority(Some("new".into())).with_port(Some(8080));
    /// assert_eq!(other.location("http", "shop", "/", ""), "http://new:8080/");
    /// ```
    pub fn location(&self, scheme: &str, authority: &str, path: &str, query: &str) -> String {
        let was = scheme;
        let scheme = self.scheme.as_deref().unwrap_or(was);
        let (host, sent) = super::head::split_port(self.authority.as_deref().unwrap_or(authority));
        let sent = sent.filter(|_| self.authority.is_some() || scheme == was);
        let own = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let mut location = format!("{scheme}://{host}");
        if let Some(port) = self.port.or(sent).filter(|port| Some(*port) != own) {
            location.push_str(&format!(":{port}"));
        }
        location.push_str(path);
        // A path that was set may have a query of its own.
        if !query.is_empty() && !path.contains('?') {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

impl Default for Redirect {
    fn default() -> Self {
        Self::new()
    }
}

/// An answer that needs no upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirectResponse {
    status: u16,
    body: Vec<u8>,
}

impl DirectResponse {
    /// That status, with a body.
    ///
    /// # Errors
    ///
    /// A status outside 200 to 599 (Envoy); a body of more than 1 MiB (Istio).
    ///
    /// ```
    /// use mesh_core::route::DirectResponse;
    ///
    /// assert_eq!(DirectResponse::new(503, "closed").unwrap().status(), 503);
    /// assert!(DirectResponse::new(99, "").is_err());
    /// ```
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Result<Self, InvalidConfig> {
        let body = body.into();
        if !(200..600).contains(&status) {
            return Err(InvalidConfig::new("status", status, "200 to 599"));
        }
        if body.len() > 1 << 20 {
            return Err(InvalidConfig::new("body", body.len(), "at most 1048576 bytes"));
        }
        Ok(Self { status, body })
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

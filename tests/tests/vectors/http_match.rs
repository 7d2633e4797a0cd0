//! Each case becomes matches of `mesh_core::route` and a table of them, with the regular expressions of `mesh_tower`.

use std::collections::BTreeMap;

use mesh_core::{
    Labels,
    route::{Client, Match, PathMatch, PlainHead, Table, TextMatch, gateway},
};
use mesh_tower::route::Regex;
use serde::Deserialize;

use crate::{
    case::{Case, text},
    compare::equal,
};

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let steps: Vec<Request> = case.steps()?;
    let [request] = steps.as_slice() else { return Err("expected one request".to_owned()) };
    if request.event != "request" {
        return Err(format!("unknown event {:?}", request.event));
    }
    match case.kind()? {
        "istio_match" => istio_match(case, request),
        "istio_routes" => istio_routes(case, request),
        "gateway_rules" => gateway_rules(case, request),
        kind => Err(format!("unknown kind {kind:?}")),
    }
}

// === The request ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(rename = "at_ms")]
    _at_ms: u64,
    event: String,
    method: Option<String>,
    path: String,
    authority: Option<String>,
    scheme: Option<String>,
    port: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    source_labels: BTreeMap<String, String>,
    source_namespace: Option<String>,
    gateway: Option<String>,
}

impl Request {
    fn head(&self) -> PlainHead {
        let mut target = self.path.clone();
        for (name, value) in &self.query {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("{name}={value}"));
        }
        let mut head = PlainHead::new(self.method.as_deref().unwrap_or("GET"), &target);
        head = head.with_authority(self.authority.as_deref().unwrap_or("reviews"));
        head = head.with_scheme(self.scheme.as_deref().unwrap_or("http"));
        if let Some(port) = self.port {
            head = head.with_port(port);
        }
        self.headers.iter().fold(head, |head, (name, value)| head.with_header(name, value))
    }

    fn client(&self) -> Client {
        let mut client = Client::default().with_labels(labels(&self.source_labels));
        if let Some(namespace) = &self.source_namespace {
            client = client.with_namespace(namespace);
        }
        if let Some(gateway) = &self.gateway {
            client = client.with_gateway(gateway);
        }
        client
    }
}

fn labels(labels: &BTreeMap<String, String>) -> Labels {
    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

// === Istio ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct HttpMatchRequest {
    #[serde(rename = "name")]
    _name: Option<String>,
    uri: Option<StringMatch>,
    #[serde(default)]
    ignore_uri_case: bool,
    scheme: Option<StringMatch>,
    method: Option<StringMatch>,
    authority: Option<StringMatch>,
    #[serde(default)]
    headers: BTreeMap<String, StringMatch>,
    #[serde(default)]
    without_headers: BTreeMap<String, StringMatch>,
    #[serde(default)]
    query_params: BTreeMap<String, StringMatch>,
    port: Option<u16>,
    #[serde(default)]
    source_labels: BTreeMap<String, String>,
    source_namespace: Option<String>,
    #[serde(default)]
    gateways: Vec<String>,
    /// Generated from Gateway API or an Ingress.
    #[serde(default, rename = "_gateway")]
    gateway: bool,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StringMatch {
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
}

impl StringMatch {
    fn text(self) -> Result<TextMatch, String> {
        match (self.exact, self.prefix, self.regex) {
            (None, None, None) => Ok(TextMatch::Present),
            (Some(text), None, None) => Ok(TextMatch::Exact(text)),
            (None, Some(text), None) => Ok(TextMatch::Prefix(text)),
            (None, None, Some(text)) => Ok(TextMatch::istio_regex(text)),
            _ => Err("several kinds of match".to_owned()),
        }
    }

    fn path(self, segments: bool) -> Result<Option<PathMatch>, String> {
        Ok(match (self.exact, self.prefix, self.regex) {
            (None, None, None) => None,
            (Some(path), None, None) => Some(PathMatch::Exact(path)),
            (None, Some(path), None) if segments => Some(PathMatch::Segments(path)),
            (None, Some(path), None) => Some(PathMatch::Prefix(path)),
            (None, None, Some(text)) => Some(PathMatch::Regex(text)),
            _ => return Err("several kinds of match".to_owned()),
        })
    }
}

impl HttpMatchRequest {
    fn to_match(&self) -> Result<Match, String> {
        let mut one = Match::any().with_case_ignored(self.ignore_uri_case);
        let text = |text: &StringMatch| text.clone().text();
        if let Some(path) = self.uri.clone().unwrap_or_default().path(self.gateway)? {
            one = one.with_path(path);
        }
        if let Some(scheme) = &self.scheme {
            one = one.with_scheme(text(scheme)?);
        }
        if let Some(method) = &self.method {
            one = one.with_method(text(method)?);
        }
        if let Some(authority) = &self.authority {
            one = one.with_authority(text(authority)?);
        }
        for (name, value) in &self.headers {
            one = one.with_header(name, text(value)?);
        }
        for (name, value) in &self.without_headers {
            one = one.without_header(name, text(value)?);
        }
        for (name, value) in &self.query_params {
            one = one.with_query(name, text(value)?);
        }
        if let Some(port) = self.port {
            one = one.with_port(port);
        }
        if let Some(namespace) = &self.source_namespace {
            one = one.with_source_namespace(namespace);
        }
        Ok(one.with_source_labels(labels(&self.source_labels)).with_gateways(self.gateways.clone()))
    }
}

fn to_matches(matches: &[HttpMatchRequest]) -> Result<Vec<Match>, String> {
    matches.iter().map(HttpMatchRequest::to_match).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IstioMatch {
    #[serde(rename = "kind")]
    _kind: String,
    r#match: Vec<HttpMatchRequest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matches {
    matches: bool,
}

fn istio_match(case: &Case, request: &Request) -> Result<(), String> {
    let config: IstioMatch = case.config()?;
    let expect: Matches = case.expect()?;
    let table = in_order([(to_matches(&config.r#match)?, ())], request)?;
    equal("matches", table.find(&request.head()).is_some(), expect.matches)
}

fn in_order<T>(
    routes: impl IntoIterator<Item = (Vec<Match>, T)>,
    request: &Request,
) -> Result<Table<T, Regex>, String> {
    Table::new(routes, &request.client(), Regex::new).map_err(text)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IstioRoutes {
    #[serde(rename = "kind")]
    _kind: String,
    routes: Vec<IstioRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IstioRoute {
    name: String,
    #[serde(default)]
    r#match: Vec<HttpMatchRequest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    route: Option<String>,
}

fn istio_routes(case: &Case, request: &Request) -> Result<(), String> {
    let config: IstioRoutes = case.config()?;
    let expect: Route = case.expect()?;
    let mut routes = Vec::new();
    for route in &config.routes {
        routes.push((to_matches(&route.r#match)?, route.name.as_str()));
    }
    let table = in_order(routes, request)?;
    let route = table.find(&request.head()).map(|found| *found.route());
    equal("route", route, expect.route.as_deref())
}

// === Gateway API ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayRules {
    #[serde(rename = "kind")]
    _kind: String,
    rules: Vec<GatewayRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayRule {
    name: String,
    #[serde(default)]
    created: u64,
    #[serde(default)]
    route_name: String,
    #[serde(default, alias = "namespace")]
    route_namespace: String,
    #[serde(default)]
    matches: Vec<GatewayMatch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GatewayMatch {
    path: Option<StringMatch>,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(default)]
    query_params: BTreeMap<String, Value>,
}

/// A value that must be there as it stands, or a match in words.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Value {
    Exact(String),
    Match(StringMatch),
}

impl Value {
    fn text(self) -> Result<TextMatch, String> {
        match self {
            Self::Exact(text) => Ok(TextMatch::Exact(text)),
            Self::Match(text) => text.text(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    rule: Option<String>,
}

fn gateway_rules(case: &Case, request: &Request) -> Result<(), String> {
    let config: GatewayRules = case.config()?;
    let expect: Rule = case.expect()?;
    let mut rules = Vec::new();
    for rule in config.rules {
        let route = format!("{}/{}", rule.route_namespace, rule.route_name);
        let mut made = gateway::Rule::new(rule.name).with_created(rule.created).with_route(route);
        for one in rule.matches {
            let mut matched = Match::any();
            if let Some(path) = one.path.unwrap_or_default().path(true)? {
                matched = matched.with_path(path);
            }
            if let Some(method) = one.method {
                matched = matched.with_method(TextMatch::Exact(method));
            }
            for (name, value) in one.headers {
                matched = matched.with_header(&name, value.text()?);
            }
            for (name, value) in one.query_params {
                matched = matched.with_query(name, value.text()?);
            }
            made = made.with_match(matched);
        }
        rules.push(made);
    }
    let table = Table::by_precedence(rules, Regex::new).map_err(text)?;
    let rule = table.find(&request.head()).map(|found| found.route().as_str());
    equal("rule", rule, expect.rule.as_deref())
}

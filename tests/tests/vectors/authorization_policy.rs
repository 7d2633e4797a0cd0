//! Each case becomes policies of `mesh_core::authorize`, which decide as Istio does.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_core::authorize::{
    Action, Attribute, Authorizer, Config, Connection, Match, PlainHead, Policy, Rule,
};
use serde::Deserialize;

use crate::case::Case;

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let expect: Expect = case.expect()?;
    let steps: Vec<Request> = case.steps()?;
    let [request] = steps.as_slice() else { return Err("expected one request".to_owned()) };
    if request.event != "request" {
        return Err(format!("unknown event {:?}", request.event));
    }
    let policies: Result<Vec<_>, _> =
        settings.policies.iter().enumerate().map(|(index, one)| one.to_policy(index)).collect();
    let config = Config::istio().with_trust_domains(settings.trust_domains);
    let authorizer = Authorizer::new(policies?, &config).map_err(|error| error.to_string())?;
    let got = if request.is_allowed(&authorizer)? { "allow" } else { "deny" };
    if got == expect.decision {
        return Ok(());
    }
    Err(format!("decision is {got}, expected {}", expect.decision))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    decision: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    policies: Vec<PolicyFile>,
    #[serde(default)]
    trust_domains: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    action: String,
    namespace: Option<String>,
    name: Option<String>,
    provider: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    rules: Vec<RuleFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    from: Vec<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    to: Vec<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    when: Vec<WhenFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhenFile {
    key: String,
    #[serde(default)]
    values: Vec<String>,
    #[serde(default, rename = "notValues", alias = "not_values")]
    not_values: Vec<String>,
}

impl PolicyFile {
    fn to_policy(&self, index: usize) -> Result<Policy, String> {
        let action = match self.action.as_str() {
            "ALLOW" | "" => Action::Allow,
            "DENY" => Action::Deny,
            "AUDIT" => Action::Audit,
            "CUSTOM" => Action::Custom,
            other => return Err(format!("unknown action {other:?}")),
        };
        let name = self.name.clone().unwrap_or_else(|| format!("policy-{index}"));
        let mut policy = Policy::new(name, action)
            // As the file says of itself.
            .with_namespace(self.namespace.as_deref().unwrap_or("foo"))
            .with_provider(self.provider.as_deref().unwrap_or_default())
            .with_dry_run(self.dry_run);
        for file in &self.rules {
            let mut rule = Rule::any();
            for source in &file.from {
                rule = rule.with_source(matches(source)?);
            }
            for operation in &file.to {
                rule = rule.with_operation(matches(operation)?);
            }
            for when in &file.when {
                let of = Match::of(Attribute::of_key(&when.key), when.values.clone());
                rule = rule.with_condition(of.except(when.not_values.clone()));
            }
            policy = policy.with_rule(rule);
        }
        Ok(policy)
    }
}

/// The fields of a source or an operation.
fn matches(fields: &BTreeMap<String, Vec<String>>) -> Result<Vec<Match>, String> {
    let one = |(name, values): (&String, &Vec<String>)| {
        let (attribute, is_not) = match name.as_str() {
            "principals" => (Attribute::Principal, false),
            "notPrincipals" => (Attribute::Principal, true),
            "requestPrincipals" => (Attribute::RequestPrincipal, false),
            "notRequestPrincipals" => (Attribute::RequestPrincipal, true),
            "namespaces" => (Attribute::Namespace, false),
            "notNamespaces" => (Attribute::Namespace, true),
            "serviceAccounts" => (Attribute::ServiceAccount, false),
            "notServiceAccounts" => (Attribute::ServiceAccount, true),
            "trustDomains" => (Attribute::TrustDomain, false),
            "notTrustDomains" => (Attribute::TrustDomain, true),
            "ipBlocks" => (Attribute::SourceIp, false),
            "notIpBlocks" => (Attribute::SourceIp, true),
            "remoteIpBlocks" => (Attribute::RemoteIp, false),
            "notRemoteIpBlocks" => (Attribute::RemoteIp, true),
            "hosts" => (Attribute::Host, false),
            "notHosts" => (Attribute::Host, true),
            "ports" => (Attribute::Port, false),
            "notPorts" => (Attribute::Port, true),
            "methods" => (Attribute::Method, false),
            "notMethods" => (Attribute::Method, true),
            "paths" => (Attribute::Path, false),
            "notPaths" => (Attribute::Path, true),
            other => return Err(format!("unknown field {other:?}")),
        };
        let values = values.clone();
        Ok(if is_not { Match::not(attribute, values) } else { Match::of(attribute, values) })
    };
    fields.iter().map(one).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(rename = "at_ms")]
    _at_ms: u64,
    event: String,
    principal: Option<String>,
    #[serde(alias = "src_ip", alias = "ip")]
    source_ip: Option<IpAddr>,
    remote_ip: Option<IpAddr>,
    destination_ip: Option<IpAddr>,
    port: Option<u16>,
    sni: Option<String>,
    protocol: Option<String>,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Issuer, slash, subject.
    request_principal: Option<String>,
    #[serde(default)]
    audiences: Vec<String>,
    presenter: Option<String>,
    #[serde(default)]
    claims: BTreeMap<String, Values>,
    custom_authorizer_allows: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Several(Vec<String>),
}

impl Request {
    fn is_allowed(&self, authorizer: &Authorizer) -> Result<bool, String> {
        let mut connection = Connection::default();
        if let Some(principal) = &self.principal {
            connection = connection.with_principal(principal);
        }
        if let Some(ip) = self.source_ip {
            connection = connection.with_source_ip(ip);
        }
        // Without a trusted proxy, the address is that of the connection (Envoy).
        if let Some(ip) = self.remote_ip.or(self.source_ip) {
            connection = connection.with_remote_ip(ip);
        }
        if let Some(ip) = self.destination_ip {
            connection = connection.with_destination_ip(ip);
        }
        if let Some(port) = self.port {
            connection = connection.with_port(port);
        }
        if let Some(sni) = &self.sni {
            connection = connection.with_sni(sni);
        }
        let ask = |_: &str| self.custom_authorizer_allows.unwrap_or_default();
        let decision = match self.protocol.as_deref() {
            None | Some("http") => authorizer.decide_asking(&connection, &self.head(), ask),
            Some("tcp") => authorizer.decide_connection_asking(&connection, ask),
            Some(other) => return Err(format!("unknown protocol {other:?}")),
        };
        Ok(decision.is_allowed())
    }

    fn head(&self) -> PlainHead {
        let method = self.method.as_deref().unwrap_or("GET");
        let mut head = PlainHead::new(method, self.path.as_deref().unwrap_or("/"))
            .with_authority(self.host.as_deref().unwrap_or_default());
        for (name, value) in &self.headers {
            head = head.with_header(name, value);
        }
        if let Some((issuer, subject)) =
            self.request_principal.as_deref().and_then(|principal| principal.rsplit_once('/'))
        {
            head = head.with_claim(["iss"], issuer).with_claim(["sub"], subject);
        }
        for audience in &self.audiences {
            head = head.with_claim(["aud"], audience);
        }
        if let Some(presenter) = &self.presenter {
            head = head.with_claim(["azp"], presenter);
        }
        for (name, values) in &self.claims {
            let values = match values {
                Values::One(value) => std::slice::from_ref(value),
                Values::Several(values) => values.as_slice(),
            };
            for value in values {
                head = head.with_claim([name], value);
            }
        }
        head
    }
}

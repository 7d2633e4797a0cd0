//! `AuthorizationPolicy`: its fields, and the policies that are in force for a workload.

use mesh_core::{
    Labels,
    authorize::{Action, Attribute, Authorizer, Config, Match, Policy, Rule},
};

use super::{
    Documents, Errors,
    cursor::{Field, Fields, Report},
    mtls::Metadata,
    problem::{Cause, Origin, Problem},
    surprise::{refuse_nulls, surprise},
    yaml::{Place, Value},
};
use crate::authorize::FORWARDED_CLIENT_CERT;

/// An `AuthorizationPolicy` document.
#[derive(Clone, Debug)]
pub struct AuthorizationPolicy {
    origin: Origin,
    policy: Policy,
    /// What only some who carry requests know, and where it is asked for.
    needs: Vec<Need>,
}

#[derive(Clone, Debug)]
struct Need {
    place: Place,
    path: String,
    knowledge: Knowledge,
}

/// What only some who carry requests know.
#[derive(Clone, Copy, Debug)]
enum Knowledge {
    Tokens,
    RemoteIp,
    Sni,
    Forwarded,
}

impl Knowledge {
    fn for_attribute(attribute: &Attribute) -> Option<Self> {
        if attribute.is_of_token() {
            return Some(Self::Tokens);
        }
        let known = [
            (Attribute::RemoteIp, Self::RemoteIp),
            (Attribute::Sni, Self::Sni),
            (Attribute::header(FORWARDED_CLIENT_CERT.as_str()), Self::Forwarded),
        ];
        known.into_iter().find(|(other, _)| other == attribute).map(|(_, knowledge)| knowledge)
    }
}

/// A workload that takes requests: which policies are for it, and what is known of its requests.
///
/// Who the peer is, addresses, ports, and all of the request's head are always known. The rest must be said: a policy that
/// asks for what nobody knows is refused.
///
/// ```
/// use mesh_core::Labels;
/// use mesh_tower::istio::{self, Unsupported, Workload};
///
/// let text = "\
/// apiVersion: security.istio.io/v1
/// kind: AuthorizationPolicy
/// metadata: {name: users, namespace: shop}
/// spec:
///   rules:
///     - from: [{source: {requestPrincipals: [\"*\"]}}]
/// ";
/// let documents = istio::read(text, "users.yaml", Unsupported::Error)?;
/// let workload = Workload::new("shop", Labels::default());
/// assert_eq!(
///     documents.authorization(&workload).unwrap_err().to_string(),
///     "users.yaml:6:43: error: AuthorizationPolicy users: spec.rules[0].from[0].source.requestPrincipals: \
///      is not supported: no token is verified here; verify tokens in the application, or ask for who the peer is \
///      (principals)",
/// );
/// assert!(documents.authorization(&workload.with_tokens()).is_ok());
/// # Ok::<_, istio::Errors>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    namespace: String,
    labels: Labels,
    config: Option<Config>,
    tokens: bool,
    remote_ip: bool,
    sni: bool,
    forwarded: bool,
}

impl Workload {
    /// A workload of a namespace, with its labels.
    pub fn new(namespace: impl Into<String>, labels: Labels) -> Self {
        Self {
            namespace: namespace.into(),
            labels,
            config: None,
            tokens: false,
            remote_ip: false,
            sni: false,
            forwarded: false,
        }
    }

    /// How requests are read: see [`Config`]. Default: what is in doubt is refused, and paths and trust domains are as the
    /// [`MeshConfig`](super::MeshConfig) says.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Tokens are verified, and their claims told to the machine ([`has_claim`](mesh_core::authorize::Head::has_claim)):
    /// `requestPrincipals`, `request.auth.*`. The layer of this crate tells none.
    #[must_use]
    pub fn with_tokens(mut self) -> Self {
        self.tokens = true;
        self
    }

    /// The [caller](crate::authorize::Caller) knows the address that a request came from first: `remoteIpBlocks`,
    /// `remote.ip`.
    #[must_use]
    pub fn with_remote_ip(mut self) -> Self {
        self.remote_ip = true;
        self
    }

    /// The [caller](crate::authorize::Caller) knows the server name of the TLS handshake: `connection.sni`.
    #[must_use]
    pub fn with_sni(mut self) -> Self {
        self.sni = true;
        self
    }

    /// The layer [keeps](crate::authorize::AuthorizeLayer::keep_forwarded_client_cert) `x-forwarded-client-cert`, which it
    /// otherwise removes before any policy looks: `request.headers[x-forwarded-client-cert]`.
    #[must_use]
    pub fn with_forwarded_client_cert(mut self) -> Self {
        self.forwarded = true;
        self
    }

    /// Why it cannot carry out what needs this.
    fn lacks(&self, knowledge: Knowledge) -> Option<&'static str> {
        let (is_known, why) = match knowledge {
            Knowledge::Tokens => (self.tokens, NO_TOKEN),
            Knowledge::RemoteIp => (self.remote_ip, NO_SENDER),
            Knowledge::Sni => (self.sni, NO_SNI),
            Knowledge::Forwarded => (self.forwarded, NO_FORWARDED),
        };
        (!is_known).then_some(why)
    }
}

impl Documents {
    /// The authorization policies in the order of the text.
    pub fn authorization_policies(&self) -> &[AuthorizationPolicy] {
        &self.authorization_policies
    }

    /// The policies that are for a workload: of its namespace or of the root namespace, and with its labels. Without any
    /// everything is allowed.
    ///
    /// # Errors
    ///
    /// A policy for the workload that asks for what is not known of its requests, with document, line and path. All policies
    /// or none: one that is left out would let through what it should refuse.
    ///
    /// ```
    /// use mesh_core::{Labels, authorize::{Connection, PlainHead}};
    /// use mesh_tower::istio::{self, Unsupported, Workload};
    ///
    /// let documents = istio::read("\
    /// apiVersion: security.istio.io/v1
    /// kind: AuthorizationPolicy
    /// metadata: {name: readers, namespace: shop}
    /// spec:
    ///   selector: {matchLabels: {app: items}}
    ///   action: ALLOW
    ///   rules:
    ///     - from: [{source: {serviceAccounts: [cart]}}]
    ///       to: [{operation: {methods: [GET], paths: [\"/items/*\"]}}]
    /// ", "items.yaml", Unsupported::Error)?;
    /// let items = Workload::new("shop", [("app", "items")].into_iter().collect());
    /// let authorizer = documents.authorization(&items)?;
    /// let cart = Connection::default().with_principal("spiffe://cluster.local/ns/shop/sa/cart");
    /// assert!(authorizer.decide(&cart, &PlainHead::new("GET", "/items/7")).is_allowed());
    /// assert!(!authorizer.decide(&cart, &PlainHead::new("DELETE", "/items/7")).is_allowed());
    /// // Of another workload nothing is said.
    /// assert!(documents.authorization(&Workload::new("shop", Labels::default()))?.is_empty());
    /// # Ok::<_, istio::Errors>(())
    /// ```
    pub fn authorization(&self, workload: &Workload) -> Result<Authorizer, Errors> {
        let of_workload = self.authorization_policies.iter().filter(|document| {
            document.policy.is_for(&self.root_namespace, &workload.namespace, &workload.labels)
        });
        let mut problems = Vec::new();
        for document in of_workload.clone() {
            for need in &document.needs {
                if let Some(why) = workload.lacks(need.knowledge) {
                    problems.push(document.problem(
                        need.place,
                        &need.path,
                        Cause::Unsupported,
                        why,
                    ));
                }
            }
        }
        Errors::refuse(problems)?;
        let policies = of_workload.clone().map(|document| document.policy.clone());
        let config = workload.config.as_ref().unwrap_or(&self.mesh.authorization);
        Authorizer::new(policies, config).map_err(|error| {
            // Each value was compiled when it was read: only a setting of the workload can be at odds with one.
            let origin = Origin::default();
            Problem::new(origin, Place::default(), "", Cause::Invalid, error.to_string()).into()
        })
    }
}

impl AuthorizationPolicy {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// The policy as the machine takes it.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn read(
        metadata: &Metadata,
        spec: Option<Fields<'_>>,
        report: &mut Report<'_>,
    ) -> Self {
        let origin = report.origin().clone();
        let dry_run = metadata.dry_run.as_ref().is_some_and(|written| is_dry_run(written, report));
        let new = |action| {
            Policy::new(&*origin.name, action)
                .with_namespace(&metadata.namespace)
                .with_dry_run(dry_run)
        };
        let Some(mut spec) = spec else {
            return Self { policy: new(Action::Allow), origin, needs: Vec::new() };
        };
        refuse_nulls(&spec, report);
        let action = spec.take("action").and_then(|action| read_action(&action, report));
        spec.refuse("provider", "is not supported: nobody is here to ask it; remove it", report);
        for target in ["targetRef", "targetRefs"] {
            spec.refuse(target, "is not supported: say whom it is for by its selector", report);
        }
        let action = action.unwrap_or_default();
        let mut policy = new(action);
        if let Some(selector) = spec.take("selector")
            && let Some(mut fields) = selector.fields(report)
        {
            let labels = fields.take("matchLabels").and_then(|labels| labels.labels(report));
            fields.finish(report);
            let labels = labels.unwrap_or_default();
            if labels.iter().any(|(name, value)| name.contains('*') || value.contains('*')) {
                selector.report(report, "is for no workload: no label has a *");
            }
            policy = policy.with_selector(labels);
        }
        let mut reader = Reader { namespace: metadata.namespace.clone(), needs: Vec::new() };
        let rules = spec.take("rules").and_then(|rules| rules.list(report)).unwrap_or_default();
        if rules.is_empty() && action == Action::Deny {
            let why = "is missing: a DENY policy without rules refuses nothing; [{}] is everything";
            report.invalid(spec.place(), &spec.path_of("rules"), why);
        }
        for rule in rules {
            if let Some(rule) = reader.rule(&rule, report) {
                policy = policy.with_rule(rule);
            }
        }
        spec.finish(report);
        Self { origin, policy, needs: reader.needs }
    }

    fn problem(&self, place: Place, path: &str, cause: Cause, why: &str) -> Problem {
        Problem::new(self.origin.clone(), place, path, cause, why)
    }
}

fn read_action(field: &Field<'_>, report: &mut Report<'_>) -> Option<Action> {
    match field.text(report)? {
        "ALLOW" => Some(Action::Allow),
        "DENY" => Some(Action::Deny),
        "AUDIT" => Some(Action::Audit),
        "CUSTOM" => {
            field.unsupported(CUSTOM, report);
            None
        }
        _ => {
            field.invalid("is not allowed, expected ALLOW, DENY or AUDIT", report);
            None
        }
    }
}

/// The annotation `istio.io/dry-run`.
fn is_dry_run((place, value): &(Place, Value), report: &mut Report<'_>) -> bool {
    if let Value::Text(text) = value
        && let Ok(dry_run) = text.parse()
    {
        return dry_run;
    }
    let path = "metadata.annotations.istio.io/dry-run";
    report.invalid(*place, path, format!("{value} is not allowed, expected \"true\" or \"false\""));
    false
}

const SOURCES: [(&str, &str, Attribute); 7] = [
    ("principals", "notPrincipals", Attribute::Principal),
    ("requestPrincipals", "notRequestPrincipals", Attribute::RequestPrincipal),
    ("namespaces", "notNamespaces", Attribute::Namespace),
    ("serviceAccounts", "notServiceAccounts", Attribute::ServiceAccount),
    ("trustDomains", "notTrustDomains", Attribute::TrustDomain),
    ("ipBlocks", "notIpBlocks", Attribute::SourceIp),
    ("remoteIpBlocks", "notRemoteIpBlocks", Attribute::RemoteIp),
];

const OPERATIONS: [(&str, &str, Attribute); 4] = [
    ("hosts", "notHosts", Attribute::Host),
    ("ports", "notPorts", Attribute::Port),
    ("methods", "notMethods", Attribute::Method),
    ("paths", "notPaths", Attribute::Path),
];

struct Reader {
    namespace: String,
    needs: Vec<Need>,
}

impl Reader {
    fn rule(&mut self, item: &Field<'_>, report: &mut Report<'_>) -> Option<Rule> {
        let mut fields = item.fields(report)?;
        let mut rule = Rule::any();
        for source in self.parts(&mut fields, "from", "source", &SOURCES, report) {
            rule = rule.with_source(source);
        }
        for operation in self.parts(&mut fields, "to", "operation", &OPERATIONS, report) {
            rule = rule.with_operation(operation);
        }
        for condition in items(fields.take("when").as_ref(), report) {
            if let Some(condition) = self.condition(&condition, report) {
                rule = rule.with_condition(condition);
            }
        }
        fields.finish(report);
        Some(rule)
    }

    /// `from` or `to`: a list of mappings, each with one field.
    fn parts(
        &mut self,
        fields: &mut Fields<'_>,
        list: &'static str,
        name: &'static str,
        known: &[(&'static str, &'static str, Attribute)],
        report: &mut Report<'_>,
    ) -> Vec<Vec<Match>> {
        let mut parts = Vec::new();
        for item in items(fields.take(list).as_ref(), report) {
            let Some(mut fields) = item.fields(report) else { continue };
            let part = fields.require(name, report);
            fields.finish(report);
            if let Some(part) = part.and_then(|part| self.part(&part, known, report)) {
                parts.push(part);
            }
        }
        parts
    }

    fn part(
        &mut self,
        part: &Field<'_>,
        known: &[(&'static str, &'static str, Attribute)],
        report: &mut Report<'_>,
    ) -> Option<Vec<Match>> {
        let mut fields = part.fields(report)?;
        let mut matches = Vec::new();
        for (name, not, attribute) in known {
            let (values, exceptions) = (fields.take(name), fields.take(not));
            matches.extend(self.one(attribute, values.as_ref(), exceptions.as_ref(), report));
        }
        fields.finish(report);
        let has = |wanted: &[Attribute]| {
            matches.iter().any(|one: &Match| wanted.contains(one.attribute()))
        };
        if has(&[Attribute::ServiceAccount]) && has(&[Attribute::Principal, Attribute::Namespace]) {
            part.report(report, "serviceAccounts cannot stand with principals or namespaces");
        }
        if matches.is_empty() {
            part.report(report, "is empty: it would mean everything");
        }
        Some(matches)
    }

    fn condition(&mut self, item: &Field<'_>, report: &mut Report<'_>) -> Option<Match> {
        let mut fields = item.fields(report)?;
        let key = fields.require("key", report);
        let (values, exceptions) = (fields.take("values"), fields.take("notValues"));
        fields.finish(report);
        let key = key?;
        let attribute = Attribute::of_key(key.text(report)?);
        if let Attribute::Unknown(_) = attribute {
            key.unsupported("is no key that is supported", report);
            return None;
        }
        if values.is_none() && exceptions.is_none() {
            item.report(report, "needs values or notValues");
        }
        self.one(&attribute, values.as_ref(), exceptions.as_ref(), report)
    }

    fn one(
        &mut self,
        attribute: &Attribute,
        values: Option<&Field<'_>>,
        exceptions: Option<&Field<'_>>,
        report: &mut Report<'_>,
    ) -> Option<Match> {
        let needed = values.or(exceptions)?;
        if let Some(knowledge) = Knowledge::for_attribute(attribute) {
            let (place, path) = (needed.place(), needed.path.clone());
            self.needs.push(Need { place, path, knowledge });
        }
        let values = self.values(attribute, values, report);
        let exceptions = self.values(attribute, exceptions, report);
        Some(Match::of(attribute.clone(), values).except(exceptions))
    }

    fn values(
        &self,
        attribute: &Attribute,
        field: Option<&Field<'_>>,
        report: &mut Report<'_>,
    ) -> Vec<String> {
        let mut values = Vec::new();
        for item in items(field, report) {
            let Some(value) = item.text(report) else { continue };
            if let Some(why) = surprise(attribute, value) {
                item.invalid(why, report);
                continue;
            }
            // The machine is the one judge of what it takes.
            let one = Match::of(attribute.clone(), [value]);
            let policy = Policy::deny("").with_namespace(&self.namespace);
            let policy = policy.with_rule(Rule::any().with_condition(one));
            match Authorizer::new([policy], &Config::default()) {
                Ok(_) => values.push(value.to_owned()),
                Err(error) => item
                    .invalid(format_args!("is not allowed, expected {}", error.expected()), report),
            }
        }
        values
    }
}

/// The items of a list that must have some, if it is there.
fn items<'n>(list: Option<&Field<'n>>, report: &mut Report<'_>) -> Vec<Field<'n>> {
    let Some(field) = list else { return Vec::new() };
    let Some(items) = field.list(report) else { return Vec::new() };
    if items.is_empty() {
        field.report(report, "is empty: leave it out, or say what it may be");
    }
    items
}

const NO_TOKEN: &str = "is not supported: no token is verified here; verify tokens in the application, or ask for who \
    the peer is (principals)";

const NO_SENDER: &str = "is not supported: who the first sender was is not known here; ipBlocks and source.ip are the \
    connection's";

const NO_SNI: &str =
    "is not supported: the server name of the handshake is not known here; hosts are";

const NO_FORWARDED: &str = "is not supported: what a caller writes there is removed before it is judged; ask for who the \
    peer is (principals)";

const CUSTOM: &str = "is not supported: nobody is here to ask its provider; ask in the application, or say it by ALLOW and \
    DENY";

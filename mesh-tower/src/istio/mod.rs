//! Reads Istio documents, `DestinationRule`, `VirtualService`, `PeerAuthentication` and `AuthorizationPolicy`, and Gateway
//! API's `HTTPRoute`, into the configurations that the builders of this crate make.
//!
//! Why not derived deserialisers: they ignore what they do not know, or stop at the first mistake. A policy that is
//! read but not carried out is worse than none, because somebody relies on it. Here every field is either carried
//! out or reported, by document, line and path, and all mistakes of a text are found at once.
//!
//! # What is carried out
//!
//! | document | fields of `spec` |
//! | --- | --- |
//! | `DestinationRule` (`networking.istio.io/v1`, `v1beta1`, `v1alpha3`) | `host`; `subsets[]` with `name`, `labels`, `trafficPolicy`; `trafficPolicy` with the blocks below, and for single ports by `portLevelSettings[]`; `exportTo: ["*"]` |
//! | … `connectionPool` | `tcp.maxConnections`, `connectTimeout`, `idleTimeout`, `maxConnectionDuration`, `tcpKeepalive`; `http.http1MaxPendingRequests`, `http2MaxRequests`, `maxRequestsPerConnection`, `maxRetries`, `idleTimeout`, `h2UpgradePolicy`, `useClientProtocol`, `maxConcurrentStreams`, `http2KeepAlive` |
//! | … `outlierDetection` | `consecutive5xxErrors`, `consecutiveGatewayErrors`, `splitExternalLocalOriginErrors`, `consecutiveLocalOriginFailures`, `interval`, `baseEjectionTime`, `maxEjectionPercent`, `minHealthPercent` |
//! | … `loadBalancer` | `simple`: `LEAST_REQUEST`, `ROUND_ROBIN`, `RANDOM`, `LEAST_CONN`, `UNSPECIFIED`; `warmup` (`duration`, `minimumPercent`, `aggression`), `warmupDurationSecs`; `consistentHash` with `httpHeaderName`, `httpCookie` (`name`, `path`, `ttl`), `useSourceIp`, `httpQueryParameterName`, `ringHash.minimumRingSize`, `maglev.tableSize`, `minimumRingSize`; `localityLbSetting` with `enabled`, `distribute[]`, `failover[]`, `failoverPriority[]` |
//! | … `tls`, by whoever makes connections: [`ClientTls`] | `mode`, `clientCertificate`, `privateKey`, `caCertificates`, `caCrl`, `subjectAltNames`, `sni`, `insecureSkipVerify: false` |
//! | … `retryBudget` | `percent`, `minRetryConcurrency` |
//! | `VirtualService` (the same versions) | `hosts`; `gateways: [mesh]`; `exportTo: ["*"]`; `http[]` with `name`, `route[]` (`destination.host`, `subset`, `port`, `weight`), `timeout`, `retries` (`attempts`, `perTryTimeout`, `retryOn`, `backoff`, `retryIgnorePreviousHosts`, `retryRemoteLocalities`) |
//! | … by [`Documents::routes`] alone | `http[]` with `match[]` (`uri`, `ignoreUriCase`, `scheme`, `method`, `authority`, `headers`, `withoutHeaders`, `queryParams`, `port`, `sourceLabels`, `sourceNamespace`, `gateways`), `rewrite` (`uri`, `uriRegexRewrite`, `authority`), `headers`, also of a destination (`request`, `response`: `set`, `add`, `remove`), `fault` (`delay`, `abort`), `mirror`, `mirrorPercentage`, `mirrors[]`, `redirect`, `directResponse`; shares of several hosts |
//! | `PeerAuthentication` (`security.istio.io/v1`, `v1beta1`) | `selector.matchLabels`, `mtls.mode`, `portLevelMtls` |
//! | `AuthorizationPolicy` (the same versions) | `selector.matchLabels`; `action`: `ALLOW`, `DENY`, `AUDIT`; `rules[]` with `from[].source`, `to[].operation`, `when[]`, their fields and keys as in [`Attribute`](mesh_core::authorize::Attribute); the annotation `istio.io/dry-run` |
//! | `HTTPRoute` (`gateway.networking.k8s.io/v1`, `v1beta1`), by [`Documents::routes`] alone | `parentRefs[]` of kind `Service` and `Gateway`, with `port`; `hostnames[]`; `rules[]` with `name`; `matches[]` (`path`, `method`, `headers`, `queryParams`); `filters[]` (`RequestHeaderModifier`, `ResponseHeaderModifier`, `RequestRedirect`, `URLRewrite`, `RequestMirror`); `backendRefs[]` (`Service`, `port`, `weight`, `filters[]` for headers); `timeouts` (`request`, `backendRequest`); `retry` (`codes`, `attempts`, `backoff`) |
//! | `List` (`v1`) | `items[]`, each a document: what `kubectl get -o yaml` prints |
//!
//! What the mesh says of all hosts is another text, read by [`MeshConfig::read`].
//!
//! Values mean what Istio means by them: a limit of 0 or without a value is no limit; `outlierDetection` that is absent
//! is off; retries that are absent are 2, `attempts: 0` is none; a timeout that is absent is none. Metadata and `status`
//! are not judged.
//!
//! # An upstream, or routes
//!
//! A [`Router`](crate::route::Router) of [`Documents::routes`] carries out whole virtual services; each destination's
//! upstream is [`Documents::destination`]. An upstream alone ([`Documents::upstream`]) is less: one host, one rule. What it
//! would leave out of a virtual service is an error there; with [`Unsupported::Warn`] it is a warning when the text is read,
//! and left out: a rule with a `match` as a whole, of others what an upstream cannot do.
//!
//! Read and not carried out by either: words of `retryOn` that are no conditions. They are reported, and with
//! [`Unsupported::Warn`] whoever carries them out by other means finds them there.
//!
//! # Which policy is in force
//!
//! | of | comes | where it names nothing |
//! | --- | --- | --- |
//! | a host | from the rule's `trafficPolicy` | [`MeshConfig`], else Istio's default |
//! | a subset | from its own `trafficPolicy`, block by block | the host's |
//! | a port of a host | from the rule's entry in `portLevelSettings` if there is one: four blocks, all others are gone | [`MeshConfig`], else Istio's default |
//! | a port of a subset | from the subset's entry: four blocks | of these four as for a port of a host; `tunnel`, `proxyProtocol` and `retryBudget` are the host's |
//!
//! A block is replaced whole: its fields are never mixed (Istio `MergeSubsetTrafficPolicy`). A port is named by whoever asks,
//! `shop:8080`, or by the destination of a virtual service. [`Documents::effective_policy`] shows what came of it.
//!
//! # Gateway API
//!
//! The rules of all `HTTPRoute`s of a host count together, in the order of [precedence](mesh_core::route::gateway). With a
//! `Service` as the parent they are for every client of that service, by any of its names, and `hostnames` mean nothing
//! (Gateway API for meshes); with a `Gateway` they are for who is it. A host that a `VirtualService` speaks of is that
//! service's alone, as in Istio. A backend in another namespace needs no `ReferenceGrant` here: whoever writes the documents
//! of a process may also send its requests. `backendRequest` is the time of a try; a rule without `retry` is retried as the
//! mesh says, as in Istio.
//!
//! # Where it differs from Istio
//!
//! * **The retry budget is on** even where no `retryBudget` is named ([`mesh_core::budget::Config::default`]): Istio
//!   without one lets a slow service be retried to death. To have Istio's behaviour, say
//!   [`MeshConfig::with_retry_budget`] with [`mesh_core::budget::Config::unlimited`].
//! * A wrong value is an error, where Istio's data plane takes some of them in silence. An unknown word in `retryOn`
//!   is one that [`Unsupported::Warn`] lets pass, without effect, as Envoy does.
//! * A budget that is not named stands beside `maxRetries`. A `retryBudget` that is named takes its place, as in Envoy.
//! * A document is for every client: `workloadSelector` and `exportTo` of some namespaces are not considered, and are
//!   reported. Who asks (`sourceLabels`, `sourceNamespace`, `gateways` of a match) is said to [`Documents::routes`].
//! * Where the client runs, and its labels, is said to [`Builder::caller`](crate::upstream::Builder::caller): until then
//!   nobody is near, and `localityLbSetting` changes nothing but shares from anywhere.
//! * A value of a header is sent as it stands. What Envoy would replace in it (`%REQ(…)%`) is reported.
//! * `retries` needs `attempts`, and `attempts: 0` allows no other field.
//! * `useSourceIp` needs the address, which no head of a request says: a [`KeySource`](crate::upstream::KeySource) among
//!   its extensions does. Without one it goes to any endpoint.
//! * `consistentHash` names one key, or is refused: without one Istio builds the table, and sends every request anywhere.
//!   As in Istio, with a hash a retry does not avoid the endpoint that was tried.
//! * The table of `consistentHash` holds the ejected too, and a request steps over them: see
//!   [`mesh_core::balance::hash`]. What `warmup` does to a share comes by chance: see [`mesh_core::balance::SlowStart`].
//! * A share is cut to whole millionths of the number as it is written; Istio multiplies in binary floating point, and makes
//!   123,455 millionths of 12.3456 %.
//! * Of an `AuthorizationPolicy` or a `PeerAuthentication` nothing is ever left out, with [`Unsupported::Warn`] neither: a rule
//!   that is not carried out lets through what it should refuse. A `RequestAuthentication` is refused whole: nobody verifies
//!   tokens here. `CUSTOM`, `targetRefs`, unknown keys, empty lists, `null`, a `*` in the middle and values that nothing can
//!   have (`spiffe://` in a principal, a path with a query, a method in small letters) are errors when it is read; what is
//!   asked of tokens, SNI, the first sender and `x-forwarded-client-cert` is one for a [`Workload`] that does not know it.
//!   Istio skips rules that it does not understand.
//! * What an `AuthorizationPolicy` says of a request that can be read in two ways, refuses it:
//!   [`mesh_core::authorize`] has the table, [`Workload::with_config`] the way back.
//!
//! # Example
//!
//! ```
//! use mesh_core::Ratio;
//! use mesh_tower::istio::{self, Unsupported};
//!
//! let text = "
//! apiVersion: networking.istio.io/v1beta1
//! kind: DestinationRule
//! metadata:
//!   name: payment-service-cb
//! spec:
//!   host: payment-service
//!   trafficPolicy:
//!     outlierDetection:
//!       consecutive5xxErrors: 3
//!       interval: 10s
//!       baseEjectionTime: 30s
//!       maxEjectionPercent: 100
//! ";
//! let documents = istio::read(text, "payment.yaml", Unsupported::Error)?;
//! let config = documents.upstream("payment-service")?;
//! assert_eq!(config.policy().outlier().consecutive_5xx(), 3);
//! assert_eq!(config.policy().outlier().max_ejection_percent(), Ratio::ONE);
//! # Ok::<_, istio::Errors>(())
//! ```

mod authorization;
mod balance;
mod client_tls;
mod connection_pool;
mod cursor;
mod destination;
mod destination_rule;
mod documents;
mod duration;
mod effective;
mod fault;
mod host;
mod http_action;
mod http_match;
mod http_route;
mod http_route_filter;
mod http_route_match;
mod locality;
mod mesh_config;
mod mtls;
mod outlier;
mod problem;
mod retries;
mod routes;
mod surprise;
mod traffic_policy;
mod virtual_service;
mod yaml;

use std::sync::Arc;

pub use authorization::{AuthorizationPolicy, Workload};
pub use client_tls::{ClientTls, TlsMode};
use cursor::{Field, Fields, Report};
pub use destination::Destination;
pub use destination_rule::DestinationRule;
pub use documents::Documents;
pub use effective::EffectivePolicy;
pub use http_route::HttpRoute;
pub use mesh_config::MeshConfig;
use mtls::Metadata;
pub use mtls::{MtlsMode, PeerAuthentication};
use problem::Origin;
pub use problem::{Cause, Errors, Problem, Severity};
pub use retries::Retries;
pub use virtual_service::VirtualService;
use yaml::{Failure, Node, Value, shorten};

/// Of a document that names none.
const DEFAULT_NAMESPACE: &str = "default";
/// Istio's own default.
const ROOT_NAMESPACE: &str = "istio-system";
/// The subset of all endpoints, where shares are split between a subset and the host as a whole. No document can use
/// the name: a subset's is a DNS label.
const WHOLE: &str = "*";

/// What to do with a field, value, kind or version that is not carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "it is an error or it is not")]
pub enum Unsupported {
    /// The text is refused: what runs is what is written.
    #[default]
    Error,
    /// It is left out, with a warning. A rule of a `VirtualService` whose `match` is left out is left out whole: it
    /// must not take requests that it was not meant for.
    Warn,
}

/// Reads the documents of a YAML text. `source_name` stands in front of problems: the name of the file, say.
///
/// The text may be as hostile as it likes: at most 1 MiB is read, aliases expand to a bounded number of values, and
/// nesting ends at 32 levels.
///
/// # Errors
///
/// Everything that is wrong with the text, in its order, together with the warnings; see [`Cause`].
///
/// ```
/// use mesh_tower::istio::{self, Unsupported};
///
/// let text = "\
/// apiVersion: networking.istio.io/v1
/// kind: DestinationRule
/// metadata: {name: shop}
/// spec:
///   host: shop
///   trafficPolicy:
///     tunnel: {targetHost: proxy}
///     loadBalancer: {simple: FASTEST}
/// ";
/// assert_eq!(
///     istio::read(text, "shop.yaml", Unsupported::Error).unwrap_err().to_string(),
///     "shop.yaml:7:5: error: DestinationRule shop: spec.trafficPolicy.tunnel: is not supported\n\
///      shop.yaml:8:28: error: DestinationRule shop: spec.trafficPolicy.loadBalancer.simple: \
///      \"FASTEST\" is not allowed, expected LEAST_REQUEST, ROUND_ROBIN or RANDOM",
/// );
/// ```
pub fn read(text: &str, source_name: &str, mode: Unsupported) -> Result<Documents, Errors> {
    let source: Arc<str> = shorten(source_name, 200).into();
    let mut documents = Documents::default();
    let mut problems = Vec::new();
    yaml::documents(text, |document, node| {
        let origin = Origin { source: source.clone(), document, ..Origin::default() };
        let (place, cause, message) = match node {
            Ok(node) => {
                let mut reader =
                    Reader { mode, problems: &mut problems, documents: &mut documents };
                return reader.read(&Field::root(&node), origin);
            }
            Err(Failure::Syntax(place, message)) => (place, Cause::Syntax, message),
            Err(Failure::Limit(place, message)) => (place, Cause::Limit, message),
        };
        cursor::push(&mut problems, Problem::new(origin, place, "", cause, message));
    });
    problems.append(&mut documents.warnings);
    problems.sort_by_key(Problem::position);
    documents.warnings = Errors::refuse(problems)?;
    Ok(documents)
}

struct Reader<'a> {
    mode: Unsupported,
    problems: &'a mut Vec<Problem>,
    documents: &'a mut Documents,
}

impl Reader<'_> {
    /// Reads a document, or the item of a list.
    fn read(&mut self, root: &Field<'_>, mut origin: Origin) {
        origin.kind = text_at(root.node, &["kind"]);
        origin.name = text_at(root.node, &["metadata", "name"]);
        let is_item = !root.path.is_empty();
        let mut report = Report::new(origin.clone(), self.mode, self.problems);
        let Some(mut root) = root.fields(&mut report) else { return };
        let version = root.require("apiVersion", &mut report);
        let kind = root.require("kind", &mut report);
        let (Some(version), Some(kind)) = (version, kind) else { return };
        let (Some(group), Some(name)) = (version.text(&mut report), kind.text(&mut report)) else {
            return;
        };
        // What a policy cannot refuse must not be left out in silence.
        let of_security = ["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"];
        let of_traffic = ["DestinationRule", "VirtualService", "HTTPRoute", "List"];
        let is_of_group = group.starts_with("security.istio.io/") && !of_traffic.contains(&name);
        if of_security.contains(&name) || is_of_group {
            report.be_strict();
        }
        let known = match name {
            "DestinationRule" | "VirtualService" => [
                "networking.istio.io/v1",
                "networking.istio.io/v1beta1",
                "networking.istio.io/v1alpha3",
            ]
            .as_slice(),
            "PeerAuthentication" | "AuthorizationPolicy" => {
                ["security.istio.io/v1", "security.istio.io/v1beta1"].as_slice()
            }
            "HTTPRoute" => {
                ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"].as_slice()
            }
            // What `kubectl get -o yaml` prints of several.
            "List" if !is_item => ["v1"].as_slice(),
            "RequestAuthentication" => return kind.unsupported(TOKENS, &mut report),
            _ => return kind.unsupported(KINDS, &mut report),
        };
        if !known.contains(&group) {
            return version.unsupported(
                format_args!("is not supported, expected {}", known.join(" or ")),
                &mut report,
            );
        }
        if name != "List" {
            return read_resource(name, root, &mut report, self.documents);
        }
        // The list's own: nothing in it is anybody's name.
        drop(root.take("metadata"));
        let items = root.require("items", &mut report).and_then(|items| items.list(&mut report));
        root.finish(&mut report);
        for item in items.into_iter().flatten() {
            self.read(&item, origin.clone());
        }
    }
}

const TOKENS: &str = "is not supported: no token is verified here; verify tokens in the application, and remove this document";

const KINDS: &str = "is not supported, expected DestinationRule, VirtualService, PeerAuthentication, \
    AuthorizationPolicy or HTTPRoute";

fn read_resource(
    name: &str,
    mut root: Fields<'_>,
    report: &mut Report<'_>,
    documents: &mut Documents,
) {
    let metadata = read_metadata(&mut root, report);
    // Written by the cluster, for people.
    drop(root.take("status"));
    let spec = match root.take("spec") {
        Some(spec) => spec.fields(report),
        None if matches!(name, "PeerAuthentication" | "AuthorizationPolicy") => None,
        None => {
            report.invalid(root.place(), &root.path_of("spec"), "is missing");
            None
        }
    };
    root.finish(report);
    match (name, spec) {
        ("PeerAuthentication", spec) => {
            let policy = PeerAuthentication::read(metadata, spec, report);
            if report.is_clean() {
                documents.peer_authentications.push(policy);
            }
        }
        ("AuthorizationPolicy", spec) => {
            let policy = AuthorizationPolicy::read(&metadata, spec, report);
            if report.is_clean() {
                documents.authorization_policies.push(policy);
            }
        }
        ("DestinationRule", Some(spec)) => {
            let rule = DestinationRule::read(metadata.namespace, spec, report);
            documents.destination_rules.extend(rule.filter(|_| report.is_clean()));
        }
        ("VirtualService", Some(spec)) => {
            let service = VirtualService::read(metadata.namespace, spec, report);
            if let Some(service) = service.filter(|_| report.is_clean()) {
                documents.add_virtual_service(service);
            }
        }
        ("HTTPRoute", Some(spec)) => {
            let route = HttpRoute::read(metadata, spec, report);
            documents.http_routes.extend(route.filter(|_| report.is_clean()));
        }
        (_, _) => {}
    }
}

/// Kind and name, before anything is judged, so that each problem can say them.
fn text_at(node: &Node, path: &[&str]) -> Arc<str> {
    let found = path.iter().try_fold(node, |node, name| match &node.value {
        Value::Map(fields) => {
            fields.iter().find(|(key, _)| key.name == *name).map(|(_, node)| node)
        }
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_) => None,
    });
    match found {
        Some(Node { value: Value::Text(text), .. }) => shorten(text, 60).into(),
        Some(_) | None => Arc::default(),
    }
}

fn read_metadata(root: &mut Fields<'_>, report: &mut Report<'_>) -> Metadata {
    let namespace = DEFAULT_NAMESPACE.to_owned();
    let mut metadata = Metadata { namespace, created: None, dry_run: None };
    let Some(mut fields) = root.require("metadata", report).and_then(|field| field.fields(report))
    else {
        return metadata;
    };
    if let Some(name) = fields.require("name", report) {
        name.text(report);
    }
    if let Some(namespace) = fields.take("namespace").and_then(|field| field.text(report)) {
        metadata.namespace = namespace.to_owned();
    }
    if let Some(created) = fields.take("creationTimestamp").and_then(|field| field.text(report)) {
        metadata.created = Some(created.to_owned());
    }
    let annotations = fields.take("annotations").map(|annotations| &annotations.node.value);
    if let Some(Value::Map(annotations)) = annotations {
        let dry_run = annotations.iter().find(|(key, _)| key.name == "istio.io/dry-run");
        metadata.dry_run = dry_run.map(|(key, node)| (key.place, node.value.clone()));
    }
    // The rest is the cluster's book-keeping: it means nothing to a client.
    metadata
}

/// `exportTo: ["*"]` is the default: every namespace.
fn take_export(spec: &mut Fields<'_>, report: &mut Report<'_>) {
    let Some(field) = spec.take("exportTo") else { return };
    for item in field.list(report).into_iter().flatten() {
        if let Some(namespace) = item.text(report)
            && namespace != "*"
        {
            item.unsupported("is not supported, expected \"*\"", report);
        }
    }
}

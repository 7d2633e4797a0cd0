use mesh_core::{
    authorize::{self, Normalization},
    budget,
};

use super::{
    Errors, Problem, Unsupported,
    connection_pool::{Baseline, read_tcp_keepalive, read_upgrade},
    cursor::{self, Field, Fields, Report},
    locality::Locality,
    problem::{Cause, Origin},
    retries::Retries,
    traffic_policy::TrafficPolicy,
    yaml::{self, Failure, shorten},
};

/// What a mesh says of all hosts: the parts of Istio's `MeshConfig` that mean something to a client.
///
/// | field | is the default of |
/// | --- | --- |
/// | `defaultTrafficPolicy` | each block of a `trafficPolicy` that no rule, subset or port names |
/// | `defaultHttpRetryPolicy` | `retries` |
/// | `connectTimeout` | `connectionPool.tcp.connectTimeout`; without it 10 s |
/// | `tcpKeepalive` | `connectionPool.tcp.tcpKeepalive`, attribute by attribute |
/// | `h2UpgradePolicy` | `connectionPool.http.h2UpgradePolicy`: `UPGRADE` or `DO_NOT_UPGRADE` |
/// | `localityLbSetting` | `loadBalancer.localityLbSetting`; without it on, to the nearest, as in Istio |
/// | `rootNamespace` | [`Documents::with_root_namespace`](super::Documents::with_root_namespace) |
/// | `trustDomain`, `trustDomainAliases` | [`with_trust_domains`](mesh_core::authorize::Config::with_trust_domains) of a [`Workload`](super::Workload) |
/// | `pathNormalization.normalization` | [`with_normalization`](mesh_core::authorize::Config::with_normalization) of a [`Workload`](super::Workload): `DEFAULT`, `NONE`, `BASE`, `MERGE_SLASHES`, `DECODE_AND_MERGE_SLASHES` |
///
/// Any other field is reported, as everywhere.
///
/// ```
/// use mesh_tower::istio::{self, MeshConfig, Unsupported};
///
/// let mesh = MeshConfig::read("\
/// connectTimeout: 3s
/// defaultTrafficPolicy:
///   connectionPool: {tcp: {maxConnections: 100}}
/// ", "mesh.yaml", Unsupported::Error)?;
/// let documents = istio::read("\
/// apiVersion: networking.istio.io/v1
/// kind: DestinationRule
/// metadata: {name: shop}
/// spec:
///   host: shop
///   trafficPolicy:
///     outlierDetection: {maxEjectionPercent: 50}
/// ", "shop.yaml", Unsupported::Error)?.with_mesh_config(mesh);
/// let policy = documents.upstream("shop")?.policy().clone();
/// assert_eq!(policy.limits().max_connections(), 100);
/// assert_eq!(policy.pool().connect_timeout().as_secs(), 3);
/// assert!(!policy.outlier().is_off());
/// # Ok::<_, istio::Errors>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MeshConfig {
    pub(super) policy: Option<TrafficPolicy>,
    pub(super) retries: Option<Retries>,
    pub(super) baseline: Baseline,
    pub(super) root_namespace: Option<String>,
    pub(super) authorization: authorize::Config,
    pub(super) warnings: Vec<Problem>,
}

impl MeshConfig {
    /// Reads a YAML text: what stands under `mesh` in Istio's `ConfigMap`, or under `meshConfig` in an installation.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in its order, together with the warnings.
    ///
    /// ```
    /// use mesh_tower::istio::{MeshConfig, Unsupported};
    ///
    /// let text = "connectTimeout: 3\naccessLogFile: /dev/stdout\n";
    /// assert_eq!(
    ///     MeshConfig::read(text, "mesh.yaml", Unsupported::Error).unwrap_err().to_string(),
    ///     "mesh.yaml:1:17: error: MeshConfig: connectTimeout: 3 is not a duration, expected e.g. \
    ///      \"10s\", \"1m30s\", \"0.25s\"\n\
    ///      mesh.yaml:2:1: error: MeshConfig: accessLogFile: is not supported",
    /// );
    /// ```
    pub fn read(text: &str, source_name: &str, mode: Unsupported) -> Result<Self, Errors> {
        let source = shorten(source_name, 200).into();
        let origin = Origin { source, document: 0, kind: "MeshConfig".into(), name: "".into() };
        let mut problems = Vec::new();
        let mut mesh = None;
        yaml::documents(text, |document, node| {
            let origin = Origin { document, ..origin.clone() };
            let (place, cause, message) = match node {
                Ok(node) if mesh.is_none() => {
                    let mut report = Report::new(origin, mode, &mut problems);
                    let fields = Field::root(&node).fields(&mut report);
                    mesh = Some(fields.map(|fields| Self::from_fields(fields, &mut report)));
                    return;
                }
                Ok(node) => (node.place, Cause::Invalid, "a second document".to_owned()),
                Err(Failure::Syntax(place, message)) => (place, Cause::Syntax, message),
                Err(Failure::Limit(place, message)) => (place, Cause::Limit, message),
            };
            cursor::push(&mut problems, Problem::new(origin, place, "", cause, message));
        });
        problems.sort_by_key(Problem::position);
        let warnings = Errors::refuse(problems)?;
        Ok(Self { warnings, ..mesh.flatten().unwrap_or_default() })
    }

    /// The retry budget where no `retryBudget` is named. Default [`budget::Config::default`]; Istio has none,
    /// [`budget::Config::unlimited`].
    #[must_use]
    pub fn with_retry_budget(mut self, budget: budget::Config) -> Self {
        self.baseline.budget = budget;
        self
    }

    /// What is worth knowing, and with [`Unsupported::Warn`] what was left out.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    fn from_fields(mut fields: Fields<'_>, report: &mut Report<'_>) -> Self {
        let policy = fields.take("defaultTrafficPolicy");
        let policy = policy.map(|policy| TrafficPolicy::read(&policy, report));
        let retries = fields.take("defaultHttpRetryPolicy");
        let retries = retries.and_then(|retries| Retries::read(&retries, report));
        let timeout = fields.take("connectTimeout").and_then(|field| field.duration(report));
        let keepalive = fields.take("tcpKeepalive");
        let keepalive = keepalive.and_then(|block| read_tcp_keepalive(&block, report));
        let upgrade = fields.take("h2UpgradePolicy");
        let upgrade = upgrade.and_then(|field| read_upgrade(&field, report)).flatten();
        let locality = fields.take("localityLbSetting");
        let locality = locality.and_then(|block| Locality::read(&block, report));
        let root = fields.take("rootNamespace").and_then(|field| field.text(report));
        let root_namespace = root.map(str::to_owned);
        let authorization = read_authorization(&mut fields, report);
        fields.finish(report);
        let baseline = Baseline {
            connect_timeout: timeout,
            tcp_keepalive: keepalive,
            upgrade: upgrade.unwrap_or(false),
            locality,
            ..Baseline::default()
        };
        let warnings = Vec::new();
        Self { policy, retries, baseline, root_namespace, authorization, warnings }
    }
}

/// What the mesh says of how authorization policies read a request.
fn read_authorization(fields: &mut Fields<'_>, report: &mut Report<'_>) -> authorize::Config {
    let own = fields.take("trustDomain").and_then(|field| field.text(report));
    let aliases = fields.take("trustDomainAliases").and_then(|field| field.list(report));
    let aliases = aliases.unwrap_or_default();
    let aliases: Vec<_> = aliases.iter().filter_map(|alias| alias.text(report)).collect();
    // Aliases are of something: without a name of its own, Istio's.
    let own = own.or_else(|| (!aliases.is_empty()).then_some("cluster.local"));
    let config = authorize::Config::default().with_trust_domains(own.into_iter().chain(aliases));
    let Some(mut path) = fields.take("pathNormalization").and_then(|field| field.fields(report))
    else {
        return config;
    };
    let level = path.take("normalization").and_then(|field| {
        let level = match field.text(report)? {
            "DEFAULT" | "BASE" => Normalization::Base,
            "NONE" => Normalization::None,
            "MERGE_SLASHES" => Normalization::MergeSlashes,
            "DECODE_AND_MERGE_SLASHES" => Normalization::DecodeAndMergeSlashes,
            _ => {
                field.invalid("is not allowed, expected BASE, MERGE_SLASHES and so on", report);
                return None;
            }
        };
        Some(level)
    });
    path.finish(report);
    config.with_normalization(level.unwrap_or_default())
}

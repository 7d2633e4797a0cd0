use std::collections::BTreeMap;

use mesh_core::Labels;

use super::{
    Documents,
    cursor::{Field, Fields, Report},
    problem::Origin,
    yaml::{Place, Value},
};

/// What a workload accepts from those who connect to it (`PeerAuthentication`, `mtls.mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "Istio's modes; UNSET is resolved, never an answer")]
pub enum MtlsMode {
    /// Mutual TLS only: a client without a certificate of the mesh is refused.
    Strict,
    /// Mutual TLS and plain text.
    Permissive,
    /// Plain text only.
    Disable,
}

/// A `PeerAuthentication` document.
#[derive(Clone, Debug)]
pub struct PeerAuthentication {
    pub(super) origin: Origin,
    namespace: String,
    created: Option<String>,
    selector: Option<Labels>,
    /// `None` is UNSET: the next wider policy decides.
    mode: Option<MtlsMode>,
    ports: BTreeMap<u16, Option<MtlsMode>>,
}

impl PeerAuthentication {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// `metadata.namespace`, or `default`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The labels of the workloads that it is for; `None`: all of the namespace.
    pub fn selector(&self) -> Option<&Labels> {
        self.selector.as_ref()
    }

    /// The mode; `None` if it is left to the wider policy.
    pub fn mode(&self) -> Option<MtlsMode> {
        self.mode
    }

    pub(super) fn read(
        metadata: Metadata,
        spec: Option<Fields<'_>>,
        report: &mut Report<'_>,
    ) -> Self {
        let mut policy = Self {
            origin: report.origin().clone(),
            namespace: metadata.namespace,
            created: metadata.created,
            selector: None,
            mode: None,
            ports: BTreeMap::new(),
        };
        let Some(mut spec) = spec else { return policy };
        if let Some(selector) = spec.take("selector")
            && let Some(mut fields) = selector.fields(report)
        {
            let labels = fields.take("matchLabels").and_then(|labels| labels.labels(report));
            fields.finish(report);
            // An empty selector selects the namespace, as none does.
            policy.selector = labels.filter(|labels| !labels.is_empty());
            if policy.selector.is_some() && policy.namespace == super::ROOT_NAMESPACE {
                report.advise(
                    selector.place(),
                    &selector.path,
                    "a selector in the root namespace makes the policy void, as in Istio",
                );
            }
        }
        if let Some(mtls) = spec.take("mtls") {
            policy.mode = read_mode(&mtls, report);
        }
        if let Some(ports) = spec.take("portLevelMtls") {
            policy.ports = read_ports(&ports, report);
            if policy.selector.is_none() && !policy.ports.is_empty() {
                report.invalid(ports.place(), &ports.path, "is not allowed without a selector");
            }
        }
        spec.finish(report);
        policy
    }

    fn scope(&self, root: &str) -> Scope {
        match (&self.selector, self.namespace == root) {
            (None, true) => Scope::Mesh,
            (None, false) => Scope::Namespace,
            (Some(_), false) => Scope::Workload,
            (Some(_), true) => Scope::Void,
        }
    }
}

/// What a document says of itself.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) namespace: String,
    pub(super) created: Option<String>,
    /// The annotation of a policy on trial, as it stands.
    pub(super) dry_run: Option<(Place, Value)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Mesh,
    Namespace,
    Workload,
    Void,
}

fn read_ports(field: &Field<'_>, report: &mut Report<'_>) -> BTreeMap<u16, Option<MtlsMode>> {
    let mut ports = BTreeMap::new();
    for (key, mtls) in field.entries(report).into_iter().flatten() {
        match key.name.parse::<u16>() {
            Ok(port) if port > 0 => {
                ports.insert(port, read_mode(&mtls, report));
            }
            _ => report.invalid(key.place, &mtls.path, "is not a port, expected 1 to 65535"),
        }
    }
    ports
}

fn read_mode(mtls: &Field<'_>, report: &mut Report<'_>) -> Option<MtlsMode> {
    let mut fields = mtls.fields(report)?;
    let mode = fields.take("mode");
    fields.finish(report);
    let mode = mode?;
    match mode.text(report)? {
        "STRICT" => Some(MtlsMode::Strict),
        "PERMISSIVE" => Some(MtlsMode::Permissive),
        "DISABLE" => Some(MtlsMode::Disable),
        "UNSET" => None,
        _ => {
            mode.invalid("is not allowed, expected STRICT, PERMISSIVE, DISABLE or UNSET", report);
            None
        }
    }
}

impl Documents {
    /// What a workload of `namespace` with these `labels` accepts, on `port` if one is given.
    ///
    /// The narrowest policy that says something decides: of the port, of the workload, of the namespace, of the mesh
    /// (a policy without selector in the root namespace). Of several in one scope the oldest
    /// `metadata.creationTimestamp` counts, then the first; a policy without one is new. Nothing said is
    /// [`MtlsMode::Permissive`], as in Istio.
    ///
    /// ```
    /// use mesh_core::Labels;
    /// use mesh_tower::istio::{self, MtlsMode, Unsupported};
    ///
    /// let documents = istio::read("\
    /// apiVersion: security.istio.io/v1
    /// kind: PeerAuthentication
    /// metadata: {name: default, namespace: secure-payment}
    /// spec: {mtls: {mode: STRICT}}
    /// ", "mtls.yaml", Unsupported::Error)?;
    /// let anything = Labels::default();
    /// assert_eq!(documents.mtls_mode("secure-payment", &anything, None), MtlsMode::Strict);
    /// assert_eq!(documents.mtls_mode("elsewhere", &anything, None), MtlsMode::Permissive);
    /// # Ok::<_, istio::Errors>(())
    /// ```
    pub fn mtls_mode(&self, namespace: &str, labels: &Labels, port: Option<u16>) -> MtlsMode {
        let workload = self.oldest(|policy, scope| {
            scope == Scope::Workload
                && policy.namespace == namespace
                && policy.selector.as_ref().is_some_and(|selector| labels.matches(selector))
        });
        let of_port = || *workload?.ports.get(&port?)?;
        let of_namespace = || {
            self.oldest(|policy, scope| scope == Scope::Namespace && policy.namespace == namespace)?
                .mode
        };
        let of_mesh = || self.oldest(|_, scope| scope == Scope::Mesh)?.mode;
        of_port()
            .or_else(|| workload?.mode)
            .or_else(of_namespace)
            .or_else(of_mesh)
            .unwrap_or(MtlsMode::Permissive)
    }

    fn oldest(
        &self,
        belongs: impl Fn(&PeerAuthentication, Scope) -> bool,
    ) -> Option<&PeerAuthentication> {
        // The first of equals: min_by_key keeps it.
        self.peer_authentications()
            .iter()
            .filter(|policy| belongs(policy, policy.scope(&self.root_namespace)))
            .min_by_key(|policy| (policy.created.is_none(), &policy.created))
    }
}

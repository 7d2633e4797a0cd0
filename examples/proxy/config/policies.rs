//! The Istio documents of the directory.

use mesh_core::{
    Labels,
    authorize::{Authorizer, Policy},
    route::{Client, VirtualHost},
};
use mesh_tower::{
    istio::{self, ClientTls, Destination, Documents, MtlsMode, Unsupported, Workload},
    upstream,
};

use super::ConfigError;

/// Its policies hold in every namespace (Istio `rootNamespace`).
const ROOT: &str = "istio-system";

/// What the documents say, of all files together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies(Documents);

impl Policies {
    /// Reads the documents of the files, by name and text.
    pub(crate) fn read<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
        unsupported: Unsupported,
    ) -> Result<Self, ConfigError> {
        let mut problems = ConfigError::default();
        let mut all = Documents::default();
        for (name, text) in files {
            let read = istio::read(text, name, unsupported).map_err(ConfigError::new);
            if let Some(documents) = problems.take(read) {
                all = all.and(documents);
            }
        }
        // How they are connected to is carried out: see `client_tls`.
        problems.into_result(Self(all.with_client_tls()))
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.0.warnings().iter().map(ToString::to_string).collect()
    }

    /// The hosts of the documents and their rules.
    pub(super) fn routes(
        &self,
        client: &Client,
    ) -> Result<Vec<VirtualHost<Destination>>, ConfigError> {
        self.0.routes(client).map_err(ConfigError::new)
    }

    /// The destination that is the whole of an upstream, by its name.
    pub(super) fn whole(&self, name: &str, client: &Client) -> Result<Destination, ConfigError> {
        self.0.whole(name, client).map_err(ConfigError::new)
    }

    /// The upstream of a destination as the documents want it; where none is about it, with the defaults.
    pub(super) fn destination(&self, to: &Destination) -> Result<upstream::Config, ConfigError> {
        let config = self.0.destination(to).map_err(ConfigError::new)?;
        config
            .with_answers(upstream::Answers::All)
            .build()
            .map_err(|error| ConfigError::new(format_args!("{to}: {error}")))
    }

    /// How a document wants a destination to be connected to, if one says.
    pub(super) fn client_tls(&self, to: &Destination) -> Result<Option<ClientTls>, ConfigError> {
        self.0.client_tls_of(to).map_err(ConfigError::new)
    }

    /// Whether a document names this upstream, or may mean it by a wildcard.
    pub(super) fn mention(&self, name: &str) -> bool {
        self.hosts()
            // Not whether it can be an upstream: one that a document forbids to be is mentioned too.
            .any(|host| {
                host.contains('*') && self.0.effective_policy(name, None).is_ok()
                    || same(host, name)
            })
    }

    /// What the DestinationRules are about, wildcards apart.
    pub(super) fn rules_for(&self, client: &Client) -> Vec<Destination> {
        let hosts = self.0.destination_rules().iter().map(istio::DestinationRule::host);
        let hosts = hosts.filter(|host| !host.contains('*'));
        // A short name that may mean several hosts is an error where it is asked for.
        hosts.filter_map(|host| self.0.whole(host, client).ok()).collect()
    }

    /// Whether a document says where requests for one of these names go; a rule for a destination does not.
    pub(super) fn route(&self, names: &[String]) -> bool {
        let of_services = self.0.virtual_services().iter().flat_map(istio::VirtualService::hosts);
        let of_routes = self.0.http_routes().iter().flat_map(istio::HttpRoute::hosts);
        let mut routed = of_services.chain(of_routes);
        routed.any(|host| names.iter().any(|name| same(host, name)))
    }

    pub(crate) fn mtls_mode(
        &self,
        namespace: &str,
        labels: &Labels,
        port: Option<u16>,
    ) -> MtlsMode {
        self.0.mtls_mode(namespace, labels, port)
    }

    /// What a workload lets its callers do. A policy that cannot be carried out whole is an error, whatever is to be done
    /// with other fields that are not supported.
    pub(super) fn authorizer(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> Result<Authorizer, ConfigError> {
        let workload = Workload::new(namespace, labels.clone()).with_sni();
        self.0.authorization(&workload).map_err(ConfigError::new)
    }

    /// The security policies that are not for this workload. A namespace left out and a label written otherwise look the
    /// same as a policy for a neighbour, and nobody would see that nothing is refused.
    pub(super) fn of_others(&self, namespace: &str, labels: &Labels) -> Vec<String> {
        let refusals = self
            .0
            .authorization_policies()
            .iter()
            .map(|document| ("AuthorizationPolicy", document.policy().clone()));
        let modes = self.0.peer_authentications().iter().map(|document| {
            let policy = Policy::allow(document.name()).with_namespace(document.namespace());
            let selector = document.selector().cloned().unwrap_or_default();
            ("PeerAuthentication", policy.with_selector(selector))
        });
        let others = refusals.chain(modes);
        let others = others.filter(|(_, policy)| !policy.is_for(ROOT, namespace, labels));
        others
            .map(|(kind, policy)| {
                format!(
                    "{kind} {} of namespace {} has no effect: workload.namespace ({namespace}) or workload.labels in \
                     proxy.yaml are others",
                    policy.name(),
                    policy.namespace()
                )
            })
            .collect()
    }

    fn hosts(&self) -> impl Iterator<Item = &str> {
        let of_rules = self.0.destination_rules().iter().map(istio::DestinationRule::host);
        of_rules
            .chain(self.0.virtual_services().iter().flat_map(istio::VirtualService::hosts))
            .chain(self.0.http_routes().iter().flat_map(istio::HttpRoute::hosts))
    }
}

/// Whether two names may mean the same host: one is the other's short form.
fn same(one: &str, other: &str) -> bool {
    let begins = |long: &str, short: &str| {
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    begins(one, other) || begins(other, one)
}

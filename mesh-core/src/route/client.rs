use crate::Labels;

/// Who sends the requests: what is the same for all of a process, and so is asked when a table is built.
///
/// ```
/// use mesh_core::route::{Client, Match, NoPattern, PlainHead, Table};
///
/// let only_a = Match::any().with_source_labels([("app", "a")].into_iter().collect());
/// let table = |app: &str| {
///     let client = Client::default().with_labels([("app", app)].into_iter().collect());
///     Table::new([(vec![only_a.clone()], "v1")], &client, NoPattern::refuse).unwrap()
/// };
/// let request = PlainHead::new("GET", "/");
/// assert!(table("a").find(&request).is_some());
/// assert!(table("b").find(&request).is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    labels: Labels,
    namespace: String,
    gateway: String,
}

impl Client {
    /// Sets its labels. Default none.
    #[must_use]
    pub fn with_labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// Sets its namespace. Default `default`.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Makes it a gateway of this name. Default `mesh`: every client that is none (Istio).
    #[must_use]
    pub fn with_gateway(mut self, gateway: impl Into<String>) -> Self {
        self.gateway = gateway.into();
        self
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The gateway that it is, or `mesh`.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }
}

impl Default for Client {
    fn default() -> Self {
        Self {
            labels: Labels::default(),
            namespace: "default".to_owned(),
            gateway: "mesh".to_owned(),
        }
    }
}

use std::fmt;

use super::{host::Host, yaml::Place};

/// Where a rule sends requests: a host, one of its subsets or all of it, and a port if one is named. What a
/// [`Router`](crate::route::Router) makes a service for; [`Documents::destination`](super::Documents::destination) is its
/// upstream.
///
/// Two are the same if they mean the same, however they were written.
#[derive(Clone, Debug)]
pub struct Destination {
    pub(super) host: Host,
    pub(super) subset: Option<String>,
    pub(super) port: Option<u16>,
    /// Of the subset, or of the destination.
    pub(super) place: Place,
    pub(super) path: String,
}

impl Destination {
    /// The host, as it was written.
    pub fn host(&self) -> &str {
        &self.host.written
    }

    /// The host in full, such as `shop.default.svc.cluster.local`.
    pub fn full_host(&self) -> &str {
        &self.host.full
    }

    /// The subset; `None`: the host as a whole.
    pub fn subset(&self) -> Option<&str> {
        self.subset.as_deref()
    }

    /// The port, if one is named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The whole of a host.
    pub(super) fn whole(host: Host) -> Self {
        Self { host, subset: None, port: None, place: Place::default(), path: String::new() }
    }

    /// Host and port, as they were written.
    pub(super) fn name(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host.written),
            None => self.host.written.clone(),
        }
    }

    fn key(&self) -> (&str, Option<&str>, Option<u16>) {
        (&self.host.full, self.subset.as_deref(), self.port)
    }
}

impl fmt::Display for Destination {
    /// `shop:8080`, or with its subset `shop:8080/v1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match &self.subset {
            Some(subset) => write!(f, "/{subset}"),
            None => Ok(()),
        }
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Destination {}

impl PartialOrd for Destination {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Destination {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl std::hash::Hash for Destination {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

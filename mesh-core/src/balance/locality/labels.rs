use crate::{InvalidConfig, Labels};

/// Labels by which endpoints are the nearer, the more of them in a row are as the caller's (Istio `failoverPriority`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ByLabels {
    /// A name, and the value to be wanted in place of the caller's.
    wanted: Vec<(String, Option<String>)>,
}

impl ByLabels {
    /// `name` or `name=value`, the most important first.
    pub(super) fn new<I>(labels: I) -> Result<Self, InvalidConfig>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut wanted: Vec<(String, Option<String>)> = Vec::new();
        for label in labels {
            let label = label.as_ref();
            let invalid = |expected| InvalidConfig::new("failover_priority", label, expected);
            let (name, value) = match label.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (label, None),
            };
            if name.is_empty() || value.is_some_and(|value| value.contains('=')) {
                return Err(invalid("a label, or label=value"));
            }
            if wanted.iter().any(|(other, _)| other == name) {
                return Err(invalid("each label once"));
            }
            wanted.push((name.to_owned(), value.map(str::to_owned)));
        }
        Ok(Self { wanted })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// One of those that tell region, zone or sub-zone, if there is any.
    pub(super) fn topology(&self) -> Option<&str> {
        self.wanted.iter().map(|(name, _)| name.as_str()).find(|name| TOPOLOGY.contains(name))
    }

    /// How far an endpoint is: with N labels, 0 if all are equal, and N − j if the label at j is the first that is not.
    /// Another network, if that is the first label, only adds N: behind it the walk goes on. A label that both lack is
    /// equal. A caller without labels is as near to all.
    pub(super) fn distance(&self, caller: &Labels, endpoint: &Labels) -> usize {
        if caller.is_empty() {
            return 0;
        }
        let all = self.wanted.len();
        let mut far = 0;
        for (at, (name, value)) in self.wanted.iter().enumerate() {
            let wanted = value.as_deref().unwrap_or_else(|| caller.get(name).unwrap_or_default());
            if wanted == endpoint.get(name).unwrap_or_default() {
                continue;
            }
            if at == 0 && name == NETWORK && value.is_none() {
                far = all;
                continue;
            }
            return far + all - at;
        }
        far
    }
}

/// The network of an endpoint: from another one it is reached through a gateway.
pub(super) const NETWORK: &str = "topology.istio.io/network";
pub(super) const REGION: &str = "topology.kubernetes.io/region";
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
pub(super) const SUB_ZONE: &str = "topology.istio.io/subzone";
pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";

const TOPOLOGY: [&str; 3] = [REGION, ZONE, SUB_ZONE];

use mesh_core::Labels;

use super::{
    cursor::{Field, Fields, Report},
    host::Host,
    problem::Origin,
    traffic_policy::TrafficPolicy,
};

/// A `DestinationRule` document: how the endpoints of a host are used.
#[derive(Clone, Debug)]
pub struct DestinationRule {
    pub(super) origin: Origin,
    namespace: String,
    pub(super) host: Host,
    /// None: the rule has none.
    pub(super) policy: Option<TrafficPolicy>,
    pub(super) subsets: Vec<Subset>,
}

#[derive(Clone, Debug)]
pub(super) struct Subset {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) policy: Option<TrafficPolicy>,
}

impl DestinationRule {
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// `metadata.namespace`, or `default`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `spec.host`, as it was written.
    pub fn host(&self) -> &str {
        &self.host.written
    }

    /// Name and labels of each subset.
    pub fn subsets(&self) -> impl Iterator<Item = (&str, &Labels)> {
        self.subsets.iter().map(|subset| (subset.name.as_str(), &subset.labels))
    }

    /// The ports that have settings of their own, in the rule or in one of its subsets.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        let of_subsets = self.subsets.iter().filter_map(|subset| subset.policy.as_ref());
        self.policy.iter().chain(of_subsets).flat_map(TrafficPolicy::ports)
    }

    pub(super) fn read(
        namespace: String,
        mut spec: Fields<'_>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let host =
            spec.require("host", report).and_then(|host| Host::read(&host, &namespace, report));
        let policy = spec.take("trafficPolicy").map(|policy| TrafficPolicy::read(&policy, report));
        let subsets = spec.take("subsets").map(|subsets| read_subsets(&subsets, report));
        super::take_export(&mut spec, report);
        spec.finish(report);
        Some(Self {
            origin: report.origin().clone(),
            namespace,
            host: host?,
            policy,
            subsets: subsets.unwrap_or_default(),
        })
    }
}

fn read_subsets(field: &Field<'_>, report: &mut Report<'_>) -> Vec<Subset> {
    let mut subsets: Vec<Subset> = Vec::new();
    for item in field.list(report).into_iter().flatten() {
        let Some(mut fields) = item.fields(report) else { continue };
        let name = fields.require("name", report);
        let labels = fields.take("labels").and_then(|labels| labels.labels(report));
        let policy =
            fields.take("trafficPolicy").map(|policy| TrafficPolicy::read(&policy, report));
        fields.finish(report);
        let Some((field, name)) = name.and_then(|field| Some((field.clone(), field.text(report)?)))
        else {
            continue;
        };
        if name.is_empty() || name == super::WHOLE {
            field.invalid("is not the name of a subset", report);
        } else if subsets.iter().any(|subset| subset.name == name) {
            field.invalid("is the name of an earlier subset", report);
        } else {
            subsets.push(Subset {
                name: name.to_owned(),
                labels: labels.unwrap_or_default(),
                policy,
            });
        }
    }
    subsets
}

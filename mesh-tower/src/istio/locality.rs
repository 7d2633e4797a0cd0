//! `localityLbSetting`: which endpoints are near, and how much goes to those that are not.

use mesh_core::balance::locality::{Config, Distribute};

use super::{
    balance::accepted,
    cursor::{Field, Report},
};

/// What one level says.
#[derive(Clone, Debug)]
pub(super) struct Locality {
    pub(super) config: Config,
    /// Whether it names where to fail over to: nothing does without `outlierDetection`.
    pub(super) names_failover: bool,
}

impl Locality {
    pub(super) fn read(block: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = block.fields(report)?;
        let mut list = |name| -> Option<(Field<'_>, Vec<Field<'_>>)> {
            let field = fields.take(name)?;
            let items = field.list(report).unwrap_or_default();
            // An empty list says nothing.
            (!items.is_empty()).then_some((field, items))
        };
        let distribute = list("distribute");
        let failover = list("failover");
        let labels = list("failoverPriority");
        let enabled = fields.take("enabled").map_or(Some(true), |field| field.boolean(report));
        fields.finish(report);
        let names_failover = failover.is_some() || labels.is_some();
        let mut config = match distribute {
            None => Config::failover(),
            Some((field, items)) => {
                let entries: Vec<Option<Distribute>> =
                    items.iter().map(|item| read_distribute(item, report)).collect();
                let entries = entries.into_iter().collect::<Option<Vec<_>>>()?;
                accepted(Config::distribute(entries), &field, report)?
            }
        };
        for item in failover.iter().flat_map(|(_, items)| items) {
            config = read_failover(config, item, report)?;
        }
        if let Some((field, items)) = &labels {
            let texts: Vec<&str> = items.iter().filter_map(|item| item.text(report)).collect();
            config = accepted(config.with_labels(texts), field, report)?;
        }
        Some(Self { config: config.with_enabled(enabled?), names_failover })
    }
}

/// `{from: region1/zone1/*, to: {"region1/zone1/*": 80, "region1/zone2/*": 20}}`
fn read_distribute(item: &Field<'_>, report: &mut Report<'_>) -> Option<Distribute> {
    let mut fields = item.fields(report)?;
    let from = fields.require("from", report);
    let to = fields.require("to", report);
    fields.finish(report);
    let (from, to) = (from?.text(report)?, to?);
    let mut weights = Vec::new();
    for (key, field) in to.entries(report)? {
        weights.push((key.name.as_str(), field.number(u32::MAX, report)?));
    }
    accepted(Distribute::new(from, weights), item, report)
}

/// `{from: us-east, to: eu-west}`
fn read_failover(config: Config, item: &Field<'_>, report: &mut Report<'_>) -> Option<Config> {
    let mut fields = item.fields(report)?;
    let from = fields.require("from", report);
    let to = fields.require("to", report);
    fields.finish(report);
    let (from, to) = (from?.text(report)?, to?.text(report)?);
    accepted(config.with_failover(from, to), item, report)
}

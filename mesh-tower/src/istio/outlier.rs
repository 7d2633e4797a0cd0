//! `outlierDetection` of a traffic policy.

use mesh_core::{InvalidConfig, Ratio, outlier};

use super::cursor::{Field, Fields, Report};

/// The block as it was read: the detection, and below which share of healthy endpoints its ejections are ignored.
#[derive(Clone, Debug)]
pub(super) struct Outlier {
    pub(super) config: outlier::Config,
    pub(super) panic_threshold: Ratio,
}

const TEN_PERCENT: &str = "maxEjectionPercent is 10 by default: nothing is ejected while there are fewer than 10 endpoints";

impl Outlier {
    pub(super) fn read(block: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = block.fields(report)?;
        let mut config = read_counts(outlier::Config::istio(), &mut fields, report);
        if let Some(field) = fields.take("interval")
            && let Some(interval) = field.duration(report)
        {
            config = accept(config.with_interval(interval), config, &field, report);
        }
        if let Some(field) = fields.take("baseEjectionTime")
            && let Some(time) = field.duration(report)
        {
            config = accept(config.with_base_ejection_time(time), config, &field, report);
        }
        let percent = fields.take("maxEjectionPercent");
        let share = percent.as_ref().and_then(|field| field.number(100, report));
        match (&percent, share) {
            (Some(field), Some(share @ 1..)) => {
                let share = Ratio::from_percent(share);
                config = accept(config.with_max_ejection_percent(share), config, field, report);
            }
            // 0 is not "never": Istio applies it only if it is more than 0.
            (_, Some(_)) | (None, None) => {
                let field = percent.as_ref().unwrap_or(block);
                report.advise(field.place(), &field.path, TEN_PERCENT);
            }
            // Reported already.
            (Some(_), None) => {}
        }
        // Istio always says it: 0 by default, where Envoy's own default is 50.
        let panic = fields.take("minHealthPercent").and_then(|field| field.number(100, report));
        fields.finish(report);
        Some(Self { config, panic_threshold: Ratio::from_percent(panic.unwrap_or(0)) })
    }
}

/// What is counted in a row. 0 is "not enforced", here as in Istio.
fn read_counts(
    mut config: outlier::Config,
    fields: &mut Fields<'_>,
    report: &mut Report<'_>,
) -> outlier::Config {
    if let Some(count) =
        fields.take("consecutive5xxErrors").and_then(|f| f.number(u32::MAX, report))
    {
        config = config.with_consecutive_5xx(count);
    }
    if let Some(count) =
        fields.take("consecutiveGatewayErrors").and_then(|f| f.number(u32::MAX, report))
    {
        config = config.with_consecutive_gateway_errors(count);
    }
    if let Some(field) = fields.take("consecutiveErrors") {
        report.advise(
            field.place(),
            &field.path,
            "is deprecated and without effect, here as in Istio: use consecutive5xxErrors",
        );
    }
    let split = fields.take("splitExternalLocalOriginErrors");
    let split = split.and_then(|field| field.boolean(report)).unwrap_or(false);
    config = config.with_split_local_origin(split);
    if let Some(field) = fields.take("consecutiveLocalOriginFailures")
        && let Some(count) = field.number(u32::MAX, report)
    {
        match (split, count) {
            (true, 1..) => config = config.with_consecutive_local_origin(count),
            // Istio leaves Envoy's default of 5 in place.
            (true, 0) => {}
            (false, _) => {
                report.advise(
                    field.place(),
                    &field.path,
                    "has no effect without splitExternalLocalOriginErrors: true",
                );
            }
        }
    }
    config
}

/// The machine is the judge of its own settings; what it refuses is the field's fault.
fn accept(
    accepted: Result<outlier::Config, InvalidConfig>,
    before: outlier::Config,
    field: &Field<'_>,
    report: &mut Report<'_>,
) -> outlier::Config {
    accepted.unwrap_or_else(|error| {
        field.invalid(format_args!("is not allowed, expected {}", error.expected()), report);
        before
    })
}

use mesh_core::{Ratio, balance::locality::effective_weight};
use serde::Deserialize;

use crate::case::Case;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    overprovisioning_factor: u32,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    State {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        locality_weight: u32,
        eligible: u64,
        total: u64,
        #[serde(default)]
        excluded: u64,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    effective_weight: f64,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let overprovisioning = Ratio::from_percent(settings.overprovisioning_factor);
    let mut weight = None;
    for Step::State { locality_weight, eligible, total, excluded, .. } in case.steps()? {
        let total = total.saturating_sub(excluded);
        weight = Some(effective_weight(locality_weight, eligible, total, overprovisioning));
    }
    let weight = weight.ok_or("no step")?;
    let Expect { effective_weight: expected } = case.expect()?;
    // Ours is in millionths, rounded down.
    let behind = expected * 1e6 - weight as f64;
    if (-1e-3..1.0).contains(&behind) {
        return Ok(());
    }
    Err(format!("effective_weight: {weight} millionths, expected {expected}"))
}

//! `fault` and `mirror` of a VirtualService's rule.

use mesh_core::{
    Ratio,
    route::{Abort, AbortStatus, Delay, Fault, Mirror},
};

use super::{
    cursor::{Field, Fields, Report},
    virtual_service::{Destination, read_destination},
};

/// Shares are whole millionths, cut as in Istio, and none where nothing is said: an `abort` without a `percentage` aborts
/// nothing.
pub(super) fn read_fault(field: &Field<'_>, report: &mut Report<'_>) -> Option<Fault> {
    let mut fields = field.fields(report)?;
    let abort = fields.take("abort").map(|abort| read_abort(&abort, report));
    let delay = fields.take("delay").map(|delay| read_delay(&delay, report));
    fields.finish(report);
    // What could not be read has been reported.
    Some(Fault::none().with_abort(abort.flatten()).with_delay(delay.flatten()))
}

fn read_abort(field: &Field<'_>, report: &mut Report<'_>) -> Option<Abort> {
    let mut fields = field.fields(report)?;
    let share = read_share(&mut fields, "percentage", Ratio::ZERO, report);
    let (http, grpc) = (fields.take("httpStatus"), fields.take("grpcStatus"));
    fields.finish(report);
    let (made, field) = match (http, grpc) {
        (Some(status), None) => {
            let code = u16::try_from(status.number(600, report)?).unwrap_or_default();
            (AbortStatus::http(code), status)
        }
        (None, Some(status)) => (AbortStatus::grpc(status.text(report)?), status),
        (Some(_), Some(_)) | (None, None) => {
            field.invalid("needs either httpStatus or grpcStatus", report);
            return None;
        }
    };
    let refused = |error: mesh_core::InvalidConfig| {
        let why = format!("is not allowed, expected {}", error.expected());
        field.invalid(why, report);
    };
    Some(Abort::new(made.map_err(refused).ok()?, share?))
}

fn read_delay(field: &Field<'_>, report: &mut Report<'_>) -> Option<Delay> {
    let mut fields = field.fields(report)?;
    let share = read_share(&mut fields, "percentage", Ratio::ZERO, report);
    let fixed = fields.require("fixedDelay", report).and_then(|field| field.duration(report));
    fields.finish(report);
    Some(Delay::new(fixed?, share?))
}

/// `mirror` with its `mirrorPercentage`, and `mirrors`, each with its own. Default all; whoever writes 0 gets none.
pub(super) fn read_mirrors(
    fields: &mut Fields<'_>,
    namespace: &str,
    report: &mut Report<'_>,
) -> Vec<Mirror<Destination>> {
    let mut mirrors = Vec::new();
    let why = "is not carried out by an upstream alone";
    let share = read_share(fields, "mirrorPercentage", Ratio::ONE, report);
    if let Some(mirror) = fields.route("mirror", why, report) {
        mirrors.extend(read_mirror(&mirror, share, namespace, report));
    }
    let list = fields.route("mirrors", why, report);
    for item in list.and_then(|list| list.list(report)).into_iter().flatten() {
        let Some(mut fields) = item.fields(report) else { continue };
        let share = read_share(&mut fields, "percentage", Ratio::ONE, report);
        if let Some(destination) = fields.require("destination", report) {
            mirrors.extend(read_mirror(&destination, share, namespace, report));
        }
        fields.finish(report);
    }
    mirrors
}

fn read_mirror(
    field: &Field<'_>,
    share: Option<Ratio>,
    namespace: &str,
    report: &mut Report<'_>,
) -> Option<Mirror<Destination>> {
    let destination = read_destination(field, namespace, report);
    Some(Mirror::new(destination?, share?))
}

fn read_share(
    fields: &mut Fields<'_>,
    name: &'static str,
    unset: Ratio,
    report: &mut Report<'_>,
) -> Option<Ratio> {
    fields.take(name).map_or(Some(unset), |field| field.share(report))
}

//! `retries` of a VirtualService's rule.

use mesh_core::{backoff, retry};

use super::{
    cursor::{Field, Report},
    yaml::shorten,
};

/// `None` if it cannot be read; what is wrong has been reported.
pub(super) fn read_retries(field: &Field<'_>, report: &mut Report<'_>) -> Option<retry::Config> {
    let mut fields = field.fields(report)?;
    let attempts = fields.require("attempts", report);
    let attempts = attempts.and_then(|attempts| attempts.number(i32::MAX as u32, report));
    let mut config = retry::Config::istio();
    if let Some(attempts) = attempts {
        config = config.with_retries(attempts);
    }
    if let Some(off) = attempts.filter(|attempts| *attempts == 0)
        && !fields.is_empty()
    {
        // Istio's own validation refuses it too: what is set would have no effect.
        report.invalid(
            field.place(),
            &field.path,
            format!("attempts: {off} turns retries off, and leaves no use for other fields"),
        );
    }
    if let Some(timeout) = fields.take("perTryTimeout").and_then(|field| field.duration(report)) {
        config = config.with_per_try_timeout(Some(timeout));
    }
    if let Some(field) = fields.take("retryOn")
        && let Some(text) = field.text(report)
        && !text.is_empty()
    {
        match text.parse::<retry::RetryOn>() {
            Ok(conditions) => config = config.with_retry_on(conditions),
            Err(error) => {
                let message = format!(
                    "\"{}\" is not a condition, expected {}",
                    shorten(error.value(), 60),
                    error.expected()
                );
                report.invalid(field.place(), &field.path, message);
            }
        }
    }
    if let Some(field) = fields.take("backoff")
        && let Some(base) = field.duration(report)
    {
        match backoff::Config::from_base(base) {
            Ok(backoff) => config = config.with_backoff(backoff),
            Err(error) => {
                field.invalid(format_args!("is not allowed, expected {}", error.expected()), report)
            }
        }
    }
    if let Some(avoid) =
        fields.take("retryIgnorePreviousHosts").and_then(|field| field.boolean(report))
    {
        config = config.with_avoid_previous(avoid);
    }
    fields.finish(report);
    Some(if attempts? == 0 { retry::Config::none() } else { config })
}

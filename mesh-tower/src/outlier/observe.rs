use super::policy::Event;

/// Outlier detection has come to a decision about an endpoint.
pub(super) fn event(upstream: Option<&str>, endpoint: &str, event: Event) {
    match event {
        Event::Ejected { detector, times, .. } => {
            tracing::info!(upstream, endpoint, %detector, times, "ejected");
        }
        Event::NotEjected { detector, why } => {
            tracing::debug!(upstream, endpoint, %detector, %why, "not ejected");
        }
        Event::Unejected { after } => {
            tracing::info!(upstream, endpoint, ?after, "back in rotation");
        }
    }
}

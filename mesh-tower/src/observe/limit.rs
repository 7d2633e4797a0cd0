use mesh_core::limit::adaptive::Limiter;
use metrics::{SharedString, counter, gauge};

use super::names;

/// How an adaptive limit stands, and how many requests it has refused since the last time. Seldom called, so nothing
/// is kept of the recorder.
pub(super) fn report(name: &str, limiter: &Limiter, refused: u64) {
    let labels = [("limit", SharedString::from(name.to_owned()))];
    gauge!(names::ADAPTIVE_LIMIT, &labels).set(limiter.limit());
    gauge!(names::ADAPTIVE_IN_FLIGHT, &labels).set(limiter.in_flight());
    if let Some(min_rtt) = limiter.min_rtt() {
        gauge!(names::ADAPTIVE_MIN_RTT, &labels).set(min_rtt.as_secs_f64());
    }
    counter!(names::ADAPTIVE_REFUSED, &labels).increment(refused);
}

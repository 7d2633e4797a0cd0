//! When a connection has been kept for long enough.

use mesh_core::Timestamp;

use super::Config;

/// Whether a connection that was made then, and rests since then, is too old or has been idle for too long. The clock is
/// read only if it matters.
pub(super) fn expiry(
    config: &Config,
    now: impl Fn() -> Timestamp,
) -> impl Fn(Timestamp, Timestamp) -> bool {
    let (timeout, age) = (config.idle_timeout(), config.max_connection_duration());
    move |made, since| {
        timeout.is_some_and(|timeout| now().since(since) > timeout)
            || age.is_some_and(|age| now().since(made) > age)
    }
}

/// Whether a connection that was made then is too old.
pub(super) fn is_old(config: &Config, made: Timestamp, now: impl Fn() -> Timestamp) -> bool {
    config.max_connection_duration().is_some_and(|max| now().since(made) > max)
}

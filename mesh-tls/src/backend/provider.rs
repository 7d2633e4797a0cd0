//! The cryptography, always handed over explicitly: the process-wide default of rustls panics or changes under
//! us when two crates disagree on it.

use std::sync::Arc;

use rustls::{crypto::CryptoProvider, time_provider::TimeProvider};
use rustls_pki_types::UnixTime;

use crate::clock::Clock;

/// The cryptography and the clock that every configuration is built with.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub(crate) crypto: Arc<CryptoProvider>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl TimeProvider for Provider {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.clock.now())
    }
}

/// aws-lc-rs where it is compiled in, else ring, else none.
///
/// With both features on, aws-lc-rs wins: it has the post-quantum key exchange, and a feature that somebody else
/// turns on must not take it away.
pub(crate) fn default_provider() -> Option<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    return Some(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Some(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    None
}

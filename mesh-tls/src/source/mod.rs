//! Where an identity comes from.
//!
//! A source only delivers raw material, complete each time; every check is made behind it, in one place, so that no
//! source can forget one.

mod file;
mod fixed;

use std::future::Future;

pub use file::FileSource;
#[cfg(all(unix, feature = "origination"))]
pub(crate) use file::warn_of_an_open_key;
#[cfg(feature = "origination")]
pub(crate) use file::{Bytes, Watched, text};
pub use fixed::{MaterialHandle, StaticSource};

use crate::{error::MaterialError, material::Material};

/// Delivers an identity, and each later state of it.
///
/// The first call returns what there is at the start; every later one waits until something has changed. After an
/// error it is called again in 100 ms; a source that should try less often waits by itself.
///
/// # Cancel safety
///
/// The future is dropped only together with the source.
pub trait IdentitySource: Send + 'static {
    /// The next complete state; an error is passing, and what was delivered before stays in use.
    fn next(&mut self) -> impl Future<Output = Result<SourceEvent, MaterialError>> + Send;
}

/// What a source has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum SourceEvent {
    /// The complete new state.
    Update(Material),
    /// Stop using the identity: it was taken away, not merely unreadable.
    Withdrawn,
}

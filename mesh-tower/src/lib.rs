//! **mesh-tower carries.** Tower layers around the machines of [`mesh_core`], and the client and server stacks
//! made of them.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod upstream;

pub mod route;

pub mod deadline;

pub mod retry;

pub mod limit;

pub mod balance;

pub mod breaker;

pub mod outlier;

pub mod pool;

pub mod server;

pub mod classify;

pub mod body;

pub mod error;

#[cfg(feature = "istio")]
pub mod istio;

#[cfg(feature = "reqwest")]
pub mod reqwest;

mod chance;
mod clock;
mod observe;
mod oneshot;
mod timer;

pub use chance::Chance;
pub use clock::Clock;
pub use error::{BoxError, MeshError};
pub use mesh_core;
#[cfg(feature = "metrics")]
pub use observe::{describe_metrics, recommended_buckets};

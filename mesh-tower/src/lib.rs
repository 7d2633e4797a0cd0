//! **mesh-tower carries.** Tower layers around the machines of [`mesh_core`], and the client and server stacks
//! made of them.
//!
//! * [`upstream`] is the standard client stack: one service that routes, balances, retries within a budget, ejects what
//!   fails, and says why when it refuses. Start here.
//! * [`discover`] is where its endpoints come from.
//! * [`server`] is the standard server stack: a bounded queue and a deadline around a handler.
//! * [`authorize`] refuses by who sends a request and what it asks for.
//! * [`deadline`], [`retry`], [`throttle`], [`limit`], [`breaker`], [`outlier`], [`balance`] and [`route`] are the policies
//!   alone, over any tower service.
//! * [`health`] asks endpoints whether they are well, traffic or none.
//! * [`pool`] carries HTTP to one endpoint; [`classify`] says what an answer means; [`error`] is what the mesh says itself.
//!
//! Modules stand in the order in which a request meets them. A policy's machine is in the module of the same name in
//! [`mesh_core`].
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `client` | yes | the connection pool on hyper |
//! | `dns` | no | endpoints from DNS: A, AAAA and SRV records |
//! | `metrics` | yes | golden metrics through the `metrics` facade |
//! | `router` | no | routes by host, path, headers and query to several destinations |
//! | `istio` | no | reads Istio documents into the configurations of this crate, and their rules into routes |
//! | `reqwest` | no | `reqwest::Client` as the transport of an upstream's endpoints |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod upstream;

pub mod discover;

pub mod authorize;

pub mod route;

pub mod deadline;

pub mod retry;

pub mod throttle;

pub mod limit;

pub mod balance;

pub mod breaker;

pub mod outlier;

pub mod health;

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
mod striped;
mod timer;

pub use chance::Chance;
pub use clock::Clock;
pub use error::{BoxError, MeshError};
pub use mesh_core;
#[cfg(feature = "metrics")]
pub use observe::{describe_metrics, recommended_buckets};

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

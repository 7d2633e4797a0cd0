//! Asks endpoints whether they are well, traffic or none: active health checks.
//!
//! Why the upstream's driver asks, and not a task of its own: the driver exists already, owns no request, and ends with
//! its upstream; a check that is under way then is dropped with it. All checks of an upstream run in that one future.
//! The [machine](mesh_core::health) says when to ask, and what a row of answers means.
//!
//! # How it decides
//!
//! | the endpoint | [`HttpCheck`] | [`GrpcCheck`] | [`TcpCheck`] | verdict |
//! | --- | --- | --- | --- | --- |
//! | is well | a status that is expected | `SERVING` | takes the connection | [`Passed`](Verdict::Passed) |
//! | says that it is not | any other status | `NOT_SERVING`, `UNKNOWN`, a service that it does not know | | [`Unhealthy`](Verdict::Unhealthy), at once |
//! | says nothing | no connection, no answer in time, no HTTP | the same; any other gRPC error | no connection in time | [`Failed`](Verdict::Failed), counted against the threshold |
//!
//! An endpoint that is not well gets no requests; it is as if it were ejected, without a time. One that passes is brought
//! back from an ejection at once, if [outlier
//! detection](mesh_core::outlier::Config::with_uneject_on_health_check) says so (Envoy
//! `successful_active_health_check_uneject_host`).
//!
//! Each check makes a connection of its own, by the connector that it was given, and closes it: so it finds a listener that
//! accepts nobody any more, and an identity that is refused. With mutual TLS it costs a handshake.
//!
//! # What it does not do
//!
//! A panic threshold counts ejections, not these: with all endpoints unwell an upstream refuses, flag `UH`.
//!
//! # Example
//!
//! ```no_run
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use mesh_core::{Endpoint, health};
//! use mesh_tower::{health::HttpCheck, pool::HttpEndpoints, upstream::{HttpUpstream, Upstream}};
//! use std::time::Duration;
//!
//! # fn run() -> Result<(), mesh_core::InvalidConfig> {
//! let checks = health::Config::default().with_interval(Duration::from_secs(5))?;
//! let payments: HttpUpstream<Full<Bytes>> = Upstream::builder("payment-service")
//!     .endpoints([Endpoint::new("10.0.0.1:8080"), Endpoint::new("10.0.0.2:8080")])
//!     .health_check(checks, HttpCheck::plain("/healthz")?)
//!     .spawn(HttpEndpoints::plain())?;
//! # Ok(())
//! # }
//! ```
//!
//! Anything else that can be asked is a closure:
//!
//! ```
//! use mesh_core::Endpoint;
//! use mesh_tower::health::{CheckHealth, Report};
//!
//! fn assert_check(_: impl CheckHealth) {}
//! assert_check(|endpoint: Endpoint| async move {
//!     match endpoint.address().ends_with(":8080") {
//!         true => Report::passed(),
//!         false => Report::failed("nobody asks there"),
//!     }
//! });
//! ```

#[cfg(feature = "client")]
mod exchange;
#[cfg(feature = "client")]
mod grpc;
#[cfg(feature = "client")]
mod http;
mod rounds;
mod tcp;

use std::{borrow::Cow, fmt, future::Future, pin::Pin};

use mesh_core::Endpoint;
pub use mesh_core::health::{Config, Verdict};

pub(crate) use self::rounds::{Ended, Rounds, Settings};
pub use self::tcp::TcpCheck;
#[cfg(feature = "client")]
pub use self::{grpc::GrpcCheck, http::HttpCheck};

/// Asks an endpoint whether it is well.
pub trait CheckHealth: Send + Sync + 'static {
    /// Asks once. Dropped when its time is over: then the check has failed.
    fn check(&self, endpoint: Endpoint) -> Pin<Box<dyn Future<Output = Report> + Send>>;
}

impl<F, R> CheckHealth for F
where
    F: Fn(Endpoint) -> R + Send + Sync + 'static,
    R: Future<Output = Report> + Send + 'static,
{
    fn check(&self, endpoint: Endpoint) -> Pin<Box<dyn Future<Output = Report> + Send>> {
        Box::pin(self(endpoint))
    }
}

/// How a check ended, and in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    verdict: Verdict,
    why: Cow<'static, str>,
}

impl Report {
    /// The endpoint says that it is well.
    pub fn passed() -> Self {
        Self { verdict: Verdict::Passed, why: Cow::Borrowed("it answers well") }
    }

    /// There was no answer, and this is why.
    pub fn failed(why: impl Into<Cow<'static, str>>) -> Self {
        Self { verdict: Verdict::Failed, why: why.into() }
    }

    /// The endpoint says that it is not well.
    pub fn unhealthy(why: impl Into<Cow<'static, str>>) -> Self {
        Self { verdict: Verdict::Unhealthy, why: why.into() }
    }

    /// How it ended.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

//! The client stack: everything between a request and the endpoint that answers it, in one service.
//!
//! Why one service and not eight layers stacked: each layer would share its state through a pointer of its own and
//! read the clock for itself, and a retry could not know which endpoint has failed. The [`Upstream`] asks the same
//! machines of [`mesh_core`] that the single layers ask, in a fixed order, with one picture of the endpoints, one
//! reading of the clock at each turn, and one guard that gives everything back when the caller goes away.
//!
//! # The order
//!
//! | | step | machine | refuses with |
//! | --- | --- | --- | --- |
//! | 1 | **route**: choose the subset, once for all attempts | [`route`](mesh_core::route) | `NR` |
//! | 2 | **deadline**: the smallest of the upstream's timeout, the caller's headers and extensions | [`deadline`](mesh_core::deadline) | `UT` |
//! | 3 | **limit**: a slot among the requests in flight, held until the response's body ends | [`limit`](mesh_core::limit) | `UO` |
//! | 4 | **balance**: choose an endpoint that is well, whose breaker admits, and that was not tried before | [`balance`](mesh_core::balance) | `UH`, `UO` |
//! | 5 | **breaker**: take the endpoint's permit, if it has a breaker | [`breaker`](mesh_core::breaker) | `UO` |
//! | 6 | **connect and send**, within the attempt's time | the endpoint's service | `UF`, `UC`, `UT` |
//! | 7 | **classify** the answer; tell breaker, outlier detection and load | [`outlier`](mesh_core::outlier) | |
//! | 8 | **retry**: if the answer may be retried, the request can be sent again and the budget grants it, wait and go to 4 | [`retry`](mesh_core::retry), [`budget`](mesh_core::budget) | |
//!
//! The deadline stands outside the retry, so it bounds all attempts; the limit stands outside too, so a retry does
//! not queue behind new requests; the breaker stands inside the balancer, so an open one is passed over instead of
//! chosen for being idle.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use mesh_core::Endpoint;
//! use mesh_tower::upstream::{Origin, Upstream};
//! use tower::{ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! // Each endpoint's service; with the feature `client`, `HttpEndpoints` makes real connections.
//! let make = |origin: &Origin<'_>| {
//!     let address = origin.endpoint().address().clone();
//!     service_fn(move |_| {
//!         let body = Full::new(Bytes::from(address.to_string()));
//!         async { Ok::<_, std::io::Error>(Response::new(body)) }
//!     })
//! };
//! let (payments, driver) = Upstream::builder("payment-service")
//!     .endpoints([Endpoint::new("10.0.0.1:8080"), Endpoint::new("10.0.0.2:8080")])
//!     .build(make)
//!     .unwrap();
//! tokio::spawn(driver);
//!
//! let request = Request::new(Full::new(Bytes::from_static(b"order 7")));
//! let response = payments.oneshot(request).await.unwrap();
//! assert_eq!(response.status(), 200);
//! # });
//! ```
//!
//! # What a request may ask for
//!
//! Its deadline, by `grpc-timeout` and `x-envoy-expected-rq-timeout-ms`, where that is earlier than the upstream's. The
//! rest is off unless asked for, since headers come from callers: time limits by all of Envoy's headers
//! ([`Config::with_deadline_policy`]), and retries ([`Config::with_retry_overrides`]).
//!
//! # Where attempts go
//!
//! An endpoint is well if it is neither ejected nor fails its active checks. Without more said, any that is well will do.
//! What more may be said:
//!
//! | | by | decides |
//! | --- | --- | --- |
//! | priorities | [`Endpoint::with_priority`](mesh_core::Endpoint::with_priority), the distance from the caller ([`Policy::with_locality`]) | the group, by how many of each are well ([`Policy::with_priorities`]) |
//! | localities | weights, given shares, zones ([`Policy::with_locality`]) | the part of the group |
//! | panic | [`Policy::with_panic_threshold`] | that it is ignored who is well, or that requests are refused |
//! | keys | [`Policy::with_hash`] | the group and the endpoint, in place of chance |
//! | labels | [`Policy::with_label_subsets`], and a request's [`Criteria`] | among which endpoints all of this is decided |
//!
//! The picture of this is renewed when an endpoint is ejected or comes back, and when a check finds out that it has become
//! well or unwell: by the driver, or by the first request that comes upon the change. A request never misses an endpoint
//! that is well: where it was sent to those that are gone, or whose breakers refuse, it goes to the rest of the group, and
//! then to the other groups in their order.
//!
//! Before all of this [`Config::with_subsetting`] says which of the listed endpoints this client uses at all.
//!
//! Keys and localities: the table of a group has the localities' weights in it; by zones a key is not routed, as in Envoy.
//!
//! # What an endpoint would repeat
//!
//! An error may be [final](crate::MeshError::is_final): the server is somebody else, or does not want us, and to ask it again
//! would not help. `HttpEndpoints::with_final_errors` says which are. To the request that met it the endpoint is as one that
//! is gone. Another is asked at once, if the policy, the limits and the budget grant the retry; one that has merely failed
//! before is such another. Where none is left the request ends with the error that it has, at no charge. Other requests ask
//! the endpoint as ever, until outlier detection or its breaker, which hear of it, keep them from it. Envoy takes a failure
//! of TLS for a failure to connect: it backs off, and may ask the same host again.
//!
//! # What becomes of an endpoint
//!
//! It is idle, connecting or ready; for a time unwell or ejected; and when it is listed no longer it drains, and is gone
//! with the last of its attempts. [`Life`] is the table. [`Upstream::status`] tells of each where it stands, the driver
//! counts them and tells of changes (events of level DEBUG, `mesh_endpoints_by_life`,
//! `mesh_endpoint_life_changes_total`).
//!
//! # Without an endpoint
//!
//! A subset that has no endpoint, or whose endpoints are all ejected, unwell or refused by their breakers, answers at once:
//! 503, with the time when the first of them comes back. The flag is `UH`, or `UO` where nothing but breakers refuses.
//! There is no fall-back to other subsets, as in Istio.

mod answers;
mod builder;
#[cfg(test)]
mod burst;
mod config;
mod criteria;
mod discovery;
mod driver;
mod elsewhere;
mod flight;
pub mod future;
mod hash;
mod key;
mod life;
mod listed;
mod make;
mod pick;
mod places;
mod plan;
mod policy;
mod status;
mod subset;
mod writer;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use mesh_core::{Endpoint, InvalidConfig, balance::locality::Caller, limit::Resource};
use tower_service::Service;

pub use answers::Answers;
pub use builder::Builder;
pub use config::{Config, Subset};
pub use criteria::Criteria;
pub use discovery::{DiscoveryError, DiscoveryStatus};
pub use driver::Driver;
pub(crate) use flight::Flight;
pub use hash::{ConsistentHash, KeySource};
pub use life::Life;
pub use make::{Link, MakeEndpoint, Origin};
pub use policy::Policy;
pub use status::{BreakerStatus, EjectionStatus, EndpointStatus};

use self::{future::ResponseFuture, plan::Shared};
use crate::{
    BoxError,
    body::{MeshBody, ReplayBody},
    classify::{Classify, Standard},
    striped::Striped,
};

/// An upstream whose endpoints speak HTTP over connections of this crate's pool; `B` is the body of its requests.
///
/// ```no_run
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use mesh_core::Endpoint;
/// use mesh_tower::{pool::HttpEndpoints, upstream::{HttpUpstream, Upstream}};
/// use tower::ServiceExt;
///
/// # async fn run() -> Result<(), mesh_tower::BoxError> {
/// let payments: HttpUpstream<Full<Bytes>> = Upstream::builder("payment-service")
///     .endpoints([Endpoint::new("10.0.0.1:8080"), Endpoint::new("10.0.0.2:8080")])
///     .spawn(HttpEndpoints::plain())?;
/// let order = Request::post("/orders").body(Full::new(Bytes::from_static(b"7")))?;
/// let response = payments.oneshot(order).await?;
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "client")]
pub type HttpUpstream<B, C = hyper_util::client::legacy::connect::HttpConnector> =
    Upstream<crate::pool::HttpEndpoints<C, ReplayBody<B>>>;

/// The client stack of one upstream. Cheap to clone; all clones share everything. See the [module's docs](self).
///
/// It is always ready: what may have to wait or be refused waits and is refused in the response future. A request begins
/// when that is polled first: until then it holds nothing, and its time does not run.
pub struct Upstream<M: MakeEndpoint, C = Standard> {
    // Two counts, so that the requests of one thread do not write what another's read: the outer one counts clones of
    // the upstream, the inner ones requests.
    shared: Arc<Striped<Arc<Shared<M>>>>,
    classify: C,
}

/// Where an upstream begins; what makes its endpoints is said last, in [`Builder::build`].
impl Upstream<fn(&Origin<'_>)> {
    /// Begins an upstream with the defaults of [`Config::new`].
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder::new(Config::new(name))
    }

    /// Begins an upstream with a configuration, of which Istio documents are one source.
    pub fn from_config(config: Config) -> Builder {
        Builder::new(config)
    }
}

impl<M, C> Upstream<M, C>
where
    M: MakeEndpoint,
    M::Service: Clone,
{
    /// The upstream's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The configuration in force.
    pub fn config(&self) -> Config {
        self.shared.plan.load().config.clone()
    }

    /// Replaces the configuration while requests fly. What was counted is kept: ejections, budgets, limits in use.
    ///
    /// # Errors
    ///
    /// A configuration that [`Config::build`] would refuse, or one of another name; the one in force stays.
    pub fn set_config(&self, config: Config) -> Result<(), InvalidConfig> {
        if config.name() != self.name() {
            let expected = "the name that the upstream has";
            return Err(InvalidConfig::new("name", config.name(), expected));
        }
        self.shared.update_config(|_| config.build())
    }

    /// Replaces the shares of the subsets while requests fly; the next request is drawn from them.
    ///
    /// # Errors
    ///
    /// A name that is no subset, or weights that are all 0; the shares in force stay.
    pub fn set_split<N: Into<String>>(
        &self,
        split: impl IntoIterator<Item = (N, u32)>,
    ) -> Result<(), InvalidConfig> {
        let split = split.into_iter().map(|(name, weight)| (name.into(), weight)).collect();
        self.shared.update_config(|config| config.clone().with_split(split).build())
    }

    /// Replaces all endpoints. Those that stay keep what the mesh has learnt of them; a removed one finishes what it
    /// has begun.
    pub fn set_endpoints(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        self.shared.set_endpoints(plan::by_address(endpoints));
    }

    /// Adds an endpoint, or gives the one of that address other labels, weight and locality.
    pub fn insert_endpoint(&self, endpoint: Endpoint) {
        let address = endpoint.address().clone();
        self.shared.set_endpoint(&address, Some(endpoint));
    }

    /// Removes the endpoint of that address; requests that it has begun are finished.
    pub fn remove_endpoint(&self, address: &str) {
        self.shared.set_endpoint(address, None);
    }

    /// Says where the caller is, what its labels are and where its peers are, while requests fly: see
    /// [`Builder::caller`].
    pub fn set_caller(&self, caller: Caller) {
        self.shared.set_caller(caller);
    }

    /// The endpoints, with what the mesh knows of each, subset by subset: what `/clusters` shows. After those that are
    /// listed come those that are listed no longer and still have attempts under way: they are
    /// [draining](Life::Draining).
    pub fn status(&self) -> Vec<EndpointStatus> {
        status::of(&self.shared)
    }

    /// How discovery goes; `None` if the upstream has no source of endpoints, or its driver was never polled.
    pub fn discovery(&self) -> Option<DiscoveryStatus> {
        let plan = self.shared.plan.load();
        let used = plan.subsets.first().map_or(0, |cluster| cluster.members.len());
        self.shared.discovery.status(plan.listed, used)
    }

    /// How much of a limit is in use now, over all subsets: requests in flight, retries, connections, requests that wait
    /// for one.
    pub fn in_use(&self, resource: Resource) -> u32 {
        let plan = self.shared.plan.load();
        plan.subsets.iter().map(|cluster| cluster.roster.subset.in_use(resource)).sum()
    }

    /// The stack and its settings in words, in the order in which a request meets them.
    pub fn describe(&self) -> String {
        status::describe(&self.shared.plan.load().config)
    }
}

impl<M, C, B, RB> Service<Request<B>> for Upstream<M, C>
where
    M: MakeEndpoint,
    M::Service: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    <M::Service as Service<Request<ReplayBody<B>>>>::Error: Into<BoxError>,
    C: Classify<Response<RB>> + Clone,
    B: Body<Data = Bytes> + Unpin,
    RB: Body<Data = Bytes>,
{
    type Response = Response<MeshBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<M, C, B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture::new(self.shared.handle(), self.classify.clone(), request)
    }
}

impl<M: MakeEndpoint, C: Clone> Clone for Upstream<M, C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), classify: self.classify.clone() }
    }
}

impl<M: MakeEndpoint, C> fmt::Debug for Upstream<M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

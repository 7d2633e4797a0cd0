//! Refuses requests by policies: who sends them, and what they ask for. The machine is [`mesh_core::authorize`]; it has the
//! table of decisions.
//!
//! # Why not a layer for the peer alone
//!
//! Who may connect is settled by the TLS acceptor, and a peer policy before one route says who may use it. Here one set of
//! policies, written by who answers for them and not in the code, speaks of peers, paths, methods and headers together, and
//! is replaced while requests fly.
//!
//! # How it decides
//!
//! 1. [`FORWARDED_CLIENT_CERT`] is removed from the request, in whatever spelling: what a caller writes into it himself is a
//!    lie. (Not with [`keep_forwarded_client_cert`](AuthorizeLayer::keep_forwarded_client_cert).)
//! 2. The policies [decide](policy::Authorizer::decide). What they know of the connection, [`Caller`] says: this crate knows
//!    of no TLS.
//! 3. The path is brought into [one form](policy::Normalization), and handed on in it: what is judged is what is handled.
//!
//! | decision | HTTP | gRPC (by the request's `content-type`) | `x-mesh-flag` |
//! | --- | --- | --- | --- |
//! | allowed | the inner service's answer | | |
//! | refused | 403, `RBAC: access denied` (Envoy's words) | `PERMISSION_DENIED` 7, trailers only | `RBAC` |
//! | a path that has no one form; hosts that contradict one another, in the target, `:authority` and `Host` | 400 | `INTERNAL` 13 | `DPE` |
//!
//! Without any policy everything passes, and paths stay as they are.
//!
//! A refusal is a response, so the error type stays that of the inner service. It says nothing of the policy: that is for the
//! log (DEBUG), the metrics and [`Handle::refused`].
//!
//! | metric | labels | counts |
//! | --- | --- | --- |
//! | `mesh_authorize_total` | `layer`; `result`: `allowed`, `denied`, `would_deny` (while only [watching](Mode::Watch)); `policy`: `namespace/name`, empty if none decided | requests |
//! | `mesh_authorize_audited_total` | `layer`, `policy` | requests that an `AUDIT` policy matched |
//! | `mesh_authorize_trial_total` | `layer`, `result`: `allowed`, `denied` | what policies on trial would have changed |
//!
//! # Where it stands
//!
//! Outside of everything that spends something on a request: before the limits and the handler. Inside of what says who the
//! peer is. Around a router, not as a layer of it: axum's `Router::layer` stands behind the choice of the handler, who then
//! sees the path as it was sent. `Router::new().fallback_service(layer.layer(routes))` stands around. A path with dots is
//! judged in both forms, with them and without.
//!
//! # What it does not do
//!
//! It verifies no peer and no token. It has nobody to ask for `CUSTOM` policies: what they match is refused. It does not close
//! connections.
//!
//! # Example
//!
//! With mesh-tls, `mesh_tls::peer` and `mesh_tls::conn_info` read all of it from the extensions, the server name of the handshake
//! too; `examples/authorization.rs` does so, with an Istio document.
//!
//! ```
//! use http::{Extensions, Request, Response};
//! use mesh_tower::authorize::{AuthorizeLayer, policy::*};
//! use std::convert::Infallible;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! /// Who the peer has proved to be, as the listener found out.
//! #[derive(Clone)]
//! struct Peer(String);
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cart = Match::of(Attribute::ServiceAccount, ["shop/cart"]);
//! let read = Match::of(Attribute::Method, ["GET"]);
//! let rule = Rule::any().with_source([cart]).with_operation([read]);
//! let authorizer = Authorizer::new([Policy::allow("readers").with_rule(rule)], &Config::default())?;
//!
//! let layer = AuthorizeLayer::new(authorizer, |extensions: &Extensions| {
//!     let peer = extensions.get::<Peer>();
//!     peer.map_or(Connection::default(), |peer| Connection::default().with_principal(&peer.0))
//! });
//! let handler = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
//! let service = layer.layer(handler);
//!
//! let peer = Peer("spiffe://cluster.local/ns/shop/sa/cart".into());
//! let get = Request::get("/items").extension(peer.clone()).body(())?;
//! assert_eq!(service.clone().oneshot(get).await?.status(), 200);
//! let post = Request::post("/items").extension(peer).body(())?;
//! assert_eq!(service.clone().oneshot(post).await?.status(), 403);
//!
//! // From now on nothing is allowed.
//! layer.handle().replace(Authorizer::new([Policy::allow("nothing")], &Config::default())?);
//! let get = Request::get("/items").body(())?;
//! assert_eq!(service.oneshot(get).await?.status(), 403);
//! # Ok(()) }
//! ```

pub mod future;
mod handle;
mod head;
mod layer;
mod service;

use http::HeaderName;
/// The machine.
pub use mesh_core::authorize as policy;

pub use self::{
    handle::{Handle, Mode},
    layer::{AuthorizeLayer, Caller},
    service::Authorize,
};

/// Who called, as a proxy of the mesh tells the application behind it (Envoy).
pub const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

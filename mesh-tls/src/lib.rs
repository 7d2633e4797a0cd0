//! **mesh-tls proves.** Mutual TLS between workloads by their SPIFFE identities, with certificates that rotate
//! while connections live.
//!
//! A host name and a web certificate say where a connection leads. Between services the question is who is there,
//! on both sides. Here each side shows an X.509-SVID, each side verifies the other's against the bundle of its own
//! trust domain, and a [`PeerPolicy`] says whom it wants; there is no default policy, and no way back to plaintext.
//!
//! Parts, in the order in which an identity passes through them:
//!
//! * a [source](IdentitySource) delivers [`Material`]: from [files](FileSource), from [memory](StaticSource), from
//!   the SPIFFE Workload API (feature `workload-api`). Several trust domains come as
//!   [files](FileSource::federated_bundle) or as a SPIFFE bundle map (feature `bundle-map`), and are never merged;
//!   [`Revocation`] says what revocation lists decide;
//! * [`MeshTls`] checks it and publishes it as a generation; a bad update never replaces a good one;
//! * [`MtlsConnector`] connects: a `Service<Uri>` for hyper-util and tonic; `reqwest` takes
//!   [`MeshTls::reqwest_config`];
//! * [`Renewing`] keeps a client whose pool must not outlive trust, as reqwest's;
#![cfg_attr(
    feature = "origination",
    doc = "* [`Origination`] connects to servers outside the mesh, by their names: another trust, another connector;"
)]
//! * [`MtlsAcceptor`] accepts: strict, permissive or disabled, for axum, tonic or by hand;
//! * [`ConnInfo`] tells the handler who called; [`AuthorizePeerLayer`] refuses those who must not.
//!
//! Who was let in is judged again when trust, policy or mode change while it is [connected](stream).
//!
//! What it does not do: it does not issue certificates for production, and does not fetch revocation lists.
//!
#![cfg_attr(
    feature = "dev-ca",
    doc = r#"```
use mesh_tls::{DevCa, MeshTls, PeerPolicy, StaticSource};

# #[tokio::main(flavor = "current_thread")]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
let ca = DevCa::new("dev.local".parse()?)?;
let (orders, _) = StaticSource::new(ca.issue("/sa/orders")?.material()?);
let (pay, _) = StaticSource::new(ca.issue("/sa/pay")?.material()?);
let (orders, pay) = (MeshTls::builder(orders).spawn().await?, MeshTls::builder(pay).spawn().await?);

let (client_end, server_end) = tokio::io::duplex(16 * 1024);
let only_orders = PeerPolicy::exact("spiffe://dev.local/sa/orders".parse()?);
let only_pay = PeerPolicy::exact("spiffe://dev.local/sa/pay".parse()?);
let acceptor = pay.acceptor(only_orders);
let (accepted, connected) =
    tokio::join!(acceptor.accept_io(server_end), orders.connect(client_end, only_pay));

assert_eq!(accepted?.info().peer().unwrap().id().path(), "/sa/orders");
assert_eq!(connected?.info().peer().unwrap().id().path(), "/sa/pay");
# Ok(()) }
```"#
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
#[cfg(any(feature = "dev-ca", feature = "workload-api"))]
mod chance;
mod late;
mod live;
mod prefixed;
#[cfg(feature = "serde")]
mod serialize;
mod svid;

pub mod id;

mod material;

#[cfg(feature = "bundle-map")]
pub mod bundle_map;

pub mod source;

#[cfg(feature = "workload-api")]
pub mod workload_api;

#[cfg(feature = "dev-ca")]
pub mod dev_ca;

pub mod clock;

pub mod mesh;

pub mod policy;

pub mod revocation;

pub mod client;

#[cfg(feature = "origination")]
#[cfg_attr(docsrs, doc(cfg(feature = "origination")))]
pub mod origination;

pub mod renewing;

pub mod server;

pub mod stream;

pub mod info;

pub mod http;

pub mod error;

pub use client::MtlsConnector;
#[cfg(feature = "dev-ca")]
pub use dev_ca::{DevCa, DevCaSource, DevIdentity};
pub use error::{
    AcceptError, AcceptErrorKind, Alert, ConnectError, ConnectErrorKind, IssuerRule, MaterialError,
    MaterialErrorKind, SvidRule, Untrusted,
};
#[cfg(feature = "axum")]
pub use http::Peer;
pub use http::{AuthorizePeerLayer, DrainLayer, PeerExt, conn_info, peer};
pub use id::{InvalidSpiffeId, SpiffeId, TrustDomain};
pub use info::{ConnInfo, PeerIdentity, TlsInfo};
pub use material::Material;
#[cfg(feature = "metrics")]
pub use mesh::describe_metrics;
pub use mesh::{Driver, MeshTls, MeshTlsBuilder, PlaintextSource, RefusedCaller, Stats, Status};
#[cfg(feature = "origination")]
pub use origination::Origination;
pub use policy::{InvalidDnsName, PeerPolicy};
pub use renewing::Renewing;
pub use revocation::Revocation;
pub use server::{ModeHandle, MtlsAcceptor, MtlsIncoming, MtlsListener, PolicyHandle, ServerMode};
pub use source::{FileSource, IdentitySource, MaterialHandle, SourceEvent, StaticSource};
pub use stream::MeshStream;
#[cfg(feature = "workload-api")]
pub use workload_api::WorkloadApiSource;

// The crates whose types stand in the signatures above.
pub use rustls;
pub use rustls_pki_types as pki_types;

//! A client that is given up when trust changes, for clients whose connections nobody can judge.
//!
//! A connection of [`MtlsConnector`](crate::MtlsConnector) judges itself, whoever pools it. `reqwest` makes its connections by
//! itself, from a rustls configuration, and keeps them where nobody reaches them: one that was made before an authority was
//! removed would carry requests to its peer for as long as they come. So the whole client is replaced, and its pool ends
//! with its last user.
//!
//! | change | the client |
//! | --- | --- |
//! | roots, trust domains, revocation lists | is built anew before it is handed out again |
//! | the identity is withdrawn | the same, and again when there is one |
//! | a new certificate of our own | stays, with its connections: its new ones show the new certificate |
//!
//! Not a task that rebuilds: between the change and the task's turn the old pool would be handed out. The first
//! [`Renewing::current`] behind the change rebuilds, and others wait for it; else it is two atomic loads.
//!
//! What it does not do: a request that is on its way when trust changes goes on. Take the client anew for each request;
//! who keeps the one that was handed out keeps its pool.
#![cfg_attr(
    feature = "dev-ca",
    doc = r#"
```
use mesh_tls::{DevCa, MeshTls, PeerPolicy, StaticSource};

# #[tokio::main(flavor = "current_thread")]
# async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
# let ca = DevCa::new("dev.local".parse()?)?;
# let (source, _handle) = StaticSource::new(ca.issue("/sa/orders")?.material()?);
# let mesh = MeshTls::builder(source).spawn().await?;
let pay = PeerPolicy::exact("spiffe://dev.local/sa/pay".parse()?);
let clients = mesh.renewing(pay, |config| {
    // Not `config` alone: to an `http://` URL reqwest speaks plaintext.
    reqwest::Client::builder().tls_backend_preconfigured(config).https_only(true).build()
})?;
let request = clients.current()?.get("https://pay:8443/balance");
# let _ = request;
# Ok(()) }
```"#
)]

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use rustls::ClientConfig;

use crate::{MeshTls, error::BoxError, policy::PeerPolicy};

/// A client, `T`, that does not outlive the trust that it was built under. Cloning is one reference count.
///
/// It is made by [`MeshTls::renewing`].
pub struct Renewing<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    mesh: MeshTls,
    policy: PeerPolicy,
    build: Box<dyn Fn(ClientConfig) -> Result<T, BoxError> + Send + Sync>,
    built: ArcSwapOption<Built<T>>,
    /// One builds, and the others wait.
    building: Mutex<()>,
}

struct Built<T> {
    client: Arc<T>,
    /// The generation with which the trust began that it was built under.
    trusted_since: u64,
}

impl<T> Renewing<T> {
    pub(crate) fn new<F>(mesh: MeshTls, policy: PeerPolicy, build: F) -> Result<Self, BoxError>
    where
        F: Fn(ClientConfig) -> Result<T, BoxError> + Send + Sync + 'static,
    {
        let (built, building) = (ArcSwapOption::empty(), Mutex::default());
        let inner = Inner { mesh, policy, build: Box::new(build), built, building };
        let renewing = Self { inner: Arc::new(inner) };
        renewing.current()?;
        Ok(renewing)
    }

    /// The client of the present trust. Ask for it for each request.
    ///
    /// # Errors
    ///
    /// When it has to be built anew and that fails. The old one is never handed out instead.
    pub fn current(&self) -> Result<Arc<T>, BoxError> {
        if let Some(client) = self.inner.built() {
            return Ok(client);
        }
        let _alone = self.inner.building.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have built it meanwhile.
        match self.inner.built() {
            Some(client) => Ok(client),
            None => self.inner.rebuild(),
        }
    }
}

impl<T> Inner<T> {
    fn built(&self) -> Option<Arc<T>> {
        let built = self.built.load();
        let now = self.mesh.shared().trusted_since();
        built.as_ref().filter(|built| built.trusted_since == now).map(|built| built.client.clone())
    }

    fn rebuild(&self) -> Result<Arc<T>, BoxError> {
        // Read before: if it changes while the client is built, the next question builds another.
        let trusted_since = self.mesh.shared().trusted_since();
        let config = self.mesh.reqwest_config(&self.policy)?;
        let client = Arc::new((self.build)(config)?);
        let built = Built { client: Arc::clone(&client), trusted_since };
        self.built.store(Some(Arc::new(built)));
        Ok(client)
    }
}

impl<T> Clone for Renewing<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> fmt::Debug for Renewing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing")
            .field("mesh", &self.inner.mesh)
            .field("policy", &self.inner.policy)
            .finish_non_exhaustive()
    }
}

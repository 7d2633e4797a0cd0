//! The proxy as a whole: its listeners, and what can be changed while it runs.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::service::TowerToHyperService;
use mesh_tls::{MeshTls, ModeHandle};
use mesh_tower::authorize;
use tokio::net::TcpListener;

use crate::{
    admin::{self, Admin},
    config::{ConfigError, Proxy, Settings},
    ending::Ending,
    inbound::{self, Stack},
    outbound::Outbound,
    routes::Routes,
    serve::{ListenError, Server, listen},
};

/// A proxy that runs.
pub(crate) struct Running {
    pub(crate) live: Live,
    pub(crate) admin: Arc<Admin>,
    pub(crate) addresses: Addresses,
    ending: Arc<Ending>,
    drain: Duration,
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) outbound: Option<SocketAddr>,
    pub(crate) inbound: Option<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
}

/// The listeners, opened before anything else is begun.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) outbound: Option<TcpListener>,
    pub(crate) inbound: Option<TcpListener>,
    pub(crate) admin: Option<TcpListener>,
}

/// What follows the configuration.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) routes: Arc<Routes>,
    proxy: Arc<Proxy>,
    mode: Option<ModeHandle>,
    authorization: Option<authorize::Handle>,
}

impl Listeners {
    pub(crate) async fn open(proxy: &Proxy) -> Result<Self, ListenError> {
        let inbound = proxy.inbound.as_ref().map(|inbound| inbound.listen);
        Ok(Self {
            outbound: open("outbound", proxy.outbound).await?,
            inbound: open("inbound", inbound).await?,
            admin: open("admin", proxy.admin).await?,
        })
    }

    fn addresses(&self) -> Addresses {
        let address = |listener: &Option<TcpListener>| {
            listener.as_ref().and_then(|tcp| tcp.local_addr().ok())
        };
        Addresses {
            outbound: address(&self.outbound),
            inbound: address(&self.inbound),
            admin: address(&self.admin),
        }
    }
}

async fn open(
    what: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, ListenError> {
    match address {
        Some(address) => listen(what, address).await.map(Some),
        None => Ok(None),
    }
}

impl Running {
    /// Builds everything and spawns a task for each listener. They end by [`Running::drain`]. `others` are identities
    /// of the same process, to be shown in the metrics beside our own.
    pub(crate) fn start(
        settings: Settings,
        identity: Option<MeshTls>,
        others: Vec<(String, MeshTls)>,
        listeners: Listeners,
    ) -> Result<Self, ConfigError> {
        let Settings { proxy, routing, mode, authorizer, .. } = settings;
        let addresses = listeners.addresses();
        let routes = Arc::new(Routes::new(routing, identity.clone())?);
        let ending = Arc::new(Ending::new());
        let server = || Server::new(ending.watch(), proxy.max_connections, proxy.waits);
        if let Some(tcp) = listeners.outbound {
            let outbound = Outbound::new(routes.clone());
            let accepting = server().run(tcp, None, move |_| outbound.clone());
            drop(tokio::spawn(accepting));
        }
        let (mut handle, mut local, mut authorization) = (None, None, None);
        if let (Some(tcp), Some(settings)) = (listeners.inbound, &proxy.inbound) {
            let acceptor = inbound::acceptor(settings, identity.as_ref(), mode);
            handle = acceptor.as_ref().map(mesh_tls::MtlsAcceptor::mode_handle);
            let target = inbound::application(settings)?;
            local = Some(target.mesh.clone());
            let stack = Stack::new(settings, authorizer, target);
            authorization = Some(stack.handle());
            let accepting = server().run(tcp, acceptor, move |connected| {
                TowerToHyperService::new(stack.serve(connected))
            });
            drop(tokio::spawn(accepting));
        }
        let identities = identity.map(|identity| ("proxy".to_owned(), identity));
        let identities = identities.into_iter().chain(others).collect();
        let judge = authorization.clone();
        let admin = Admin::new(routes.clone(), local, identities, judge, ending.clone());
        let admin = Arc::new(admin.with_mode(handle.clone()));
        if let Some(tcp) = listeners.admin {
            drop(tokio::spawn(admin::serve(tcp, admin.clone())));
        }
        let drain = proxy.drain;
        let live = Live { routes, proxy: proxy.into(), mode: handle, authorization };
        Ok(Self { live, admin, addresses, ending, drain })
    }

    /// Ends gently: not ready any more, nothing new is accepted, what is in flight finishes. Whether all of it did
    /// within the time that the configuration gives.
    pub(crate) async fn drain(self) -> bool {
        self.ending.begin();
        self.ending.wait(self.drain).await
    }
}

impl Live {
    /// Changes to these settings; all or nothing.
    pub(crate) fn apply(&self, settings: Settings) -> Result<(), ConfigError> {
        if settings.proxy != *self.proxy {
            return Err(ConfigError::new(
                "proxy.yaml: listeners, identity and limits do not change while the proxy runs; \
                 restart it, or take the change back",
            ));
        }
        self.routes.apply(settings.routing)?;
        if let Some(mode) = &self.mode {
            mode.set(inbound::server_mode(settings.mode));
        }
        if let Some(authorization) = &self.authorization {
            authorization.replace(settings.authorizer);
        }
        Ok(())
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("outbound", self.outbound), ("inbound", self.inbound), ("admin", self.admin)];
        let shown =
            parts.iter().filter_map(|(what, address)| Some(format!("{what} {}", (*address)?)));
        f.write_str(&shown.collect::<Vec<_>>().join(", "))
    }
}

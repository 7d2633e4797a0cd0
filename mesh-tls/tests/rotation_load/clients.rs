//! Every kind of client.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mesh_core::{
    Endpoint,
    limit::{self, Limits},
};
use mesh_tls::{ConnectError, MeshTls, MtlsConnector, Renewing};
use mesh_tower::{
    MeshError,
    error::Reason,
    pool::{Config, Group, HttpEndpoints, Pool, Protocol},
};
use tokio::time;
use tower::{Service, ServiceExt};

use crate::{
    servers::{METHOD, Servers},
    support::{PATIENCE, only},
    world::World,
};

/// A server that wants a connection of HTTP/1.1 to end waits for one more request, and no longer than its grace. A request
/// that sets out in the moment in which that is over is lost, so clients use no connection that has rested for so long.
const REST: Duration = Duration::from_millis(500);
/// A request takes 20 ms; this is for a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) type Sent = Result<(), Box<dyn std::error::Error + Send + Sync>>;
/// By whom to whom, and how it ended.
pub(crate) type Outcome = (&'static str, Result<(), String>);

/// Of one request.
const RESENDS: usize = 3;

/// Why a request is sent again. All of these may be repeated; each connection that ends meets some of them, for whatever
/// reason it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Again {
    /// Its client hands it back. Clients of gRPC send it again by themselves (gRFC A6, transparent retries); tonic never
    /// does, hyper-util and reqwest not on a connection that is new.
    Unsent,
    /// It set out as GOAWAY came. reqwest sends it again, hyper-util and tonic do not.
    Goaway,
    /// hyper lost it as its connection ended (reqwest#1323).
    Unanswered,
}

/// Everybody who sends.
#[derive(Clone)]
pub(crate) struct Clients {
    /// HTTP/1.1, HTTP/2.
    hyper: [Client<MtlsConnector, Empty<Bytes>>; 2],
    reqwest: reqwest::Client,
    renewed: Renewing<reqwest::Client>,
    /// To the one server and to the other.
    tonic: [tonic::transport::Channel; 2],
    /// HTTP/1.1 to the one server; HTTP/2 to both.
    mesh: [Pool<Empty<Bytes>>; 3],
    servers: Servers,
    /// What was sent again.
    pub(crate) again: Arc<Mutex<BTreeMap<(&'static str, Again), usize>>>,
}

/// Each client that there is with each server that speaks its protocol. A prime number of them: else each rotation, a
/// hundred requests after the last, would always meet the same ones.
pub(crate) const PAIRS: [&str; 11] = [
    "hyper http/1.1 to axum",
    "hyper h2 to axum",
    "hyper h2 to tonic",
    "reqwest to axum",
    "reqwest to tonic",
    "reqwest, renewed, to axum",
    "tonic to axum",
    "tonic to tonic",
    "mesh-tower http/1.1 to axum",
    "mesh-tower h2 to axum",
    "mesh-tower h2 to tonic",
];

impl Clients {
    pub(crate) async fn new(world: &World, servers: Servers, grace: Duration) -> Self {
        let connector = |alpn: &str| {
            let connector = world.client.0.connector(only("/server")).with_alpn([alpn]);
            connector.with_drain_grace(grace).with_handshake_timeout(PATIENCE)
        };
        let channel = async |addr: SocketAddr| {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}"));
            endpoint.unwrap().connect_with_connector(connector("h2")).await.unwrap()
        };
        let pool = |alpn, protocol, addr: SocketAddr| {
            let config = Config::default().with_protocol(protocol).with_idle_timeout(Some(REST));
            let group = Group::new(Arc::new(Limits::new(limit::Config::unlimited())), config);
            let endpoint = Endpoint::new(addr.to_string());
            HttpEndpoints::new(connector(alpn)).pool(&"server".into(), &endpoint, &group)
        };
        Self {
            hyper: [hyper_of(connector("http/1.1")), hyper_of(connector("h2"))],
            reqwest: reqwest_of(&world.client.0),
            renewed: world.client.0.renewing(only("/server"), reqwest_from).unwrap(),
            tonic: [channel(servers.axum).await, channel(servers.tonic).await],
            mesh: [
                pool("http/1.1", Protocol::Http1, servers.axum),
                pool("h2", Protocol::Http2, servers.axum),
                pool("h2", Protocol::Http2, servers.tonic),
            ],
            servers,
            again: Arc::default(),
        }
    }

    /// The request with this number, by the client whose turn it is.
    pub(crate) async fn send(self, number: usize) -> Outcome {
        let turn = number % PAIRS.len();
        let pair = PAIRS[turn];
        let mut resends = 0;
        loop {
            let sent = answered(self.once(turn)).await;
            let again = sent.as_ref().err().and_then(|error| Again::of(&**error));
            match again {
                Some(why) if resends < RESENDS => {
                    resends += 1;
                    *self.again.lock().unwrap().entry((pair, why)).or_default() += 1;
                }
                Some(_) | None => return (pair, sent.map_err(|error| format!("{error:?}"))),
            }
        }
    }

    async fn once(&self, turn: usize) -> Sent {
        let Servers { axum, tonic } = self.servers;
        match turn {
            0 => by_hyper(&self.hyper[0], axum).await,
            1 => by_hyper(&self.hyper[1], axum).await,
            2 => by_hyper(&self.hyper[1], tonic).await,
            3 => by_reqwest(&self.reqwest, axum).await,
            4 => by_reqwest(&self.reqwest, tonic).await,
            5 => by_reqwest(&*self.renewed.current()?, axum).await,
            6 => by_tonic(&self.tonic[0]).await,
            7 => by_tonic(&self.tonic[1]).await,
            _ => by_mesh(&self.mesh[turn - 8]).await,
        }
    }
}

impl Again {
    fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let error_of_mesh = MeshError::find(error);
        let is_unsent = error_of_mesh.is_some_and(|error| error.reason() == Reason::Unsent);
        if is_unsent || ConnectError::is_unsent(error) {
            Some(Self::Unsent)
        } else if ConnectError::is_goaway(error) {
            Some(Self::Goaway)
        } else {
            error.is::<time::error::Elapsed>().then_some(Self::Unanswered)
        }
    }
}

/// Nobody waits for ever.
async fn answered(sending: impl Future<Output = Sent>) -> Sent {
    time::timeout(LIMIT, sending).await.unwrap_or_else(|late| Err(late.into()))
}

async fn by_mesh(pool: &Pool<Empty<Bytes>>) -> Sent {
    let response = pool.clone().oneshot(Request::new(Empty::new())).await?;
    expect(&response.into_body().collect().await?.to_bytes())
}

async fn by_tonic(channel: &tonic::transport::Channel) -> Sent {
    let mut channel = channel.clone();
    let request = Request::post(METHOD)
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::empty())?;
    let response = channel.ready().await?.call(request).await?;
    match response.headers().get("grpc-status").map(|code| code.as_bytes()) {
        Some(b"0") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

pub(crate) fn hyper_of(connector: MtlsConnector) -> Client<MtlsConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).pool_idle_timeout(REST).build(connector)
}

pub(crate) async fn by_hyper(
    client: &Client<MtlsConnector, Empty<Bytes>>,
    addr: SocketAddr,
) -> Sent {
    let uri = format!("http://{addr}/").parse().unwrap();
    let body = client.get(uri).await?.into_body().collect().await?;
    expect(&body.to_bytes())
}

fn reqwest_of(mesh: &MeshTls) -> reqwest::Client {
    reqwest_from(mesh.reqwest_config(&only("/server")).unwrap()).unwrap()
}

fn reqwest_from(config: rustls::ClientConfig) -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(config).https_only(true);
    builder.no_proxy().pool_idle_timeout(REST).build()
}

async fn by_reqwest(client: &reqwest::Client, addr: SocketAddr) -> Sent {
    expect(&client.get(format!("https://{addr}/")).send().await?.bytes().await?)
}

fn expect(body: &[u8]) -> Sent {
    match body {
        b"done" => Ok(()),
        other => Err(format!("answered {}", other.escape_ascii()).into()),
    }
}

/// Requests of the foreign trust domain, each on a connection of its own.
pub(crate) async fn strangers(world: &World, servers: Servers) -> [Sent; 3] {
    let hyper = async |alpn: &str, addr| {
        let connector = world.stranger.connector(only("/server")).with_alpn([alpn]);
        let connector = connector.with_handshake_timeout(PATIENCE);
        by_hyper(&hyper_of(connector), addr).await
    };
    let reqwest = reqwest_of(&world.stranger);
    let sent = tokio::join!(
        answered(hyper("http/1.1", servers.axum)),
        answered(hyper("h2", servers.tonic)),
        answered(by_reqwest(&reqwest, servers.axum))
    );
    sent.into()
}

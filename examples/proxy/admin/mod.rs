//! The admin listener: what operators, Prometheus and Kubernetes ask.
//!
//! | path | answer |
//! | --- | --- |
//! | `/` | a page for people: who this proxy is and how long yet, whom it refused and why, who speaks plaintext, how the endpoints are |
//! | `/ready` | 200, or 503 once the proxy drains |
//! | `/clusters` | every endpoint of every upstream, as lines `cluster::address::field::value`; `?format=json` |
//! | `/config` | the routes and the stack of each upstream in words |
//! | `/certs` | each identity as JSON: its certificate's name and dates, the seconds until it expires, its generation, counters (rejected updates and refusals by reason among them), who still speaks plaintext, and who was refused last; how many requests were denied by policy; and `outside`, by upstream, what is believed of servers outside the mesh and what is shown to them: roots, revocation lists and certificate with their dates, the last change that was not taken, and the same counters |
//! | `/metrics` | Prometheus |
//!
//! It changes nothing and shows no secret, but it tells who talks to whom: keep it on loopback.

pub(crate) mod clusters;
pub(crate) mod outside;
mod page;
pub(crate) mod prometheus;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_tls::{
    MeshTls, ModeHandle,
    clock::{Clock, SystemClock},
};
use mesh_tower::authorize;
use serde_json::json;
use tokio::net::TcpListener;

use self::{
    page::{Identity, Page},
    prometheus::Exporter,
};
use crate::{ending::Ending, routes::Routes, transport::Mesh};

/// The page brings everything that it needs, and may ask this listener only.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

/// What the admin listener looks at.
pub(crate) struct Admin {
    routes: Arc<Routes>,
    /// The application behind the inbound listener.
    local: Option<Mesh>,
    /// Identities by the name of their owner.
    identities: Vec<(String, MeshTls)>,
    /// Who judges inbound requests.
    authorization: Option<authorize::Handle>,
    ending: Arc<Ending>,
    exporter: Exporter,
    /// How the inbound listener takes callers.
    mode: Option<ModeHandle>,
    /// Why the configuration as it is now is not in force.
    rejected: Mutex<Option<String>>,
}

impl Admin {
    pub(crate) fn new(
        routes: Arc<Routes>,
        local: Option<Mesh>,
        identities: Vec<(String, MeshTls)>,
        authorization: Option<authorize::Handle>,
        ending: Arc<Ending>,
    ) -> Self {
        let exporter = Exporter::installed();
        let rejected = Mutex::default();
        Self { routes, local, identities, authorization, ending, exporter, mode: None, rejected }
    }

    pub(crate) fn with_mode(mut self, mode: Option<ModeHandle>) -> Self {
        self.mode = mode;
        self
    }

    /// What is wrong with the configuration as it is now; `None`: it is in force.
    pub(crate) fn set_rejected(&self, why: Option<String>) {
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        for (name, identity) in &self.identities {
            prometheus::publish(name, &identity.stats());
        }
        self.routes.outside().iter().for_each(|outside| outside.publish());
        self.exporter.render()
    }

    /// Nothing secret: what a peer sees of a certificate, and counts.
    fn certs(&self) -> String {
        let now = SystemClock::new().now().as_secs();
        let of = |(name, identity): &(String, MeshTls)| {
            let (status, stats) = (identity.status(), identity.stats());
            let own = status.identity.as_ref();
            let left = own.map(|own| own.not_after().as_secs().saturating_sub(now));
            let shown = json!({
                "status": status,
                "expires_in": left,
                "stats": stats,
                "plaintext": identity.plaintext_sources(),
                "refused": identity.refused_callers(),
            });
            (name.clone(), shown)
        };
        let mut shown: serde_json::Map<_, _> = self.identities.iter().map(of).collect();
        if let Some(authorization) = &self.authorization {
            shown.insert("requests_denied".to_owned(), json!(authorization.refused()));
        }
        let outside = self.routes.outside();
        if !outside.is_empty() {
            let of = |outside: &Arc<outside::Outside>| (outside.name(), outside.shown(now));
            let all: serde_json::Map<_, _> = outside.iter().map(of).collect();
            shown.insert("outside".to_owned(), all.into());
        }
        serde_json::Value::Object(shown).to_string()
    }

    fn meshes(&self) -> Vec<Mesh> {
        let mut all = self.routes.all();
        all.extend(self.local.clone());
        all
    }

    fn page(&self) -> String {
        let identities = self.identities.iter();
        let page = Page {
            is_draining: self.ending.has_begun(),
            identities: identities.map(|(name, identity)| Identity::of(name, identity)).collect(),
            mode: self.mode.as_ref().map(ModeHandle::get),
            denied: self.authorization.as_ref().map(authorize::Handle::refused),
            upstreams: self.routes.all(),
            local: self.local.clone(),
            outside: self.routes.outside().iter().map(|outside| outside.now()).collect(),
            rejected: self.rejected.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            now: SystemClock::new().now().as_secs(),
        };
        page.render()
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        }
        let ok = StatusCode::OK;
        let json = request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "format=json"));
        match request.uri().path() {
            "/" => {
                let mut page = response(ok, "text/html; charset=utf-8", self.page());
                let policy = HeaderValue::from_static(PAGE_POLICY);
                page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
                page
            }
            "/ready" if self.ending.has_begun() => {
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n")
            }
            "/ready" => response(ok, TEXT, "ready\n"),
            "/clusters" if json => response(ok, "application/json", clusters::json(&self.meshes())),
            "/clusters" => response(ok, TEXT, clusters::text(&self.meshes())),
            "/config" => {
                let texts = self.meshes().iter().map(Mesh::describe).collect::<Vec<_>>();
                response(ok, TEXT, self.routes.describe() + &texts.join("\n"))
            }
            "/certs" => response(ok, "application/json", self.certs()),
            "/metrics" => response(ok, "text/plain; version=0.0.4", self.metrics()),
            _ => response(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are /, /ready, /clusters, /clusters?format=json, /config, /certs and /metrics\n",
            ),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Serves until the process ends: while the proxy drains, somebody must be able to ask whether it is ready.
pub(crate) async fn serve(tcp: TcpListener, admin: Arc<Admin>) {
    loop {
        let stream = match tcp.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
        };
        let admin = admin.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let response = admin.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        // The timer closes a connection that sends nothing for half a minute.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        drop(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection broke");
            }
        }));
    }
}

//! `connectionPool` of a traffic policy.

use std::time::Duration;

use mesh_core::{budget, limit};

use super::{
    cursor::{Field, Fields, Report},
    locality::Locality,
};
use crate::pool::{self, Http2KeepAlive, Protocol, TcpKeepalive};

/// What Istio's integers of `connectionPool` can be: `int32`.
const INT32: u32 = i32::MAX as u32;

/// The block as it was read. What it does not name the mesh may say, or Istio's defaults.
#[derive(Clone, Debug)]
pub(super) struct ConnectionPool {
    pub(super) limits: limit::Config,
    pool: pool::Config,
    connect_timeout: Option<Duration>,
    tcp_keepalive: Option<TcpKeepalive>,
    /// `h2UpgradePolicy`; `None` leaves it to the mesh.
    upgrade: Option<bool>,
    use_client_protocol: bool,
}

/// What a mesh says of all upstreams.
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    pub(super) connect_timeout: Option<Duration>,
    pub(super) tcp_keepalive: Option<TcpKeepalive>,
    pub(super) upgrade: bool,
    /// Where no `retryBudget` is named.
    pub(super) budget: budget::Config,
    /// Where no `localityLbSetting` is named; `None`: Istio's default.
    pub(super) locality: Option<Locality>,
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            limits: limit::Config::unlimited(),
            pool: pool::Config::default(),
            connect_timeout: None,
            tcp_keepalive: None,
            upgrade: None,
            use_client_protocol: false,
        }
    }
}

impl ConnectionPool {
    pub(super) fn to_pool(&self, mesh: &Baseline) -> pool::Config {
        let mut pool = self.pool.clone();
        if let Some(timeout) = self.connect_timeout.or(mesh.connect_timeout) {
            pool = pool.with_connect_timeout(timeout);
        }
        // The client's protocol is what `Auto` follows; Istio does not upgrade then.
        if !self.use_client_protocol && self.upgrade.unwrap_or(mesh.upgrade) {
            pool = pool.with_protocol(Protocol::Http2);
        }
        pool.with_tcp_keepalive(over(self.tcp_keepalive, mesh.tcp_keepalive))
    }

    pub(super) fn read(block: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = block.fields(report)?;
        let mut this = Self::default();
        if let Some(block) = fields.take("tcp")
            && let Some(tcp) = block.fields(report)
        {
            this.read_tcp(tcp, report);
        }
        // Stands after tcp: of two idle timeouts, that of http counts.
        if let Some(block) = fields.take("http")
            && let Some(http) = block.fields(report)
        {
            this.read_http(http, report);
        }
        fields.finish(report);
        Some(this)
    }

    fn read_tcp(&mut self, mut tcp: Fields<'_>, report: &mut Report<'_>) {
        if let Some(max) = limit(tcp.take("maxConnections"), report) {
            self.limits = self.limits.with_max_connections(max);
        }
        self.connect_timeout = tcp.take("connectTimeout").and_then(|field| field.duration(report));
        self.tcp_keepalive =
            tcp.take("tcpKeepalive").and_then(|block| read_tcp_keepalive(&block, report));
        let mut pool = self.pool.clone();
        if let Some(idle) = tcp.take("idleTimeout").and_then(|field| field.duration_or_zero(report))
        {
            pool = pool.with_idle_timeout((!idle.is_zero()).then_some(idle));
        }
        if let Some(max) = tcp.take("maxConnectionDuration").and_then(|f| f.duration(report)) {
            pool = pool.with_max_connection_duration(Some(max));
        }
        self.pool = pool;
        tcp.finish(report);
    }

    fn read_http(&mut self, mut http: Fields<'_>, report: &mut Report<'_>) {
        if let Some(max) = limit(http.take("http1MaxPendingRequests"), report) {
            self.limits = self.limits.with_max_pending(max);
        }
        if let Some(max) = limit(http.take("http2MaxRequests"), report) {
            self.limits = self.limits.with_max_requests(max);
        }
        if let Some(max) = limit(http.take("maxRetries"), report) {
            self.limits = self.limits.with_max_retries(max);
        }
        let requests = limit(http.take("maxRequestsPerConnection"), report);
        let streams = limit(http.take("maxConcurrentStreams"), report);
        let mut pool = self.pool.clone();
        pool = pool.with_max_requests_per_connection(requests).with_max_concurrent_streams(streams);
        if let Some(idle) =
            http.take("idleTimeout").and_then(|field| field.duration_or_zero(report))
        {
            pool = pool.with_idle_timeout((!idle.is_zero()).then_some(idle));
        }
        if let Some(keep_alive) =
            http.take("http2KeepAlive").and_then(|block| read_http2_keep_alive(&block, report))
        {
            pool = pool.with_http2_keep_alive(Some(keep_alive));
        }
        self.pool = pool;
        self.upgrade =
            http.take("h2UpgradePolicy").and_then(|field| read_upgrade(&field, report)).flatten();
        self.use_client_protocol =
            http.take("useClientProtocol").and_then(|field| field.boolean(report)).unwrap_or(false);
        http.finish(report);
    }
}

/// A limit of 0 is none: Istio applies an integer only if it is more than 0.
fn limit(field: Option<Field<'_>>, report: &mut Report<'_>) -> Option<u32> {
    field.and_then(|field| field.number(INT32, report)).filter(|limit| *limit > 0)
}

/// An attribute that the rule does not name is the mesh's, one by one (Istio `applyTCPKeepalive`).
fn over(rule: Option<TcpKeepalive>, mesh: Option<TcpKeepalive>) -> Option<TcpKeepalive> {
    let (Some(rule), Some(mesh)) = (rule, mesh) else { return rule.or(mesh) };
    let mut both = rule;
    if let (None, Some(probes)) = (rule.probes(), mesh.probes()) {
        both = both.with_probes(probes);
    }
    if let (None, Some(time)) = (rule.time(), mesh.time()) {
        both = both.with_time(time);
    }
    if let (None, Some(interval)) = (rule.interval(), mesh.interval()) {
        both = both.with_interval(interval);
    }
    Some(both)
}

pub(super) fn read_tcp_keepalive(
    block: &Field<'_>,
    report: &mut Report<'_>,
) -> Option<TcpKeepalive> {
    let mut fields = block.fields(report)?;
    let mut keepalive = TcpKeepalive::default();
    if let Some(probes) = limit(fields.take("probes"), report) {
        keepalive = keepalive.with_probes(probes);
    }
    // The kernel counts in seconds, and takes none of 0.
    let seconds = |field: Option<Field<'_>>, report: &mut Report<'_>| {
        let field = field?;
        let duration = field.duration(report)?;
        if duration < Duration::from_secs(1) {
            field.invalid("is not allowed, expected 1s or more", report);
        }
        Some(duration)
    };
    if let Some(time) = seconds(fields.take("time"), report) {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = seconds(fields.take("interval"), report) {
        keepalive = keepalive.with_interval(interval);
    }
    fields.finish(report);
    Some(keepalive)
}

fn read_http2_keep_alive(block: &Field<'_>, report: &mut Report<'_>) -> Option<Http2KeepAlive> {
    let mut fields = block.fields(report)?;
    let interval = fields.require("interval", report).and_then(|field| field.duration(report));
    let timeout = fields.require("timeout", report).and_then(|field| field.duration(report));
    fields.finish(report);
    Http2KeepAlive::new(interval?, timeout?).ok()
}

/// `Some(None)` leaves it to the mesh.
pub(super) fn read_upgrade(field: &Field<'_>, report: &mut Report<'_>) -> Option<Option<bool>> {
    match field.text(report)? {
        "DEFAULT" => Some(None),
        "UPGRADE" => Some(Some(true)),
        "DO_NOT_UPGRADE" => Some(Some(false)),
        _ => {
            field.invalid("is not allowed, expected DEFAULT, UPGRADE or DO_NOT_UPGRADE", report);
            None
        }
    }
}

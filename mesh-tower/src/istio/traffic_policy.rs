//! `trafficPolicy`: the blocks of a DestinationRule, and the [`Policy`] that they make together.

use mesh_core::{InvalidConfig, Ratio, balance, budget, limit, outlier};

use super::cursor::{Field, Report};
use crate::{pool, upstream::Policy};

/// What Istio's integers of `connectionPool` can be: `int32`.
const INT32: u32 = i32::MAX as u32;

/// The blocks that a document names. A block that it does not name is taken from the wider policy, else Istio's default.
#[derive(Clone, Debug, Default)]
pub(super) struct TrafficPolicy {
    connection_pool: Option<ConnectionPool>,
    outlier: Option<outlier::Config>,
    balance: Option<balance::Config>,
    budget: Option<budget::Config>,
}

#[derive(Clone, Debug)]
struct ConnectionPool {
    limits: limit::Config,
    pool: pool::Config,
}

impl TrafficPolicy {
    /// Whether no block is named: such a rule leaves the policy to the next one for its host.
    pub(super) fn is_empty(&self) -> bool {
        let Self { connection_pool, outlier, balance, budget } = self;
        connection_pool.is_none() && outlier.is_none() && balance.is_none() && budget.is_none()
    }

    pub(super) fn read(field: &Field<'_>, report: &mut Report<'_>) -> Self {
        let mut policy = Self::default();
        let Some(mut fields) = field.fields(report) else { return policy };
        if let Some(block) = fields.take("connectionPool") {
            policy.connection_pool = read_connection_pool(&block, report);
        }
        if let Some(block) = fields.take("outlierDetection") {
            policy.outlier = read_outlier(&block, report);
        }
        if let Some(block) = fields.take("loadBalancer") {
            policy.balance = read_balance(&block, report);
        }
        if let Some(block) = fields.take("retryBudget") {
            policy.budget = read_budget(&block, report);
        }
        fields.finish(report);
        policy
    }

    /// This policy over a wider one: a block replaces the wider one's whole, its fields are never mixed (Istio,
    /// `MergeTrafficPolicy`).
    pub(super) fn over(self, wider: &Self) -> Self {
        Self {
            connection_pool: self.connection_pool.or_else(|| wider.connection_pool.clone()),
            outlier: self.outlier.or(wider.outlier),
            balance: self.balance.or(wider.balance),
            budget: self.budget.or(wider.budget),
        }
    }

    /// What Istio makes of the blocks, with its defaults: no limits, no ejection, least requests. Only the retry
    /// budget stays on where Istio has none.
    pub(super) fn to_policy(&self) -> Policy {
        let (mut limits, pool) = match &self.connection_pool {
            Some(ConnectionPool { limits, pool }) => (*limits, pool.clone()),
            None => (limit::Config::unlimited(), pool::Config::default()),
        };
        if self.budget.is_some() {
            // Envoy: a retry_budget takes the place of max_retries.
            limits = limits.with_max_retries(limit::Config::UNLIMITED);
        }
        Policy::default()
            .with_limits(limits)
            .with_pool(pool)
            .with_outlier(self.outlier.unwrap_or_else(outlier::Config::off))
            .with_balance(self.balance.unwrap_or_else(balance::Config::least_request))
            .with_budget(self.budget.unwrap_or_default())
            .with_breaker(None)
    }
}

fn read_connection_pool(block: &Field<'_>, report: &mut Report<'_>) -> Option<ConnectionPool> {
    let mut fields = block.fields(report)?;
    let mut limits = limit::Config::unlimited();
    let mut pool = pool::Config::default();
    // A limit of 0 is none: Istio applies an integer only if it is more than 0.
    let limit = |field: Option<Field<'_>>, report: &mut Report<'_>| {
        field.and_then(|field| field.number(INT32, report)).filter(|limit| *limit > 0)
    };
    if let Some(block) = fields.take("tcp")
        && let Some(mut tcp) = block.fields(report)
    {
        if let Some(max) = limit(tcp.take("maxConnections"), report) {
            limits = limits.with_max_connections(max);
        }
        if let Some(timeout) = tcp.take("connectTimeout").and_then(|field| field.duration(report)) {
            pool = pool.with_connect_timeout(timeout);
        }
        if let Some(idle) = tcp.take("idleTimeout").and_then(|field| field.duration_or_zero(report))
        {
            pool = pool.with_idle_timeout((!idle.is_zero()).then_some(idle));
        }
        tcp.finish(report);
    }
    if let Some(block) = fields.take("http")
        && let Some(mut http) = block.fields(report)
    {
        if let Some(max) = limit(http.take("http1MaxPendingRequests"), report) {
            limits = limits.with_max_pending(max);
        }
        if let Some(max) = limit(http.take("http2MaxRequests"), report) {
            limits = limits.with_max_requests(max);
        }
        if let Some(max) = limit(http.take("maxRetries"), report) {
            limits = limits.with_max_retries(max);
        }
        pool = pool
            .with_max_requests_per_connection(limit(http.take("maxRequestsPerConnection"), report));
        // Stands after tcp: of two idle timeouts, that of http counts.
        if let Some(idle) =
            http.take("idleTimeout").and_then(|field| field.duration_or_zero(report))
        {
            pool = pool.with_idle_timeout((!idle.is_zero()).then_some(idle));
        }
        http.finish(report);
    }
    fields.finish(report);
    Some(ConnectionPool { limits, pool })
}

fn read_outlier(block: &Field<'_>, report: &mut Report<'_>) -> Option<outlier::Config> {
    let mut fields = block.fields(report)?;
    let mut config = outlier::Config::istio();
    if let Some(count) =
        fields.take("consecutive5xxErrors").and_then(|f| f.number(u32::MAX, report))
    {
        config = config.with_consecutive_5xx(count);
    }
    if let Some(count) =
        fields.take("consecutiveGatewayErrors").and_then(|f| f.number(u32::MAX, report))
    {
        config = config.with_consecutive_gateway_errors(count);
    }
    let split = fields.take("splitExternalLocalOriginErrors");
    let split = split.and_then(|field| field.boolean(report)).unwrap_or(false);
    config = config.with_split_local_origin(split);
    if let Some(field) = fields.take("consecutiveLocalOriginFailures")
        && let Some(count) = field.number(u32::MAX, report)
    {
        match (split, count) {
            (true, 1..) => config = config.with_consecutive_local_origin(count),
            // Istio leaves Envoy's default of 5 in place.
            (true, 0) => {}
            (false, _) => {
                report.advise(
                    field.place(),
                    &field.path,
                    "has no effect without splitExternalLocalOriginErrors: true",
                );
            }
        }
    }
    if let Some(field) = fields.take("interval")
        && let Some(interval) = field.duration(report)
    {
        config = accept(config.with_interval(interval), config, &field, report);
    }
    if let Some(field) = fields.take("baseEjectionTime")
        && let Some(time) = field.duration(report)
    {
        config = accept(config.with_base_ejection_time(time), config, &field, report);
    }
    let percent = fields.take("maxEjectionPercent");
    let share = percent.as_ref().and_then(|field| field.number(100, report));
    match (&percent, share) {
        (Some(field), Some(share @ 1..)) => {
            let share = Ratio::from_percent(share);
            config = accept(config.with_max_ejection_percent(share), config, field, report);
        }
        // 0 is not "never": Istio applies it only if it is more than 0.
        (_, Some(_)) | (None, None) => {
            let field = percent.as_ref().unwrap_or(block);
            report.advise(field.place(), &field.path, TEN_PERCENT);
        }
        // Reported already.
        (Some(_), None) => {}
    }
    if let Some(field) = fields.take("minHealthPercent")
        && let Some(1..) = field.number(100, report)
    {
        // 0, Istio's default, is what happens here: ejected endpoints get nothing, however few are left.
        field.unsupported("is not supported, expected 0: ejections are never ignored", report);
    }
    fields.finish(report);
    Some(config)
}

/// The machine is the judge of its own settings; what it refuses is the field's fault.
fn accept(
    accepted: Result<outlier::Config, InvalidConfig>,
    before: outlier::Config,
    field: &Field<'_>,
    report: &mut Report<'_>,
) -> outlier::Config {
    accepted.unwrap_or_else(|error| {
        field.invalid(format_args!("is not allowed, expected {}", error.expected()), report);
        before
    })
}

const TEN_PERCENT: &str = "maxEjectionPercent is 10 by default: nothing is ejected while there are fewer than 10 endpoints";

fn read_balance(block: &Field<'_>, report: &mut Report<'_>) -> Option<balance::Config> {
    let mut fields = block.fields(report)?;
    let simple = fields.take("simple");
    fields.finish(report);
    let Some(simple) = simple else { return Some(balance::Config::least_request()) };
    match simple.text(report)? {
        "UNSPECIFIED" | "LEAST_REQUEST" | "LEAST_CONN" => Some(balance::Config::least_request()),
        "ROUND_ROBIN" => Some(balance::Config::round_robin()),
        "RANDOM" | "PASSTHROUGH" => {
            simple.unsupported("is not supported, expected LEAST_REQUEST or ROUND_ROBIN", report);
            None
        }
        _ => {
            simple.invalid("is not allowed, expected LEAST_REQUEST or ROUND_ROBIN", report);
            None
        }
    }
}

fn read_budget(block: &Field<'_>, report: &mut Report<'_>) -> Option<budget::Config> {
    let mut fields = block.fields(report)?;
    let percent =
        fields.take("percent").map_or(Some(Ratio::from_percent(20)), |field| field.percent(report));
    let least = fields.take("minRetryConcurrency").and_then(|field| field.number(u32::MAX, report));
    fields.finish(report);
    // 0 reads as Envoy's default.
    Some(budget::Config::concurrent(percent?, least.filter(|least| *least > 0).unwrap_or(3)))
}

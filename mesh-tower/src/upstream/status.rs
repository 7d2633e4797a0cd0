use std::{fmt, fmt::Write as _, sync::Arc, time::Duration};

use mesh_core::{
    Endpoint, Ratio, Timestamp,
    balance::{hash, locality, priority::OnPanic, subsetting},
    breaker,
    outlier::{self, Detector},
};

use super::{
    Config, Life, MakeEndpoint, Policy,
    plan::Shared,
    subset::{EndpointState, Subset},
};
use crate::Clock;

/// What the mesh knows of one endpoint in one subset, as of one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The subset's name; empty for the whole upstream.
    pub subset: Arc<str>,
    /// The endpoint as it was listed.
    pub endpoint: Endpoint,
    /// Its priority as the caller sees it, from 0: by its [own](Endpoint::with_priority), and by
    /// [`Policy::with_locality`]. `None` if it gets nothing by the shares of localities, or is
    /// listed no longer.
    pub priority: Option<usize>,
    /// Where it stands in its life.
    pub life: Life,
    /// Attempts under way.
    pub active: u32,
    /// Attempts answered well since it was listed.
    pub successes: u64,
    /// Attempts failed since it was listed.
    pub failures: u64,
    /// The latency that the balancer reckons with.
    pub latency: Duration,
    /// Why and for how long it is out of rotation.
    pub ejection: Option<EjectionStatus>,
    /// Whether its active checks pass, or there are none.
    pub is_well: bool,
    /// How often it has been ejected since it was listed.
    pub ejections: u32,
    /// Its breaker, if it has one.
    pub breaker: Option<BreakerStatus>,
}

/// An ejection in force.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EjectionStatus {
    /// Which detector ejected it.
    pub detector: Option<Detector>,
    /// How long it stays out.
    pub left: Duration,
}

/// A breaker's state.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// Closed, open or half-open.
    pub state: breaker::State,
}

impl EndpointStatus {
    /// Whether requests may go to it.
    pub fn is_healthy(&self) -> bool {
        self.life.takes_requests()
    }
}

impl fmt::Display for EndpointStatus {
    /// One line for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.endpoint.address())?;
        write!(f, " {}", self.life)?;
        match &self.ejection {
            None => {}
            Some(EjectionStatus { detector: Some(why), left }) => {
                write!(f, " ({why}) for {left:.1?}")?;
            }
            Some(EjectionStatus { detector: None, left }) => write!(f, " for {left:.1?}")?,
        }
        write!(f, ", {} active, {} ok, {} failed", self.active, self.successes, self.failures)
    }
}

pub(super) fn of<M>(shared: &Shared<M>) -> Vec<EndpointStatus>
where
    M: MakeEndpoint,
    M::Service: Clone,
{
    let now = Clock.now();
    let plan = shared.plan.load();
    let mut all = Vec::new();
    for cluster in &plan.subsets {
        let subset = &cluster.roster.subset;
        for (index, member) in cluster.members.iter().enumerate() {
            let places = cluster.places.as_ref();
            let priority = places.map_or(Some(0), |places| places.priority(index));
            let life = Life::of(&shared.make, member);
            let status = of_endpoint(subset, &member.endpoint, &member.state, life, now);
            all.push(EndpointStatus { priority, ..status });
        }
    }
    shared.leaving(|leaving| {
        leaving.settle();
        all.extend(leaving.iter().map(|left| {
            of_endpoint(&left.subset, &left.endpoint, &left.state, Life::Draining, now)
        }));
    });
    all
}

fn of_endpoint(
    subset: &Subset,
    endpoint: &Endpoint,
    state: &EndpointState,
    life: Life,
    now: Timestamp,
) -> EndpointStatus {
    let (successes, failures) = state.counts();
    // The time that one which does not come back would stay out tells nobody anything.
    let ejected_until = state.host.ejected_until().filter(|_| life != Life::Draining);
    EndpointStatus {
        subset: subset.name.clone(),
        endpoint: endpoint.clone(),
        priority: None,
        life,
        active: state.load().active(),
        successes,
        failures,
        latency: state.load().estimate(subset.policy.balance(), now),
        ejection: ejected_until
            .map(|until| EjectionStatus { detector: state.host.reason(), left: until.since(now) }),
        is_well: state.is_well(),
        ejections: state.host.ejections(),
        breaker: state.breaker.as_ref().map(|breaker| BreakerStatus { state: breaker.state(now) }),
    }
}

/// The stack in words.
pub(super) fn describe(config: &Config) -> String {
    let mut text = format!("upstream {}\n", config.name());
    let mut line = |step: &str, what: String| {
        // Writing to a String cannot fail.
        _ = writeln!(text, "  {step:<9} {what}");
    };
    if let Some(share) = config.subsetting() {
        line("endpoints", describe_share(share));
    }
    line("route", split(config));
    let (timeout, whose) = match config.deadline_policy() {
        Some(policy) => (policy.timeout(), "what the request's headers ask for"),
        None => (config.timeout(), "the caller's"),
    };
    let limit = timeout.map_or(String::new(), |limit| format!("{limit:?} or "));
    line("deadline", limit + whose);
    let retry = config.retry();
    let asked = if config.retry_overrides() { ", or as the request's headers ask" } else { "" };
    line(
        "retry",
        match retry.retries() {
            0 => format!("never{asked}"),
            retries => {
                let per_try = retry
                    .per_try_timeout()
                    .map_or(String::new(), |limit| format!(", {limit:?} for each attempt"));
                format!(
                    "up to {retries} on {}{per_try}, bodies up to {} B{asked}",
                    retry.retry_on(),
                    config.replay_cap()
                )
            }
        },
    );
    describe_policy(config.policy(), &mut line);
    for subset in config.subsets() {
        let own = if subset.policy().is_some() { ", policy of its own" } else { "" };
        line("subset", format!("{} = {}{own}", subset.name(), subset.labels()));
        if let Some(policy) = subset.policy() {
            describe_policy(policy, &mut line);
        }
    }
    text
}

fn describe_share(share: &subsetting::Config) -> String {
    match share {
        subsetting::Config::Random(random) => {
            format!("{} of those listed, by a seed", random.size())
        }
        subsetting::Config::Rounds(rounds) => {
            format!("{} of those listed, as client {}", rounds.size(), rounds.client())
        }
        subsetting::Config::Aperture(aperture) => {
            let (size, place, all) = (aperture.size(), aperture.instance(), aperture.instances());
            format!("{size} of those listed at least, as client {place} of {all}")
        }
    }
}

fn describe_policy(policy: &Policy, line: &mut impl FnMut(&str, String)) {
    let limits = policy.limits();
    let count = |limit: u32| match limit {
        u32::MAX => "any number of".to_owned(),
        limit => limit.to_string(),
    };
    line("budget", policy.budget().to_string());
    line(
        "limit",
        format!(
            "{} requests, {} retries, {} connections, {} pending",
            count(limits.max_requests()),
            count(limits.max_retries()),
            count(limits.max_connections()),
            count(limits.max_pending()),
        ),
    );
    line(
        "balance",
        match policy.hash() {
            None => format!("{:?}", policy.balance().strategy()),
            Some(hash) => describe_hash(hash.table()),
        },
    );
    if let Some(locality) = policy.locality().filter(|locality| locality.is_enabled()) {
        line("locality", describe_locality(locality).into());
    }
    if let Some(subsets) = policy.label_subsets() {
        let keys = subsets.selectors().iter().map(|selector| {
            let keys: Vec<_> = selector.keys().collect();
            keys.join("+")
        });
        line("labels", format!("as a request asks for: {}", keys.collect::<Vec<_>>().join(", ")));
    }
    line("breaker", policy.breaker().map_or_else(|| "none".into(), describe_breaker));
    let panic = match policy.panic_threshold() {
        Ratio::ZERO => String::new(),
        share => match policy.priorities().on_panic() {
            OnPanic::UseAll => format!(", ignored while less than {share} are well"),
            OnPanic::FailFast { .. } => format!(", all refused while less than {share} are well"),
        },
    };
    line("outlier", describe_outlier(policy.outlier()) + &panic);
}

fn describe_locality(locality: &locality::Config) -> &'static str {
    if locality.zone_routing().is_some() {
        "stays in the zone while that can carry it, then by distance"
    } else if locality.is_distributed() {
        "by given shares"
    } else {
        "to the nearest"
    }
}

fn describe_hash(table: &hash::Config) -> String {
    let shape = match (table.ring_size(), table.table_size()) {
        (Some((min, _)), _) => format!("a ring of at least {min} entries"),
        (None, slots) => format!("a Maglev table of {} slots", slots.unwrap_or_default()),
    };
    let bound = table.balance_factor();
    let bound = bound.map_or(String::new(), |bound| format!(", loads of at most {bound} %"));
    format!("consistent hash over {shape}{bound}")
}

fn describe_breaker(config: &breaker::Config) -> String {
    let mut rules = Vec::new();
    if let Some(failures) = config.consecutive_failures() {
        rules.push(format!("{failures} failures in a row"));
    }
    if let Some((ratio, calls, window)) = config.failure_ratio() {
        rules.push(format!("{ratio} of at least {calls} calls failed ({window:?})"));
    }
    if let Some((rate, calls, window)) = config.success_rate() {
        rules.push(format!("less than {rate} of at least {calls} calls succeeded ({window:?})"));
    }
    let (first, second) = config.accrual().map_or((None, None), |(a, b)| (Some(a), b));
    rules.extend([first, second].into_iter().flatten().map(|accrual| accrual.to_string()));
    if let Some((slower, ratio)) = config.slow_calls() {
        rules.push(format!("{ratio} of the calls take longer than {slower:?}"));
    }
    format!("opens for {:?} after {}", config.open_for(), rules.join(" or "))
}

fn describe_outlier(config: &outlier::Config) -> String {
    if config.is_off() {
        return "off".into();
    }
    let local = if config.split_local_origin() { config.consecutive_local_origin() } else { 0 };
    let mut rules = Vec::new();
    let mut rule = |detector: Detector, is_on: bool, text: String| match config.enforcing(detector)
    {
        _ if !is_on => {}
        Ratio::ZERO => {}
        Ratio::ONE => rules.push(text),
        share => rules.push(format!("{text} (in {share} of the cases)")),
    };
    for (detector, failures, name) in [
        (Detector::Consecutive5xx, config.consecutive_5xx(), "5xx"),
        (Detector::ConsecutiveGatewayErrors, config.consecutive_gateway_errors(), "gateway errors"),
        (Detector::ConsecutiveLocalOrigin, local, "failures without an answer"),
    ] {
        rule(detector, failures > 0, format!("{failures} {name} in a row"));
    }
    if let Some(rate) = config.success_rate() {
        let text = format!("a success rate {} σ below the mean", decimal(rate.stdev_factor()));
        rule(Detector::SuccessRate, true, text);
    }
    if let Some(share) = config.failure_percentage() {
        let text = format!("{} failures in {:?}", share.threshold(), config.interval());
        rule(Detector::FailurePercentage, true, text);
    }
    if rules.is_empty() {
        return "looks, and ejects nobody".into();
    }
    let one = if config.always_eject_one() { ", one at least" } else { "" };
    format!(
        "ejects after {}, for {:?} and longer each time, at most {} of the endpoints{one}",
        rules.join(" or "),
        config.base_ejection_time(),
        config.max_ejection_percent(),
    )
}

/// "1.9" for 190 %.
fn decimal(ratio: Ratio) -> f64 {
    f64::from(ratio.as_ppm()) / 1e6
}

fn split(config: &Config) -> String {
    let total: u64 = config.split().iter().map(|(_, weight)| u64::from(*weight)).sum();
    if config.split().is_empty() {
        return "all endpoints".into();
    }
    let share = |(name, weight): &(String, u32)| {
        let percent = (u64::from(*weight) * 100).checked_div(total).unwrap_or(100);
        format!("{name} {percent} %")
    };
    config.split().iter().map(share).collect::<Vec<_>>().join(", ")
}

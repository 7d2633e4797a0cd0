use std::{net::IpAddr, time::Duration};

use hickory_resolver::proto::rr::Name;
use mesh_core::{InvalidConfig, Labels, Locality, Ratio, backoff};

/// What to look up, how often, and what its endpoints are called.
///
/// ```
/// use mesh_core::Labels;
/// use mesh_tower::discover::dns::{Config, Family};
/// use std::time::Duration;
///
/// let config = Config::addresses("payments.default.svc.cluster.local.", 8080)
///     .unwrap()
///     .with_family(Family::V4)
///     .with_labels([("version", "v1")].into_iter().collect::<Labels>());
/// assert_eq!(config.min_refresh(), Duration::from_secs(5));
///
/// let error = Config::addresses("payments..svc", 8080).unwrap_err();
/// assert_eq!(error.field(), "name");
/// let error = Config::srv("_http._tcp.payments").unwrap()
///     .with_refresh(Duration::from_secs(2), Duration::from_secs(1))
///     .unwrap_err();
/// assert_eq!(error.to_string(), "max_refresh: 1s is not allowed, expected at least min_refresh");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    host: Host,
    /// `None` asks for SRV records, which know the ports.
    port: Option<u16>,
    family: Family,
    min_refresh: Duration,
    max_refresh: Duration,
    jitter: Duration,
    timeout: Duration,
    retry: backoff::Config,
    nxdomain_empties: bool,
    labels: Labels,
    locality: Locality,
}

/// What is looked up, unless it is its own answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Name(Name),
    Address(IpAddr),
}

/// Which addresses of a name count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// IPv4; IPv6 where a name has no IPv4 address (Envoy's `V4_PREFERRED`). The default: a host that has both is one
    /// endpoint and not two, and a name server that fails on AAAA questions does no harm to those that have IPv4.
    #[default]
    V4First,
    /// IPv4 (A records).
    V4,
    /// IPv6 (AAAA records).
    V6,
    /// Both, each address as an endpoint (Envoy's `ALL`). If one of the two lookups fails, the whole does: half a set
    /// would take the other half out of service.
    Both,
}

impl Config {
    /// Every address of `host` is an endpoint at `port`. A name without a dot at its end is searched for as the
    /// resolver does it (`search` and `ndots` of `/etc/resolv.conf`). An IP address is its own answer.
    ///
    /// # Errors
    ///
    /// A `host` that is no name, or a `port` of 0.
    pub fn addresses(host: &str, port: u16) -> Result<Self, InvalidConfig> {
        if port == 0 {
            return Err(InvalidConfig::new("port", port, "1 to 65535"));
        }
        let host = match host.parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(parse(host)?),
        };
        Ok(Self::new(host, Some(port)))
    }

    /// Every address of every target of the service `name`, such as `_http._tcp.payments.example.`, is an endpoint.
    ///
    /// # Errors
    ///
    /// A `name` that is none.
    pub fn srv(name: &str) -> Result<Self, InvalidConfig> {
        Ok(Self::new(Host::Name(parse(name)?), None))
    }

    fn new(host: Host, port: Option<u16>) -> Self {
        Self {
            host,
            port,
            family: Family::default(),
            min_refresh: Duration::from_secs(5),
            max_refresh: Duration::from_secs(300),
            jitter: Duration::ZERO,
            timeout: Duration::from_secs(10),
            retry: default_retry(),
            nxdomain_empties: false,
            labels: Labels::default(),
            locality: Locality::default(),
        }
    }

    /// Which addresses count. Default: [`Family::V4First`].
    #[must_use]
    pub fn with_family(self, family: Family) -> Self {
        Self { family, ..self }
    }

    /// Bounds of the time from an answer to the next question, which is the answer's TTL. Defaults: 5 s, the default of
    /// Envoy's `dns_min_refresh_rate` (and what Envoy waits if it is not told to respect the TTL); 5 min, so that a
    /// record with a day's TTL does not hold a dead address for a day.
    ///
    /// # Errors
    ///
    /// A `min` of zero, or a `max` below it.
    pub fn with_refresh(self, min: Duration, max: Duration) -> Result<Self, InvalidConfig> {
        if min.is_zero() {
            return Err(InvalidConfig::new("min_refresh", "0 s", "more than 0"));
        }
        if max < min {
            let value = format!("{max:?}");
            return Err(InvalidConfig::new("max_refresh", value, "at least min_refresh"));
        }
        Ok(Self { min_refresh: min, max_refresh: max, ..self })
    }

    /// Asks again up to so much later, drawn anew each time: clients of one cache see a record expire at the same
    /// moment. Default: zero, as Envoy's `dns_jitter`.
    #[must_use]
    pub fn with_jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// How long a lookup may take in all, targets of SRV records included; the resolver sends its questions again within
    /// that. Default: 10 s, what `resolv.conf(5)` gives a question (`timeout:5 attempts:2`).
    ///
    /// # Errors
    ///
    /// Zero.
    pub fn with_timeout(self, timeout: Duration) -> Result<Self, InvalidConfig> {
        if timeout.is_zero() {
            return Err(InvalidConfig::new("timeout", "0 s", "more than 0"));
        }
        Ok(Self { timeout, ..self })
    }

    /// The wait after each lookup that failed. Default: 1 s, growing by 60 % each time up to 30 s, ±20 %: the growth and the
    /// jitter of gRPC's connection back-off; 30 s is the least time between two lookups of gRPC's resolver.
    #[must_use]
    pub fn with_retry(self, retry: backoff::Config) -> Self {
        Self { retry, ..self }
    }

    /// Whether a name that does not exist has no endpoints. Default: no, it is an error that keeps the last good set.
    #[must_use]
    pub fn with_nxdomain_empties(self, empties: bool) -> Self {
        Self { nxdomain_empties: empties, ..self }
    }

    /// The labels of all endpoints. Default: none.
    #[must_use]
    pub fn with_labels(self, labels: Labels) -> Self {
        Self { labels, ..self }
    }

    /// Where all endpoints run. Default: unknown.
    #[must_use]
    pub fn with_locality(self, locality: Locality) -> Self {
        Self { locality, ..self }
    }

    /// The least time from an answer to the next question.
    pub fn min_refresh(&self) -> Duration {
        self.min_refresh
    }

    /// The most time from an answer to the next question, but for the jitter.
    pub fn max_refresh(&self) -> Duration {
        self.max_refresh
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    pub(super) fn jitter(&self) -> Duration {
        self.jitter
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn retry(&self) -> &backoff::Config {
        &self.retry
    }

    pub(super) fn nxdomain_empties(&self) -> bool {
        self.nxdomain_empties
    }

    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(super) fn locality(&self) -> &Locality {
        &self.locality
    }
}

fn default_retry() -> backoff::Config {
    let (first, most) = (Duration::from_secs(1), Duration::from_secs(30));
    // The figures are within the bounds, so the other arm is never taken.
    backoff::Config::grpc(first, most, Ratio::from_percent(160)).unwrap_or_default()
}

/// International names first; names with an underscore within, as container networks have them, are none of those.
fn parse(name: &str) -> Result<Name, InvalidConfig> {
    Name::from_utf8(name)
        .or_else(|_| Name::from_ascii(name))
        .ok()
        .filter(|parsed| parsed.iter().next().is_some())
        .ok_or_else(|| InvalidConfig::new("name", name, "the name of a host or of a service"))
}

use std::time::Duration;

use crate::{InvalidConfig, Ratio, Rng, retry::GrpcCodes};

/// What goes wrong on purpose, and how often: Istio's `HTTPFaultInjection`, Envoy's fault filter.
///
/// Delay and abort are drawn apart from each other: of 50 % and 50 %, a quarter of the requests is held back and then
/// answered by the error. It happens once for a request, before its attempts: what fails so is not tried again, and the
/// delay is no part of the request's timeout.
///
/// ```
/// use mesh_core::{Ratio, SplitMix64, route::{Abort, AbortStatus, Delay, Fault}};
/// use std::time::Duration;
///
/// let delay = Delay::new(Duration::from_secs(5), Ratio::from_percent(10));
/// let abort = Abort::new(AbortStatus::http(503).unwrap(), Ratio::ONE);
/// let fault = Fault::none().with_delay(Some(delay)).with_abort(Some(abort));
/// let mut rng = SplitMix64::new(1);
/// let drawn: Vec<_> = (0..1_000).map(|_| fault.draw(&mut rng)).collect();
/// assert!(drawn.iter().all(|drawn| drawn.abort() == Some(AbortStatus::http(503).unwrap())));
/// assert!((70..130).contains(&drawn.iter().filter(|drawn| drawn.delay().is_some()).count()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fault {
    delay: Option<Delay>,
    abort: Option<Abort>,
}

impl Fault {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// Sets which requests are held back.
    #[must_use]
    pub fn with_delay(mut self, delay: Option<Delay>) -> Self {
        self.delay = delay;
        self
    }

    /// Sets which requests are answered by an error.
    #[must_use]
    pub fn with_abort(mut self, abort: Option<Abort>) -> Self {
        self.abort = abort;
        self
    }

    /// Requests that are held back.
    pub fn delay(&self) -> Option<&Delay> {
        self.delay.as_ref()
    }

    /// Requests that are answered by an error.
    pub fn abort(&self) -> Option<&Abort> {
        self.abort.as_ref()
    }

    /// What happens to one request.
    pub fn draw(&self, rng: &mut impl Rng) -> Injected {
        let delay = self.delay.as_ref().filter(|delay| rng.chance(delay.share));
        let delay = delay.map(|delay| delay.fixed);
        let abort = self.abort.as_ref().filter(|abort| rng.chance(abort.share));
        Injected { delay, abort: abort.map(|abort| abort.status) }
    }
}

/// Requests that are held back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delay {
    fixed: Duration,
    share: Ratio,
}

impl Delay {
    /// So long, of that share of the requests; above all is all.
    pub fn new(fixed: Duration, share: Ratio) -> Self {
        Self { fixed, share }
    }

    /// How long.
    pub fn fixed(&self) -> Duration {
        self.fixed
    }

    /// The share of the requests.
    pub fn share(&self) -> Ratio {
        self.share
    }
}

/// Requests that are answered by an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Abort {
    status: AbortStatus,
    share: Ratio,
}

impl Abort {
    /// This error, for that share of the requests; above all is all.
    pub fn new(status: AbortStatus, share: Ratio) -> Self {
        Self { status, share }
    }

    /// The error.
    pub fn status(&self) -> AbortStatus {
        self.status
    }

    /// The share of the requests.
    pub fn share(&self) -> Ratio {
        self.share
    }
}

/// The error that a request is answered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbortStatus(Status);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    Http(u16),
    Grpc(u8),
}

impl AbortStatus {
    /// A status of HTTP.
    ///
    /// # Errors
    ///
    /// One outside 200 to 600, as in Istio and Envoy.
    pub fn http(status: u16) -> Result<Self, InvalidConfig> {
        if !(200..=600).contains(&status) {
            return Err(InvalidConfig::new("http_status", status, "200 to 600"));
        }
        Ok(Self(Status::Http(status)))
    }

    /// A status of gRPC by its name or number, such as `UNAVAILABLE` or `14`.
    ///
    /// # Errors
    ///
    /// A name that gRPC does not know.
    ///
    /// ```
    /// use mesh_core::route::AbortStatus;
    ///
    /// assert_eq!(AbortStatus::grpc("UNAVAILABLE").unwrap().grpc_code(), Some(14));
    /// assert_eq!(AbortStatus::grpc("OK").unwrap().grpc_code(), Some(0));
    /// assert!(AbortStatus::grpc("SOMETIMES").is_err());
    /// ```
    pub fn grpc(name: &str) -> Result<Self, InvalidConfig> {
        if matches!(name, "OK" | "0") {
            return Ok(Self(Status::Grpc(0)));
        }
        let codes = name.parse().unwrap_or(GrpcCodes::NONE);
        let mut codes = codes.iter();
        match (codes.next(), codes.next()) {
            (Some(code), None) => Ok(Self(Status::Grpc(code))),
            _ => Err(InvalidConfig::new("grpc_status", name, "a status of gRPC")),
        }
    }

    /// The status of HTTP, if it is one.
    pub fn http_status(self) -> Option<u16> {
        match self.0 {
            Status::Http(status) => Some(status),
            Status::Grpc(_) => None,
        }
    }

    /// The status of gRPC, if it is one.
    pub fn grpc_code(self) -> Option<u8> {
        match self.0 {
            Status::Http(_) => None,
            Status::Grpc(code) => Some(code),
        }
    }
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Injected {
    delay: Option<Duration>,
    abort: Option<AbortStatus>,
}

impl Injected {
    /// How long it is held back, before anything else.
    pub fn delay(self) -> Option<Duration> {
        self.delay
    }

    /// The error that it is answered by then.
    pub fn abort(self) -> Option<AbortStatus> {
        self.abort
    }
}

//! `fault` and `mirror` of a VirtualService's rule: read in full, and left to others to carry out.

use std::time::Duration;

use mesh_core::Ratio;

use super::{
    cursor::{Field, Fields, Report},
    host::Host,
};

/// What a rule asks to go wrong, and how often.
///
/// Shares are whole millionths, cut as in Istio, and none where nothing is said: an `abort` without a `percentage` aborts
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    abort: Option<Abort>,
    delay: Option<Delay>,
}

impl Fault {
    /// Requests that are answered by an error.
    pub fn abort(&self) -> Option<&Abort> {
        self.abort.as_ref()
    }

    /// Requests that are held back.
    pub fn delay(&self) -> Option<&Delay> {
        self.delay.as_ref()
    }

    pub(super) fn read(field: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = field.fields(report)?;
        let abort = fields.take("abort").and_then(|abort| Abort::read(&abort, report));
        let delay = fields.take("delay").and_then(|delay| Delay::read(&delay, report));
        fields.finish(report);
        Some(Self { abort, delay })
    }
}

/// Requests that are answered by an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    status: AbortStatus,
    share: Ratio,
}

/// The error that a request is answered by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbortStatus {
    /// `httpStatus`, from 200 to 600.
    Http(u16),
    /// `grpcStatus`, such as `UNAVAILABLE`.
    Grpc(String),
}

impl Abort {
    /// The error.
    pub fn status(&self) -> &AbortStatus {
        &self.status
    }

    /// The share of the requests. Default none.
    pub fn share(&self) -> Ratio {
        self.share
    }

    fn read(field: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = field.fields(report)?;
        let share = read_share(&mut fields, "percentage", Ratio::ZERO, report);
        let (http, grpc) = (fields.take("httpStatus"), fields.take("grpcStatus"));
        fields.finish(report);
        let status = match (http, grpc) {
            (Some(status), None) => {
                let code = status.number(600, report)?;
                let code = u16::try_from(code).ok().filter(|code| *code >= 200);
                if code.is_none() {
                    status.invalid("is not allowed, expected 200 to 600", report);
                }
                AbortStatus::Http(code?)
            }
            (None, Some(status)) => AbortStatus::Grpc(status.text(report)?.to_owned()),
            (Some(_), Some(_)) | (None, None) => {
                field.invalid("needs either httpStatus or grpcStatus", report);
                return None;
            }
        };
        Some(Self { status, share: share? })
    }
}

/// Requests that are held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    fixed: Duration,
    share: Ratio,
}

impl Delay {
    /// How long.
    pub fn fixed(&self) -> Duration {
        self.fixed
    }

    /// The share of the requests. Default none.
    pub fn share(&self) -> Ratio {
        self.share
    }

    fn read(field: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = field.fields(report)?;
        let share = read_share(&mut fields, "percentage", Ratio::ZERO, report);
        let fixed = fields.require("fixedDelay", report).and_then(|field| field.duration(report));
        fields.finish(report);
        Some(Self { fixed: fixed?, share: share? })
    }
}

/// A host that gets copies of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    host: Host,
    subset: Option<String>,
    share: Ratio,
}

impl Mirror {
    /// The host, as it was written.
    pub fn host(&self) -> &str {
        &self.host.written
    }

    /// The subset of that host.
    pub fn subset(&self) -> Option<&str> {
        self.subset.as_deref()
    }

    /// The share of the requests. Default all; whoever writes 0 gets none.
    pub fn share(&self) -> Ratio {
        self.share
    }

    fn read(
        destination: &Field<'_>,
        share: Option<Ratio>,
        namespace: &str,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let mut fields = destination.fields(report)?;
        let host = fields.require("host", report);
        let host = host.and_then(|host| Host::read(&host, namespace, report));
        let subset = fields.take("subset").and_then(|subset| subset.text(report));
        if let Some(port) = fields.take("port") {
            super::traffic_policy::read_port(&port, report);
        }
        fields.finish(report);
        Some(Self { host: host?, subset: subset.map(str::to_owned), share: share? })
    }
}

/// `mirror` with its `mirrorPercentage`, and `mirrors`, each with its own.
pub(super) fn read_mirrors(
    fields: &mut Fields<'_>,
    namespace: &str,
    report: &mut Report<'_>,
) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    let share = read_share(fields, "mirrorPercentage", Ratio::ONE, report);
    if let Some(mirror) = fields.refuse("mirror", "is not supported", report) {
        mirrors.extend(Mirror::read(&mirror, share, namespace, report));
    }
    let list = fields.refuse("mirrors", "is not supported", report);
    for item in list.and_then(|list| list.list(report)).into_iter().flatten() {
        let Some(mut fields) = item.fields(report) else { continue };
        let share = read_share(&mut fields, "percentage", Ratio::ONE, report);
        if let Some(destination) = fields.require("destination", report) {
            mirrors.extend(Mirror::read(&destination, share, namespace, report));
        }
        fields.finish(report);
    }
    mirrors
}

fn read_share(
    fields: &mut Fields<'_>,
    name: &'static str,
    unset: Ratio,
    report: &mut Report<'_>,
) -> Option<Ratio> {
    fields.take(name).map_or(Some(unset), |field| field.share(report))
}

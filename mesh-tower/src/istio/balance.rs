//! `loadBalancer`: how an endpoint is chosen.

use mesh_core::{
    InvalidConfig, Ratio,
    balance::{
        self, SlowStart, Strategy,
        hash::{Config, Cookie, Part, Policy},
    },
};

use super::{
    cursor::{Field, Fields, Report},
    locality::Locality,
};
use crate::upstream::ConsistentHash;

#[derive(Clone, Debug)]
pub(super) struct Balance {
    pub(super) config: balance::Config,
    pub(super) hash: Option<ConsistentHash>,
    /// Whether a hash is named, whatever became of it.
    pub(super) is_hashed: bool,
    pub(super) locality: Option<Locality>,
}

impl Balance {
    pub(super) fn read(block: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = block.fields(report)?;
        let simple = fields.take("simple");
        let hash = fields.take("consistentHash");
        let warmup = fields.take("warmup");
        let warmup_secs = fields.take("warmupDurationSecs");
        let locality = fields.take("localityLbSetting");
        fields.finish(report);
        if let (Some(_), Some(hash)) = (&simple, &hash) {
            hash.report(report, "is not allowed beside simple: one of them chooses");
        }
        let config = simple.and_then(|simple| read_simple(&simple, report));
        let config = config.unwrap_or_else(balance::Config::least_request);
        // Istio reads the old field where there is no new one.
        let is_old = warmup.is_none();
        let slow_start = warmup.or(warmup_secs).and_then(|field| {
            let slow_start =
                if is_old { read_window(&field, report) } else { read_warmup(&field, report) };
            let is_followed = hash.is_none()
                && matches!(config.strategy(), Strategy::RoundRobin | Strategy::LeastRequest);
            if !is_followed {
                let why =
                    "has no effect, here as in Istio: expected with ROUND_ROBIN or LEAST_REQUEST";
                report.advise(field.place(), &field.path, why);
            }
            slow_start.filter(|_| is_followed)
        });
        Some(Self {
            config: config.with_slow_start(slow_start),
            is_hashed: hash.is_some(),
            hash: hash.and_then(|hash| read_hash(&hash, report)),
            locality: locality.and_then(|block| Locality::read(&block, report)),
        })
    }
}

fn read_simple(simple: &Field<'_>, report: &mut Report<'_>) -> Option<balance::Config> {
    const EXPECTED: &str = "LEAST_REQUEST, ROUND_ROBIN or RANDOM";
    match simple.text(report)? {
        "UNSPECIFIED" | "LEAST_REQUEST" | "LEAST_CONN" => Some(balance::Config::least_request()),
        "ROUND_ROBIN" => Some(balance::Config::round_robin()),
        "RANDOM" => Some(balance::Config::random()),
        "PASSTHROUGH" => {
            simple.unsupported(format_args!("is not supported, expected {EXPECTED}"), report);
            None
        }
        _ => {
            simple.invalid(format_args!("is not allowed, expected {EXPECTED}"), report);
            None
        }
    }
}

fn read_warmup(block: &Field<'_>, report: &mut Report<'_>) -> Option<SlowStart> {
    let mut fields = block.fields(report)?;
    let duration = fields.require("duration", report);
    let least = fields.take("minimumPercent");
    let aggression = fields.take("aggression");
    fields.finish(report);
    let mut slow_start = read_window(&duration?, report)?;
    if let Some(field) = least {
        let least = field.percent(report)?;
        slow_start = accepted(slow_start.with_min_weight(least), &field, report)?;
    }
    if let Some(field) = aggression {
        let aggression = field.decimal(report)?;
        if aggression < Ratio::ONE {
            field.invalid("is not allowed, expected a number of at least 1", report);
            return None;
        }
        slow_start = accepted(slow_start.with_aggression(aggression), &field, report)?;
    }
    Some(slow_start)
}

fn read_window(field: &Field<'_>, report: &mut Report<'_>) -> Option<SlowStart> {
    let window = field.duration(report)?;
    accepted(SlowStart::new(window), field, report)
}

fn read_hash(block: &Field<'_>, report: &mut Report<'_>) -> Option<ConsistentHash> {
    let mut fields = block.fields(report)?;
    let keys = [
        fields.take("httpHeaderName").map(|field| (read_header as Read, field)),
        fields.take("httpCookie").map(|field| (read_cookie as Read, field)),
        fields.take("useSourceIp").map(|field| (read_source as Read, field)),
        fields.take("httpQueryParameterName").map(|field| (read_parameter as Read, field)),
    ];
    let table = read_table(&mut fields, report);
    fields.finish(report);
    let mut keys = keys.into_iter().flatten();
    let Some((read, field)) = keys.next() else {
        let why = "names no key, expected httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName";
        block.report(report, why);
        return None;
    };
    if let Some((_, second)) = keys.next() {
        second.report(report, "is a second key, expected one");
    }
    let part = read(&field, report)?;
    Some(ConsistentHash::new(table?, Policy::new([part])))
}

type Read = fn(&Field<'_>, &mut Report<'_>) -> Option<Part>;

fn read_header(field: &Field<'_>, report: &mut Report<'_>) -> Option<Part> {
    accepted(Part::header(field.text(report)?), field, report)
}

fn read_parameter(field: &Field<'_>, report: &mut Report<'_>) -> Option<Part> {
    accepted(Part::query_parameter(field.text(report)?), field, report)
}

fn read_source(field: &Field<'_>, report: &mut Report<'_>) -> Option<Part> {
    if !field.boolean(report)? {
        field.invalid(
            "is not allowed, expected true: without a key there is nothing to hash",
            report,
        );
        return None;
    }
    Some(Part::source_address())
}

fn read_cookie(block: &Field<'_>, report: &mut Report<'_>) -> Option<Part> {
    let mut fields = block.fields(report)?;
    let name = fields.require("name", report);
    let path = fields.take("path");
    let ttl = fields.take("ttl");
    fields.finish(report);
    let name = name?;
    let mut cookie = accepted(Cookie::new(name.text(report)?), &name, report)?;
    if let Some(field) = path {
        cookie = accepted(cookie.with_path(field.text(report)?), &field, report)?;
    }
    if let Some(field) = ttl {
        cookie = cookie.with_ttl(field.duration_or_zero(report)?);
    }
    Some(Part::cookie(cookie))
}

/// A ring, unless Maglev is named.
fn read_table(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Config> {
    let old_size = fields.take("minimumRingSize");
    let ring = fields.take("ringHash");
    let maglev = fields.take("maglev");
    if let (Some(_), Some(maglev)) = (&ring, &maglev) {
        maglev.report(report, "is not allowed beside ringHash: expected one of them");
    }
    if let Some(block) = maglev {
        let mut fields = block.fields(report)?;
        let size = fields.require("tableSize", report);
        fields.finish(report);
        let field = size?;
        let size = field.number(u32::MAX, report)?;
        return accepted(Config::maglev().with_table_size(size), &field, report);
    }
    let size = match ring {
        Some(block) => {
            let mut fields = block.fields(report)?;
            let size = fields.take("minimumRingSize");
            fields.finish(report);
            size
        }
        // Deprecated, and read where no algorithm is named.
        None => old_size,
    };
    let Some(field) = size else { return Some(Config::ring()) };
    match field.number(u32::MAX, report)? {
        // As if it were absent.
        0 => Some(Config::ring()),
        size => {
            let sized = Config::ring().with_ring_size(size, Config::MAX_RING_SIZE);
            if sized.is_err() {
                field.invalid(
                    format_args!("is not allowed, expected at most {}", Config::MAX_RING_SIZE),
                    report,
                );
            }
            sized.ok()
        }
    }
}

/// The machine is the judge of its own settings; what it refuses is the field's fault.
pub(super) fn accepted<T>(
    read: Result<T, InvalidConfig>,
    field: &Field<'_>,
    report: &mut Report<'_>,
) -> Option<T> {
    read.map_err(|error| {
        field.invalid(format_args!("is not allowed, expected {}", error.expected()), report);
    })
    .ok()
}

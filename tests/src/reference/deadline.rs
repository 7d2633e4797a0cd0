//! How time limits are resolved, against the rule in whole milliseconds where zero is no limit.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::deadline::{Asked, Policy, Timeouts};

use super::Machine;

/// The check.
pub(super) const MACHINE: Machine = Machine {
    name: "deadline",
    faults: &[
        "does not hear the caller",
        "keeps a per-try timeout that is no less than the whole",
        "the cap of gRPC is no cap",
        "takes off an offset that leaves nothing",
        "an attempt gets the whole time again",
    ],
    check,
};

#[derive(Clone, Copy, Debug, Arbitrary)]
struct Route {
    timeout: u8,
    per_try: u8,
    max_grpc: Option<u8>,
    offset: u8,
    respect_expected: bool,
    hedging: bool,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct Operation {
    grpc: bool,
    grpc_timeout: Header,
    expected: Header,
    timeout: Header,
    per_try: Header,
    elapsed: u8,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Header {
    Absent,
    Garbage,
    Millis(u8),
}

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut bytes = Unstructured::new(data);
    let Ok(route) = Route::arbitrary(&mut bytes) else { return Ok(()) };
    for _ in 0..100 {
        if bytes.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut bytes) else { break };
        let elapsed = ms(operation.elapsed.into());
        let timeouts = resolve(fault, route, operation);
        let got = (
            timeouts.global().unwrap_or_default(),
            timeouts.per_try().unwrap_or_default(),
            timeouts
                .expected_millis(if fault == Some(4) { Duration::ZERO } else { elapsed })
                .unwrap_or_default(),
            timeouts.grpc_timeout(elapsed).is_some(),
        );
        let (global, per_try, expected, grpc) = model(route, operation);
        let right = (ms(global), ms(per_try), expected, grpc);
        if got != right {
            return Err(format!("{route:?}, {operation:?}: {got:?}, not {right:?}"));
        }
    }
    Ok(())
}

fn resolve(fault: Option<usize>, route: Route, operation: Operation) -> Timeouts {
    let text = |header: Header, unit: &str| match header {
        Header::Absent => None,
        Header::Garbage => Some("1e3".to_owned()),
        Header::Millis(millis) => Some(format!("{millis}{unit}")),
    };
    let heard = |header: Header| if fault == Some(0) { None } else { text(header, "") };
    let (timeout, per_try) = (heard(operation.timeout), heard(operation.per_try));
    let (grpc_timeout, expected) =
        (text(operation.grpc_timeout, "m"), text(operation.expected, ""));
    let mut asked = Asked::NONE
        .with_timeout(timeout.as_deref())
        .with_expected(expected.as_deref())
        .with_per_try(per_try.as_deref());
    if operation.grpc {
        asked = asked.with_grpc(grpc_timeout.as_deref());
    }
    let max = route.max_grpc.map(|max| if fault == Some(2) { 0 } else { max });
    let offset = match (fault, operation.grpc_timeout) {
        (Some(3), Header::Millis(wanted)) => route.offset.min(wanted.saturating_sub(1)),
        (_, _) => route.offset,
    };
    let policy = Policy::new()
        .with_timeout(Some(ms(route.timeout.into())))
        .with_per_try_timeout(Some(ms(route.per_try.into())))
        .with_max_grpc_timeout(max.map(|max| ms(max.into())))
        .with_grpc_offset(ms(offset.into()))
        .with_respect_expected(route.respect_expected)
        .with_hedging(route.hedging);
    match fault {
        // The per-try timeout of a route without an end.
        Some(1) => policy.with_timeout(None).resolve(&asked),
        _ => policy.resolve(&asked),
    }
}

/// Envoy's lines, in milliseconds, with its zero: the whole, each attempt, what is sent, and whether as `grpc-timeout` too.
fn model(route: Route, operation: Operation) -> (u64, u64, u64, bool) {
    let number = |header: Header| match header {
        Header::Absent | Header::Garbage => None,
        Header::Millis(millis) => Some(u64::from(millis)),
    };
    let mut global = u64::from(route.timeout);
    let mut grpc = false;
    if let (true, Some(max)) = (operation.grpc, route.max_grpc) {
        grpc = true;
        let max = u64::from(max);
        global = number(operation.grpc_timeout).unwrap_or(0);
        if u64::from(route.offset) < global {
            global -= u64::from(route.offset);
        }
        if max != 0 && (global == 0 || global > max) {
            global = max;
        }
    }
    let by_expected = route.respect_expected && !matches!(operation.expected, Header::Absent);
    let header = if by_expected { operation.expected } else { operation.timeout };
    global = number(header).unwrap_or(global);
    let mut per_try = number(operation.per_try).unwrap_or_else(|| route.per_try.into());
    if per_try >= global && global != 0 {
        per_try = 0;
    }
    let mut expected = if route.hedging || per_try == 0 { global } else { per_try };
    if expected > 0 && global > 0 {
        let elapsed = u64::from(operation.elapsed);
        expected = if elapsed >= global { 1 } else { expected.min(global - elapsed) };
    }
    (global, per_try, expected, grpc && expected > 0)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

//! A hedged request, against a list of its attempts.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Ratio, Timestamp,
    budget::{self, Budget},
    deadline::Deadline,
    limit::{self, Limits, Resource},
    retry::{
        Answer, Granted, Pushback, Reset,
        hedge::{Config, Hedge, Verdict},
    },
};

use super::Machine;

/// The check.
pub(super) const MACHINE: Machine = Machine {
    name: "hedge",
    faults: &[
        "does not ask the budget",
        "knows no deadline",
        "does not hear the server",
        "takes every error for the last word",
        "sends one as soon as it is asked",
        "does not give back what a hedge held",
    ],
    check,
};

#[derive(Clone, Copy, Debug, Arbitrary)]
struct Setup {
    max_attempts: u8,
    delay_ms: u8,
    budget: u8,
    deadline_ms: Option<u8>,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Operation {
    Wait(u8),
    Send,
    Ended(End),
    /// The caller cannot send it again.
    Stop,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum End {
    Good,
    Fatal,
    NotFatal,
    Later(u8),
    Never,
    Broken,
    Refused,
}

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut bytes = Unstructured::new(data);
    let Ok(setup) = Setup::arbitrary(&mut bytes) else { return Ok(()) };
    let attempts = u32::from(setup.max_attempts % 6) + 2;
    let delay = Duration::from_millis(setup.delay_ms.into());
    let codes = "UNAVAILABLE".parse().map_err(text)?;
    let config = Config::grpc(attempts, delay, codes).map_err(text)?;
    let room = u32::from(setup.budget % 4);
    let allowed = if fault == Some(0) { u32::MAX } else { room };
    let start = Timestamp::from_secs(1);
    let budget = Budget::new(budget::Config::concurrent(Ratio::ZERO, allowed), start);
    let limits = Limits::new(limit::Config::unlimited());
    let deadline = setup.deadline_ms.map_or(Deadline::NONE, |after| {
        Deadline::after(start, Duration::from_millis(after.into()))
    });

    let mut now = start;
    let mut hedge = Hedge::new(&config, now);
    let mut model = Model::new(attempts.min(5), delay, now);
    let mut held: Vec<Granted> = Vec::new();
    for _ in 0..200 {
        if bytes.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut bytes) else { break };
        match operation {
            Operation::Wait(millis) => now = now + Duration::from_millis(millis.into()),
            Operation::Stop => {
                hedge.on_stop();
                model.next = None;
            }
            Operation::Send => {
                let at = match fault {
                    Some(4) => hedge.poll_timeout().unwrap_or(now),
                    _ => now,
                };
                let end = if fault == Some(1) { Deadline::NONE } else { deadline };
                let sent = hedge.try_send(&config, &budget, &limits, at, end);
                let right = model.send(now, deadline, (held.len() as u32) < room);
                if sent.is_some() != right {
                    held.extend(sent);
                    return Err(format!("{operation:?} at {now:?}: sent {}, not {right}", !right));
                }
                held.extend(sent);
            }
            Operation::Ended(end) if model.in_flight > 0 => {
                let verdict = hedge.on_answer(&config, &budget, now, answer(fault, end));
                let right = model.end(now, end);
                if verdict != right {
                    return Err(format!("{end:?}: {verdict:?}, not {right:?}"));
                }
                // The first attempt holds nothing, so the last to go is it.
                if held.len() as u32 > model.in_flight.saturating_sub(1)
                    && let Some(over) = held.pop()
                    && fault != Some(5)
                {
                    over.end(&budget, &limits);
                }
            }
            Operation::Ended(_) => {}
        }
        let got = (hedge.sent(), hedge.in_flight(), hedge.poll_timeout());
        let right = (model.sent, model.in_flight, model.next);
        if got != right {
            return Err(format!("after {operation:?}: {got:?}, not {right:?}"));
        }
        let charged = (budget.retries_in_flight(), limits.in_use(Resource::Retries));
        let right = held.len() as u32;
        if charged != (right, right) {
            return Err(format!("after {operation:?}: {charged:?} charged, not {right}"));
        }
    }
    Ok(())
}

struct Model {
    attempts: u32,
    delay: Duration,
    sent: u32,
    in_flight: u32,
    next: Option<Timestamp>,
}

impl Model {
    fn new(attempts: u32, delay: Duration, now: Timestamp) -> Self {
        Self { attempts, delay, sent: 1, in_flight: 1, next: Some(now + delay) }
    }

    fn send(&mut self, now: Timestamp, deadline: Deadline, room: bool) -> bool {
        if self.next.is_none_or(|due| now < due) {
            return false;
        }
        self.next = None;
        if deadline.has_passed(now) || !room {
            return false;
        }
        self.sent += 1;
        self.in_flight += 1;
        if self.sent < self.attempts {
            self.next = Some(now + self.delay);
        }
        true
    }

    fn end(&mut self, now: Timestamp, end: End) -> Verdict {
        self.in_flight -= 1;
        let more = self.next.is_some();
        match end {
            End::Good | End::Fatal | End::Refused => {
                self.next = None;
                return Verdict::Answer;
            }
            End::NotFatal | End::Broken if more => self.next = self.next.map(|due| due.min(now)),
            End::Later(millis) if more => {
                self.next = Some(now + Duration::from_millis(millis.into()));
            }
            End::Never => self.next = None,
            End::NotFatal | End::Broken | End::Later(_) => {}
        }
        let alone = self.in_flight == 0 && self.next.is_none();
        if alone { Verdict::Answer } else { Verdict::Discard }
    }
}

fn answer(fault: Option<usize>, end: End) -> Answer {
    let unavailable = Answer::grpc(14, true);
    let heard = |pushback| (fault != Some(2)).then_some(pushback);
    match end {
        End::Good => Answer::grpc(0, true),
        End::Fatal => Answer::grpc(13, true),
        End::NotFatal if fault == Some(3) => Answer::grpc(13, true),
        End::NotFatal => unavailable,
        End::Later(millis) => unavailable
            .with_retry_after(heard(Pushback::After(Duration::from_millis(millis.into())))),
        End::Never => unavailable.with_retry_after(heard(Pushback::Stop)),
        End::Broken => Answer::reset(Reset::AfterRequest),
        End::Refused => Answer::reset(Reset::Overflow),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn text(error: mesh_core::InvalidConfig) -> String {
    error.to_string()
}

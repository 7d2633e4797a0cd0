//! Requests over one budget and one limit, against plain counters and a list of reasons in their order.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{
    Ratio, Rng, Timestamp, backoff,
    budget::{self, Budget},
    deadline::Deadline,
    limit::{self, Limits, Resource},
    retry::{
        Answer, Config, Decision, GiveUp, Granted, Pushback, PushbackRule, Reset, Session, TooLong,
    },
};

use super::Machine;

/// The check.
pub(super) const MACHINE: Machine = Machine {
    name: "retry",
    faults: &[
        "charges before it decides",
        "sends again what cannot be sent again",
        "forgets what it has had",
        "knows no deadline",
        "retries what our own policy refused",
        "does not listen to the server",
        "uses nothing up when the upstream refuses",
        "forgets to give a retry back",
        "takes a failure that its endpoint would repeat for any other",
    ],
    check,
};

const REQUESTS: usize = 4;

/// The longest wait that a server may ask for, in milliseconds.
const MAX_WAIT: u8 = 200;

#[derive(Clone, Copy, Debug, Arbitrary)]
struct Setup {
    retries: u8,
    budget: u8,
    max_retries: u8,
    deadline_ms: Option<u16>,
    any_code: bool,
    ignore_too_long: bool,
    hedging: bool,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Operation {
    /// The attempt under way of a request ends so.
    Ended(u8, End),
    /// The retry under way of a request is cancelled.
    Cancel(u8),
    Wait(u8),
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum End {
    Good,
    /// 503
    Bad,
    /// 425, which needs no back-off.
    TooEarly,
    Refused,
    Broken,
    PerTryTimeout,
    /// Its endpoint would fail in the same way again; whether there is another.
    Final(bool),
    /// 503 with `Retry-After`.
    RetryAfter(u8),
    /// gRPC, retryable or not, and what the server says.
    Grpc {
        retryable: bool,
        says: Says,
    },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Says {
    Nothing,
    Later(u8),
    Never,
}

/// What the model knows of a request.
#[derive(Clone, Copy, Default)]
struct Known {
    granted: u32,
    used: u32,
}

struct World {
    setup: Setup,
    config: Config,
    budget: Budget,
    limits: Limits,
    deadline: Deadline,
    now: Timestamp,
}

fn check(data: &[u8], fault: Option<usize>) -> Result<(), String> {
    let mut bytes = Unstructured::new(data);
    let Ok(mut setup) = Setup::arbitrary(&mut bytes) else { return Ok(()) };
    setup.retries %= 4;
    setup.budget %= 4;
    setup.max_retries %= 4;
    let mut world = World::new(setup)?;
    let mut sessions = [Session::new(); REQUESTS];
    let mut known = [Known::default(); REQUESTS];
    let mut held: [Option<Granted>; REQUESTS] = [const { None }; REQUESTS];
    for _ in 0..200 {
        if bytes.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut bytes) else { break };
        match operation {
            Operation::Wait(millis) => {
                world.now = world.now + Duration::from_millis((millis % 64).into());
            }
            Operation::Cancel(index) => world.give_back(&mut held[usize::from(index) % REQUESTS]),
            Operation::Ended(index, end) => {
                let index = usize::from(index) % REQUESTS;
                match fault {
                    Some(7) => drop(held[index].take()),
                    _ => world.give_back(&mut held[index]),
                }
                // The last one cannot be sent again.
                let whole = index != REQUESTS - 1;
                let in_flight = held.iter().flatten().count() as u32;
                let right = world.model(&mut known[index], end, whole, in_flight);
                let decision = world.twin(fault, &mut sessions[index], end, whole);
                let got = match decision {
                    Decision::Retry(granted) => {
                        let after = granted.after;
                        held[index] = Some(granted);
                        Ok(after)
                    }
                    Decision::GiveUp(why) => Err(why),
                };
                if got != right {
                    return Err(format!("{end:?}: {got:?}, not {right:?}"));
                }
            }
        }
        let in_flight = held.iter().flatten().count() as u32;
        let counted = (world.budget.retries_in_flight(), world.limits.in_use(Resource::Retries));
        if counted != (in_flight, in_flight) {
            return Err(format!("{operation:?}: {counted:?} counted, {in_flight} in flight"));
        }
        for (session, known) in sessions.iter().zip(known) {
            let left = u32::from(setup.retries) - known.used;
            let got = (session.attempt(), session.retries_left(&world.config));
            if got != (known.granted + 1, left) {
                return Err(format!("{operation:?}: {session:?}, {left} left"));
            }
        }
    }
    Ok(())
}

/// Draws nothing on top of a wait: how waits are drawn is the back-off's check.
struct Least;

impl Rng for Least {
    fn next_u64(&mut self) -> u64 {
        0
    }
}

const BACK_OFF: Duration = Duration::from_millis(7);

impl World {
    fn new(setup: Setup) -> Result<Self, String> {
        let text = |error: mesh_core::InvalidConfig| error.to_string();
        let now = Timestamp::from_secs(1);
        let rule = if setup.any_code { PushbackRule::AnyCode } else { PushbackRule::RetryableCode };
        let too_long = if setup.ignore_too_long { TooLong::Ignore } else { TooLong::GiveUp };
        let config = Config::none()
            .with_retries(setup.retries.into())
            .with_retry_on("gateway-error,425".parse().map_err(text)?)
            .with_grpc_codes("ABORTED".parse().map_err(text)?)
            .with_backoff(backoff::Config::fixed(BACK_OFF))
            .with_pushback(rule)
            .with_too_long(too_long)
            .with_max_retry_after(Duration::from_millis(MAX_WAIT.into()))
            .with_hedge_on_per_try_timeout(setup.hedging);
        let budget = budget::Config::concurrent(Ratio::ZERO, setup.budget.into());
        let limit = limit::Config::unlimited().with_max_retries(setup.max_retries.into());
        let deadline = setup.deadline_ms.map_or(Deadline::NONE, |after| {
            Deadline::after(now, Duration::from_millis(u64::from(after % 1_024)))
        });
        Ok(Self {
            setup,
            config,
            budget: Budget::new(budget, now),
            limits: Limits::new(limit),
            deadline,
            now,
        })
    }

    fn give_back(&self, held: &mut Option<Granted>) {
        if let Some(over) = held.take() {
            over.end(&self.budget, &self.limits);
        }
    }

    /// The first reason that speaks against it, or the wait; and what is used up.
    fn model(
        &self,
        known: &mut Known,
        end: End,
        whole: bool,
        in_flight: u32,
    ) -> Result<Duration, GiveUp> {
        // Whether it is retried at all; what the server says; whether that is exact.
        let (retried, says, grpc) = match end {
            End::Good | End::Refused => (false, Says::Nothing, false),
            // `gateway-error` is there, so a timeout is retried with and without hedging.
            End::Bad | End::TooEarly | End::Broken | End::PerTryTimeout | End::Final(_) => {
                (true, Says::Nothing, false)
            }
            End::RetryAfter(millis) => (true, Says::Later(millis), false),
            End::Grpc { retryable, says } => {
                let invited = self.setup.any_code && matches!(says, Says::Later(_));
                (retryable || invited, says, true)
            }
        };
        if !retried {
            return Err(GiveUp::NotRetriable);
        }
        if matches!(end, End::Final(false)) {
            return Err(GiveUp::NowhereElse);
        }
        if known.used == u32::from(self.setup.retries) {
            return Err(GiveUp::LimitExceeded);
        }
        if !whole {
            return Err(GiveUp::NotReplayable);
        }
        let wait = match (end, says) {
            (_, Says::Never) => return Err(GiveUp::PushedBack),
            (End::TooEarly | End::Final(_), _) => Duration::ZERO,
            (_, Says::Later(millis)) if millis > MAX_WAIT => match self.setup.ignore_too_long {
                true => BACK_OFF,
                false => return Err(GiveUp::RetryAfterTooLong),
            },
            (_, Says::Later(millis)) if grpc || millis > 1 => Duration::from_millis(millis.into()),
            (_, Says::Later(_) | Says::Nothing) => BACK_OFF,
        };
        if self.deadline.remaining(self.now).is_some_and(|left| left <= wait) {
            return Err(GiveUp::DeadlineTooClose);
        }
        known.used += 1;
        if in_flight >= u32::from(self.setup.max_retries) {
            let exhausted = in_flight >= u32::from(self.setup.budget);
            return Err(if exhausted { GiveUp::BudgetExhausted } else { GiveUp::Overflow });
        }
        if in_flight >= u32::from(self.setup.budget) {
            return Err(GiveUp::BudgetExhausted);
        }
        known.granted += 1;
        Ok(wait)
    }

    fn answer(fault: Option<usize>, end: End) -> Answer {
        let ms = |millis: u8| Duration::from_millis(millis.into());
        let heard = |pushback| (fault != Some(5)).then_some(pushback);
        match end {
            End::Good => Answer::status(200),
            End::Bad => Answer::status(503),
            End::TooEarly => Answer::status(425),
            End::Refused if fault == Some(4) => Answer::status(503),
            End::Refused => Answer::reset(Reset::Overflow),
            End::Broken | End::PerTryTimeout => Answer::reset(Reset::AfterRequest),
            End::Final(_) if fault == Some(8) => Answer::reset(Reset::ConnectFailure),
            End::Final(elsewhere) => Answer::reset(Reset::ConnectFailure).with_final(elsewhere),
            End::RetryAfter(millis) => {
                Answer::status(503).with_retry_after(heard(Pushback::After(ms(millis))))
            }
            End::Grpc { retryable, says } => {
                let answer = Answer::grpc(if retryable { 10 } else { 5 }, true);
                answer.with_retry_after(match says {
                    Says::Nothing => None,
                    Says::Later(millis) => heard(Pushback::After(ms(millis))),
                    Says::Never => heard(Pushback::Stop),
                })
            }
        }
    }

    fn twin(
        &mut self,
        fault: Option<usize>,
        session: &mut Session,
        end: End,
        whole: bool,
    ) -> Decision {
        let Self { config, budget, limits, deadline, now, .. } = self;
        let answer = Self::answer(fault, end);
        let rng = &mut Least;
        if fault == Some(0) {
            let _lost = budget.try_withdraw(*now);
        }
        if fault == Some(2) {
            *session = Session::new();
        }
        let whole = whole || fault == Some(1);
        let deadline = if fault == Some(3) { Deadline::NONE } else { *deadline };
        let before = *session;
        let decision = if matches!(end, End::PerTryTimeout) {
            session.on_per_try_timeout(config, budget, limits, *now, deadline, rng, whole)
        } else {
            session.on_answer(config, budget, limits, *now, deadline, rng, answer, whole)
        };
        if fault == Some(6) && matches!(decision, Decision::GiveUp(_)) {
            *session = before;
        }
        decision
    }
}

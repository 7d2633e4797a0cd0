//! Many requests over one budget and one limit, against plain counters.

use super::*;

/// What can happen to the requests of an upstream.
#[derive(Clone, Debug)]
enum Operation {
    /// The attempt under way of request `0..4` ends so.
    Answer(usize, Answer),
    /// The retry under way of a request ends, or is cancelled.
    End(usize),
    Wait(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let answer = prop_oneof![
        Just(Answer::status(200)),
        Just(Answer::status(503)),
        Just(Answer::reset(Reset::Overflow)),
        Just(Answer::reset(Reset::ConnectFailure)),
        Just(busy(Pushback::Stop)),
        Just(busy(Pushback::After(MS(40)))),
    ];
    prop_oneof![
        5 => (0..4usize, answer).prop_map(|(request, answer)| Operation::Answer(request, answer)),
        3 => (0..4usize).prop_map(Operation::End),
        1 => (0..60u64).prop_map(Operation::Wait),
    ]
}

const RETRIES: u32 = 3;
const BUDGET: u32 = 3;
const MAX_RETRIES: u32 = 2;

type Decide<'a> = &'a dyn Fn(
    &mut Session,
    &Config,
    &Budget,
    &Limits,
    (Timestamp, Deadline, bool),
    &mut SplitMix64,
    Answer,
) -> Decision;

/// After each step: attempts ≤ 1 + retries; retries in flight are those granted and not ended, within budget and
/// limit; no retry begins at or after the deadline; what is not retriable is not retried; refusals charge nothing.
fn check(decide: Decide<'_>, operations: &[Operation]) -> Result<(), String> {
    let config = Config::none().with_retries(RETRIES).with_retry_on("5xx,429".parse().unwrap());
    let budget = Budget::new(budget::Config::concurrent(Ratio::ZERO, BUDGET), NOW);
    let limits = Limits::new(limit::Config::unlimited().with_max_retries(MAX_RETRIES));
    let deadline = Deadline::after(NOW, MS(200));
    let mut rng = SplitMix64::new(1);
    let mut sessions = [Session::new(); 4];
    let mut granted: [Option<Granted>; 4] = [None, None, None, None];
    let mut attempts = [1; 4];
    let mut now = NOW;
    for operation in operations {
        match *operation {
            // The last one cannot be sent again.
            Operation::Answer(index, answer) => {
                if let Some(over) = granted[index].take() {
                    over.end(&budget, &limits);
                }
                let in_flight = granted.iter().flatten().count() as u32;
                let facts = (now, deadline, index != 3);
                let decision = decide(
                    &mut sessions[index],
                    &config,
                    &budget,
                    &limits,
                    facts,
                    &mut rng,
                    answer,
                );
                if let Decision::Retry(retry) = decision {
                    attempts[index] += 1;
                    let late = deadline.has_passed(now + retry.after);
                    let wrong = !answer.matches(config.retry_on())
                        || answer.retry_after() == Some(Pushback::Stop);
                    granted[index] = Some(retry);
                    if late || wrong || index == 3 || in_flight >= MAX_RETRIES {
                        return Err(format!("{operation:?} granted"));
                    }
                }
            }
            Operation::End(index) => {
                if let Some(over) = granted[index].take() {
                    over.end(&budget, &limits);
                }
            }
            Operation::Wait(span) => now = now + MS(span),
        }
        let in_flight = granted.iter().flatten().count() as u32;
        let counted = (budget.retries_in_flight(), limits.in_use(Resource::Retries));
        if counted != (in_flight, in_flight) {
            return Err(format!("{operation:?}: {counted:?} counted, {in_flight} in flight"));
        }
        for (session, attempts) in sessions.iter().zip(attempts) {
            if session.attempt() != attempts || attempts > 1 + RETRIES {
                return Err(format!("{operation:?}: {attempts} attempts, {session:?}"));
            }
        }
    }
    Ok(())
}

fn real(
    session: &mut Session,
    config: &Config,
    budget: &Budget,
    limits: &Limits,
    (now, deadline, replayable): (Timestamp, Deadline, bool),
    rng: &mut SplitMix64,
    answer: Answer,
) -> Decision {
    session.on_answer(config, budget, limits, now, deadline, rng, answer, replayable)
}

proptest! {
    #[test]
    fn requests_keep_within_every_bound(operations in prop::collection::vec(operation(), 0..80)) {
        prop_assert_eq!(check(&real, &operations), Ok(()));
    }
}

#[test]
fn the_check_catches_each_broken_twin() {
    let bad = |index| Operation::Answer(index, BAD);
    let operations: Vec<_> = [0, 1, 2, 3, 0, 0, 0, 0].map(bad).into_iter().collect();
    let refused = [Operation::Answer(0, Answer::reset(Reset::Overflow))];
    let stop = [Operation::Answer(0, busy(Pushback::Stop))];
    let late = [Operation::Wait(190), Operation::Answer(0, busy(Pushback::After(MS(40))))];
    let gone = [bad(3)];
    let programs: [&[Operation]; 5] = [&operations, &refused, &stop, &late, &gone];
    let caught =
        |decide: Decide<'_>| programs.iter().any(|program| check(decide, program).is_err());
    assert!(!caught(&real));

    assert!(caught(&|session, config, budget, limits, facts, rng, answer| {
        // Charges before it decides.
        let _charge = budget.try_withdraw(facts.0);
        real(session, config, budget, limits, facts, rng, answer)
    }));
    assert!(caught(&|session, config, budget, limits, (now, deadline, _), rng, answer| {
        // Sends again what cannot be sent again.
        real(session, config, budget, limits, (now, deadline, true), rng, answer)
    }));
    assert!(caught(&|session, config, budget, limits, facts, rng, answer| {
        // Forgets what it has had.
        *session = Session::new();
        real(session, config, budget, limits, facts, rng, answer)
    }));
    assert!(caught(&|session, config, budget, limits, (now, _, replayable), rng, answer| {
        // Knows no deadline.
        let facts = (now, Deadline::NONE, replayable);
        real(session, config, budget, limits, facts, rng, answer)
    }));
    assert!(caught(&|session, config, budget, limits, facts, rng, answer| {
        // Retries what our own policy refused.
        let overflow = answer == Answer::reset(Reset::Overflow);
        let answer = if overflow { BAD } else { answer };
        real(session, config, budget, limits, facts, rng, answer)
    }));
    assert!(caught(&|session, config, budget, limits, facts, rng, answer| {
        // Does not listen to the server.
        let answer = answer.with_retry_after(None);
        real(session, config, budget, limits, facts, rng, answer)
    }));
}

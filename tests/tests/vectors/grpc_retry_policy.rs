//! gRPC's retries and hedges (gRFC A6).

use std::time::Duration;

use mesh_core::{
    SplitMix64, Timestamp, backoff,
    budget::{self, Budget},
    deadline::Deadline,
    limit::{self, Limits},
    retry::{
        Answer, Config, Decision, GrpcCodes, Pushback, PushbackRule, Session,
        hedge::{self, Hedge},
    },
};
use serde::Deserialize;

use crate::{
    backoff::ratio,
    case::{Case, text},
    compare::equal,
};

#[derive(Deserialize)]
#[serde(untagged)]
enum Settings {
    Hedging(Hedging),
    Retry(Retry),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hedging {
    hedging: HedgingPolicy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HedgingPolicy {
    max_attempts: u32,
    delay_ms: u64,
    non_fatal: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    max_attempts: u32,
    initial_ms: u64,
    max_ms: u64,
    multiplier: f64,
    retryable: Vec<String>,
    per_rpc_buffer_bytes: u64,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    ServerAttempt {
        at_ms: u64,
        status: String,
        previous_rpc_attempts_header: Option<String>,
        #[serde(default)]
        messages: u32,
        #[serde(default)]
        response_headers: bool,
        pushback: Option<Values>,
        #[serde(default)]
        request_bytes: u64,
        count: Option<u32>,
    },
    Start {
        at_ms: u64,
    },
    Response {
        at_ms: u64,
        attempt: u32,
        status: String,
        pushback: Option<Values>,
    },
}

/// The values of one header.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    client: Option<String>,
    attempts: Option<u32>,
    go: Option<Attempts>,
    java: Option<Attempts>,
    sent_at_ms: Option<Vec<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempts {
    attempts: u32,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let expect: Expect = case.expect()?;
    let steps: Vec<Step> = case.steps()?;
    match case.config()? {
        Settings::Hedging(Hedging { hedging }) => {
            let sent = hedge(&hedging, &steps)?;
            if let Some(attempts) = expect.attempts {
                equal("attempts", sent.len() as u32, attempts)?;
            }
            match expect {
                Expect {
                    sent_at_ms: Some(expected), client: None, go: None, java: None, ..
                } => equal("sent_at_ms", sent, expected),
                Expect { .. } => Err("a hedge is judged by when it is sent".to_owned()),
            }
        }
        Settings::Retry(settings) => {
            if expect.sent_at_ms.is_some() {
                return Err("a retry is not judged by when it is sent".to_owned());
            }
            let go = play(&settings, PushbackRule::RetryableCode, &steps)?;
            let java = play(&settings, PushbackRule::AnyCode, &steps)?;
            if let Some(client) = expect.client {
                equal("client", go.0, client)?;
            }
            for (what, got, expected) in [
                ("attempts", go.1, expect.attempts),
                ("go.attempts", go.1, expect.go.map(|go| go.attempts)),
                ("java.attempts", java.1, expect.java.map(|java| java.attempts)),
            ] {
                if let Some(expected) = expected {
                    equal(what, &got, &expected)?;
                }
            }
            Ok(())
        }
    }
}

/// What the client sees, and how many attempts were made.
fn play(settings: &Retry, rule: PushbackRule, steps: &[Step]) -> Result<(String, u32), String> {
    let ms = Duration::from_millis;
    let backoff = backoff::Config::grpc(
        ms(settings.initial_ms),
        ms(settings.max_ms),
        ratio(settings.multiplier)?,
    );
    let config = Config::grpc(
        settings.max_attempts,
        backoff.map_err(text)?,
        settings.retryable.join(",").parse().map_err(text)?,
    );
    let config =
        config.map_err(text)?.with_pushback(rule).with_buffer_limit(settings.per_rpc_buffer_bytes);
    let budget = Budget::new(budget::Config::unlimited(), Timestamp::ZERO);
    let limits = Limits::new(limit::Config::unlimited());
    let mut rng = SplitMix64::new(1);
    let mut session = Session::new();
    let mut client = String::new();
    for step in steps {
        let Step::ServerAttempt {
            at_ms,
            status,
            previous_rpc_attempts_header,
            messages,
            response_headers,
            pushback,
            request_bytes,
            count,
        } = step
        else {
            return Err("a step of a hedge".to_owned());
        };
        for _ in 0..count.unwrap_or(1) {
            let previous = session.attempt() - 1;
            if let Some(header) = previous_rpc_attempts_header {
                equal("grpc-previous-rpc-attempts", &previous.to_string(), header)?;
            }
            client.clone_from(status);
            let committed = *response_headers || *messages > 0;
            let answer = answer(status, !committed, pushback.as_ref())?;
            let now = Timestamp::from_millis(*at_ms);
            let whole = config.keeps(*request_bytes);
            let none = Deadline::NONE;
            let rng = &mut rng;
            match session.on_answer(&config, &budget, &limits, now, none, rng, answer, whole) {
                Decision::Retry(granted) => granted.end(&budget, &limits),
                Decision::GiveUp(_) => return Ok((client, session.attempt())),
            }
        }
    }
    Ok((client, session.attempt()))
}

/// When each attempt was sent, in milliseconds.
fn hedge(settings: &HedgingPolicy, steps: &[Step]) -> Result<Vec<u64>, String> {
    let config = hedge::Config::grpc(
        settings.max_attempts,
        Duration::from_millis(settings.delay_ms),
        settings.non_fatal.join(",").parse().map_err(text)?,
    )
    .map_err(text)?;
    let budget = Budget::new(budget::Config::unlimited(), Timestamp::ZERO);
    let limits = Limits::new(limit::Config::unlimited());
    let mut sent = Vec::new();
    let mut granted = Vec::new();
    let mut machine: Option<Hedge> = None;
    let mut run_to = |machine: &mut Option<Hedge>, sent: &mut Vec<u64>, until: Timestamp| {
        let Some(hedge) = machine else { return };
        while let Some(due) = hedge.poll_timeout().filter(|due| *due <= until) {
            if let Some(one) = hedge.try_send(&config, &budget, &limits, due, Deadline::NONE) {
                sent.push(due.as_nanos() / 1_000_000);
                granted.push(one);
            }
        }
    };
    for step in steps {
        match step {
            Step::Start { at_ms } => {
                machine = Some(Hedge::new(&config, Timestamp::from_millis(*at_ms)));
                sent.push(*at_ms);
            }
            Step::Response { at_ms, attempt, status, pushback } => {
                let now = Timestamp::from_millis(*at_ms);
                run_to(&mut machine, &mut sent, now);
                if *attempt as usize > sent.len() {
                    return Err(format!("attempt {attempt} has not been sent"));
                }
                let answer = answer(status, true, pushback.as_ref())?;
                let hedge = machine.as_mut().ok_or("a response before the start")?;
                let _ = hedge.on_answer(&config, &budget, now, answer);
            }
            Step::ServerAttempt { .. } => return Err("a step of a retry".to_owned()),
        }
    }
    run_to(&mut machine, &mut sent, Timestamp::MAX);
    granted.into_iter().for_each(|one| one.end(&budget, &limits));
    Ok(sent)
}

fn answer(status: &str, in_headers: bool, pushback: Option<&Values>) -> Result<Answer, String> {
    let code = match status {
        "OK" => 0,
        name => {
            let codes: GrpcCodes =
                name.parse().map_err(|error: mesh_core::InvalidConfig| error.to_string())?;
            codes.iter().next().ok_or("no status")?
        }
    };
    let pushback = pushback.and_then(|values| match values {
        Values::One(value) => Pushback::from_grpc([value.as_str()]),
        Values::Many(values) => Pushback::from_grpc(values.iter().map(String::as_str)),
    });
    Ok(Answer::grpc(code, in_headers).with_retry_after(pushback))
}

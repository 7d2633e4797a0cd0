use mesh_core::{
    InvalidConfig, Ratio, SplitMix64, Timestamp,
    budget::{self, Budget},
    deadline::Deadline,
    limit::{self, Limits},
    retry::{self, Answer, Decision, Granted, Pushback, RetryOn, Session, Unseen},
};
use serde::Deserialize;
use serde_json::Number;

use crate::case::Case;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    max_tokens: Number,
    token_ratio: Number,
    max_attempts: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Fail {
        at_ms: u64,
        pushback: Option<String>,
    },
    FailNonretryable {
        at_ms: u64,
        pushback: Option<String>,
    },
    Success {
        at_ms: u64,
    },
    /// The first attempt of a call reached the server's transport, and no application.
    RefusedStreamFirstAttempt {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
    },
    /// Whole calls, each retried as the policy says.
    Rpc {
        at_ms: u64,
        count: usize,
        server_success_indices: Vec<u64>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    after_each: Option<Vec<After>>,
    rpcs: Option<Vec<Rpc>>,
    tokens: Option<f64>,
    allowed: Option<bool>,
    server_attempts: Option<u32>,
    result: Option<String>,
    error: Option<bool>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    tokens: f64,
    allowed: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rpc {
    code: String,
    last_server_attempt_index: u64,
    tokens: f64,
}

const OK: u8 = 0;
/// Retried by no policy here.
const INVALID_ARGUMENT: u8 = 3;
const UNAVAILABLE: u8 = 14;

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let settings: Settings = case.config()?;
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    let config = config(&settings);
    if config.is_err() != expect.error.unwrap_or(false) {
        return Err(format!("the configuration: {config:?}"));
    }
    let Ok(config) = config else { return Ok(()) };

    let mut channel = Channel::new(config, settings.max_attempts.unwrap_or(2));
    // A case that states one result is about one call; the others have one for each step.
    let mut call = expect.result.is_some().then(Call::default);
    let (mut after_each, mut rpcs) = (Vec::new(), Vec::new());
    for (index, step) in steps.iter().enumerate() {
        let name = |error: String| format!("steps[{index}]: {error}");
        match step {
            Step::Rpc { at_ms, count, server_success_indices } => {
                channel.now = Timestamp::from_millis(*at_ms);
                for _ in 0..*count {
                    rpcs.push(channel.rpc(server_success_indices));
                }
            }
            Step::RefusedStreamFirstAttempt { .. } => {
                let call = call.as_mut().ok_or_else(|| name("of which call?".to_owned()))?;
                channel.refused_stream(call).map_err(name)?;
            }
            Step::Fail { .. } | Step::FailNonretryable { .. } | Step::Success { .. } => {
                let (at_ms, answer) = answer(step);
                channel.now = Timestamp::from_millis(at_ms);
                let mut alone = Call::default();
                channel.attempt(call.as_mut().unwrap_or(&mut alone), answer).map_err(name)?;
                channel.end(alone);
            }
        }
        after_each.push((channel.tokens(), channel.allows()));
    }
    compare(&expect, &channel, &after_each, &rpcs, call)
}

fn config(settings: &Settings) -> Result<budget::Config, InvalidConfig> {
    let max: Ratio = settings.max_tokens.to_string().parse()?;
    let ratio: Ratio = settings.token_ratio.to_string().parse()?;
    // Millionths of one are thousandths of a thousandth.
    budget::Config::throttle_thousandths(max.as_ppm() / 1_000, ratio)
}

fn answer(step: &Step) -> (u64, Answer) {
    let (at_ms, code, pushback) = match step {
        Step::Fail { at_ms, pushback } => (*at_ms, UNAVAILABLE, pushback.as_deref()),
        Step::FailNonretryable { at_ms, pushback } => {
            (*at_ms, INVALID_ARGUMENT, pushback.as_deref())
        }
        Step::Success { at_ms } => (*at_ms, OK, None),
        Step::RefusedStreamFirstAttempt { _at_ms: at_ms } | Step::Rpc { at_ms, .. } => {
            (*at_ms, OK, None)
        }
    };
    let pushback = pushback.and_then(|text| Pushback::from_grpc([text]));
    (at_ms, Answer::grpc(code, true).with_retry_after(pushback))
}

fn compare(
    expect: &Expect,
    channel: &Channel,
    after_each: &[(f64, bool)],
    rpcs: &[Rpc],
    call: Option<Call>,
) -> Result<(), String> {
    if let Some(stated) = &expect.after_each {
        let stated: Vec<_> = stated.iter().map(|after| (after.tokens, after.allowed)).collect();
        if stated != after_each {
            return Err(format!("after_each: {after_each:?} is not {stated:?}"));
        }
    }
    if let Some(stated) = &expect.rpcs
        && stated != rpcs
    {
        return Err(format!("rpcs: {rpcs:?} is not {stated:?}"));
    }
    if expect.tokens.is_some_and(|stated| stated != channel.tokens()) {
        return Err(format!("tokens: {}", channel.tokens()));
    }
    if expect.allowed.is_some_and(|stated| stated != channel.allows()) {
        return Err(format!("allowed: {}", channel.allows()));
    }
    let (attempts, result) = call.map_or((0, None), |call| (call.attempts, call.result));
    if expect.server_attempts.is_some_and(|stated| stated != attempts) {
        return Err(format!("server_attempts: {attempts}"));
    }
    match &expect.result {
        Some(stated) if Some(stated.as_str()) != result => Err(format!("result: {result:?}")),
        Some(_) | None => Ok(()),
    }
}

/// One call, with its attempts.
#[derive(Default)]
struct Call {
    session: Session,
    attempts: u32,
    retry: Option<Granted>,
    result: Option<&'static str>,
}

/// What all calls to one server share.
struct Channel {
    budget: Budget,
    limits: Limits,
    policy: retry::Config,
    rng: SplitMix64,
    now: Timestamp,
    server_attempts: u64,
}

impl Channel {
    fn new(config: budget::Config, max_attempts: u32) -> Self {
        let policy = retry::Config::none()
            .with_retries(max_attempts.saturating_sub(1))
            .with_retry_on(RetryOn::UNAVAILABLE)
            .with_transparent(true);
        Self {
            budget: Budget::new(config, Timestamp::ZERO),
            limits: Limits::new(limit::Config::unlimited()),
            policy,
            rng: SplitMix64::new(1),
            now: Timestamp::ZERO,
            server_attempts: 0,
        }
    }

    /// The tokens that are left. Those of the file have three decimals.
    fn tokens(&self) -> f64 {
        self.budget.tokens(self.now).unwrap_or_default() as f64 / 1e6
    }

    fn allows(&self) -> bool {
        self.budget.balance(self.now) > 0
    }

    /// The server's transport has refused an attempt of `call`, and it is sent once more.
    fn refused_stream(&mut self, call: &mut Call) -> Result<(), String> {
        call.attempts += 1;
        if call.session.try_transparent(&self.policy, Unseen::ByServer) {
            return Ok(());
        }
        Err("not sent again".to_owned())
    }

    /// An attempt of `call` has ended with `answer`; whether another follows.
    fn attempt(&mut self, call: &mut Call, answer: Answer) -> Result<bool, String> {
        if call.result.is_some() {
            return Err("the call is over".to_owned());
        }
        call.attempts += 1;
        if let Some(retry) = call.retry.take() {
            retry.end(&self.budget, &self.limits);
        }
        let decision = call.session.on_answer(
            &self.policy,
            &self.budget,
            &self.limits,
            self.now,
            Deadline::NONE,
            &mut self.rng,
            answer,
            true,
        );
        match decision {
            Decision::Retry(retry) => {
                call.retry = Some(retry);
                Ok(true)
            }
            Decision::GiveUp(_) => {
                let ok = Answer::grpc(OK, true);
                call.result = Some(if answer == ok { "OK" } else { "UNAVAILABLE" });
                Ok(false)
            }
        }
    }

    fn end(&self, call: Call) {
        if let Some(retry) = call.retry {
            retry.end(&self.budget, &self.limits);
        }
    }

    /// A whole call, to a server of which these attempts succeed.
    fn rpc(&mut self, successes: &[u64]) -> Rpc {
        let mut call = Call::default();
        loop {
            let index = self.server_attempts;
            self.server_attempts += 1;
            let code = if successes.contains(&index) { OK } else { UNAVAILABLE };
            if !self.attempt(&mut call, Answer::grpc(code, true)).unwrap_or(false) {
                return Rpc {
                    code: call.result.unwrap_or("UNKNOWN").to_owned(),
                    last_server_attempt_index: index,
                    tokens: self.tokens(),
                };
            }
        }
    }
}

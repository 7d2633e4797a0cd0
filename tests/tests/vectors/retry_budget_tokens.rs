use std::time::Duration;

use mesh_core::{
    InvalidConfig, Ratio, Timestamp,
    budget::{Budget, Config},
};
use serde::Deserialize;
use serde_json::Number;

use crate::case::Case;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    ttl_ms: Option<u64>,
    ttl_s: Option<u64>,
    /// Of the bucket, in tokens.
    reserve: Option<u32>,
    slices: Option<u32>,
    min_retries_per_sec: Option<i64>,
    percent_can_retry: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    Put { at_ms: u64, n: u64 },
    TryGet { at_ms: u64, n: u64, want: bool },
    Deposit { at_ms: u64, count: u64 },
    TryWithdraw { at_ms: u64, want: bool },
    DepositThenTryWithdraw { at_ms: u64, count: u64 },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    all_steps_match: Option<bool>,
    error: Option<bool>,
    deposit_amount: Option<i64>,
    withdrawal_amount: Option<i64>,
    reserve: Option<i64>,
    initial_balance: Option<u64>,
    retried: Option<u64>,
    #[serde(default)]
    tolerance: u64,
    balance: Option<u64>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let config = config(&case.config()?);
    let steps: Vec<Step> = case.steps()?;
    let expect: Expect = case.expect()?;
    let refused = config.is_err();
    if refused != expect.error.unwrap_or(false) {
        return Err(format!("the configuration: {config:?}"));
    }
    let Ok(config) = config else { return Ok(()) };

    check_amounts(config, &expect)?;
    let budget = Budget::new(config, Timestamp::ZERO);
    let mut run = Run { retried: 0, mismatch: None, now: Timestamp::ZERO };
    for (index, step) in steps.iter().enumerate() {
        run.apply(&budget, index, step);
    }
    if run.mismatch.is_none() != expect.all_steps_match.unwrap_or(true) {
        return Err(run.mismatch.unwrap_or_else(|| "every step matches".to_owned()));
    }
    if let Some(retried) = expect.retried
        && run.retried.abs_diff(retried) > expect.tolerance
    {
        return Err(format!("retried: {} is not {retried}", run.retried));
    }
    let balance = budget.balance(run.now);
    match expect.balance {
        Some(stated) if stated != balance => Err(format!("balance: {balance} is not {stated}")),
        Some(_) | None => Ok(()),
    }
}

fn config(settings: &Settings) -> Result<Config, InvalidConfig> {
    if let Some(slices) = settings.slices
        && slices != 10
    {
        return Err(InvalidConfig::new("slices", slices, "10"));
    }
    let ttl = match *settings {
        Settings { ttl_ms: Some(ttl), .. } => Duration::from_millis(ttl),
        Settings { ttl_s, .. } => Duration::from_secs(ttl_s.unwrap_or(10)),
    };
    // A bucket of whole tokens, in which a retry costs what a request gives.
    let ratio = settings.percent_can_retry.as_ref();
    let ratio: Ratio = ratio.map_or(Ok(Ratio::ONE), |ratio| ratio.to_string().parse())?;
    let config = match (settings.reserve, settings.min_retries_per_sec) {
        (Some(reserve), None) => Config::leaky(ratio, reserve, ttl),
        (_, rate) => {
            let rate = rate.unwrap_or(0);
            let rate = u32::try_from(rate)
                .map_err(|_| InvalidConfig::new("min_per_second", rate, "0 or more"))?;
            Config::tokens(ratio, rate, ttl)
        }
    };
    Ok(config?.with_aligned_slices(false))
}

/// What a request gives and what a retry takes, in Finagle's tokens: it cuts what a retry takes to whole ones.
fn check_amounts(config: Config, expect: &Expect) -> Result<(), String> {
    let now = Timestamp::ZERO;
    let fresh = || Budget::new(config, now);
    let tokens = |budget: &Budget| i128::from(budget.tokens(now).unwrap_or_default());
    if let Some(stated) = expect.initial_balance
        && fresh().balance(now) != stated
    {
        return Err(format!("initial_balance: {} is not {stated}", fresh().balance(now)));
    }
    let (Some(deposit), Some(withdrawal)) = (expect.deposit_amount, expect.withdrawal_amount)
    else {
        return Ok(());
    };
    let budget = fresh();
    let reserve = tokens(&budget);
    budget.on_request(now);
    let given = tokens(&budget) - reserve;
    if given == 0 {
        return check_nothing_given(&budget, expect, deposit, withdrawal);
    }
    for _ in 0..MOST_REQUESTS {
        if budget.balance(now) > 0 {
            break;
        }
        budget.on_request(now);
    }
    let before = tokens(&budget);
    let retry = budget.try_withdraw(now).map_err(|error| error.to_string())?;
    budget.on_retry_end(retry);
    let taken = before - tokens(&budget);
    let in_peers = |amount: i128, base: i64, per: i128| amount * i128::from(base) / per;
    if in_peers(taken, deposit, given) != i128::from(withdrawal) {
        return Err(format!("a request gives {given}, a retry takes {taken}"));
    }
    // The unit is Finagle's: a thousandth of a request.
    if deposit != 1_000 {
        return Err(format!("deposit_amount: {deposit} is not 1000"));
    }
    match expect.reserve {
        Some(stated) if in_peers(reserve, withdrawal, taken) != i128::from(stated) => {
            Err(format!("reserve: {reserve} is not {stated}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The smallest share that a ratio can say is a millionth.
const MOST_REQUESTS: u32 = 1_000_000;

/// Requests give nothing. Then Finagle's unit is a retry, of which the reserve is the whole.
fn check_nothing_given(
    budget: &Budget,
    expect: &Expect,
    deposit: i64,
    withdrawal: i64,
) -> Result<(), String> {
    if (deposit, withdrawal) != (0, 1) {
        return Err(format!("a request gives 0 and a retry takes 1, not {deposit}, {withdrawal}"));
    }
    let reserve = budget.balance(Timestamp::ZERO);
    match expect.reserve {
        Some(stated) if i128::from(stated) != i128::from(reserve) => {
            Err(format!("reserve: {reserve} is not {stated}"))
        }
        Some(_) | None => Ok(()),
    }
}

struct Run {
    retried: u64,
    mismatch: Option<String>,
    now: Timestamp,
}

impl Run {
    fn apply(&mut self, budget: &Budget, index: usize, step: &Step) {
        let (&Step::Put { at_ms, .. }
        | &Step::TryGet { at_ms, .. }
        | &Step::Deposit { at_ms, .. }
        | &Step::TryWithdraw { at_ms, .. }
        | &Step::DepositThenTryWithdraw { at_ms, .. }) = step;
        let now = Timestamp::from_millis(at_ms);
        self.now = now;
        match *step {
            Step::Put { n, .. } | Step::Deposit { count: n, .. } => {
                (0..n).for_each(|_| budget.on_request(now));
            }
            Step::TryGet { n, want, .. } => {
                // All or nothing.
                let granted =
                    budget.balance(now) >= n && (0..n).all(|_| budget.try_withdraw(now).is_ok());
                self.compare(index, want, granted);
            }
            Step::TryWithdraw { want, .. } => {
                self.compare(index, want, budget.try_withdraw(now).is_ok());
            }
            Step::DepositThenTryWithdraw { count, .. } => {
                for _ in 0..count {
                    budget.on_request(now);
                    self.retried += u64::from(budget.try_withdraw(now).is_ok());
                }
            }
        }
    }

    fn compare(&mut self, index: usize, want: bool, granted: bool) {
        if granted != want {
            self.mismatch.get_or_insert_with(|| format!("steps[{index}]: granted {granted}"));
        }
    }
}

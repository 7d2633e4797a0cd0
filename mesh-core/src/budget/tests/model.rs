//! The reference: a list of all deposits and withdrawals, summed up anew at each question.

use super::*;

/// What can happen to a token budget.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Request,
    Withdraw,
    EndRetry,
    /// Milliseconds; the ttl is 1 s, a slice 100 ms.
    Wait(u64),
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => Just(Operation::Request),
        4 => Just(Operation::Withdraw),
        1 => Just(Operation::EndRetry),
        2 => (0..250u64).prop_map(Operation::Wait),
        1 => (800..1_300u64).prop_map(Operation::Wait),
    ]
}

/// The budget under test, or a twin that is wrong on purpose.
pub(super) trait Subject {
    fn request(&mut self, now: Timestamp);
    fn withdraw(&mut self, now: Timestamp) -> Option<Withdrawal>;
    fn end_retry(&mut self, withdrawal: Withdrawal);
    fn balance(&self, now: Timestamp) -> u64;
    fn in_flight(&self) -> u32;
}

impl Subject for Budget {
    fn request(&mut self, now: Timestamp) {
        self.on_request(now);
        self.on_request_end();
    }

    fn withdraw(&mut self, now: Timestamp) -> Option<Withdrawal> {
        self.try_withdraw(now).ok()
    }

    fn end_retry(&mut self, withdrawal: Withdrawal) {
        self.on_retry_end(withdrawal);
    }

    fn balance(&self, now: Timestamp) -> u64 {
        Self::balance(self, now)
    }

    fn in_flight(&self) -> u32 {
        self.retries_in_flight()
    }
}

pub(super) fn real(ppm: u32, min_per_second: u32) -> Budget {
    let ttl = Duration::from_secs(1);
    Budget::new(Config::tokens(Ratio::from_ppm(ppm), min_per_second, ttl).unwrap(), START)
}

/// After each step: grants, balance and retries in flight are those of the list; in each window of ten slices
/// the retries are at most `reserve + ratio × requests`.
pub(super) fn check(
    subject: &mut impl Subject,
    ppm: u32,
    min_per_second: u32,
    operations: &[Operation],
) -> Result<(), String> {
    let reserve = i64::from(min_per_second) * 1_000_000;
    let mut events: Vec<(u64, i64)> = Vec::new();
    let mut held = Vec::new();
    let mut millis = 0;
    for (step, operation) in operations.iter().enumerate() {
        let now = Timestamp::from_millis(millis);
        let slice = millis / 100;
        let window = |events: &[(u64, i64)]| -> i64 {
            let live = events.iter().filter(|(at, _)| at + 10 > slice);
            reserve + live.map(|(_, amount)| amount).sum::<i64>()
        };
        match operation {
            Operation::Request => {
                subject.request(now);
                events.push((slice, i64::from(ppm)));
            }
            Operation::Withdraw => {
                let expected = window(&events) >= 1_000_000;
                let granted = subject.withdraw(now);
                if granted.is_some() != expected {
                    return Err(format!("step {step}: granted {}", granted.is_some()));
                }
                events.extend(granted.is_some().then_some((slice, -1_000_000)));
                held.extend(granted);
            }
            Operation::EndRetry => held.pop().into_iter().for_each(|w| subject.end_retry(w)),
            Operation::Wait(span) => millis += span,
        }
        let (now, slice) = (Timestamp::from_millis(millis), millis / 100);
        let live =
            || events.iter().filter(move |(at, _)| at + 10 > slice).map(|(_, amount)| amount);
        let whole = (reserve + live().sum::<i64>()).max(0) / 1_000_000;
        if subject.balance(now) != whole as u64 {
            return Err(format!("step {step}: balance {} not {whole}", subject.balance(now)));
        }
        if subject.in_flight() as usize != held.len() {
            return Err(format!("step {step}: {} in flight", subject.in_flight()));
        }
        let retries = live().filter(|amount| **amount < 0).count() as i64;
        let deposits: i64 = live().filter(|amount| **amount > 0).sum();
        // Retries may have been paid by deposits of the window before: hence of twenty slices.
        let earlier = events.iter().filter(|(at, amount)| at + 20 > slice && *amount > 0);
        let paid = earlier.map(|(_, amount)| amount).sum::<i64>().max(deposits);
        if retries * 1_000_000 > reserve + paid {
            return Err(format!("step {step}: {retries} retries in a window"));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Counts whole tokens only.
    Truncates,
    /// Deposits live for ever.
    NeverExpires,
    /// Grants on a balance of less than one.
    Overspends,
    /// Forgets to give the slot back.
    LeaksInFlight,
    /// Withdrawals are free.
    DoubleSpends,
}

impl Fault {
    pub(super) const ALL: [Self; 5] = [
        Self::Truncates,
        Self::NeverExpires,
        Self::Overspends,
        Self::LeaksInFlight,
        Self::DoubleSpends,
    ];
}

/// A plain list, with one fault.
pub(super) struct Twin {
    fault: Fault,
    deposit: i64,
    reserve: i64,
    events: Vec<(u64, i64)>,
    in_flight: u32,
}

impl Twin {
    pub(super) fn new(fault: Fault, ppm: u32, min_per_second: u32) -> Self {
        let deposit = i64::from(ppm);
        let deposit = if fault == Fault::Truncates { 1_000_000 } else { deposit };
        let reserve = i64::from(min_per_second) * 1_000_000;
        Self { fault, deposit, reserve, events: Vec::new(), in_flight: 0 }
    }

    fn sum(&self, now: Timestamp) -> i64 {
        let slice = now.as_nanos() / 100_000_000;
        let lives = |at: &u64| self.fault == Fault::NeverExpires || at + 10 > slice;
        let live = self.events.iter().filter(|(at, _)| lives(at));
        self.reserve + live.map(|(_, amount)| amount).sum::<i64>()
    }

    fn push(&mut self, now: Timestamp, amount: i64) {
        self.events.push((now.as_nanos() / 100_000_000, amount));
    }
}

impl Subject for Twin {
    fn request(&mut self, now: Timestamp) {
        self.push(now, self.deposit);
    }

    fn withdraw(&mut self, now: Timestamp) -> Option<Withdrawal> {
        let needed = if self.fault == Fault::Overspends { 1 } else { 1_000_000 };
        if self.sum(now) < needed {
            return None;
        }
        if self.fault != Fault::DoubleSpends {
            self.push(now, -1_000_000);
        }
        self.in_flight += if self.fault == Fault::LeaksInFlight { 2 } else { 1 };
        Some(Withdrawal(()))
    }

    fn end_retry(&mut self, withdrawal: Withdrawal) {
        let Withdrawal(()) = withdrawal;
        self.in_flight -= 1;
    }

    fn balance(&self, now: Timestamp) -> u64 {
        self.sum(now).max(0) as u64 / 1_000_000
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

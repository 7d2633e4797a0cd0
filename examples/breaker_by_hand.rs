//! A circuit breaker without a runtime, a thread or a clock: time and chance are arguments.
//!
//! A service that is down from second 3 to second 30 is asked once a second, for a minute. No second passes while
//! it runs.
//!
//! ```sh
//! cargo run -p mesh-examples --example breaker_by_hand
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::time::Duration;

use mesh_core::{
    InvalidConfig, Outcome, SplitMix64, Timestamp,
    breaker::{Breaker, Config, State},
};

fn main() -> Result<(), InvalidConfig> {
    let config = Config::builder()
        .with_consecutive_failures(Some(3))
        .with_open_for(Duration::from_secs(30))
        .build()?;
    let breaker = Breaker::new(config, Timestamp::ZERO);
    let mut rng = SplitMix64::new(7);
    let (mut answered, mut failed, mut refused) = (0, 0, 0);

    for second in 0..60 {
        let now = Timestamp::from_secs(second);
        let permit = match breaker.try_acquire(now, &mut rng) {
            Ok(permit) => permit,
            Err(refusal) => {
                refused += 1;
                if refused % 10 == 1 {
                    let back = refusal.retry_after.unwrap_or_default();
                    println!("{second:>3} s  refused; come back in {back:.1?}");
                }
                continue;
            }
        };
        if let Some(transition) = permit.transition() {
            println!("{second:>3} s  {transition}");
        }
        let outcome =
            if (3..30).contains(&second) { Outcome::ServerError } else { Outcome::Success };
        match outcome.is_failure() {
            true => failed += 1,
            false => answered += 1,
        }
        // The answer comes 20 ms later, and goes back with the permit that admitted it.
        let later = now + Duration::from_millis(20);
        if let Some(transition) = breaker.on_outcome(later, &mut rng, permit, outcome) {
            println!("{second:>3} s  {transition}");
        }
    }

    println!("{answered} answered, {failed} failed, {refused} refused without being asked");
    assert_eq!(failed, 3, "of the 27 requests while it was down, three were let run into it");
    assert_eq!(breaker.state(Timestamp::from_secs(60)), State::Closed, "healed, so closed");
    Ok(())
}

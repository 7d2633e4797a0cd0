//! The roots of the operating system, read again from time to time: a package that distrusts an authority must not wait for
//! the next start of every program.
//!
//! Not watched as files are: there are many of them, or none (on other systems than Linux), and nothing hangs on the second.

use std::{future, sync::Weak, time::Duration};

use tokio::{task, time};

use super::{
    generation::of_the_system,
    inner::{Inner, Part},
};
use crate::{backend::Anchors, error::MaterialError};

/// Between the two readings that must agree: a package may be replacing file after file.
const SETTLE: Duration = Duration::from_millis(100);

/// Ends when the last handle is gone; never, where the roots are others.
pub(super) async fn follow(inner: Weak<Inner>) {
    let interval = match inner.upgrade() {
        None => return,
        Some(inner) if inner.config.roots.is_of_the_system() => inner.config.system_interval,
        Some(_) => return future::pending().await,
    };
    loop {
        time::sleep(interval).await;
        let first = read().await;
        time::sleep(SETTLE).await;
        let second = read().await;
        let Some(inner) = inner.upgrade() else { return };
        match (first, second) {
            (Ok(first), Ok(second)) if first == second => inner.update_system(Ok(second)),
            // Somebody is still writing. The next time is soon enough.
            (Ok(_), _) | (_, Ok(_)) => {}
            (Err(_), Err(error)) => inner.report(Part::System, Some(&error)),
        }
    }
}

async fn read() -> Result<Anchors, MaterialError> {
    let reading = task::spawn_blocking(of_the_system);
    reading.await.unwrap_or_else(|died| Err(MaterialError::from_source(died)))
}

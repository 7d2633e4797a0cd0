//! The one background job of a handle: looking at its files, at the roots of the system, and at the dates of what
//! is in use.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{self, MissedTickBehavior},
};

#[cfg(feature = "system-roots")]
use super::system;
use super::{
    ends::Ends,
    inner::{Inner, Part},
};
use crate::{
    error::{MaterialError, MaterialErrorKind},
    mesh::LOOK,
    source::Watched,
};

/// Between an error of reading and the next look.
const PAUSE: Duration = Duration::from_millis(100);

/// The job of an [`Origination`](super::Origination): without it, changed files are not noticed.
///
/// It is a future for the caller to spawn. It ends when the last handle and connector are gone. When it is dropped before
/// them, [`Origination::status`](super::Origination::status) says so, unless nothing could have changed: roots that were
/// given, and no file.
#[must_use = "without its driver changed files are not noticed; spawn it"]
pub struct Driver {
    job: Pin<Box<dyn Future<Output = ()> + Send>>,
    _alarm: Alarm,
}

/// Tells the handles when the job ends before them.
struct Alarm(Weak<Inner>);

// === impl Driver ===

impl Driver {
    pub(super) fn new(inner: &Arc<Inner>, files: Watched) -> Self {
        let handles = inner.published.subscribe();
        let job = Box::pin(follow(Arc::downgrade(inner), handles, files));
        Self { job, _alarm: Alarm(Arc::downgrade(inner)) }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.job.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

// === impl Alarm ===

impl Drop for Alarm {
    fn drop(&mut self) {
        // Where nothing can change, nobody misses it.
        if let Some(inner) = self.0.upgrade().filter(|inner| inner.config.changes()) {
            let ended = MaterialError::new(MaterialErrorKind::DriverEnded);
            inner.report(Part::Driver, Some(&ended));
        }
    }
}

/// Holds the handle weakly: a job that kept its own handle alive would never end.
async fn follow(inner: Weak<Inner>, mut handles: watch::Receiver<u64>, mut files: Watched) {
    let mut gone = pin!(async move { while handles.changed().await.is_ok() {} });
    let (mut ends, mut look) = (Ends::default(), time::interval(LOOK));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    #[cfg(feature = "system-roots")]
    let mut system = pin!(system::follow(Weak::clone(&inner)));
    #[cfg(not(feature = "system-roots"))]
    let mut system = pin!(std::future::pending::<()>());
    loop {
        let changed = {
            // Pinned, because a look at the dates must not drop it: it would begin its pause again.
            let mut next = pin!(files.changed());
            loop {
                tokio::select! {
                    changed = &mut next => break changed,
                    () = &mut gone => return,
                    () = &mut system => return,
                    _ = look.tick() => {
                        let Some(inner) = inner.upgrade() else { return };
                        ends.look(&inner);
                    }
                }
            }
        };
        let Some(inner) = inner.upgrade() else { return };
        match changed {
            Ok(contents) => inner.update(&contents.0),
            Err(error) => {
                inner.report(Part::Files, Some(&error));
                drop(inner);
                time::sleep(PAUSE).await;
            }
        }
    }
}

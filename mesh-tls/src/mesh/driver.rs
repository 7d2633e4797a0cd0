//! The one background job of a handle: asking the source for updates.

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

use super::{
    Shared,
    expiry::{Expiry, LOOK, Name},
};
use crate::{
    error::{MaterialErrorKind, Untrusted},
    material::Material,
    source::{IdentitySource, SourceEvent},
};

/// Between an error and the next question: a source that fails at once must not spin.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How often material that came too early is tried again. Clocks are seconds apart, not milliseconds.
const RETRY: Duration = Duration::from_secs(5);

/// The job of a [`MeshTls`](crate::MeshTls): without it, the identity never rotates.
///
/// It is a future for the caller to spawn. It ends when the last handle, connector and acceptor are gone. When it is
/// dropped before them, or its source panics, [`MeshTls::status`](crate::MeshTls::status) says so, and the next handshake
/// logs a warning.
#[must_use = "without its driver an identity never rotates; spawn it"]
pub struct Driver {
    job: Pin<Box<dyn Future<Output = ()> + Send>>,
    _alarm: Alarm,
}

impl Driver {
    pub(super) fn new(shared: &Arc<Shared>, source: impl IdentitySource) -> Self {
        let handles = shared.published.subscribe();
        let job = Box::pin(run(Arc::downgrade(shared), handles, source));
        Self { job, _alarm: Alarm(Arc::downgrade(shared)) }
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

/// Tells the handles when the job ends before them. Not aloud: at the end of a program the runtime drops the job, and
/// whoever still uses the identity hears of it at the next handshake.
struct Alarm(Weak<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.driver_ended();
        }
    }
}

/// Holds the handle weakly: a job that kept its own handle alive would never end.
async fn run(
    shared: Weak<Shared>,
    mut handles: watch::Receiver<u64>,
    mut source: impl IdentitySource,
) {
    // Refused for its dates alone. The source has said its word and will not repeat it.
    let mut early = None;
    let mut retry = time::interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut expiry, mut look) = (Expiry::default(), time::interval(LOOK));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = {
            // Pinned, because the retries must not drop it.
            let mut next = pin!(source.next());
            loop {
                tokio::select! {
                    event = &mut next => break event,
                    () = all_dropped(&mut handles) => return,
                    _ = retry.tick(), if early.is_some() => {
                        let Some(shared) = shared.upgrade() else { return };
                        early = early.take().and_then(|material| publish(&shared, material));
                    }
                    _ = look.tick() => {
                        let Some(shared) = shared.upgrade() else { return };
                        if let Some(current) = shared.current() {
                            let own = &current.own;
                            let dates = (own.not_before(), own.not_after());
                            expiry.look(Name::Id(own.id()), dates, shared.provider.clock.now());
                        }
                    }
                }
            }
        };
        let Some(shared) = shared.upgrade() else { return };
        match event {
            Ok(SourceEvent::Update(material)) => {
                early = publish(&shared, material);
                retry.reset();
            }
            Ok(SourceEvent::Withdrawn) => {
                early = None;
                shared.withdraw();
            }
            Err(error) => {
                shared.counters.add(super::Counter::SourceErrors);
                shared.report(&error);
                if let Some(trust) = error.trust() {
                    // What waits for its time may trust more than this.
                    early = None;
                    shared.narrow(trust);
                }
                drop(shared);
                time::sleep(PAUSE).await;
            }
        }
    }
}

/// The material again, if it was refused only because its time has not come.
fn publish(shared: &Shared, material: Material) -> Option<Material> {
    let again = material.duplicate();
    // A refusal has been counted and reported; the next update may be better.
    let error = shared.publish(material).err()?;
    let too_early = MaterialErrorKind::OwnCertificate(Untrusted::NotYetValid);
    (*error.kind() == too_early).then_some(again)
}

async fn all_dropped(handles: &mut watch::Receiver<u64>) {
    while handles.changed().await.is_ok() {}
}

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout_at};

use super::{
    MakeEndpoint,
    discovery::{self, Source},
    plan::Shared,
};
use crate::Clock;

/// How often the endpoints' services may do their housekeeping.
const MAINTENANCE: Duration = Duration::from_secs(1);

/// What must happen without traffic: ejected endpoints come back, idle connections are closed, discovery is followed.
///
/// One future for each upstream, to be spawned or polled by its owner. It never blocks a request, and ends when the last
/// clone of its upstream is gone. Cancel safe: dropping it stops the timers, nothing else.
#[must_use = "an upstream's driver does nothing unless polled"]
pub struct Driver {
    drive: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Ends before the other if its source does.
    follow: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Driver {
    pub(super) fn new<M>(shared: &Arc<Shared<M>>) -> Self
    where
        M: MakeEndpoint + Send + Sync + 'static,
        M::Service: Clone + Send + Sync + 'static,
    {
        Self {
            drive: Box::pin(drive(Arc::downgrade(shared), shared.changed.clone())),
            follow: None,
        }
    }

    /// Follows a source of endpoints too.
    pub(super) fn with_discovery<M>(self, shared: &Arc<Shared<M>>, source: Source) -> Self
    where
        M: MakeEndpoint + Send + Sync + 'static,
        M::Service: Clone + Send + Sync + 'static,
    {
        let follow = Box::pin(discovery::follow(Arc::downgrade(shared), source));
        Self { follow: Some(follow), ..self }
    }
}

async fn drive<M>(shared: Weak<Shared<M>>, changed: Arc<Notify>)
where
    M: MakeEndpoint + Send + Sync,
    M::Service: Clone + Send + Sync,
{
    let mut maintenance = Clock.now() + MAINTENANCE;
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let now = Clock.now();
            let plan = shared.plan.load();
            plan.on_timeout(now, &shared.chance);
            if now >= maintenance {
                maintenance = now + MAINTENANCE;
                for member in plan.subsets.iter().flat_map(|cluster| cluster.members.iter()) {
                    shared.make.maintain(&member.service, now);
                }
            }
            plan.poll_timeout().map_or(maintenance, |timer| timer.min(maintenance))
        };
        // An early wake-up is harmless: the machines ask the clock, not the timer.
        let _elapsed = timeout_at(Clock.instant(next), changed.notified()).await;
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // First what is new: the other half may have to act on it.
        if let Some(follow) = &mut self.follow
            && follow.as_mut().poll(cx).is_ready()
        {
            self.follow = None;
        }
        self.drive.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

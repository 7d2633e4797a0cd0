use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
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
use crate::{
    Clock,
    health::{self, Rounds},
};

/// How often the endpoints' services may do their housekeeping.
const MAINTENANCE: Duration = Duration::from_secs(1);

/// What must happen without traffic: ejected endpoints come back, idle connections are closed, endpoints are checked,
/// discovery is followed.
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
    pub(super) fn new<M>(shared: &Arc<Shared<M>>, checks: Option<health::Settings>) -> Self
    where
        M: MakeEndpoint + Send + Sync + 'static,
        M::Service: Clone + Send + Sync + 'static,
    {
        let rounds = checks.map(Rounds::new);
        Self {
            drive: Box::pin(drive(Arc::downgrade(shared), shared.changed.clone(), rounds)),
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

async fn drive<M>(shared: Weak<Shared<M>>, changed: Arc<Notify>, mut rounds: Option<Rounds>)
where
    M: MakeEndpoint + Send + Sync,
    M::Service: Clone + Send + Sync,
{
    let mut maintenance = Clock.now() + MAINTENANCE;
    // Which plan the checks follow.
    let mut followed = 0;
    let mut has_changed = true;
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let now = Clock.now();
            shared.refresh(now);
            let plan = shared.plan.load();
            // An ejection that ends says nothing by itself.
            has_changed |= plan.poll_timeout().is_some_and(|timer| now >= timer);
            plan.on_timeout(now, &shared.chance);
            plan.refresh_places(now);
            let is_beat = now >= maintenance;
            if std::mem::take(&mut has_changed) || is_beat {
                shared.tell_lives(&plan);
            }
            if is_beat {
                maintenance = now + MAINTENANCE;
                for member in plan.subsets.iter().flat_map(|cluster| cluster.members.iter()) {
                    shared.make.maintain(&member.service, now);
                }
            }
            let mut next = plan.poll_timeout().map_or(maintenance, |timer| timer.min(maintenance));
            if let Some(rounds) = &mut rounds {
                if std::mem::replace(&mut followed, plan.number) != plan.number {
                    rounds.follow(&shared.endpoints(), now, &mut shared.chance.rng());
                }
                rounds.start(now);
                next = rounds.poll_timeout().map_or(next, |check| check.min(next));
            }
            next
        };
        // An early wake-up is harmless: the machines ask the clock, not the timer.
        let mut timer = pin!(timeout_at(Clock.instant(next), changed.notified()));
        let ended = poll_fn(|cx| {
            if let Some(rounds) = &mut rounds
                && let Some(shared) = shared.upgrade()
            {
                let mut rng = shared.chance.rng();
                if let Poll::Ready(ended) = rounds.poll_ended(cx, || Clock.now(), &mut rng) {
                    return Poll::Ready(Some(ended));
                }
            }
            timer.as_mut().poll(cx).map(|woken| {
                has_changed = woken.is_ok();
                None
            })
        });
        let ended = ended.await;
        if let (Some(ended), Some(shared)) = (ended, shared.upgrade()) {
            shared.on_check(&ended);
        }
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

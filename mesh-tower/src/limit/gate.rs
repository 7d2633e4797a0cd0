use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{Ordering, fence},
    },
    task::{Context, Poll, Waker},
};

use mesh_core::{
    Outcome,
    limit::{Config, Limits, Permit, Resource, adaptive},
};

use super::driven::Adaptive;
use crate::Chance;

/// The slots and the queue in front of them.
///
/// A slot that is free while nobody waits costs two atomic operations. The lock is taken only by those who wait, and
/// by those who leave while somebody waits.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    /// In place of the limit on requests, if there is one.
    adaptive: Option<Adaptive>,
    queue: Mutex<Queue>,
}

/// Who waits, and who may go in but has not looked yet. Ordered by the number drawn, which is the order of arrival.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    admitted: BTreeMap<u64, Pass>,
}

#[derive(Debug)]
struct Waiting {
    pending: Permit,
    waker: Option<Waker>,
}

/// A slot of whichever limit there is.
#[derive(Debug)]
enum Pass {
    Fixed(Permit),
    Adaptive(adaptive::Permit),
}

/// What comes of asking for a slot.
#[derive(Debug)]
pub(crate) enum Entry {
    Slot(Slot),
    Queued(Ticket),
}

impl Gate {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        Arc::new(Self { limits: Limits::new(config), adaptive: None, queue: Mutex::default() })
    }

    /// The limit on requests is a learnt one, and of `config` only the queue's counts.
    pub(crate) fn adaptive(
        config: Config,
        adaptive: adaptive::Config,
        chance: Chance,
    ) -> Arc<Self> {
        let adaptive = Some(Adaptive::new(adaptive, chance));
        Arc::new(Self { limits: Limits::new(config), adaptive, queue: Mutex::default() })
    }

    /// A slot, or a place in the queue. If both are taken, what there is none of: pending requests, or requests if
    /// there is no queue at all.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Entry, Resource> {
        // Nobody may overtake those who wait: a queue, however short, is joined.
        if self.limits.in_use(Resource::Pending) > 0 {
            return self.queue_up(false);
        }
        match self.try_pass() {
            Some(pass) => Ok(Entry::Slot(self.slot(pass))),
            None => self.queue_up(true),
        }
    }

    fn try_pass(&self) -> Option<Pass> {
        match &self.adaptive {
            None => self.limits.try_acquire(Resource::Requests).ok().map(Pass::Fixed),
            Some(adaptive) => adaptive.try_acquire().map(Pass::Adaptive),
        }
    }

    /// `asked`: the caller asked for a slot, and there was none; by now there may be one again.
    fn queue_up(self: &Arc<Self>, asked: bool) -> Result<Entry, Resource> {
        let mut queue = self.lock();
        let pending = match self.limits.try_acquire(Resource::Pending) {
            Ok(pending) => pending,
            Err(full) => {
                self.adaptive.iter().for_each(Adaptive::on_refused);
                let has_queue = full.limit() > 0 || !asked;
                return Err(if has_queue { Resource::Pending } else { Resource::Requests });
            }
        };
        // Paired with the fence in `release`: either this thread sees the slot that another gives back now, or the
        // other sees that somebody waits. Without it both may look away, and the request would wait for ever.
        fence(Ordering::SeqCst);
        if queue.waiting.is_empty()
            && let Some(pass) = self.try_pass()
        {
            self.limits.release(pending);
            return Ok(Entry::Slot(self.slot(pass)));
        }
        let number = queue.next;
        queue.next += 1;
        queue.waiting.insert(number, Waiting { pending, waker: None });
        Ok(Entry::Queued(Ticket { gate: Arc::clone(self), number, done: false }))
    }

    pub(crate) fn set_config(&self, config: &Config) {
        self.limits.set_config(config);
        self.admit();
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// For metrics.
    pub(crate) fn set_name(&self, name: &Arc<str>) {
        self.adaptive.iter().for_each(|adaptive| adaptive.set_name(name));
    }

    pub(crate) fn learnt(&self) -> Option<&Adaptive> {
        self.adaptive.as_ref()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        match &self.adaptive {
            None => self.limits.in_use(Resource::Requests),
            Some(adaptive) => adaptive.limiter().in_flight(),
        }
    }

    fn slot(self: &Arc<Self>, pass: Pass) -> Slot {
        Slot { gate: Arc::clone(self), pass: Some(pass), outcome: Outcome::Cancelled }
    }

    fn release(&self, pass: Pass, outcome: Outcome) {
        match (pass, &self.adaptive) {
            (Pass::Fixed(permit), _) => self.limits.release(permit),
            (Pass::Adaptive(permit), Some(adaptive)) => adaptive.release(permit, outcome),
            (Pass::Adaptive(_), None) => unreachable!("a gate keeps its limiter"),
        }
        fence(Ordering::SeqCst);
        if self.limits.in_use(Resource::Pending) > 0 {
            self.admit();
        }
    }

    /// Lets in as many as there are slots. The lock is let go before anybody is woken: a waker is foreign code.
    fn admit(&self) {
        while let Some(waker) = self.admit_first() {
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn admit_first(&self) -> Option<Option<Waker>> {
        let mut queue = self.lock();
        let first = *queue.waiting.first_key_value()?.0;
        let pass = self.try_pass()?;
        queue.admitted.insert(first, pass);
        let waiting = queue.waiting.remove(&first)?;
        self.limits.release(waiting.pending);
        Some(waiting.waker)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in flight; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Slot {
    gate: Arc<Gate>,
    pass: Option<Pass>,
    outcome: Outcome,
}

impl Slot {
    /// Whether anybody wants to know how the request has ended.
    pub(crate) fn learns(&self) -> bool {
        matches!(self.pass, Some(Pass::Adaptive(_)))
    }

    /// How the request has ended, for an adaptive limit to learn from. Without it, it was cancelled.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.gate.release(pass, self.outcome);
        }
    }
}

/// A place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    number: u64,
    done: bool,
}

impl Ticket {
    /// Ready when it is this request's turn. Not to be polled again after that.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Slot> {
        let mut queue = self.gate.lock();
        if let Some(pass) = queue.admitted.remove(&self.number) {
            drop(queue);
            self.done = true;
            return Poll::Ready(self.gate.slot(pass));
        }
        if let Some(waiting) = queue.waiting.get_mut(&self.number)
            && !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            waiting.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut queue = self.gate.lock();
        let waiting = queue.waiting.remove(&self.number);
        let admitted = queue.admitted.remove(&self.number);
        drop(queue);
        if let Some(waiting) = waiting {
            self.gate.limits.release(waiting.pending);
        }
        // Its turn had come, and it did not take it: the next one's, then.
        if let Some(pass) = admitted {
            self.gate.release(pass, Outcome::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, thread};

    use tokio::sync::Barrier;

    use super::*;

    fn gate(requests: u32, pending: u32) -> Arc<Gate> {
        Gate::new(Config::unlimited().with_max_requests(requests).with_max_pending(pending))
    }

    fn slot(entry: Result<Entry, Resource>) -> Slot {
        match entry.unwrap() {
            Entry::Slot(slot) => slot,
            Entry::Queued(_) => panic!("queued"),
        }
    }

    fn ticket(entry: Result<Entry, Resource>) -> Ticket {
        match entry.unwrap() {
            Entry::Queued(ticket) => ticket,
            Entry::Slot(_) => panic!("not queued"),
        }
    }

    fn poll(ticket: &mut Ticket) -> Poll<Slot> {
        ticket.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn in_use(gate: &Gate) -> (u32, u32) {
        (gate.limits.in_use(Resource::Requests), gate.limits.in_use(Resource::Pending))
    }

    #[test]
    fn first_come_first_served() {
        let gate = gate(1, 2);
        let first = slot(gate.enter());
        let mut second = ticket(gate.enter());
        let mut third = ticket(gate.enter());
        assert_eq!(gate.enter().unwrap_err(), Resource::Pending);
        assert!(poll(&mut third).is_pending());
        drop(first);
        assert!(poll(&mut third).is_pending());
        let Poll::Ready(second) = poll(&mut second) else { panic!("its turn has come") };
        drop(second);
        assert!(poll(&mut third).is_ready());
        assert_eq!(in_use(&gate), (0, 0));
    }

    #[test]
    fn without_a_queue_the_requests_are_what_is_full() {
        let gate = gate(1, 0);
        let _first = slot(gate.enter());
        assert_eq!(gate.enter().unwrap_err(), Resource::Requests);
    }

    #[test]
    fn nobody_overtakes_the_queue() {
        let gate = gate(1, 2);
        let first = slot(gate.enter());
        let mut second = ticket(gate.enter());
        drop(first);
        // The slot belongs to the second, though it has not looked yet.
        let third = ticket(gate.enter());
        assert!(poll(&mut second).is_ready());
        drop(third);
        assert_eq!(in_use(&gate), (0, 0));
    }

    /// In the moment between a release and the admission of the first in the queue.
    #[test]
    fn a_slot_that_is_free_for_a_moment_is_not_snatched() {
        let gate = gate(1, 2);
        let mut first = slot(gate.enter());
        let mut second = ticket(gate.enter());
        let Some(Pass::Fixed(permit)) = first.pass.take() else { panic!("a fixed limit") };
        gate.limits.release(permit);
        let third = ticket(gate.enter());
        gate.admit();
        assert!(poll(&mut second).is_ready());
        drop(third);
    }

    /// In the moment between a vain look for a slot and the joining of the queue: who released it saw nobody wait.
    #[test]
    fn a_slot_that_came_free_before_the_queue_was_joined_is_taken() {
        let gate = gate(1, 2);
        let first = slot(gate.enter());
        assert!(gate.try_pass().is_none());
        drop(first);
        drop(slot(gate.queue_up(true)));
        assert_eq!(in_use(&gate), (0, 0));
    }

    #[test]
    fn who_leaves_the_queue_gives_the_place_and_the_turn_back() {
        let gate = gate(1, 2);
        let first = slot(gate.enter());
        let second = ticket(gate.enter());
        let third = ticket(gate.enter());
        drop(second);
        assert_eq!(in_use(&gate), (1, 1));
        let mut fourth = ticket(gate.enter());
        drop(first);
        drop(third);
        assert!(poll(&mut fourth).is_ready());
        assert_eq!(in_use(&gate), (0, 0));
    }

    #[test]
    fn a_raised_limit_lets_the_queue_in_and_a_lowered_one_drains() {
        let gate = gate(1, 5);
        let first = slot(gate.enter());
        let mut queue: Vec<_> = (0..3).map(|_| ticket(gate.enter())).collect();
        gate.set_config(&Config::unlimited().with_max_requests(3));
        let mut polled = queue.iter_mut().map(poll);
        let (Some(Poll::Ready(second)), Some(Poll::Ready(third))) = (polled.next(), polled.next())
        else {
            panic!("there are slots for two")
        };
        assert!(polled.next().unwrap().is_pending());
        gate.set_config(&Config::unlimited().with_max_requests(1));
        drop((first, second));
        assert!(poll(&mut queue[2]).is_pending(), "one is still in flight");
        drop(third);
        assert!(poll(&mut queue[2]).is_ready());
    }

    /// Threads that enter, wait and leave as fast as they can: no wake-up may get lost, no slot may be minted.
    #[test]
    fn no_wake_up_is_lost_between_threads() {
        hammer(&gate(1, 100));
    }

    #[test]
    fn none_is_lost_with_an_adaptive_limit() {
        let one = adaptive::Aimd::default().with_initial_limit(1).with_min_limit(1);
        let one = one.with_max_limit(1).build().unwrap();
        hammer(&Gate::adaptive(
            Config::unlimited().with_max_pending(100),
            one.with_window(adaptive::Window::EVERY_SAMPLE),
            Chance::default(),
        ));
    }

    fn hammer(gate: &Arc<Gate>) {
        const THREADS: usize = 4;
        let start = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (gate, start) = (Arc::clone(gate), Arc::clone(&start));
                thread::spawn(move || {
                    let work = async {
                        start.wait().await;
                        for round in 0..20_000 {
                            let slot = match gate.enter().unwrap() {
                                Entry::Slot(slot) => slot,
                                Entry::Queued(ticket) if round % 7 == 0 => {
                                    drop(ticket);
                                    continue;
                                }
                                Entry::Queued(mut ticket) => {
                                    std::future::poll_fn(|cx| ticket.poll(cx)).await
                                }
                            };
                            assert_eq!(gate.in_flight(), 1);
                            slot.finish(Outcome::Success);
                        }
                    };
                    let limit = std::time::Duration::from_secs(60);
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_time().build();
                    runtime.unwrap().block_on(async {
                        let work = pin!(work);
                        tokio::time::timeout(limit, work).await.expect("a wake-up was lost");
                    });
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((gate.in_flight(), gate.limits.in_use(Resource::Pending)), (0, 0));
    }
}

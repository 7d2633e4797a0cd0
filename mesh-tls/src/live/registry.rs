//! Every connection of one identity, to be marked when something changes.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Live;

/// Holds connections weakly: who is gone leaves at the next growth, so the list is at most twice as long as it need
/// be, and a new connection costs a push.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    connections: Mutex<Vec<Weak<Live>>>,
}

impl Registry {
    pub(crate) fn register(&self) -> Arc<Live> {
        let live = Arc::new(Live::new());
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() == connections.capacity() {
            connections.retain(|one| one.strong_count() > 0);
            let room = connections.len().max(8);
            connections.reserve(room);
        }
        connections.push(Arc::downgrade(&live));
        live
    }

    /// Something that lets connections in has changed. Those it does not concern find that out at once.
    pub(crate) fn changed(&self) {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        // Woken outside the lock: a waker may run what drops a connection or makes one.
        let alive: Vec<_> = connections.iter().filter_map(Weak::upgrade).collect();
        drop(connections);
        alive.iter().for_each(|one| one.mark());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::State;

    #[test]
    fn a_change_marks_those_who_live_and_forgets_the_others() {
        let registry = Registry::default();
        let kept = registry.register();
        assert_eq!(kept.state(), State::Marked, "judged before its first octet");
        assert!(kept.unmark());
        for _ in 0..10_000 {
            drop(registry.register());
        }
        assert!(registry.connections.lock().unwrap().capacity() < 64, "the list does not grow");
        registry.changed();
        assert_eq!(kept.state(), State::Marked);
    }

    #[test]
    fn a_mark_does_not_undo_a_drain() {
        let registry = Registry::default();
        let live = registry.register();
        live.drain();
        registry.changed();
        assert_eq!(live.state(), State::Draining);
        assert!(!live.unmark());
        live.close();
        live.drain();
        assert_eq!(live.state(), State::Closed);
    }
}

//! An endpoint as a view of a cluster knows it, and when it may be picked there.

use std::sync::Arc;

use mesh_core::{
    Timestamp, Weight,
    balance::{Candidate, Load, report::Reported},
};

use crate::upstream::subset::{EndpointState, Member};

/// An endpoint, and where it stands among the members of its cluster: views share the state, and hold no services.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) state: Arc<EndpointState>,
    pub(super) weight: Weight,
    pub(super) member: u32,
}

impl Seat {
    pub(super) fn of<S>(index: usize, member: &Member<S>) -> Self {
        let (state, weight) = (member.state.clone(), member.endpoint.weight());
        // Beyond 2³² endpoints it would be the wrong one, of a list that no memory holds.
        Self { state, weight, member: index as u32 }
    }
}

/// A candidate that knows its seat.
pub(super) trait Seated: Candidate {
    fn seat(&self) -> &Seat;
}

/// An endpoint that is picked if it is well.
#[derive(Clone, Debug)]
pub(super) struct Well(pub(super) Seat);

/// An endpoint that is picked well or not: in panic it is rather doubted what is said of it.
#[derive(Clone, Debug)]
pub(super) struct Doubted(pub(super) Seat);

impl Seated for Well {
    fn seat(&self) -> &Seat {
        &self.0
    }
}

impl Seated for Doubted {
    fn seat(&self) -> &Seat {
        &self.0
    }
}

impl Candidate for Well {
    fn load(&self) -> &Load {
        self.0.state.load()
    }

    fn weight(&self) -> Weight {
        self.0.weight
    }

    fn is_available(&self, now: Timestamp) -> bool {
        self.0.state.is_in_rotation() && self.0.state.is_admitted(now)
    }

    fn available_since(&self) -> Option<Timestamp> {
        self.0.state.since.get()
    }

    fn reported(&self) -> Option<&Reported> {
        Some(self.0.state.reported())
    }
}

impl Candidate for Doubted {
    fn load(&self) -> &Load {
        self.0.state.load()
    }

    fn weight(&self) -> Weight {
        self.0.weight
    }

    fn is_available(&self, now: Timestamp) -> bool {
        self.0.state.is_admitted(now)
    }

    fn available_since(&self) -> Option<Timestamp> {
        self.0.state.since.get()
    }

    fn reported(&self) -> Option<&Reported> {
        Some(self.0.state.reported())
    }
}

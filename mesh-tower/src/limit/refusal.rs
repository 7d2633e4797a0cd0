use std::sync::Arc;

use mesh_core::limit::Resource;

use crate::error::{MeshError, Reason};

/// Which side of the wire a limit stands on: the same refusal has two names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Words the refusals of one limit.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    side: Side,
    name: Option<Arc<str>>,
}

impl Refusals {
    pub(crate) fn new(side: Side) -> Self {
        Self { side, name: None }
    }

    pub(crate) fn named(mut self, name: Arc<str>) -> Self {
        self.name = Some(name);
        self
    }

    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// No slot, and no place in the queue; or too long in the queue.
    pub(crate) fn full(&self, resource: Resource) -> MeshError {
        self.error(match self.side {
            Side::Client => Reason::Overflow(resource),
            Side::Server => Reason::Overloaded,
        })
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn late(&self) -> MeshError {
        self.error(Reason::DeadlineExceeded)
    }

    fn error(&self, reason: Reason) -> MeshError {
        let error = MeshError::new(reason);
        match &self.name {
            Some(name) => error.with_upstream(Arc::clone(name)),
            None => error,
        }
    }
}

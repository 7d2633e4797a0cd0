use super::subset::EndpointState;

/// How many endpoints a request remembers. Policies with more retries are rare, and a forgotten one costs no more than
/// a second visit.
const SIZE: usize = 4;

/// The endpoints that a request has tried, so that a retry goes to another one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    ids: [u32; SIZE],
    attempts: usize,
}

impl Tried {
    pub(super) fn push(&mut self, endpoint: &EndpointState) {
        self.ids[self.attempts % SIZE] = endpoint.id;
        self.attempts += 1;
    }

    pub(super) fn contains(&self, endpoint: &EndpointState) -> bool {
        self.ids[..self.attempts.min(SIZE)].contains(&endpoint.id)
    }
}

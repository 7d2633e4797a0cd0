use std::num::NonZeroU64;

use http::{HeaderValue, Response, header, request::Parts};
use mesh_core::{
    Rng,
    balance::{hash::SetCookie, priority::Attempted},
};

use super::{Criteria, hash::RequestHead, plan::Cluster, subset::Subset};

/// What a request says of where its attempts go, if anything does. Two words: every request's future has them.
#[derive(Default)]
pub(super) struct Key {
    /// A hash of 0 counts as 1.
    hash: Option<NonZeroU64>,
    rest: Option<Box<Rest>>,
}

/// What few requests have.
#[derive(Default)]
struct Rest {
    /// To be set on the response.
    cookies: Vec<HeaderValue>,
    /// Which endpoints it asks for, if the policy knows such.
    criteria: Option<Criteria>,
    /// The priorities of the attempts so far, where a retry goes elsewhere.
    attempted: Option<Attempted>,
    /// The endpoints that it asks no more.
    barred: Vec<u32>,
}

impl Key {
    #[inline]
    pub(super) fn read<S>(
        &mut self,
        cluster: &Cluster<S>,
        head: Option<&Parts>,
        rng: &mut impl Rng,
    ) {
        let (Some(_), Some(head)) = (&cluster.places, head) else { return };
        self.read_head(&cluster.roster.subset, head, rng);
    }

    /// Apart from the way of those who have no key.
    #[inline(never)]
    fn read_head(&mut self, subset: &Subset, head: &Parts, rng: &mut impl Rng) {
        if subset.policy.label_subsets().is_some()
            && let Some(criteria) = head.extensions.get()
        {
            self.rest().criteria = Some(Criteria::clone(criteria));
        }
        let Some(hash) = subset.policy.hash() else { return };
        let mut cookies = Vec::new();
        let set = |cookie: SetCookie<'_>| {
            cookies.extend(HeaderValue::try_from(cookie.to_string()).ok());
        };
        let key = hash.key().hash(&RequestHead(head), rng, set);
        let key = key.unwrap_or_else(|| rng.next_u64());
        self.hash = Some(NonZeroU64::new(key).unwrap_or(NonZeroU64::MIN));
        if !cookies.is_empty() {
            self.rest().cookies = cookies;
        }
    }

    pub(super) fn hash(&self) -> Option<u64> {
        self.hash.map(NonZeroU64::get)
    }

    /// Which endpoints it asks for, and the priorities of the attempts so far, of which each so many are avoided; 0: none is.
    pub(super) fn wishes(&mut self, every: u32) -> (Option<&Criteria>, Option<&mut Attempted>) {
        if let Ok(attempted) = Attempted::every(every) {
            self.rest().attempted.get_or_insert(attempted);
        }
        match &mut self.rest {
            Some(rest) => (rest.criteria.as_ref(), rest.attempted.as_mut().filter(|_| every > 0)),
            None => (None, None),
        }
    }

    /// Which endpoints it asks for.
    pub(super) fn criteria(&self) -> Option<&Criteria> {
        self.rest.as_ref().and_then(|rest| rest.criteria.as_ref())
    }

    /// The endpoints that it asks no more, by their numbers.
    pub(super) fn barred(&self) -> &[u32] {
        self.rest.as_ref().map_or(&[], |rest| &rest.barred)
    }

    /// It asks that endpoint no more.
    #[cold]
    pub(super) fn bar(&mut self, endpoint: u32) {
        self.rest().barred.push(endpoint);
    }

    /// An attempt goes to that priority.
    pub(super) fn on_attempt(&mut self, priority: usize) {
        if let Some(attempted) = self.rest.as_mut().and_then(|rest| rest.attempted.as_mut()) {
            attempted.on_attempt(priority);
        }
    }

    #[inline]
    pub(super) fn has_cookies(&self) -> bool {
        self.rest.is_some()
    }

    /// Gives the caller the cookies that it shall have.
    #[cold]
    pub(super) fn set_cookies<B, E>(&mut self, result: Result<&mut Response<B>, E>) {
        let (Ok(response), Some(rest)) = (result, &mut self.rest) else { return };
        for cookie in rest.cookies.drain(..) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }
}

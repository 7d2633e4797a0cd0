use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower_service::Service;

use super::{Member, future::ResponseFuture};
use crate::{
    classify::{Classify, Standard},
    error::BoxError,
    timer::Timer,
};

/// One endpoint's service, under outlier detection. See the [module's docs](super).
///
/// Cancel safety: a dropped future says nothing about the endpoint; there is nothing to give back.
#[derive(Debug)]
pub struct Outlier<S, C = Standard> {
    inner: S,
    member: Arc<Member>,
    classify: C,
    timer: Option<Pin<Box<Timer>>>,
}

impl<S, C> Outlier<S, C> {
    pub(super) fn new(inner: S, member: Arc<Member>, classify: C) -> Self {
        Self { inner, member, classify, timer: None }
    }

    /// Whether the endpoint is out of rotation.
    pub fn is_ejected(&self) -> bool {
        self.member.is_ejected()
    }
}

impl<S, C, Req> Service<Req> for Outlier<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        while let Some(until) = self.member.ejected_until() {
            let timer = self.timer.get_or_insert_with(|| Box::pin(Timer::default()));
            ready!(timer.as_mut().poll_at(cx, until));
        }
        self.timer = None;
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let member = Arc::clone(&self.member);
        ResponseFuture::new(self.inner.call(request), member, self.classify.clone())
    }
}

impl<S: Clone, C: Clone> Clone for Outlier<S, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.member), self.classify.clone())
    }
}

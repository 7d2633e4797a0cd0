use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{future::ResponseFuture, layer::Shared};
use crate::{
    BoxError,
    body::ReplayBody,
    classify::{Classify, Standard},
};

/// Hedges requests. Made by [`HedgeLayer`](super::HedgeLayer); see the [module's docs](super).
#[derive(Clone, Debug)]
pub struct Hedge<S, C = Standard> {
    inner: S,
    shared: Arc<Shared>,
    classify: C,
}

impl<S, C> Hedge<S, C> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, classify: C) -> Self {
        Self { inner, shared, classify }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, alone.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, B, RB> Service<Request<B>> for Hedge<S, C>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<Response<RB>> + Clone,
    B: Body<Data = Bytes> + Unpin,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = ResponseFuture<S, C, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The instance that is ready makes the first attempt; its clone, which is not, stays here, and hedges are made
        // on clones of that.
        let clone = self.inner.clone();
        let spare = clone.clone();
        let ready = mem::replace(&mut self.inner, clone);
        ResponseFuture::new(ready, spare, self.shared.clone(), self.classify.clone(), request)
    }
}

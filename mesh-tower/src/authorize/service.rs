use std::{
    borrow::Cow,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    Caller, FORWARDED_CLIENT_CERT, Mode,
    future::ResponseFuture,
    handle::Shared,
    head::{RequestHead, normalized, remove},
    policy,
};
use crate::{
    body::AnswerBody,
    classify::is_grpc,
    error::{MeshError, Reason},
};

/// Lets through what the policies allow. See the [module's docs](super).
///
/// Cancel safety: a decision is made in `call`; nothing is held.
#[derive(Clone, Debug)]
pub struct Authorize<S, C> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared>,
    pub(super) caller: C,
    pub(super) keep_forwarded: bool,
}

impl<S, C: Caller> Authorize<S, C> {
    /// Why the request may not pass.
    fn judge<B>(&self, request: &mut Request<B>) -> Result<(), Reason> {
        if !self.keep_forwarded {
            remove(request.headers_mut(), &FORWARDED_CLIENT_CERT);
        }
        let current = self.shared.current.load();
        if current.authorizer.is_empty() {
            return Ok(());
        }
        let is_watching = self.shared.mode() == Mode::Watch;
        let level = current.authorizer.config().normalization();
        let normal = normalized(request.uri(), level);
        let connection = self.caller.connection(request.extensions());
        // The path as it was sent: whoever routed the request before has seen no other.
        let head = RequestHead::new(request.method(), request.uri(), request.headers());
        let decision = current.authorizer.decide(&connection, &head);
        // Judged by one host or path, and handled as another.
        let is_clear = normal.is_some()
            && head.is_of_one_host()
            && decision.reason() != policy::Reason::BadPath;
        let is_allowed = is_clear && decision.is_allowed();
        current.observer.decided(&decision, is_clear, is_watching, &connection);
        if let Some(Cow::Owned(uri)) = normal {
            *request.uri_mut() = uri;
        }
        match (is_allowed || is_watching, is_clear) {
            (true, _) => Ok(()),
            (false, true) => Err(Reason::Denied),
            (false, false) => Err(Reason::InvalidRequest),
        }
    }
}

impl<S, C, B, RB> Service<Request<B>> for Authorize<S, C>
where
    S: Service<Request<B>, Response = Response<RB>>,
    C: Caller,
{
    type Response = Response<AnswerBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.judge(&mut request) {
            Ok(()) => ResponseFuture::calling(self.inner.call(request)),
            Err(reason) => {
                self.shared.on_refused();
                ResponseFuture::refused(is_grpc(request.headers()), MeshError::new(reason))
            }
        }
    }
}

//! The futures of [`Route`](super::Route) and of the routers.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_service::Service;

#[cfg(feature = "router")]
pub use self::routed::RoutedFuture;
use crate::oneshot::Oneshot;

pin_project! {
    /// The chosen service's response.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S: Service<R>, R> {
        #[pin]
        inner: Oneshot<S, R>,
    }
}

impl<S: Service<R>, R> ResponseFuture<S, R> {
    pub(super) fn new(service: S, request: R) -> Self {
        Self { inner: Oneshot::new(service, request) }
    }
}

impl<S: Service<R>, R> Future for ResponseFuture<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S: Service<R>, R> fmt::Debug for ResponseFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(feature = "router")]
mod routed {
    use std::{
        fmt,
        future::Future,
        pin::Pin,
        sync::Arc,
        task::{Context, Poll, ready},
    };

    use http::Response;
    use mesh_core::Timestamp;
    use pin_project_lite::pin_project;
    use tower_service::Service;

    use super::Oneshot;
    use crate::{body::AnswerBody, route::plan::Changes, timer::Timer};

    pin_project! {
        /// The response of a [`Router`](crate::route::Router) or [`Mirroring`](crate::route::Mirroring): after an
        /// injected delay the chosen service's, with the route's changes to its headers, or the route's own.
        #[must_use = "futures do nothing unless polled"]
        pub struct RoutedFuture<S: Service<R>, R, RB> {
            #[pin]
            state: State<Oneshot<S, R>, RB>,
            // An injected delay ends then.
            held: Option<Timestamp>,
            #[pin]
            timer: Timer,
        }
    }

    pin_project! {
        #[project = StateProj]
        enum State<F, RB> {
            Answer { response: Option<Response<AnswerBody<RB>>> },
            Forward { #[pin] response: F, changes: Option<Arc<Changes>> },
        }
    }

    impl<S: Service<R>, R, RB> RoutedFuture<S, R, RB> {
        pub(in crate::route) fn answer(
            held: Option<Timestamp>,
            response: Response<AnswerBody<RB>>,
        ) -> Self {
            let state = State::Answer { response: Some(response) };
            Self { state, held, timer: Timer::default() }
        }

        pub(in crate::route) fn forward(
            held: Option<Timestamp>,
            service: S,
            request: R,
            changes: Option<Arc<Changes>>,
        ) -> Self {
            let state = State::Forward { response: Oneshot::new(service, request), changes };
            Self { state, held, timer: Timer::default() }
        }
    }

    impl<S, R, RB> Future for RoutedFuture<S, R, RB>
    where
        S: Service<R, Response = Response<RB>>,
    {
        type Output = Result<Response<AnswerBody<RB>>, S::Error>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let mut this = self.project();
            if let Some(until) = *this.held {
                ready!(this.timer.as_mut().poll_at(cx, until));
                *this.held = None;
            }
            match this.state.project() {
                StateProj::Answer { response } => {
                    Poll::Ready(Ok(response.take().expect("not polled after it was ready")))
                }
                StateProj::Forward { response, changes } => {
                    let mut response = ready!(response.poll(cx))?;
                    if let Some(changes) = changes {
                        changes.apply(response.headers_mut());
                    }
                    Poll::Ready(Ok(response.map(AnswerBody::inner)))
                }
            }
        }
    }

    impl<S: Service<R>, R, RB> fmt::Debug for RoutedFuture<S, R, RB> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("RoutedFuture").field("held", &self.held).finish_non_exhaustive()
        }
    }
}

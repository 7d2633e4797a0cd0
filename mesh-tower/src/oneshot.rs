use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

pin_project! {
    /// Makes a service ready and calls it, once: how a service that was chosen for one request is driven inside that
    /// request's future, so that nothing stands in a queue in front of it.
    pub(crate) struct Oneshot<S: Service<R>, R> {
        #[pin]
        state: State<S, S::Future, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, R> {
        Readying { service: S, request: Option<R> },
        Calling { #[pin] future: F },
    }
}

impl<S: Service<R>, R> Oneshot<S, R> {
    pub(crate) fn new(service: S, request: R) -> Self {
        Self { state: State::Readying { service, request: Some(request) } }
    }
}

impl<S: Service<R>, R> Future for Oneshot<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let future = match this.state.as_mut().project() {
                StateProj::Calling { future } => return future.poll(cx),
                StateProj::Readying { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let request = request.take().expect("taken once: the next state is Calling");
                    service.call(request)
                }
            };
            this.state.set(State::Calling { future });
        }
    }
}

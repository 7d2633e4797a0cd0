//! The routers over scripted services: where requests go, what is changed, and what the route answers itself.
#![cfg(feature = "router")]

#[cfg(test)]
mod routes {
    mod answers;
    mod bad_input;
    mod copies;
    mod requests;

    use std::{
        cell::RefCell,
        collections::BTreeMap,
        convert::Infallible,
        future::{Ready, ready},
        rc::Rc,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http::{Request, Response, request::Parts};
    use http_body_util::Full;
    use mesh_core::route::{Client, Forward, Rule, VirtualHost};
    use mesh_tower::{Chance, body::AnswerBody, route::Router};
    use tower::{Service, ServiceExt};

    type Seen = Rc<RefCell<Vec<(&'static str, Parts)>>>;

    /// A destination that is not `Send`: it keeps the heads it has seen, and says its name.
    #[derive(Clone)]
    struct Backend(&'static str, Seen);

    impl<B> Service<Request<B>> for Backend {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<B>) -> Self::Future {
            self.1.borrow_mut().push((self.0, request.into_parts().0));
            let response = Response::builder().header("from", self.0).header("server", "secret");
            ready(Ok(response.body(Full::default()).unwrap()))
        }
    }

    struct Fixture {
        router: Router<&'static str, Backend>,
        seen: Seen,
    }

    impl Fixture {
        fn new(rules: Vec<Rule<&'static str>>) -> Self {
            Self::hosts(vec![VirtualHost::new(["*"], rules)])
        }

        fn hosts(hosts: Vec<VirtualHost<&'static str>>) -> Self {
            let seen = Seen::default();
            let make = |to: &&'static str| Backend(to, seen.clone());
            let router = Router::new(hosts, &Client::default(), make).unwrap();
            Self { router: router.with_chance(Chance::seeded(1)), seen }
        }

        async fn send(&self, request: Request<()>) -> Response<AnswerBody<Full<Bytes>>> {
            self.router.clone().oneshot(request).await.unwrap()
        }

        async fn get(&self, uri: &str) -> Response<AnswerBody<Full<Bytes>>> {
            self.send(Request::get(uri).body(()).unwrap()).await
        }

        /// What the last destination saw.
        fn last(&self) -> (&'static str, Parts) {
            self.seen.borrow().last().cloned().unwrap()
        }

        fn counts(&self) -> BTreeMap<&'static str, usize> {
            let mut counts = BTreeMap::new();
            for (to, _) in &*self.seen.borrow() {
                *counts.entry(*to).or_default() += 1;
            }
            counts
        }
    }

    fn to(destination: &'static str) -> Rule<&'static str> {
        Rule::new(Forward::to(destination).into())
    }
}

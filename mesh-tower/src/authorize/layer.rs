use std::sync::Arc;

use http::Extensions;
use tower_layer::Layer;

use super::{
    Authorize, Handle, Mode,
    handle::Shared,
    policy::{Authorizer, Connection},
};

/// Says what is known of the connection that a request came by, from the request's extensions. Functions are.
///
/// Who the peer is must come from what the listener has proved, never from a header.
pub trait Caller {
    /// The connection.
    fn connection<'a>(&'a self, extensions: &'a Extensions) -> Connection<'a>;
}

impl<F: for<'a> Fn(&'a Extensions) -> Connection<'a>> Caller for F {
    fn connection<'a>(&'a self, extensions: &'a Extensions) -> Connection<'a> {
        self(extensions)
    }
}

/// Makes [`Authorize`] services. All of one layer, and their clones, share the same policies.
#[derive(Clone, Debug)]
pub struct AuthorizeLayer<C> {
    shared: Arc<Shared>,
    caller: C,
    keep_forwarded: bool,
}

impl<F> AuthorizeLayer<F>
where
    F: for<'a> Fn(&'a Extensions) -> Connection<'a>,
{
    /// Enforces the policies on requests of whose connections `caller` knows: a function, or a [`Caller`] by
    /// [`with_caller`](AuthorizeLayer::with_caller). Without any policy everything is allowed.
    pub fn new(authorizer: Authorizer, caller: F) -> Self {
        let shared = Arc::new(Shared::new(Arc::default(), Mode::Enforce, authorizer));
        Self { shared, caller, keep_forwarded: false }
    }
}

impl<C> AuthorizeLayer<C> {
    /// The name of this layer in metrics and logs. Default: empty. To be said before any service or handle is made.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        let handle = self.handle();
        let authorizer = Authorizer::clone(&handle.authorizer());
        self.shared = Arc::new(Shared::new(name.into(), handle.mode(), authorizer));
        self
    }

    /// The same policies for requests of which another caller knows: of one connection, say, whose peer is settled.
    ///
    /// ```
    /// use http::Extensions;
    /// use mesh_tower::authorize::{AuthorizeLayer, Caller, policy::{Authorizer, Connection}};
    ///
    /// #[derive(Clone)]
    /// struct Peer(String);
    ///
    /// impl Caller for Peer {
    ///     fn connection<'a>(&'a self, _: &'a Extensions) -> Connection<'a> {
    ///         Connection::default().with_principal(&self.0)
    ///     }
    /// }
    ///
    /// let of_listener = AuthorizeLayer::new(Authorizer::default(), |_: &Extensions| Connection::default());
    /// let of_connection = of_listener.with_caller(Peer("spiffe://cluster.local/ns/shop/sa/cart".into()));
    /// ```
    #[must_use]
    pub fn with_caller<D: Caller>(&self, caller: D) -> AuthorizeLayer<D> {
        let Self { shared, keep_forwarded, .. } = self;
        AuthorizeLayer { shared: Arc::clone(shared), caller, keep_forwarded: *keep_forwarded }
    }

    /// Leaves [`FORWARDED_CLIENT_CERT`](super::FORWARDED_CLIENT_CERT) as the caller wrote it: for a service behind a proxy
    /// that vouches for it, and that nobody else reaches. Default: it is removed.
    #[must_use]
    pub fn keep_forwarded_client_cert(mut self) -> Self {
        self.keep_forwarded = true;
        self
    }

    /// Replaces the policies of all services of this layer.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }
}

impl<S, C: Clone> Layer<S> for AuthorizeLayer<C> {
    type Service = Authorize<S, C>;

    fn layer(&self, inner: S) -> Authorize<S, C> {
        Authorize {
            inner,
            shared: Arc::clone(&self.shared),
            caller: self.caller.clone(),
            keep_forwarded: self.keep_forwarded,
        }
    }
}

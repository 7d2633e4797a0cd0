//! The peer, where a handler wants it.

use http::{Extensions, Request, Response, request::Parts};

use super::{conn_info, peer};
use crate::info::{ConnInfo, PeerIdentity};

/// Asks a message for the other end of its connection: who sent this request, who answered with this response.
///
/// ```
/// use mesh_tls::PeerExt;
///
/// fn greet(request: &http::Request<()>) -> String {
///     match request.peer() {
///         Some(peer) => format!("hello, {}", peer.id()),
///         None => "who are you?".to_owned(),
///     }
/// }
/// # assert_eq!(greet(&http::Request::new(())), "who are you?");
/// ```
pub trait PeerExt {
    /// The peer that has proved its identity; see [`peer`].
    fn peer(&self) -> Option<&PeerIdentity>;

    /// The connection; see [`conn_info`].
    fn conn_info(&self) -> Option<&ConnInfo>;
}

macro_rules! by_extensions {
    ($(#[$attribute:meta])* impl<$($parameter:ident)?> $message:ty, $of:expr) => {
        $(#[$attribute])*
        impl<$($parameter)?> PeerExt for $message {
            fn peer(&self) -> Option<&PeerIdentity> {
                peer($of(self))
            }

            fn conn_info(&self) -> Option<&ConnInfo> {
                conn_info($of(self))
            }
        }
    };
}

by_extensions!(impl<B> Request<B>, Self::extensions);
by_extensions!(impl<B> Response<B>, Self::extensions);
by_extensions!(impl<> Parts, extensions_of);
by_extensions!(#[cfg(feature = "tonic")] impl<T> tonic::Request<T>, Self::extensions);

fn extensions_of(parts: &Parts) -> &Extensions {
    &parts.extensions
}

/// Extracts the peer in an axum handler; a request without one is answered with 403.
///
/// For handlers that serve both, `Option<Peer>` is `None` for who has proved nothing.
///
/// ```
/// use axum::{Router, routing::get};
/// use mesh_tls::Peer;
///
/// let hello = async |Peer(peer): Peer| format!("hello, {}", peer.id());
/// let maybe = async |peer: Option<Peer>| peer.map(|Peer(peer)| peer.id().to_string()).unwrap_or_default();
/// let app: Router = Router::new().route("/", get(hello)).route("/maybe", get(maybe));
/// # let _ = app;
/// ```
#[cfg(feature = "axum")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "handlers take it apart in their arguments")]
pub struct Peer(pub PeerIdentity);

/// The answer to a request without a peer: 403.
#[cfg(feature = "axum")]
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NoPeer;

#[cfg(feature = "axum")]
mod axum_impl {
    use std::convert::Infallible;

    use axum::{
        extract::{FromRequestParts, OptionalFromRequestParts},
        http::StatusCode,
        response::{IntoResponse, Response},
    };
    use http::request::Parts;

    use super::{NoPeer, Peer, PeerExt};

    impl<S: Sync> FromRequestParts<S> for Peer {
        type Rejection = NoPeer;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoPeer> {
            parts.peer().cloned().map(Self).ok_or(NoPeer)
        }
    }

    impl<S: Sync> OptionalFromRequestParts<S> for Peer {
        type Rejection = Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
            Ok(parts.peer().cloned().map(Self))
        }
    }

    impl IntoResponse for NoPeer {
        fn into_response(self) -> Response {
            StatusCode::FORBIDDEN.into_response()
        }
    }
}

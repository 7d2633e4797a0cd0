use http::Uri;
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::Connection;
use tower_service::Service;

use crate::BoxError;

/// What makes connections: a `Service<Uri>`, called with `http://<address>`, whose response is a connection. `HttpConnector`
/// of hyper-util is one, and so is `MtlsConnector` of mesh-tls. There is nothing to implement.
///
/// Where TLS has negotiated HTTP/2 the connection says so by `connected().is_negotiated_h2()`.
pub trait MakeConnection:
    Service<
        Uri,
        Response: Read + Write + Connection + Unpin + Send + 'static,
        Error: Into<BoxError>,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<C> MakeConnection for C where
    C: Service<
            Uri,
            Response: Read + Write + Connection + Unpin + Send + 'static,
            Error: Into<BoxError>,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

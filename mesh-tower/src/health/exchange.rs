//! One request over a connection of its own.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use bytes::Bytes;
use http::{Request, Response, Uri, Version, header, uri::Scheme};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::{client::legacy::connect::Connection as _, rt::TokioExecutor};

use crate::{BoxError, oneshot::Oneshot, pool::MakeConnection};

/// To whom a check goes, and as whom.
pub(super) struct Target<'a> {
    pub(super) address: &'a str,
    pub(super) host: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) scheme: &'a Scheme,
}

/// Sends `request` and gives what `read` makes of the response while the connection lives.
pub(super) async fn exchange<C, R, T>(
    connector: C,
    target: Target<'_>,
    http2: bool,
    mut request: Request<Full<Bytes>>,
    read: impl FnOnce(Response<Incoming>) -> R,
) -> Result<T, BoxError>
where
    C: MakeConnection,
    R: Future<Output = Result<T, BoxError>>,
{
    let Target { address, host, path, scheme } = target;
    let host = host.unwrap_or(address);
    let absolute = |scheme: &Scheme, authority: &str, path: &str| {
        Uri::builder().scheme(scheme.clone()).authority(authority).path_and_query(path).build()
    };
    let io = Oneshot::new(connector, absolute(&Scheme::HTTP, address, "/")?);
    let io = io.await.map_err(Into::into)?;
    if http2 || io.connected().is_negotiated_h2() {
        *request.uri_mut() = absolute(scheme, host, path)?;
        *request.version_mut() = Version::HTTP_2;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        let work = async { read(sender.send_request(request).await?).await };
        beside(connection, work).await
    } else {
        *request.uri_mut() = path.parse()?;
        request.headers_mut().insert(header::HOST, host.parse()?);
        let (mut sender, connection) = http1::handshake(io).await?;
        let work = async { read(sender.send_request(request).await?).await };
        beside(connection, work).await
    }
}

/// Drives the connection for as long as the work lasts.
async fn beside<C: Future, W: Future>(connection: C, work: W) -> W::Output {
    let (mut connection, mut work) = (pin!(connection), pin!(work));
    let mut is_open = true;
    poll_fn(|cx| {
        if is_open && connection.as_mut().poll(cx).is_ready() {
            // What it has brought is still read.
            is_open = false;
        }
        match work.as_mut().poll(cx) {
            // The work may have written something that the connection has to send.
            Poll::Pending if is_open && connection.as_mut().poll(cx).is_ready() => {
                is_open = false;
                work.as_mut().poll(cx)
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(answer) => Poll::Ready(answer),
        }
    })
    .await
}

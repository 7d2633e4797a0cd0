//! gRPC streams in both directions at once, with messages of any size, over mutual TLS.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use futures_util::{StreamExt, stream};
use http::{
    Request, Response,
    uri::{PathAndQuery, Scheme},
};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Incoming;
use mesh_core::retry;
use mesh_tower::{
    BoxError,
    pool::HttpEndpoints,
    upstream::{Answers, Upstream},
};
use tokio::sync::{Notify, mpsc};
use tonic::{
    Code, Status, Streaming, client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server,
};
use tower::service_fn;

use crate::{bodies::SIZES, support::*};

const LARGEST: usize = 64 * 1_024 * 1_024;

/// Messages that are bytes and nothing else.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Sends back each message as it comes.
async fn grpc_echo(request: Request<Incoming>) -> Response<Body> {
    let back = service_fn(async |request: tonic::Request<Streaming<Bytes>>| {
        Ok::<_, Status>(tonic::Response::new(request.into_inner()))
    });
    let mut grpc = server::Grpc::new(Raw).max_decoding_message_size(LARGEST);
    let response = grpc.streaming(back, request).await;
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

#[tokio::test]
async fn messages_of_any_size_go_back_and_forth() {
    let ca = ca();
    let (server, caller) = (mesh(&ca, "/server").await, mesh(&ca, "/caller").await);
    let acceptor = server.acceptor(only("/caller")).with_alpn(["h2"]);
    let server = Server::mtls(acceptor, grpc_echo).await;
    let connector = caller.connector(only("/server")).with_alpn(["h2"]);
    let upstream = Upstream::builder("echo")
        .endpoints([server.endpoint()])
        // What may be sent again is kept as it passes; a stream must not wait for that.
        .retry(retry::Config::istio())
        .spawn(HttpEndpoints::new(connector).with_scheme(Scheme::HTTPS))
        .unwrap();
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    let outgoing = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut grpc = client::Grpc::new(upstream.clone()).max_decoding_message_size(LARGEST);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/test.Echo/Echo");
    let call = grpc.streaming(tonic::Request::new(outgoing), path, Raw);
    let mut incoming: Streaming<Bytes> = in_time(call).await.unwrap().into_inner();

    // Ping-pong: no message goes out before the one before has come back.
    for round in 0..3 {
        for size in SIZES {
            let sent = pattern(size);
            sender.send(sent.clone()).await.unwrap();
            let back = in_time(incoming.message()).await.unwrap().expect("the stream goes on");
            assert!(back == sent, "round {round}: {size} B sent, {} B back", back.len());
        }
    }
    assert_eq!(upstream.status()[0].active, 1, "the call is under way until its stream ends");
    drop(sender);
    assert!(in_time(incoming.message()).await.unwrap().is_none(), "both halves are closed");
    let status = &upstream.status()[0];
    assert_eq!((status.active, status.successes, status.failures), (0, 1, 0));
}

/// A status after the last message is in the trailers: the caller sees it, and the endpoint is judged by it.
#[tokio::test]
async fn the_status_at_the_end_of_a_stream_is_the_calls_and_the_endpoints() {
    async fn breaks(_: Request<Incoming>) -> Response<Body> {
        let (first, last) = (Ok(Bytes::from("one")), Err(Status::internal("lost the rest")));
        let messages = stream::iter([first, last]);
        let back = service_fn(move |_: tonic::Request<Streaming<Bytes>>| {
            let messages = messages.clone();
            async move { Ok::<_, Status>(tonic::Response::new(messages)) }
        });
        let empty = Request::new(full(""));
        let response = server::Grpc::new(Raw).streaming(back, empty).await;
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    }
    let server = Server::http(breaks).await;
    let upstream = Upstream::builder("echo")
        .endpoints([server.endpoint()])
        .spawn(HttpEndpoints::plain())
        .unwrap();
    let mut grpc = client::Grpc::new(upstream.clone());
    grpc.ready().await.unwrap();
    let nothing = stream::iter(Vec::<Bytes>::new());
    let path = PathAndQuery::from_static("/test.Echo/Echo");
    let call = grpc.streaming(tonic::Request::new(nothing), path, Raw);
    let mut incoming: Streaming<Bytes> = in_time(call).await.unwrap().into_inner();
    assert_eq!(incoming.message().await.unwrap().unwrap(), "one");
    let end = incoming.message().await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::Internal, "lost the rest"));
    let status = &upstream.status()[0];
    assert_eq!((status.active, status.successes, status.failures), (0, 0, 1));
}

/// Calls `server`, whose stream breaks off after the first message once `cut` says so: how it ends for the caller.
async fn broken_off(server: &Server, answers: Answers, cut: &Notify) -> Status {
    let upstream = Upstream::builder("echo")
        .endpoints([server.endpoint()])
        .answers(answers)
        .spawn(HttpEndpoints::plain())
        .unwrap();
    let mut grpc = client::Grpc::new(upstream.clone());
    grpc.ready().await.unwrap();
    let endless = stream::iter([Bytes::from("one")]).chain(stream::pending());
    let path = PathAndQuery::from_static("/test.Echo/Echo");
    let call = grpc.streaming(tonic::Request::new(endless), path, Raw);
    let mut incoming: Streaming<Bytes> = in_time(call).await.unwrap().into_inner();
    assert_eq!(in_time(incoming.message()).await.unwrap().unwrap(), "one");
    cut.notify_one();
    let end = in_time(incoming.message()).await.unwrap_err();
    let status = &upstream.status()[0];
    assert_eq!((status.active, status.successes, status.failures), (0, 0, 1));
    end
}

/// A connection that breaks under a stream is an error of the endpoint, and a status to the caller.
#[tokio::test]
async fn a_connection_that_breaks_under_a_stream_is_unavailable() {
    let cut = Arc::new(Notify::new());
    let until = Arc::clone(&cut);
    let server = Server::raw(move |socket| {
        let until = Arc::clone(&until);
        async move {
            tokio::select! {
                () = serve(socket, grpc_echo, Arc::default()) => {}
                () = until.notified() => {}
            }
        }
    })
    .await;
    let end = broken_off(&server, Answers::Grpc, &cut).await;
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    let message = format!("{}: the connection broke before the answer came", server.address);
    assert_eq!(end.message(), message);
    assert_eq!(end.metadata().get("x-mesh-flag").unwrap(), "UC");
    // The broken twin hands the error on, of which tonic can make nothing.
    let end = broken_off(&server, Answers::None, &cut).await;
    assert_eq!(end.code(), Code::Unknown, "{end:?}");
}

/// A server that resets the stream says more than one that is gone.
#[tokio::test]
async fn a_stream_that_is_reset_has_the_status_of_the_reset() {
    let cut = Arc::new(Notify::new());
    let until = Arc::clone(&cut);
    let server = Server::http(move |request| {
        let until = Arc::clone(&until);
        async move {
            let failed = stream::once(async move {
                until.notified().await;
                Err::<Frame<Bytes>, BoxError>("the disk is gone".into())
            });
            let (head, body) = grpc_echo(request).await.into_parts();
            let frames = BodyStream::new(body).take(1).chain(failed);
            Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
        }
    })
    .await;
    let end = broken_off(&server, Answers::Grpc, &cut).await;
    assert_eq!(end.code(), Code::Internal, "hyper resets with INTERNAL_ERROR: {end:?}");
}

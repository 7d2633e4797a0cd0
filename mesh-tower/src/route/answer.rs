//! Answers that the route gives itself.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use mesh_core::route::{AbortStatus, DirectResponse, Head, Redirect, Rewriter};

use super::{head::RequestHead, regex::Regex};
use crate::body::AnswerBody;
use crate::{
    classify::is_grpc,
    error::{MeshError, Reason, response_for},
};

/// 404, flag `NR`.
pub(super) fn no_route<B>(head: &Parts) -> Response<AnswerBody<B>> {
    response_for(&head.headers, &MeshError::new(Reason::NoRoute))
}

/// The request became one that cannot be sent: 400, flag `DPE`.
pub(super) fn invalid<B>(head: &Parts) -> Response<AnswerBody<B>> {
    response_for(&head.headers, &MeshError::new(Reason::InvalidRequest))
}

/// The share of a backend that does not exist: 500, of gRPC `UNAVAILABLE` (Gateway API); flag `NC`.
pub(super) fn nowhere<B>(head: &Parts) -> Response<AnswerBody<B>> {
    own(is_grpc(&head.headers), 500, 14, "NC", Bytes::new())
}

/// An injected fault; flag `FI`.
pub(super) fn fault<B>(grpc: bool, status: AbortStatus) -> Response<AnswerBody<B>> {
    let (http, code) = match (status.http_status(), status.grpc_code()) {
        (Some(http), _) => (http, grpc_of(http)),
        (None, code) => (http_of(code.unwrap_or_default()), code.unwrap_or_default()),
    };
    own(grpc, http, code, "FI", Bytes::from_static(b"fault filter abort"))
}

pub(super) fn redirect<B>(
    redirect: &Redirect,
    path: Option<&Rewriter<Regex>>,
    taken: usize,
    head: &Parts,
) -> Response<AnswerBody<B>> {
    let asked = RequestHead::new(head);
    let rewritten = path.map(|path| path.rewrite(asked.path(), taken));
    let path = rewritten.as_deref().unwrap_or_else(|| asked.path());
    let location = redirect.location(asked.scheme(), asked.authority(), path, asked.query());
    let Ok(location) = HeaderValue::try_from(location) else { return invalid(head) };
    let mut response = Response::new(AnswerBody::default());
    *response.status_mut() = status(redirect.status());
    response.headers_mut().insert(header::LOCATION, location);
    response
}

pub(super) fn direct<B>(answer: &DirectResponse, body: Bytes) -> Response<AnswerBody<B>> {
    let mut response = Response::new(AnswerBody::own(body));
    *response.status_mut() = status(answer.status());
    response
}

fn own<B>(
    grpc: bool,
    http: u16,
    code: u8,
    flag: &'static str,
    body: Bytes,
) -> Response<AnswerBody<B>> {
    let mut response = Response::new(AnswerBody::own(if grpc { Bytes::new() } else { body }));
    let headers = response.headers_mut();
    headers.insert("x-mesh-flag", HeaderValue::from_static(flag));
    if grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    } else {
        *response.status_mut() = status(http);
    }
    response
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// gRPC, "HTTP to gRPC Status Code Mapping".
fn grpc_of(http: u16) -> u8 {
    match http {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// Google's API design guide, "HTTP Mapping", as Envoy has it.
fn http_of(grpc: u8) -> u16 {
    match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

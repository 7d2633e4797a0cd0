//! The endpoint pool against real servers on loopback.
#![cfg(feature = "client")]
#![expect(clippy::unwrap_used, reason = "all of it is a test")]

mod age;
mod cancel;
mod goaway;
mod http1;
mod http2;
mod limits;
mod protocols;
mod silence;
mod streams;
mod stress;
mod support;

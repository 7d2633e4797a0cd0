//! The endpoint pool against real servers on loopback.
#![cfg(feature = "client")]

mod cancel;
mod http1;
mod http2;
mod limits;
mod stress;
mod support;

//! The proxy as its users run it: the built program, real sockets, real signals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authorize;
mod client_tls;
mod clients;
mod config;
mod drain;
mod forwarding;
mod locality;
mod mutual;
mod outside;
mod page;
mod reload;
mod routes;
mod slow;
mod support;

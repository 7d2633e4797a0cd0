//! The proxy as its users run it: the built program, real sockets, real signals.

mod config;
mod drain;
mod forwarding;
mod mutual;
mod reload;
mod support;

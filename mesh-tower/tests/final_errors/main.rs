//! Errors that the same endpoint would repeat: a scripted connector under the client stack, in paused time.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod elsewhere;
mod judged;
mod support;

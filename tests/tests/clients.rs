//! Real clients on real sockets: hyper, tonic, reqwest and curl through the client stack, in plain and over mutual TLS.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's own servers fails it")]

#[path = "clients/bodies.rs"]
mod bodies;
#[path = "clients/connection_pool.rs"]
mod connection_pool;
#[path = "clients/curl.rs"]
mod curl;
#[path = "clients/final_errors.rs"]
mod final_errors;
#[path = "clients/grpc.rs"]
mod grpc;
#[path = "clients/health.rs"]
mod health;
#[path = "clients/reqwest_client.rs"]
mod reqwest_client;
mod support;

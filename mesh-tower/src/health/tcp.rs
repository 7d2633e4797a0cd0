use std::{future::Future, pin::Pin};

use mesh_core::Endpoint;
use tokio::net::TcpStream;

use super::{CheckHealth, Report};

/// Whether the endpoint takes a TCP connection. It is closed at once.
///
/// That says that something listens, and no more: a process that hangs still accepts, because the kernel does it for it.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TcpCheck;

impl TcpCheck {
    /// The check.
    pub fn new() -> Self {
        Self
    }
}

impl CheckHealth for TcpCheck {
    fn check(&self, endpoint: Endpoint) -> Pin<Box<dyn Future<Output = Report> + Send>> {
        Box::pin(async move {
            match TcpStream::connect(&**endpoint.address()).await {
                Ok(_connected) => Report::passed(),
                Err(error) => Report::failed(format!("no connection: {error}")),
            }
        })
    }
}

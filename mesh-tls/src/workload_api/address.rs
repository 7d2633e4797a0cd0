//! Where the agent listens.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// The address of a SPIFFE Workload Endpoint: `unix:///run/spire/agent.sock` or `tcp://127.0.0.1:8000`.
///
/// The forms are those of the SPIFFE Workload Endpoint specification, 4, as go-spiffe reads them: a path without `//`
/// must be absolute; of TCP there is an IP address and a port and nothing else. A name would ask DNS whom to get an
/// identity from.
///
/// ```
/// use mesh_tls::workload_api::Address;
///
/// assert!("unix:///run/spire/agent.sock".parse::<Address>().is_ok());
/// assert!("tcp://127.0.0.1:8000".parse::<Address>().is_ok());
/// assert!("tcp://agent.local:8000".parse::<Address>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(pub(super) Place);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// A string that is not the address of a Workload Endpoint; it says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidAddress(&'static str);

impl Address {
    /// The address of a Unix domain socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self(Place::Unix(path.into()))
    }

    /// The address of a TCP socket. Whoever can reach it gets the identity, or can give a false one: use it only where
    /// the network is the machine itself.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        Self(Place::Tcp(address))
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text.chars().any(char::is_control) {
            return Err(InvalidAddress("it has a control character"));
        }
        let (scheme, rest) =
            text.split_once(':').ok_or(InvalidAddress("it has no scheme, unix or tcp"))?;
        if rest.contains('#') {
            return Err(InvalidAddress("it has a fragment"));
        }
        if rest.contains('?') {
            return Err(InvalidAddress("it has a query"));
        }
        match scheme {
            "unix" => unix(rest).map(Self::unix),
            "tcp" => tcp(rest).map(Self::tcp),
            _ => Err(InvalidAddress("its scheme is neither unix nor tcp")),
        }
    }
}

fn unix(rest: &str) -> Result<&str, InvalidAddress> {
    let Some(path) = rest.strip_prefix("//") else {
        return match rest.starts_with('/') {
            true => Ok(rest),
            false => Err(InvalidAddress("its path is not absolute")),
        };
    };
    let authority = path.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(InvalidAddress("it names a user"));
    }
    if path.is_empty() { Err(InvalidAddress("it has no path")) } else { Ok(path) }
}

fn tcp(rest: &str) -> Result<SocketAddr, InvalidAddress> {
    let rest = rest.strip_prefix("//").ok_or(InvalidAddress("it has no host"))?;
    if rest.contains('/') {
        return Err(InvalidAddress("it has a path"));
    }
    rest.parse().map_err(|_| InvalidAddress("it is not an IP address and a port"))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Unix(path) => write!(f, "unix://{}", path.display()),
            Place::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the address of a Workload Endpoint: {}", self.0)
    }
}

impl std::error::Error for InvalidAddress {}

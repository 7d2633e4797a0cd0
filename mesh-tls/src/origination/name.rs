//! Names that a server's certificate may have.

use std::fmt;

use rustls_pki_types::ServerName;

/// A name in a subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SubjectName {
    /// A DNS name or an IP address.
    Host(ServerName<'static>),
    Uri(String),
}

/// A text that is no name of a server.
///
/// ```
/// use mesh_tls::origination::{Config, Roots};
///
/// let config = Config::new(Roots::file("/etc/bank/ca.pem"));
/// assert_eq!(
///     config.with_server_name("*.bank.example").unwrap_err().to_string(),
///     "\"*.bank.example\" is not allowed, expected a DNS name (api.bank.example) or an IP address",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    text: String,
    expected: &'static str,
}

impl SubjectName {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidName> {
        if let Ok(host) = ServerName::try_from(text) {
            return Ok(Self::Host(host.to_owned()));
        }
        // RFC 3986: a scheme begins with a letter, and a colon ends it. A URI has no spaces and is ASCII.
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        let is_uri = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_uri { Ok(Self::Uri(text.to_owned())) } else { Err(InvalidName::new(text, ANY)) }
    }
}

const ANY: &str =
    "a DNS name (api.bank.example), an IP address or a URI (spiffe://bank.example/api)";

/// A name that can be dialled.
pub(super) fn host(text: &str) -> Result<ServerName<'static>, InvalidName> {
    let name = ServerName::try_from(text)
        .map_err(|_| InvalidName::new(text, "a DNS name (api.bank.example) or an IP address"))?;
    Ok(name.to_owned())
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(&name.to_str()),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

impl InvalidName {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.to_owned(), expected }
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not allowed, expected {}", self.text, self.expected)
    }
}

impl std::error::Error for InvalidName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_one_kind_or_none() {
        let kind = |text: &str| match SubjectName::parse(text) {
            Ok(SubjectName::Host(ServerName::DnsName(_))) => "dns",
            Ok(SubjectName::Host(_)) => "ip",
            Ok(SubjectName::Uri(_)) => "uri",
            Err(_) => "none",
        };
        for (text, expected) in [
            ("api.bank.example", "dns"),
            ("10.0.0.7", "ip"),
            ("fd00::7", "ip"),
            ("spiffe://bank.example/api", "uri"),
            ("urn:bank:api", "uri"),
            ("", "none"),
            ("*.bank.example", "none"),
            ("api@bank.example", "none"),
            ("api.bank.example:443", "uri"),
            ("443:api", "none"),
            ("https://bank.example/a b", "none"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }
}

//! What a policy says of an authority, and what a request's authority may mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{check::Sense, text::Text};

/// An authority without a port means one of these (RFC 9110 §4.2.1, §4.2.2).
const DEFAULT_PORTS: [u16; 2] = [80, 443];

/// A value for hosts: as it was written, and in parts.
#[derive(Clone, Debug)]
pub(super) struct HostText {
    written: Text,
    /// Without a dot at its end, without a port.
    name: Text,
    /// `None`: any.
    port: Option<u16>,
    /// If the whole name is one.
    ip: Option<IpAddr>,
}

/// The authority of a request in parts: whoever handles it may leave out what is behind or before the name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Authority<'a> {
    sent: &'a str,
    /// Without a user before it.
    host: &'a str,
    /// Without a dot at its end.
    name: &'a str,
    /// Empty, if none was sent.
    port: &'a str,
    /// Canonical, if the name is one.
    ip: Option<IpAddr>,
    /// Whether everybody who reads it finds the same name in it.
    is_clear: bool,
}

impl HostText {
    pub(super) fn new(value: &str) -> Self {
        let written = Text::new(value);
        let mut ip = None;
        let (name, port) = match &written {
            Text::Any => (Text::Any, None),
            Text::Exact(text) => {
                let parts = Authority::new(text);
                ip = parts.ip;
                (Text::Exact(parts.name.into()), parts.port.parse().ok())
            }
            Text::Suffix(text) => {
                let parts = Authority::new(text);
                let name = match parts.name {
                    "" => Text::Any,
                    name => Text::Suffix(name.into()),
                };
                (name, parts.port.parse().ok())
            }
            // What begins with a whole name and a colon means that name, at ports that are not looked at closely.
            Text::Prefix(text) => match Authority::new(text) {
                Authority { host, name, .. } if host.len() > name.len() && !host.ends_with('.') => {
                    (Text::Exact(name.into()), None)
                }
                Authority { .. } => (written.clone(), None),
            },
        };
        Self { written, name, port, ip }
    }

    /// Whether it is everything.
    pub(super) fn is_any(&self) -> bool {
        self.written.is_any()
    }

    /// As it was sent; in a wide sense also by name, address and port, or if nobody can tell which name it is; in a narrow
    /// one without a user too, and only if everybody can.
    pub(super) fn matches(&self, authority: Authority<'_>, sense: Sense) -> bool {
        let is_written = |host: &str| self.written.matches_any_case(host.as_bytes());
        // Most have none, and then there is nothing else to compare.
        let has_user = authority.host.len() < authority.sent.len();
        let is_sent = is_written(authority.sent);
        match sense {
            Sense::AsIs => is_sent,
            Sense::Narrow => {
                is_sent
                    && (authority.is_clear || self.is_any())
                    && (!has_user || is_written(authority.host))
            }
            Sense::Wide => {
                !authority.is_clear
                    || is_sent
                    || (has_user && is_written(authority.host))
                    || (self.is_name(authority) && self.is_port(authority.port))
            }
        }
    }

    fn is_name(&self, authority: Authority<'_>) -> bool {
        let is_name = |name: &str| self.name.matches_any_case(name.as_bytes());
        is_name(authority.name)
            || authority.ip.is_some_and(|ip| match (self.ip, ip) {
                (Some(own), _) => own == ip,
                // As the beginning or the end of one.
                (None, IpAddr::V4(ip)) => is_name(&ip.to_string()),
                (None, IpAddr::V6(ip)) => is_name(&format!("[{ip}]")),
            })
    }

    fn is_port(&self, sent: &str) -> bool {
        let Some(port) = self.port else { return true };
        match sent {
            "" => DEFAULT_PORTS.contains(&port),
            // What is no port may be any to somebody.
            _ => sent.parse().map_or(true, |sent: u16| sent == port),
        }
    }
}

impl<'a> Authority<'a> {
    pub(super) fn new(sent: &'a str) -> Self {
        let host = sent.rsplit('@').next().unwrap_or_default();
        let (name, port) = match host.rsplit_once(':') {
            // Colons of an address of IPv6 stand in brackets.
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port),
            Some(_) | None => (host, ""),
        };
        let user = sent[..sent.len() - host.len()].strip_suffix('@').unwrap_or_default();
        let name = name.trim_end_matches('.');
        let (ip, is_name) = read(name);
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        let is_clear = is_name && is_port && user.bytes().all(is_of_user);
        Self { sent, host, name, port, ip, is_clear }
    }
}

/// The address that a name is, and whether it is one name to everybody: not a list, not escaped, not an address that only
/// some can read.
fn read(name: &str) -> (Option<IpAddr>, bool) {
    if let Some(rest) = name.strip_prefix('[') {
        let ip = rest.strip_suffix(']').and_then(|ip| ip.parse::<Ipv6Addr>().ok());
        return (ip.map(|ip| IpAddr::V6(ip).to_canonical()), ip.is_some());
    }
    let mut before = b'.';
    for byte in name.bytes() {
        let is_letter = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !is_letter && (byte != b'.' || before == b'.') {
            return (None, false);
        }
        before = byte;
    }
    // The last label of a name begins with a letter, or else it is an address: `127.1` and `0x7f.1` are, to some.
    let last = name.rsplit('.').next().unwrap_or_default();
    match last.as_bytes().first() {
        None => (None, false),
        Some(b'0'..=b'9') => {
            let ip = name.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
            (ip, ip.is_some() || !is_number(last))
        }
        Some(_) => (None, true),
    }
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// A user, and a password behind it (RFC 3986 §3.2.1).
fn is_of_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:".contains(&byte)
}

//! What a policy says of an authority, and what a request's authority may mean.

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
}

impl HostText {
    pub(super) fn new(value: &str) -> Self {
        let written = Text::new(value);
        let (name, port) = match &written {
            Text::Any => (Text::Any, None),
            Text::Exact(text) => {
                let parts = Authority::new(text);
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
        Self { written, name, port }
    }

    /// Whether it is everything.
    pub(super) fn is_any(&self) -> bool {
        self.written.is_any()
    }

    /// As it was sent; in a wide sense also by name and port, in a narrow one without a user too.
    pub(super) fn matches(&self, authority: Authority<'_>, sense: Sense) -> bool {
        let is_written = |host: &str| self.written.matches_any_case(host.as_bytes());
        match sense {
            Sense::AsIs => is_written(authority.sent),
            Sense::Narrow => is_written(authority.sent) && is_written(authority.host),
            Sense::Wide => {
                is_written(authority.sent)
                    || is_written(authority.host)
                    || (self.name.matches_any_case(authority.name.as_bytes())
                        && self.is_port(authority.port))
            }
        }
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
        Self { sent, host, name: name.trim_end_matches('.'), port }
    }
}

//! Who still speaks plaintext, by source: what an operator must know before strict is safe.
//!
//! A total says that somebody would be cut off, not who. A list of all addresses could be grown by anybody who has
//! many. So sources are networks (/24, or /64 of IPv6), each with the listener that it came to, and only so many are
//! kept: the one that was seen least makes room, and its count stays with its successor as possible error
//! (space-saving; Metwally, Agrawal, El Abbadi 2005). A source with more connections than that error is never lost.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use rustls_pki_types::UnixTime;

/// Some 20 KiB, and more than a namespace has node networks.
const SOURCES: usize = 256;

/// A network that has made plaintext connections to a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaintextSource {
    /// The first address of the network; `None` where the transport has no addresses.
    pub network: Option<IpAddr>,
    /// The length of the network's prefix: 24 for IPv4, 64 for IPv6.
    pub prefix: u8,
    /// Our own address to which they came.
    pub listener: Option<SocketAddr>,
    /// Connections, at most.
    pub connections: u64,
    /// By how much `connections` may be too high: what others had whose place this source took.
    pub error: u64,
    /// When the last one was let in.
    pub last_seen: UnixTime,
}

/// The sources that were seen most.
#[derive(Debug, Default)]
pub(crate) struct Plaintext {
    sources: Mutex<Vec<PlaintextSource>>,
}

// === impl Plaintext ===

impl Plaintext {
    pub(crate) fn seen(
        &self,
        remote: Option<SocketAddr>,
        listener: Option<SocketAddr>,
        now: UnixTime,
    ) {
        let (network, prefix) = match remote.map(|remote| remote.ip().to_canonical()) {
            Some(IpAddr::V4(ip)) => (Some(IpAddr::V4(of_24(ip))), 24),
            Some(IpAddr::V6(ip)) => (Some(IpAddr::V6(of_64(ip))), 64),
            None => (None, 0),
        };
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sources.iter_mut().find(|s| s.network == network && s.listener == listener);
        if let Some(known) = known {
            known.connections += 1;
            known.last_seen = now;
            return;
        }
        let mut fresh =
            PlaintextSource { network, prefix, listener, connections: 1, error: 0, last_seen: now };
        if sources.len() < SOURCES {
            return sources.push(fresh);
        }
        if let Some(least) = sources.iter_mut().min_by_key(|source| source.connections) {
            fresh.error = least.connections;
            fresh.connections += least.connections;
            *least = fresh;
        }
    }

    /// Those with the most connections first.
    pub(super) fn sources(&self) -> Vec<PlaintextSource> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sources.sort_by_key(|source| std::cmp::Reverse(source.connections));
        sources
    }
}

impl fmt::Display for PlaintextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network {
            Some(network) => write!(f, "{network}/{}", self.prefix)?,
            None => f.write_str("unknown")?,
        }
        match self.listener {
            Some(listener) => write!(f, " to {listener}: {}", self.connections),
            None => write!(f, ": {}", self.connections),
        }
    }
}

fn of_24(ip: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << 8))
}

fn of_64(ip: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(secs: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(secs))
    }

    fn from(plaintext: &Plaintext, remote: &str, times: u64) {
        let listener = Some("10.0.0.1:80".parse().unwrap());
        for time in 0..times {
            plaintext.seen(Some(remote.parse().unwrap()), listener, at(time));
        }
    }

    #[test]
    fn neighbours_are_one_source_and_listeners_are_not() {
        let plaintext = Plaintext::default();
        from(&plaintext, "192.0.2.1:1", 2);
        from(&plaintext, "192.0.2.200:2", 1);
        from(&plaintext, "[::ffff:192.0.2.9]:3", 1);
        from(&plaintext, "192.0.3.1:1", 1);
        from(&plaintext, "[2001:db8:0:1:ffff::1]:1", 3);
        plaintext.seen(Some("192.0.2.1:1".parse().unwrap()), None, at(9));
        let shown: Vec<_> = plaintext.sources().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "192.0.2.0/24 to 10.0.0.1:80: 4",
                "2001:db8:0:1::/64 to 10.0.0.1:80: 3",
                "192.0.3.0/24 to 10.0.0.1:80: 1",
                "192.0.2.0/24: 1",
            ]
        );
    }

    /// The last 256 instead of the most frequent: the broken twin.
    fn last_ones(remotes: &[String]) -> Vec<&String> {
        remotes.iter().rev().take(SOURCES).collect()
    }

    #[test]
    fn strangers_do_not_push_out_who_is_seen_often() {
        let plaintext = Plaintext::default();
        from(&plaintext, "192.0.2.1:1", 100);
        let strangers: Vec<_> =
            (0..4000_u32).map(|n| format!("10.{}.{}.1:1", n >> 8, n & 255)).collect();
        for stranger in &strangers {
            from(&plaintext, stranger, 1);
        }
        let sources = plaintext.sources();
        assert_eq!(sources.len(), SOURCES, "bounded");
        let often = sources.iter().find(|s| s.to_string().starts_with("192.0.2.0/24")).unwrap();
        assert_eq!((often.connections, often.error), (100, 0));
        assert!(sources.iter().all(|s| s.connections - s.error <= 100));
        let mut all = vec!["192.0.2.1:1".to_owned()];
        all.extend(strangers);
        assert!(!last_ones(&all).contains(&&all[0]), "the twin forgets it");
    }
}

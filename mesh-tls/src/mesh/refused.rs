//! Who was turned away last, and why: a counter says that somebody was, and not whom to look for.
//!
//! Not a log line for each: whoever knocks ten thousand times would fill the log. So one caller that is refused again for
//! the same reason is one entry, and of all of them the [64](CALLERS) that were seen last are kept. Whoever has many addresses
//! can push the others out; the [counters](crate::Stats) stay right.

use std::{
    cmp::Reverse,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use rustls_pki_types::UnixTime;

/// More than fit on a screen. At most some 150 KiB, where each of them has an ID of the greatest length.
const CALLERS: usize = 64;

/// A caller that was turned away before any handler saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedCaller {
    /// Where it came from, without the port, which is another one each time; `None` where the transport has no addresses.
    pub address: Option<IpAddr>,
    /// Our own address to which it came.
    pub listener: Option<SocketAddr>,
    /// Why, in words; with the SPIFFE ID of a caller that has proved one and is not wanted.
    pub reason: String,
    /// Connections that were refused for this reason, since it is listed here.
    pub connections: u64,
    /// When the last one was refused.
    pub last_seen: UnixTime,
}

/// Those that were seen last.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    callers: Mutex<Vec<RefusedCaller>>,
}

// === impl Refused ===

impl Refused {
    pub(crate) fn seen(
        &self,
        remote: Option<SocketAddr>,
        listener: Option<SocketAddr>,
        reason: String,
        now: UnixTime,
    ) {
        let address = remote.map(|remote| remote.ip().to_canonical());
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = callers.iter_mut().find(|known| {
            known.address == address && known.listener == listener && known.reason == reason
        });
        if let Some(known) = known {
            known.connections += 1;
            known.last_seen = now;
            return;
        }
        let fresh = RefusedCaller { address, listener, reason, connections: 1, last_seen: now };
        if callers.len() < CALLERS {
            return callers.push(fresh);
        }
        if let Some(oldest) = callers.iter_mut().min_by_key(|known| known.last_seen.as_secs()) {
            *oldest = fresh;
        }
    }

    /// Those that were seen last first.
    pub(super) fn callers(&self) -> Vec<RefusedCaller> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        callers.sort_by_key(|caller| Reverse(caller.last_seen.as_secs()));
        callers
    }
}

impl fmt::Display for RefusedCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("unknown")?,
        }
        match self.listener {
            Some(listener) => write!(f, " to {listener}: {}", self.reason)?,
            None => write!(f, ": {}", self.reason)?,
        }
        write!(f, " ({} ×)", self.connections)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OURS: SocketAddr =
        SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 8443);

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn seen(refused: &Refused, from: &str, reason: &str, seconds: u64) {
        let remote = Some(from.parse().unwrap());
        refused.seen(remote, Some(OURS), reason.to_owned(), at(seconds));
    }

    fn shown(refused: &Refused) -> Vec<String> {
        refused.callers().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_caller_is_one_entry_for_each_reason() {
        let refused = Refused::default();
        seen(&refused, "10.0.0.7:1", "plaintext", 1);
        seen(&refused, "10.0.0.8:1", "plaintext", 2);
        seen(&refused, "10.0.0.7:2", "no certificate", 3);
        seen(&refused, "[::ffff:10.0.0.7]:3", "plaintext", 4);
        assert_eq!(
            shown(&refused),
            [
                "10.0.0.7 to 10.0.0.1:8443: plaintext (2 ×)",
                "10.0.0.7 to 10.0.0.1:8443: no certificate (1 ×)",
                "10.0.0.8 to 10.0.0.1:8443: plaintext (1 ×)",
            ]
        );
        refused.seen(None, None, "silence".to_owned(), at(5));
        assert_eq!(shown(&refused)[0], "unknown: silence (1 ×)");
    }

    #[test]
    fn the_last_ones_are_kept_and_no_more() {
        let refused = Refused::default();
        for second in 0..1_000 {
            seen(
                &refused,
                &format!("10.0.{}.{}:1", second / 250, second % 250),
                "plaintext",
                second,
            );
            // Who comes again and again is not pushed out by those who come once.
            seen(&refused, "10.9.9.9:1", "plaintext", second);
        }
        let callers = refused.callers();
        assert_eq!(callers.len(), CALLERS);
        let often = callers.iter().find(|caller| caller.connections > 1).unwrap();
        assert_eq!((often.connections, often.last_seen), (1_000, at(999)));
        assert!(callers.iter().all(|caller| caller.last_seen.as_secs() > 1_000 - CALLERS as u64));
    }
}

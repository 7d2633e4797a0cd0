//! Who may be at the other end: an allow and a deny list of SPIFFE IDs.
//!
//! "Anyone whom our certificate authority has signed" is not a policy: in a mesh that is every workload. So a
//! policy names peers, an empty one allows nobody, and neither the connector nor the acceptor can be made without
//! one. There is no default.
//!
//! # How it decides
//!
//! A deny rule that matches refuses; otherwise an allow rule that matches allows; otherwise it is refused. Paths
//! match by whole segments: the prefix `/ns/a` covers `/ns/a` and `/ns/a/sa/web`, never `/ns/ab`.
//!
//! What it does not do: it sees the peer, not the request. Rules on paths and methods belong to a layer above.
//!
//! ```
//! use mesh_tls::{PeerPolicy, SpiffeId};
//!
//! let shop = PeerPolicy::path_prefix("cluster.local".parse()?, "/ns/shop")?
//!     .deny_exact("spiffe://cluster.local/ns/shop/sa/guest".parse()?);
//!
//! let allows = |id: &str| shop.allows(&id.parse::<SpiffeId>().unwrap());
//! assert!(allows("spiffe://cluster.local/ns/shop/sa/orders"));
//! assert!(!allows("spiffe://cluster.local/ns/shop/sa/guest"));
//! assert!(!allows("spiffe://cluster.local/ns/shopping/sa/orders"));
//! # Ok::<(), mesh_tls::InvalidSpiffeId>(())
//! ```

use std::{fmt, sync::Arc};

use rustls_pki_types::DnsName;

use crate::{
    id::{InvalidSpiffeId, SpiffeId, TrustDomain, check_path},
    info::PeerIdentity,
};

/// Which peers are welcome. See the [module](self) for how it decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PeerPolicy {
    allow: Arc<[Match]>,
    deny: Arc<[Match]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Match {
    Any,
    Exact(SpiffeId),
    TrustDomain(TrustDomain),
    PathPrefix(TrustDomain, Arc<str>),
    /// A name in lower case, and the trust domain whose bundle verifies it.
    Dns(TrustDomain, Arc<str>),
}

/// A string that is not a DNS name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidDnsName(());

// === impl PeerPolicy ===

impl PeerPolicy {
    /// Allows nobody. The start for [`PeerPolicy::or`] in a loop.
    #[must_use]
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Allows exactly one ID.
    #[must_use]
    pub fn exact(id: SpiffeId) -> Self {
        Self::of(Match::Exact(id))
    }

    /// Allows every ID of one trust domain.
    #[must_use]
    pub fn trust_domain(domain: TrustDomain) -> Self {
        Self::of(Match::TrustDomain(domain))
    }

    /// Allows the IDs of one trust domain whose path starts with the segments of `prefix`.
    ///
    /// # Errors
    ///
    /// When `prefix` is not the path of a SPIFFE ID (a slash at its end, an empty segment, ...).
    pub fn path_prefix(domain: TrustDomain, prefix: &str) -> Result<Self, InvalidSpiffeId> {
        check_path(prefix)?;
        Ok(Self::of(Match::PathPrefix(domain, prefix.into())))
    }

    /// Allows a peer of another mesh, which has a DNS name instead of a SPIFFE ID, as Linkerd's workloads do:
    /// `web.emojivoto.serviceaccount.identity.linkerd.cluster.local`.
    ///
    /// A DNS name does not say whose bundle verifies it, so `domain` does; where one name is listed under several trust
    /// domains, the peer is of the first whose bundle does. The name is compared whole and without
    /// case; a wildcard in a certificate matches nothing. A certificate with a URI is never taken for its DNS names.
    /// Without this rule, one without a URI is refused.
    ///
    /// ```
    /// use mesh_tls::PeerPolicy;
    ///
    /// let web = "web.emojivoto.serviceaccount.identity.linkerd.cluster.local";
    /// let policy = PeerPolicy::dns_name("cluster.local".parse()?, web).unwrap();
    /// // It is a rule for one peer of another mesh, and allows nobody of ours.
    /// assert!(!policy.allows(&"spiffe://cluster.local/ns/emojivoto/sa/web".parse()?));
    /// assert!(PeerPolicy::dns_name("cluster.local".parse()?, "*.cluster.local").is_err());
    /// # Ok::<(), mesh_tls::InvalidSpiffeId>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When `name` is not a DNS name; a wildcard is none.
    pub fn dns_name(domain: TrustDomain, name: &str) -> Result<Self, InvalidDnsName> {
        let name = DnsName::try_from(name).map_err(|_| InvalidDnsName(()))?;
        Ok(Self::of(Match::Dns(domain, name.to_lowercase_owned().as_ref().into())))
    }

    /// Allows every peer that has proved an identity, of any trust domain whose bundle is loaded.
    #[must_use]
    pub fn any_authenticated() -> Self {
        Self::of(Match::Any)
    }

    /// Allows what either policy allows, and denies what either denies.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self { allow: joined(&self.allow, &other.allow), deny: joined(&self.deny, &other.deny) }
    }

    /// Never allows this ID, whatever else allows it.
    #[must_use]
    pub fn deny_exact(self, id: SpiffeId) -> Self {
        Self { deny: joined(&self.deny, &[Match::Exact(id)]), ..self }
    }

    /// Never allows IDs of this trust domain whose path starts with the segments of `prefix`.
    ///
    /// # Errors
    ///
    /// When `prefix` is not the path of a SPIFFE ID.
    pub fn deny_path_prefix(
        self,
        domain: TrustDomain,
        prefix: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        check_path(prefix)?;
        let rule = Match::PathPrefix(domain, prefix.into());
        Ok(Self { deny: joined(&self.deny, &[rule]), ..self })
    }

    /// Whether a peer with this ID is welcome.
    #[must_use]
    pub fn allows(&self, id: &SpiffeId) -> bool {
        !self.deny.iter().any(|rule| rule.matches(id))
            && self.allow.iter().any(|rule| rule.matches(id))
    }

    /// As [`PeerPolicy::allows`], for a peer that may have only a DNS name.
    #[must_use]
    pub fn admits(&self, peer: &PeerIdentity) -> bool {
        let Some(name) = peer.dns_name() else { return self.allows(peer.id()) };
        self.allow.iter().any(|rule| match rule {
            Match::Any => true,
            Match::Dns(domain, wanted) => &**wanted == name && peer.id().is_member_of(domain),
            // The ID of such a peer is that of a whole trust domain: no rule for workloads means it.
            Match::Exact(_) | Match::TrustDomain(_) | Match::PathPrefix(..) => false,
        })
    }

    /// The DNS names that it allows, each with the trust domain whose bundle verifies it.
    pub(crate) fn dns_names(&self) -> impl Iterator<Item = (&TrustDomain, &Arc<str>)> {
        self.allow.iter().filter_map(|rule| match rule {
            Match::Dns(domain, name) => Some((domain, name)),
            Match::Any | Match::Exact(_) | Match::TrustDomain(_) | Match::PathPrefix(..) => None,
        })
    }

    /// Allows this peer alone, where it has only a DNS name, and in no other trust domain.
    pub(crate) fn of_dns_name(peer: &PeerIdentity) -> Option<Self> {
        let name = peer.dns_name()?;
        Some(Self::of(Match::Dns(peer.id().trust_domain(), name.into())))
    }

    fn of(rule: Match) -> Self {
        Self { allow: [rule].into(), deny: [].into() }
    }
}

// === impl Match ===

impl Match {
    fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(wanted) => wanted == id,
            Self::TrustDomain(domain) => id.is_member_of(domain),
            Self::Dns(..) => false,
            Self::PathPrefix(domain, prefix) => {
                let rest = id.path().strip_prefix(&**prefix);
                // What follows the prefix must be a new segment, or nothing.
                let whole_segments = rest.is_some_and(|r| r.is_empty() || r.starts_with('/'));
                id.is_member_of(domain) && whole_segments
            }
        }
    }
}

// === impl InvalidDnsName ===

impl fmt::Display for InvalidDnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a DNS name")
    }
}

impl std::error::Error for InvalidDnsName {}

fn joined(left: &[Match], right: &[Match]) -> Arc<[Match]> {
    left.iter().chain(right).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    /// `prefix` as `str::starts_with` alone would decide: the broken twin of whole segments.
    fn careless_prefix(prefix: &str, id: &SpiffeId) -> bool {
        id.path().starts_with(prefix)
    }

    #[test]
    fn the_empty_policy_allows_nobody() {
        assert!(!PeerPolicy::nobody().allows(&id("spiffe://td/a")));
        assert!(!PeerPolicy::default().allows(&id("spiffe://td/a")));
    }

    #[test]
    fn a_prefix_matches_whole_segments_only() {
        let policy = PeerPolicy::path_prefix("td".parse().unwrap(), "/ns/a").unwrap();
        assert!(policy.allows(&id("spiffe://td/ns/a")));
        assert!(policy.allows(&id("spiffe://td/ns/a/sa/x")));
        let neighbour = id("spiffe://td/ns/ab");
        assert!(!policy.allows(&neighbour));
        assert!(careless_prefix("/ns/a", &neighbour), "the twin must fall for it");
        assert!(!policy.allows(&id("spiffe://other/ns/a")));
        assert!(PeerPolicy::path_prefix("td".parse().unwrap(), "/ns/a/").is_err());
    }

    #[test]
    fn deny_wins_over_allow() {
        let policy = PeerPolicy::any_authenticated().deny_exact(id("spiffe://td/bad"));
        assert!(policy.allows(&id("spiffe://td/good")));
        assert!(!policy.allows(&id("spiffe://td/bad")));
        // ... also when the allowing side is joined later.
        let joined = policy.or(&PeerPolicy::exact(id("spiffe://td/bad")));
        assert!(!joined.allows(&id("spiffe://td/bad")));
    }

    #[test]
    fn a_trust_domain_is_compared_whole() {
        let policy = PeerPolicy::trust_domain("example".parse().unwrap());
        assert!(policy.allows(&id("spiffe://example/x")));
        assert!(!policy.allows(&id("spiffe://example.evil/x")));
        assert!(!policy.allows(&id("spiffe://an.example/x")));
    }
}

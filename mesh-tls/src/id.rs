//! SPIFFE identities: who a peer is, as a trust domain and a path.
//!
//! A host name says where a peer is; it moves, and it is not in the certificate of a workload. A SPIFFE ID says
//! what the peer is, and it is the one name that an X.509-SVID must carry. A URL parser is no help here: it would
//! lower-case, unescape and normalise, and each of those lets two spellings name one peer.
//!
//! # How it decides
//!
//! | part | rule | source |
//! | --- | --- | --- |
//! | whole | `spiffe://` in lower case, at most 2048 bytes | SPIFFE-ID 2, 2.3 |
//! | trust domain | 1 to 255 of `a-z 0-9 . - _`; no port, no user | SPIFFE-ID 2.1 |
//! | path | empty, or segments of `a-z A-Z 0-9 . - _` behind `/`; no empty, `.` or `..` segment | SPIFFE-ID 2.2 |
//!
//! Upper case in the trust domain is refused. The specification says in one place that it must be lower case and
//! in another that it compares without case; a certificate that needs the second reading is not accepted here.
//!
//! ```
//! use mesh_tls::SpiffeId;
//!
//! let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/orders".parse()?;
//! assert_eq!(id.trust_domain().as_str(), "cluster.local");
//! assert_eq!(id.path(), "/ns/shop/sa/orders");
//!
//! assert!("spiffe://cluster.local/ns/../sa/admin".parse::<SpiffeId>().is_err());
//! # Ok::<(), mesh_tls::InvalidSpiffeId>(())
//! ```

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID 2.3: an implementation must take 2048 bytes and must not make longer ones.
const MAX_ID: usize = 2048;
/// SPIFFE-ID 2.3: the longest trust domain.
const MAX_TRUST_DOMAIN: usize = 255;

/// A SPIFFE ID: `spiffe://<trust domain><path>`.
///
/// Cloning is one reference count. Two IDs are equal when their bytes are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    whole: Arc<str>,
    /// Where the path starts: just behind the trust domain.
    path_at: usize,
}

/// A trust domain: the part of a SPIFFE ID that says whose bundle verifies it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

/// A string that is not a SPIFFE ID or trust domain.
///
/// It says which rule was broken, not what the string was: the string may come from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSpiffeId(&'static str);

// === impl SpiffeId ===

impl SpiffeId {
    /// The ID of `path` in `trust_domain`. The path starts with `/`, or is empty.
    ///
    /// # Errors
    ///
    /// When the path breaks a rule of the [module](self).
    ///
    /// ```
    /// use mesh_tls::{SpiffeId, TrustDomain};
    ///
    /// let domain: TrustDomain = "cluster.local".parse()?;
    /// let id = SpiffeId::new(&domain, "/ns/shop/sa/pay")?;
    /// assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/pay");
    /// assert!(SpiffeId::new(&domain, "ns/shop").is_err());
    /// # Ok::<(), mesh_tls::InvalidSpiffeId>(())
    /// ```
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, InvalidSpiffeId> {
        check_path(path)?;
        let path_at = SCHEME.len() + trust_domain.0.len();
        if path_at + path.len() > MAX_ID {
            return Err(InvalidSpiffeId("it is longer than 2048 bytes"));
        }
        let whole: String = [SCHEME, &trust_domain.0, path].concat();
        Ok(Self { whole: whole.into(), path_at })
    }

    /// The ID of `segments` joined by `/` in `trust_domain`; none at all name the trust domain itself.
    ///
    /// # Errors
    ///
    /// When a segment is empty, `.`, `..`, or has a character outside `a-z A-Z 0-9 . - _`.
    pub fn from_segments(
        trust_domain: &TrustDomain,
        segments: &[&str],
    ) -> Result<Self, InvalidSpiffeId> {
        let path: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
        if segments.iter().any(|segment| segment.contains('/')) {
            return Err(InvalidSpiffeId("a segment contains a slash"));
        }
        Self::new(trust_domain, &path)
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// The trust domain. It allocates; [`SpiffeId::is_member_of`] compares without.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_str().into())
    }

    /// The path: empty for the ID of a trust domain itself, else with its leading `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.whole.get(self.path_at..).unwrap_or_default()
    }

    /// Whether the ID lies in `trust_domain`. The whole name is compared: `a.example` is no member of `example`.
    #[must_use]
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain_str() == &*trust_domain.0
    }

    pub(crate) fn trust_domain_str(&self) -> &str {
        self.whole.get(SCHEME.len()..self.path_at).unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        if text.len() > MAX_ID {
            return Err(InvalidSpiffeId("it is longer than 2048 bytes"));
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or(InvalidSpiffeId("it does not start with spiffe:// in lower case"))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(domain)?;
        check_path(path)?;
        Ok(Self { whole: text.into(), path_at: SCHEME.len() + domain.len() })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

// === impl TrustDomain ===

impl TrustDomain {
    /// The name, without a scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID of the trust domain itself, which has no path. No workload may carry it.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        let whole: String = [SCHEME, &self.0].concat();
        let path_at = whole.len();
        SpiffeId { whole: whole.into(), path_at }
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    /// Takes a bare name, or any SPIFFE ID, of which it keeps the trust domain.
    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        if text.starts_with(SCHEME) {
            return text.parse::<SpiffeId>().map(|id| id.trust_domain());
        }
        check_trust_domain(text)?;
        Ok(Self(text.into()))
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl InvalidSpiffeId ===

impl fmt::Display for InvalidSpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a SPIFFE ID: {}", self.0)
    }
}

impl std::error::Error for InvalidSpiffeId {}

fn check_trust_domain(name: &str) -> Result<(), InvalidSpiffeId> {
    if name.is_empty() {
        return Err(InvalidSpiffeId("the trust domain is missing"));
    }
    if name.len() > MAX_TRUST_DOMAIN {
        return Err(InvalidSpiffeId("the trust domain is longer than 255 bytes"));
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    if !name.bytes().all(allowed) {
        return Err(InvalidSpiffeId("the trust domain may hold only a-z, 0-9, '.', '-' and '_'"));
    }
    Ok(())
}

/// `path` is empty or starts with `/`; every segment is checked.
pub(crate) fn check_path(path: &str) -> Result<(), InvalidSpiffeId> {
    if path.is_empty() {
        return Ok(());
    }
    let Some(segments) = path.strip_prefix('/') else {
        return Err(InvalidSpiffeId("the path does not start with a slash"));
    };
    for segment in segments.split('/') {
        match segment {
            "" => return Err(InvalidSpiffeId("the path has an empty segment")),
            "." | ".." => return Err(InvalidSpiffeId("the path has a dot segment")),
            _ => {}
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        if !segment.bytes().all(allowed) {
            return Err(InvalidSpiffeId(
                "the path may hold only letters, digits, '.', '-' and '_'",
            ));
        }
    }
    Ok(())
}

//! The bundles of one generation, and the verification of a chain against them.
//!
//! Not one store of all roots: the authority of one trust domain could then sign for another (SPIFFE Federation 4.2
//! forbids it). The peer's own SPIFFE ID names the bundle, and only that bundle's roots are tried.

mod revoked;

use std::{collections::BTreeMap, fmt};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

pub(super) use self::revoked::Lists;
pub(crate) use self::revoked::list_issuer;
use crate::{
    error::{IssuerRule, MaterialError, SvidRule, Untrusted},
    id::TrustDomain,
    info::PeerIdentity,
    material::Trust,
    policy::PeerPolicy,
    revocation::Revocation,
    svid::{self, Claims},
};

/// No honest chain is longer, and path building is paid for by us.
pub(super) const MAX_CHAIN: usize = 16;
pub(super) const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// Which end of the connection the certificate belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// The roots of each trust domain. Immutable: new trust is a new store.
pub(crate) struct TrustStore {
    bundles: BTreeMap<TrustDomain, Bundle>,
    lists: Lists,
    /// Whether a peer's certificate must have a key usage.
    key_usage: bool,
}

struct Bundle {
    anchors: Vec<TrustAnchor<'static>>,
    /// What each anchor must not do. An anchor of webpki has no room for it.
    limits: Vec<Limits>,
}

#[derive(Clone, Copy)]
struct Limits {
    /// How many intermediates may stand below it.
    path_length: Option<u32>,
    signs_lists: bool,
}

impl TrustStore {
    /// Takes only certificates that may act as roots; a bundle may be empty, and then trusts nobody.
    pub(crate) fn new(trust: &Trust, revocation: Revocation) -> Result<Self, MaterialError> {
        let mut anchors = BTreeMap::new();
        for (domain, certificates) in &trust.bundles {
            let roots: Result<Vec<_>, _> = certificates.iter().enumerate().map(root).collect();
            let (roots, limits) = roots?.into_iter().unzip();
            anchors.insert(domain.clone(), Bundle { anchors: roots, limits });
        }
        let lists = Lists::new(&trust.crls, revocation)?;
        Ok(Self { bundles: anchors, lists, key_usage: false })
    }

    pub(crate) fn requiring_key_usage(self, key_usage: bool) -> Self {
        Self { key_usage, ..self }
    }

    /// Verifies a whole chain: path to the bundle of its own trust domain, dates, purpose, revocation, SVID rules.
    pub(crate) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<PeerIdentity, Untrusted> {
        let nobody = PeerPolicy::nobody();
        self.verify_peer(end_entity, intermediates, now, role, algorithms, &nobody)
    }

    /// As [`TrustStore::verify`], and takes a peer without an SVID for a DNS name that `policy` asks for. Whether the
    /// policy wants the peer is for the caller to ask.
    pub(crate) fn verify_peer(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
        algorithms: WebPkiSupportedAlgorithms,
        policy: &PeerPolicy,
    ) -> Result<PeerIdentity, Untrusted> {
        let bytes: usize = intermediates.iter().map(|der| der.len()).sum();
        if intermediates.len() >= MAX_CHAIN || bytes + end_entity.len() > MAX_CHAIN_BYTES {
            return Err(Untrusted::ChainTooLong);
        }
        // The ID is read before the signature is checked, only to choose the roots; it is believed afterwards.
        let Claims { first, others } = svid::check_peer(end_entity, policy, self.key_usage)?;
        let cert = EndEntityCert::try_from(end_entity).map_err(|e| untrusted(&e))?;
        let prove = |claim: &PeerIdentity| {
            self.verify_path(&cert, intermediates, now, role, algorithms, claim)
        };
        let mut why = match prove(&first) {
            Ok(()) => return Ok(first),
            Err(why) => why,
        };
        for claim in others {
            match prove(&claim) {
                Ok(()) => return Ok(claim),
                // What the bundle that knows its issuer says is the reason.
                Err(found) if is_stranger(&why) && !is_stranger(&found) => why = found,
                Err(_) => {}
            }
        }
        Err(why)
    }

    /// A path from the certificate to the bundle of the trust domain that it claims.
    fn verify_path(
        &self,
        cert: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
        algorithms: WebPkiSupportedAlgorithms,
        claim: &PeerIdentity,
    ) -> Result<(), Untrusted> {
        let bundle = self
            .bundles
            .get(claim.id().trust_domain_str())
            .ok_or_else(|| Untrusted::UnknownTrustDomain(claim.id().trust_domain()))?;
        let usage = match role {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        let lists = self.lists.all();
        let path = cert
            .verify_for_usage(
                algorithms.all,
                &bundle.anchors,
                intermediates,
                now,
                usage,
                self.lists.options(&lists),
                Some(&|path| bundle.check_limits(path, &self.lists)),
            )
            .map_err(|e| untrusted(&e))?;
        // webpki does not look at the key usage of issuers.
        path.intermediate_certificates()
            .try_for_each(|issuer| svid::check_issuer(&issuer.der()))
            .map_err(Untrusted::BadIssuer)
    }

    /// Whether the bundle of the domain is there and has a root.
    pub(crate) fn has_roots(&self, domain: &str) -> bool {
        self.bundles.get(domain).is_some_and(|bundle| !bundle.anchors.is_empty())
    }
}

impl Bundle {
    fn check_limits(&self, path: &VerifiedPath<'_>, lists: &Lists) -> Result<(), webpki::Error> {
        let below = path.intermediate_certificates().count();
        let is_ours = |anchor: &TrustAnchor<'_>| std::ptr::eq(anchor, path.anchor());
        let limits = self.anchors.iter().position(is_ours).and_then(|at| self.limits.get(at));
        // An anchor that is not found has unknown limits, and an unknown limit allows nothing.
        let limits = limits.ok_or(webpki::Error::UnknownIssuer)?;
        if !limits.signs_lists && lists.were_asked_of(&path.anchor().subject, below) {
            return Err(webpki::Error::IssuerNotCrlSigner);
        }
        match limits.path_length {
            Some(limit) if below > usize::try_from(limit).unwrap_or(usize::MAX) => {
                Err(webpki::Error::PathLenConstraintViolated)
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.bundles.iter().map(|(domain, bundle)| (domain, bundle.anchors.len()));
        f.debug_map().entries(counts).finish()?;
        if self.lists.is_empty() { Ok(()) } else { write!(f, " with {:?}", self.lists) }
    }
}

fn root(
    (index, der): (usize, &CertificateDer<'static>),
) -> Result<(TrustAnchor<'static>, Limits), MaterialError> {
    let bad = |why: &str| MaterialError::bad_bundle(index + 1, why);
    let broken = |rule: IssuerRule| bad(&rule.to_string());
    svid::check_issuer(der).map_err(broken)?;
    if svid::constrains_uris(der) {
        return Err(broken(IssuerRule::NoUriConstraints));
    }
    if let Some(id) = svid::issuer_with_path(der) {
        tracing::warn!(%id, "a root has a SPIFFE ID with a path, which X509-SVID 3.2 forbids");
    }
    let anchor = webpki::anchor_from_trusted_cert(der).map_err(|e| bad(&e.to_string()))?;
    let limits =
        Limits { path_length: svid::path_length(der), signs_lists: svid::may_sign_lists(der) };
    Ok((anchor.to_owned(), limits))
}

/// Whether a bundle knows nothing of who has signed.
fn is_stranger(why: &Untrusted) -> bool {
    matches!(why, Untrusted::UnknownIssuer | Untrusted::UnknownTrustDomain(_))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "webpki's list of errors grows in patches")]
pub(super) fn untrusted(error: &webpki::Error) -> Untrusted {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } | E::InvalidCertValidity => Untrusted::Expired,
        E::CertNotValidYet { .. } => Untrusted::NotYetValid,
        // A stranger with our authority's name is found by name and fails by signature.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => Untrusted::UnknownIssuer,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Untrusted::WrongPurpose,
        E::CaUsedAsEndEntity => Untrusted::NotAnSvid(SvidRule::NoAuthority),
        E::EndEntityUsedAsCa => Untrusted::BadIssuer(IssuerRule::IsAuthority),
        E::PathLenConstraintViolated => Untrusted::BadIssuer(IssuerRule::PathLength),
        E::NameConstraintViolation => Untrusted::BadIssuer(IssuerRule::PermitsNames),
        E::CertRevoked => Untrusted::Revoked,
        E::UnknownRevocationStatus => Untrusted::RevocationUnknown,
        E::CrlExpired { .. } => Untrusted::RevocationOutdated,
        E::InvalidCrlSignatureForPublicKey | E::IssuerNotCrlSigner => Untrusted::RevocationForged,
        // These would repeat what the certificate says of itself, and all that we know.
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            Untrusted::Chain("it is signed by an algorithm that is not taken".into())
        }
        E::UnsupportedCrlSignatureAlgorithmContext(_)
        | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
            Untrusted::Chain("a revocation list is signed by an algorithm that is not taken".into())
        }
        other => Untrusted::Chain(short(other)),
    }
}

/// The beginning of it: who is refused need not have proved anything, and the reason is kept, logged and shown.
fn short(error: &webpki::Error) -> String {
    struct Short(String);
    impl fmt::Write for Short {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = MAX_REASON.saturating_sub(self.0.len());
            let end = text.floor_char_boundary(room);
            self.0.push_str(&text[..end]);
            // To stop is what an error does.
            if end < text.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut short = Short(String::new());
    let _cut = fmt::Write::write_fmt(&mut short, format_args!("{error}"));
    short.0
}

/// More than any of those has to say that have no names or bytes of a certificate in them.
const MAX_REASON: usize = 200;

#[cfg(all(test, any(feature = "aws-lc-rs", feature = "ring")))]
mod tests;

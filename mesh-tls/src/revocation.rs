//! What certificate revocation lists decide.
//!
//! In a mesh a certificate lives for an hour, and the way to revoke is not to renew. A list is for what is quicker
//! than that, and for authorities whose certificates live longer. Material [with lists](crate::Material::with_crls) has
//! every peer's chain checked against them, on both sides; material without any checks nothing. The lists that
//! `origination::Config::with_crl` names, for servers outside the mesh, decide by the same table.
//!
//! # How it decides
//!
//! | of the leaf and each intermediate | by default | otherwise |
//! | --- | --- | --- |
//! | its issuer's list names it | refused: `Revoked` | of an intermediate, let pass by [`leaf_only`](Revocation::leaf_only) |
//! | no list is of its issuer | refused: `RevocationUnknown` | let pass by [`allow_unknown`](Revocation::allow_unknown) |
//! | its issuer's list is past its `nextUpdate` | refused: `RevocationOutdated` | used all the same by [`allow_outdated`](Revocation::allow_outdated) |
//! | the list in its issuer's name bears another's signature, or its issuer lacks cRLSign | refused: `RevocationForged` | |
//!
//! The defaults are Envoy's (`crl` in `CertificateValidationContext`): who has lists for one issuer needs them for all.
//! With bundles of several trust domains that is often not so, and `allow_unknown` is the setting for it. Roots are
//! not looked up: a root goes by leaving the bundle. Two different lists of one issuer are refused when they are loaded, and
//! the last good state stays: only one of them would ever be asked.
//!
//! What it does not do: it does not fetch lists, and knows neither delta lists, nor indirect ones, nor lists in parts, nor OCSP.
//!
//! ```
//! use mesh_tls::Revocation;
//!
//! let only_leaves = Revocation::new().leaf_only(true);
//! assert_ne!(only_leaves, Revocation::default());
//! ```

/// How revocation lists are read. See the [module](self) for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Revocation {
    pub(crate) leaf_only: bool,
    pub(crate) allow_unknown: bool,
    pub(crate) allow_outdated: bool,
}

impl Revocation {
    /// The whole chain is checked, and what is not known to be good is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks up only the leaf, as Envoy's `only_verify_leaf_cert_crl`. Default: the intermediates too.
    #[must_use]
    pub fn leaf_only(self, leaf_only: bool) -> Self {
        Self { leaf_only, ..self }
    }

    /// Lets certificates pass whose issuer has no list. Default: refused.
    #[must_use]
    pub fn allow_unknown(self, allow_unknown: bool) -> Self {
        Self { allow_unknown, ..self }
    }

    /// Goes on with a list that is past its `nextUpdate`. Default: refuses whom it could speak of.
    #[must_use]
    pub fn allow_outdated(self, allow_outdated: bool) -> Self {
        Self { allow_outdated, ..self }
    }
}

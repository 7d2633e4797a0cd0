//! The revocation lists of one generation.

use std::fmt;

use rustls_pki_types::CertificateRevocationListDer;
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, ExpirationPolicy, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::{error::MaterialError, revocation::Revocation};

/// Every list of the material, decoded once.
pub(in crate::backend) struct Lists {
    lists: Vec<CertRevocationList<'static>>,
    revocation: Revocation,
}

/// The name of the issuer of a list that decodes.
pub(crate) fn list_issuer(der: &[u8]) -> Option<Vec<u8>> {
    BorrowedCertRevocationList::from_der(der)
        .ok()
        .map(|list| CertRevocationList::from(list).issuer().to_vec())
}

// === impl Lists ===

impl Lists {
    pub(in crate::backend) fn new(
        ders: &[CertificateRevocationListDer<'_>],
        revocation: Revocation,
    ) -> Result<Self, MaterialError> {
        let decode = |(index, der): (usize, &CertificateRevocationListDer<'_>)| {
            OwnedCertRevocationList::from_der(der)
                .map(CertRevocationList::from)
                .map_err(|e| MaterialError::bad_crl(index + 1, &e.to_string()))
        };
        let lists: Vec<_> = ders.iter().enumerate().map(decode).collect::<Result<_, _>>()?;
        // Of several lists of one issuer only the first is ever looked at: who is named in another would pass.
        for (index, list) in lists.iter().enumerate() {
            let is_another = |before: usize| {
                lists[before].issuer() == list.issuer() && ders[before] != ders[index]
            };
            if (0..index).any(is_another) {
                return Err(MaterialError::bad_crl(index + 1, "a second list of one issuer"));
            }
        }
        Ok(Self { lists, revocation })
    }

    pub(in crate::backend) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    pub(in crate::backend) fn all(&self) -> Vec<&CertRevocationList<'_>> {
        self.lists.iter().collect()
    }

    /// How `lists` are to be read; `None` where there are none, and then nothing is checked.
    pub(in crate::backend) fn options<'a>(
        &self,
        lists: &'a [&'a CertRevocationList<'a>],
    ) -> Option<RevocationOptions<'a>> {
        let Revocation { leaf_only, allow_unknown, allow_outdated } = self.revocation;
        let depth =
            if leaf_only { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
        let unknown =
            if allow_unknown { UnknownStatusPolicy::Allow } else { UnknownStatusPolicy::Deny };
        let outdated =
            if allow_outdated { ExpirationPolicy::Ignore } else { ExpirationPolicy::Enforce };
        let builder = RevocationOptionsBuilder::new(lists).ok()?;
        let builder = builder.with_depth(depth).with_status_policy(unknown);
        Some(builder.with_expiration_policy(outdated).build())
    }

    /// Whether a list in the name of this root decided about a path with so many intermediates.
    pub(in crate::backend) fn were_asked_of(&self, root: &[u8], intermediates: usize) -> bool {
        let looked_up = intermediates == 0 || !self.revocation.leaf_only;
        looked_up && self.lists.iter().any(|list| list.issuer() == root)
    }
}

impl fmt::Debug for Lists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} revocation lists", self.lists.len())
    }
}

//! Says aloud when something in use comes to its end: our own certificate, a root, a revocation list.

use std::collections::BTreeMap;

use super::{generation::Own, inner::Inner};
use crate::mesh::{Expiry, Name};

/// What was told of each.
#[derive(Debug, Default)]
pub(super) struct Ends {
    own: Expiry,
    lists: Expiry,
    /// By serial number and subject: roots of one name follow one another.
    roots: BTreeMap<(String, String), Expiry>,
}

impl Ends {
    pub(super) fn look(&mut self, inner: &Inner) {
        let (current, config) = (inner.current.load(), &inner.config);
        let now = inner.shared.provider.clock.now();
        let dates = current.own.as_ref().and_then(Own::dates);
        if let Some((dates, (file, _))) = dates.zip(config.certificate()) {
            self.own.look(Name::File(file), dates, now);
        }
        if let Some((dates, file)) = current.verifier.revoked().dates().zip(config.crl()) {
            self.lists.look(Name::Lists(file), dates, now);
        }
        if config.roots.is_of_the_system() {
            return;
        }
        let mut told = std::mem::take(&mut self.roots);
        for root in current.verifier.anchors().about() {
            let key = (root.serial.clone(), root.subject.clone());
            let mut expiry = told.remove(&key).unwrap_or_default();
            expiry.look(Name::Root(&root.subject, &config.roots), root.dates, now);
            self.roots.insert(key, expiry);
        }
    }
}

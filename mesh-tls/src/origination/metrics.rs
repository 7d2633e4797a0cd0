//! The gauges of servers outside the mesh; the counters are those of the mesh, by another label.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::gauge;
use rustls_pki_types::UnixTime;

use super::status::Status;
use crate::mesh::metrics::{CRL_NEXT_UPDATE, GENERATION, NOT_AFTER, ROOTS_NOT_AFTER};

/// Who has told of each name last. One that is built anew has the series before the old one is gone, and keeps it.
static TOLD_BY: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// The series of one name. They are 0 once it is dropped.
#[derive(Debug)]
pub(super) struct Gauges {
    upstream: String,
    /// No other has it.
    number: u64,
}

impl Gauges {
    pub(super) fn new(upstream: String) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self { upstream, number: NUMBERS.fetch_add(1, Ordering::Relaxed) }
    }

    pub(super) fn published(&self, status: &Status) {
        let mut told_by = TOLD_BY.lock().unwrap_or_else(PoisonError::into_inner);
        told_by.insert(self.upstream.clone(), self.number);
        let secs = |time: Option<UnixTime>| time.map_or(0, |time| time.as_secs());
        let own = status.certificate.as_ref().map(|own| own.not_after);
        let crl = status.crl.as_ref().and_then(|crl| crl.next_update);
        self.set(status.generation, secs(own), secs(status.roots.next_not_after), secs(crl));
    }

    fn set(&self, generation: u64, own: u64, roots: u64, crl: u64) {
        for (name, value) in [
            (GENERATION, generation),
            (NOT_AFTER, own),
            (ROOTS_NOT_AFTER, roots),
            (CRL_NEXT_UPDATE, crl),
        ] {
            let labels = [("identity", String::new()), ("upstream", self.upstream.clone())];
            gauge!(name, &labels).set(value as f64);
        }
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        let mut told_by = TOLD_BY.lock().unwrap_or_else(PoisonError::into_inner);
        if told_by.get(&self.upstream) == Some(&self.number) {
            told_by.remove(&self.upstream);
            self.set(0, 0, 0, 0);
        }
    }
}

//! Says aloud that an identity comes to its end and no new one has come.
//!
//! A source that has stopped renewing fails nothing until the last minute, and then everything. Peers renew after half to
//! nine tenths of a certificate's life (Istio and SPIRE 50 %, cert-manager's SPIFFE driver 66 %, Linkerd 70 %, Consul 60 to
//! 90 %), so 80 % is late, and 95 % the last call. Each stage is told once for a certificate.

use rustls_pki_types::UnixTime;

use crate::info::PeerIdentity;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    told: Option<(UnixTime, Stage)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Late,
    LastCall,
    Over,
}

// === impl Expiry ===

impl Expiry {
    pub(super) fn look(&mut self, own: &PeerIdentity, now: UnixTime) {
        let end = own.not_after();
        let Some(stage) = stage(own.not_before(), end, now) else { return };
        let is_told = self.told.is_some_and(|(of, told)| of == end && told >= stage);
        if is_told {
            return;
        }
        self.told = Some((end, stage));
        let (id, left) = (own.id(), end.as_secs().saturating_sub(now.as_secs()));
        match stage {
            Stage::Late | Stage::LastCall => tracing::warn!(
                %id,
                seconds_left = left,
                "our certificate is not renewed although it should be; look at what renews it"
            ),
            Stage::Over => tracing::error!(
                %id,
                "our certificate has expired: we connect to nobody, and peers refuse us; look at what renews it"
            ),
        }
    }
}

fn stage(begin: UnixTime, end: UnixTime, now: UnixTime) -> Option<Stage> {
    let life = end.as_secs().saturating_sub(begin.as_secs());
    let age = now.as_secs().saturating_sub(begin.as_secs());
    let is_past = |percent: u64| age >= life / 100 * percent + life % 100 * percent / 100;
    match () {
        () if now > end => Some(Stage::Over),
        () if is_past(95) => Some(Stage::LastCall),
        () if is_past(80) => Some(Stage::Late),
        () => None,
    }
}

//! Says aloud that an identity comes to its end and no new one has come.
//!
//! A source that has stopped renewing fails nothing until the last minute, and then everything. Peers renew after half to
//! nine tenths of a certificate's life (Istio and SPIRE 50 %, cert-manager's SPIFFE driver 66 %, Linkerd 70 %, Consul 60 to
//! 90 %), so 80 % is late, and 95 % the last call. Each stage is told once for a certificate.

use std::{path::Path, time::Duration};

use rustls_pki_types::UnixTime;
use tracing::field::display;

use crate::id::SpiffeId;

/// How often the dates of our own certificate are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(30);

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    told: Option<(UnixTime, Stage)>,
}

/// What a certificate of ours is known by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name<'a> {
    /// Its SPIFFE ID.
    Id(&'a SpiffeId),
    /// The file that it is in.
    #[cfg_attr(
        not(feature = "origination"),
        expect(dead_code, reason = "the identity of a mesh goes by its ID")
    )]
    File(&'a Path),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Late,
    LastCall,
    Over,
}

// === impl Expiry ===

impl Expiry {
    /// `dates` are the first and the last moment at which it is valid.
    pub(crate) fn look(&mut self, name: Name<'_>, dates: (UnixTime, UnixTime), now: UnixTime) {
        let (begin, end) = dates;
        let Some(stage) = stage(begin, end, now) else { return };
        let is_told = self.told.is_some_and(|(of, told)| of == end && told >= stage);
        if is_told {
            return;
        }
        self.told = Some((end, stage));
        let left = end.as_secs().saturating_sub(now.as_secs());
        let (id, file) = match name {
            Name::Id(id) => (Some(display(id)), None),
            Name::File(file) => (None, Some(display(file.display()))),
        };
        match stage {
            Stage::Late | Stage::LastCall => tracing::warn!(
                id,
                file,
                seconds_left = left,
                "our certificate is not renewed although it should be; look at what renews it"
            ),
            Stage::Over => tracing::error!(
                id,
                file,
                "our certificate has expired: we connect to nobody by it, and peers refuse it; look at what renews it"
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

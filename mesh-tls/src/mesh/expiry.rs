//! Says aloud that an identity comes to its end and no new one has come.
//!
//! A source that has stopped renewing fails nothing until the last minute, and then everything. Peers renew after half to
//! nine tenths of a certificate's life (Istio and SPIRE 50 %, cert-manager's SPIFFE driver 66 %, Linkerd 70 %, Consul 60 to
//! 90 %), so 80 % is late, and 95 % the last call. Each stage is told once for a certificate.
//!
//! Of what others renew, a root or a revocation list, only the last call is told: a root lives for ten years, and two years
//! before its end nobody would mend it.

#[cfg(feature = "origination")]
use std::fmt;
use std::{path::Path, time::Duration};

use rustls_pki_types::UnixTime;
use tracing::field::display;

use crate::id::SpiffeId;

/// How often the dates of what is in use are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(30);

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    told: Option<(UnixTime, Stage)>,
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name<'a> {
    /// A certificate of ours, by its SPIFFE ID.
    Id(&'a SpiffeId),
    /// A certificate of ours, by its file.
    #[cfg(feature = "origination")]
    File(&'a Path),
    /// A root for servers outside the mesh, by its subject, and where it is from.
    #[cfg(feature = "origination")]
    Root(&'a str, &'a dyn fmt::Debug),
    /// The revocation lists in a file.
    #[cfg(feature = "origination")]
    Lists(&'a Path),
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
        let Some(stage) = stage(begin, end, now).filter(|stage| *stage >= name.first_told()) else {
            return;
        };
        let is_told = self.told.is_some_and(|(of, told)| of == end && told >= stage);
        if is_told {
            return;
        }
        self.told = Some((end, stage));
        name.tell(stage, end.as_secs().saturating_sub(now.as_secs()));
    }
}

// === impl Name ===

impl Name<'_> {
    fn first_told(self) -> Stage {
        match self {
            Self::Id(_) => Stage::Late,
            #[cfg(feature = "origination")]
            Self::File(_) => Stage::Late,
            #[cfg(feature = "origination")]
            Self::Root(..) | Self::Lists(_) => Stage::LastCall,
        }
    }

    fn tell(self, stage: Stage, left: u64) {
        match self {
            Self::Id(id) => tell_of_ours(Some(id), None, stage, left),
            #[cfg(feature = "origination")]
            Self::File(file) => tell_of_ours(None, Some(file), stage, left),
            #[cfg(feature = "origination")]
            Self::Root(subject, from) => match stage {
                Stage::Late | Stage::LastCall => tracing::warn!(
                    subject,
                    ?from,
                    seconds_left = left,
                    "a root for servers outside the mesh is about to expire; add the one that follows it"
                ),
                Stage::Over => tracing::warn!(
                    subject,
                    ?from,
                    "a root for servers outside the mesh has expired; it is believed all the same"
                ),
            },
            #[cfg(feature = "origination")]
            Self::Lists(file) => match stage {
                Stage::Late | Stage::LastCall => tracing::warn!(
                    file = %file.display(),
                    seconds_left = left,
                    "a revocation list is about to be out of date; look at what fetches it"
                ),
                Stage::Over => tracing::error!(
                    file = %file.display(),
                    "a revocation list is out of date: servers of its issuer are refused, unless that is allowed; look at \
                     what fetches it"
                ),
            },
        }
    }
}

fn tell_of_ours(id: Option<&SpiffeId>, file: Option<&Path>, stage: Stage, left: u64) {
    let (id, file) = (id.map(display), file.map(|file| display(file.display())));
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

//! What is shown of an identity, for a page like `/certs`. No key, no certificate: names, numbers and dates.

use rustls_pki_types::UnixTime;
use serde::{Serialize, Serializer, ser::SerializeStruct};

#[cfg(feature = "origination")]
use crate::origination::{CertificateStatus, CrlStatus, RootsStatus, Status as OutsideStatus};
use crate::{
    info::PeerIdentity,
    mesh::{PlaintextSource, RefusedCaller, Status},
};

/// The fields of a type by name, and what is shown of each. Not derived: what is not written here is shown to nobody.
macro_rules! shown {
    ($of:ident as $name:literal, |$self:ident| { $($field:ident: $value:expr,)* }) => {
        impl Serialize for $of {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $self = self;
                let fields = [$(stringify!($field)),*].len();
                let mut shown = serializer.serialize_struct($name, fields)?;
                $(shown.serialize_field(stringify!($field), &$value)?;)*
                shown.end()
            }
        }
    };
}

shown! {
    PeerIdentity as "PeerIdentity", |peer| {
        id: peer.id().as_str(),
        serial: peer.serial(),
        not_before: secs(peer.not_before()),
        not_after: secs(peer.not_after()),
    }
}

shown! {
    Status as "Status", |status| {
        generation: status.generation,
        identity: status.identity,
        last_error: status.last_error,
    }
}

shown! {
    PlaintextSource as "PlaintextSource", |source| {
        network: source.network.map(|network| format!("{network}/{}", source.prefix)),
        listener: source.listener.map(|listener| listener.to_string()),
        connections: source.connections,
        error: source.error,
        last_seen: secs(source.last_seen),
    }
}

shown! {
    RefusedCaller as "RefusedCaller", |caller| {
        address: caller.address.map(|address| address.to_string()),
        listener: caller.listener.map(|listener| listener.to_string()),
        reason: caller.reason,
        connections: caller.connections,
        last_seen: secs(caller.last_seen),
    }
}

#[cfg(feature = "origination")]
shown! {
    OutsideStatus as "Status", |status| {
        name: status.name,
        generation: status.generation,
        roots: status.roots,
        crl: status.crl,
        certificate: status.certificate,
        last_error: status.last_error,
    }
}

#[cfg(feature = "origination")]
shown! {
    RootsStatus as "RootsStatus", |roots| {
        from: roots.from.to_string(),
        count: roots.count,
        expired: roots.expired,
        next_subject: roots.next_subject,
        next_not_after: roots.next_not_after.map(secs),
    }
}

#[cfg(feature = "origination")]
shown! {
    CrlStatus as "CrlStatus", |crl| {
        file: crl.file.to_string_lossy(),
        count: crl.count,
        next_update: crl.next_update.map(secs),
    }
}

#[cfg(feature = "origination")]
shown! {
    CertificateStatus as "CertificateStatus", |certificate| {
        file: certificate.file.to_string_lossy(),
        subject: certificate.subject,
        names: certificate.names,
        serial: certificate.serial,
        not_before: secs(certificate.not_before),
        not_after: secs(certificate.not_after),
    }
}

fn secs(time: UnixTime) -> u64 {
    time.as_secs()
}

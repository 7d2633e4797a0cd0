//! What is shown of an identity, for a page like `/certs`. No key, no certificate: names, numbers and dates.

use rustls_pki_types::UnixTime;
use serde::{Serialize, Serializer, ser::SerializeStruct};

#[cfg(feature = "origination")]
use crate::origination;
use crate::{
    info::PeerIdentity,
    mesh::{PlaintextSource, RefusedCaller, Status},
};

impl Serialize for PeerIdentity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("PeerIdentity", 4)?;
        map.serialize_field("id", self.id().as_str())?;
        map.serialize_field("serial", self.serial())?;
        map.serialize_field("not_before", &secs(self.not_before()))?;
        map.serialize_field("not_after", &secs(self.not_after()))?;
        map.end()
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Status", 3)?;
        map.serialize_field("generation", &self.generation)?;
        map.serialize_field("identity", &self.identity)?;
        map.serialize_field("last_error", &self.last_error)?;
        map.end()
    }
}

impl Serialize for PlaintextSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("PlaintextSource", 5)?;
        let network = self.network.map(|network| format!("{network}/{}", self.prefix));
        map.serialize_field("network", &network)?;
        map.serialize_field("listener", &self.listener.map(|listener| listener.to_string()))?;
        map.serialize_field("connections", &self.connections)?;
        map.serialize_field("error", &self.error)?;
        map.serialize_field("last_seen", &secs(self.last_seen))?;
        map.end()
    }
}

#[cfg(feature = "origination")]
impl Serialize for origination::Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Status", 6)?;
        map.serialize_field("name", &self.name)?;
        map.serialize_field("generation", &self.generation)?;
        map.serialize_field("roots", &self.roots)?;
        map.serialize_field("crl", &self.crl)?;
        map.serialize_field("certificate", &self.certificate)?;
        map.serialize_field("last_error", &self.last_error)?;
        map.end()
    }
}

#[cfg(feature = "origination")]
impl Serialize for origination::RootsStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("RootsStatus", 5)?;
        map.serialize_field("from", &self.from.to_string())?;
        map.serialize_field("count", &self.count)?;
        map.serialize_field("expired", &self.expired)?;
        map.serialize_field("next_subject", &self.next_subject)?;
        map.serialize_field("next_not_after", &self.next_not_after.map(secs))?;
        map.end()
    }
}

#[cfg(feature = "origination")]
impl Serialize for origination::CrlStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("CrlStatus", 3)?;
        map.serialize_field("file", &self.file.to_string_lossy())?;
        map.serialize_field("count", &self.count)?;
        map.serialize_field("next_update", &self.next_update.map(secs))?;
        map.end()
    }
}

#[cfg(feature = "origination")]
impl Serialize for origination::CertificateStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("CertificateStatus", 6)?;
        map.serialize_field("file", &self.file.to_string_lossy())?;
        map.serialize_field("subject", &self.subject)?;
        map.serialize_field("names", &self.names)?;
        map.serialize_field("serial", &self.serial)?;
        map.serialize_field("not_before", &secs(self.not_before))?;
        map.serialize_field("not_after", &secs(self.not_after))?;
        map.end()
    }
}

impl Serialize for RefusedCaller {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("RefusedCaller", 5)?;
        map.serialize_field("address", &self.address.map(|address| address.to_string()))?;
        map.serialize_field("listener", &self.listener.map(|listener| listener.to_string()))?;
        map.serialize_field("reason", &self.reason)?;
        map.serialize_field("connections", &self.connections)?;
        map.serialize_field("last_seen", &secs(self.last_seen))?;
        map.end()
    }
}

fn secs(time: UnixTime) -> u64 {
    time.as_secs()
}

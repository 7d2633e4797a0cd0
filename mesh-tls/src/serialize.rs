//! What is shown of an identity, for a page like `/certs`. No key, no certificate: names, numbers and dates.

use rustls_pki_types::UnixTime;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    info::PeerIdentity,
    mesh::{PlaintextSource, Status},
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

fn secs(time: UnixTime) -> u64 {
    time.as_secs()
}

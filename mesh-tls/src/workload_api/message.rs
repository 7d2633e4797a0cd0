//! One answer of the agent, taken apart.

use std::{collections::BTreeMap, fmt};

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};

use super::wire::{Fields, sequences};
use crate::{
    error::Untrusted,
    id::{SpiffeId, TrustDomain},
    material::Material,
    svid,
};

/// A hint need not be longer (SPIFFE Workload API, 5.2.1), and a longer one is not remembered.
const MAX_HINT: usize = 1024;

/// An `X509SVIDResponse`: the complete state of a workload's identities. `Debug` shows no secret.
///
/// [`WorkloadApiSource`](super::WorkloadApiSource) reads it from the agent. It is public for a transport of your own.
#[derive(Debug)]
pub struct Response {
    svids: Vec<Svid>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    federated: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
}

/// Which SVID of several is ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Choice {
    /// The first one, which the agent means as the default.
    #[default]
    First,
    /// The first one with this hint, which an operator has given it.
    Hint(String),
    /// The one with this ID.
    Id(SpiffeId),
}

/// A message that breaks a rule; it is discarded whole. It names the field, and never holds a byte of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// It is not the protobuf message.
    DoesNotDecode,
    /// It has no SVID.
    NoSvid,
    /// This mandatory field is missing or empty.
    Empty(&'static str),
    /// This field does not decode.
    BadField(&'static str),
    /// A certificate is not an X.509-SVID.
    NotAnSvid(Untrusted),
    /// A certificate carries another ID than the message says.
    OtherId,
    /// Two bundles are for one trust domain.
    TwoBundles(TrustDomain),
}

struct Svid {
    id: SpiffeId,
    hint: Option<String>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    bundle: Vec<CertificateDer<'static>>,
}

// === impl Response ===

impl Response {
    /// Decodes a message.
    ///
    /// # Errors
    ///
    /// When any of it breaks a rule: a message is taken whole or not at all (SPIFFE Workload API, 4.5).
    ///
    /// ```
    /// use mesh_tls::workload_api::{InvalidMessage, Response};
    ///
    /// assert_eq!(Response::decode(&[]).unwrap_err(), InvalidMessage::NoSvid);
    /// ```
    pub fn decode(message: &[u8]) -> Result<Self, InvalidMessage> {
        let mut response = Self { svids: Vec::new(), crls: Vec::new(), federated: BTreeMap::new() };
        for field in Fields::of(message) {
            match field.map_err(|()| InvalidMessage::DoesNotDecode)? {
                (1, svid) => response.svids.push(Svid::decode(svid)?),
                (2, list) => response.crls.push(list.to_vec().into()),
                (3, entry) => {
                    let (domain, roots) = federated(entry)?;
                    if response.federated.insert(domain.clone(), roots).is_some() {
                        return Err(InvalidMessage::TwoBundles(domain));
                    }
                }
                // A field of a later version.
                _ => {}
            }
        }
        if response.svids.is_empty() {
            return Err(InvalidMessage::NoSvid);
        }
        Ok(response)
    }

    /// The IDs of all SVIDs, in the agent's order, each with its hint.
    pub fn ids(&self) -> impl Iterator<Item = (&SpiffeId, Option<&str>)> {
        self.svids.iter().map(|svid| (&svid.id, svid.hint.as_deref()))
    }

    /// The material of the SVID that is `choice`, with the bundles and lists beside it; `None` when it is not there.
    ///
    /// The bundle of an SVID is that of its own trust domain; one that is federated as well must not say otherwise, so
    /// it is left out.
    #[must_use]
    pub fn into_material(self, choice: &Choice) -> Option<Material> {
        let Self { svids, crls, federated } = self;
        let chosen = svids.into_iter().find(|svid| match choice {
            Choice::First => true,
            Choice::Hint(hint) => svid.hint.as_ref() == Some(hint),
            Choice::Id(id) => svid.id == *id,
        })?;
        let mut material = Material::new(chosen.chain, chosen.key).with_crls(crls);
        for (domain, roots) in federated {
            material = material.with_bundle(domain, roots);
        }
        Some(material.with_bundle(chosen.id.trust_domain(), chosen.bundle))
    }
}

// === impl Svid ===

impl Svid {
    fn decode(message: &[u8]) -> Result<Self, InvalidMessage> {
        // The last one of a field counts, as protobuf has it.
        let [mut id, mut chain, mut key, mut bundle, mut hint] = [&[][..]; 5];
        for field in Fields::of(message) {
            match field.map_err(|()| InvalidMessage::DoesNotDecode)? {
                (1, value) => id = value,
                (2, value) => chain = value,
                (3, value) => key = value,
                (4, value) => bundle = value,
                (5, value) => hint = value,
                _ => {}
            }
        }
        let fields =
            [("spiffe_id", id), ("x509_svid", chain), ("x509_svid_key", key), ("bundle", bundle)];
        if let Some((name, _)) = fields.into_iter().find(|(_, value)| value.is_empty()) {
            return Err(InvalidMessage::Empty(name));
        }
        let id = str::from_utf8(id).ok().and_then(|id| id.parse::<SpiffeId>().ok());
        let id = id.ok_or(InvalidMessage::BadField("spiffe_id"))?;
        let chain = certificates(chain).ok_or(InvalidMessage::BadField("x509_svid"))?;
        let bundle = certificates(bundle).ok_or(InvalidMessage::BadField("bundle"))?;
        let hint = str::from_utf8(hint).map_err(|_| InvalidMessage::BadField("hint"))?;
        let leaf = chain.first().ok_or(InvalidMessage::Empty("x509_svid"))?;
        let own = svid::check_leaf(leaf).map_err(InvalidMessage::NotAnSvid)?;
        if *own.id() != id {
            return Err(InvalidMessage::OtherId);
        }
        Ok(Self {
            id,
            hint: Some(hint).filter(|hint| (1..=MAX_HINT).contains(&hint.len())).map(Into::into),
            chain,
            key: PrivatePkcs8KeyDer::from(key.to_vec()).into(),
            bundle,
        })
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// An entry of a map: the trust domain's SPIFFE ID, and its bundle. An empty bundle revokes.
fn federated(entry: &[u8]) -> Result<(TrustDomain, Vec<CertificateDer<'static>>), InvalidMessage> {
    const BAD: InvalidMessage = InvalidMessage::BadField("federated_bundles");
    let [mut domain, mut bundle] = [&[][..]; 2];
    for field in Fields::of(entry) {
        match field.map_err(|()| InvalidMessage::DoesNotDecode)? {
            (1, value) => domain = value,
            (2, value) => bundle = value,
            _ => {}
        }
    }
    let domain = str::from_utf8(domain).ok().and_then(|domain| domain.parse().ok());
    Ok((domain.ok_or(BAD)?, certificates(bundle).ok_or(BAD)?))
}

fn certificates(der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let owned = |der: &[u8]| CertificateDer::from(der.to_vec());
    Some(sequences(der)?.into_iter().map(owned).collect())
}

impl fmt::Display for InvalidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the agent's message was discarded: ")?;
        match self {
            Self::DoesNotDecode => f.write_str("it does not decode"),
            Self::NoSvid => f.write_str("it has no SVID"),
            Self::Empty(field) => write!(f, "{field} is empty"),
            Self::BadField(field) => write!(f, "{field} does not decode"),
            Self::NotAnSvid(why) => write!(f, "{why}"),
            Self::OtherId => f.write_str("the certificate carries another ID than the message"),
            Self::TwoBundles(domain) => write!(f, "{domain} has two bundles"),
        }
    }
}

impl std::error::Error for InvalidMessage {}

//! The bundles of several trust domains in one JSON document: a SPIFFE bundle map.
//!
//! ```json
//! {"trust_domains": {"a.example": {"keys": [{"kty": "EC", "use": "x509-svid", "x5c": ["MII…"]}]}}}
//! ```
//!
//! A directory with a PEM file for each trust domain says the same, but who federates gets this document, from SPIRE or
//! from a federation endpoint, and gRPC reads it too (`spiffe_trust_bundle_map_file`, gRFC A87). The bundles stay apart:
//! a peer is only ever verified against that of its own trust domain.
//!
//! # How it decides
//!
//! | in the document | what becomes of it | source |
//! | --- | --- | --- |
//! | no `trust_domains`, or a bundle without `keys` | refused | gRFC A87 |
//! | no trust domain at all | valid: trusts nobody | gRFC A87 |
//! | a bundle with empty `keys` | valid: revokes the whole trust domain | SPIFFE bundle 4.1.3 |
//! | a name that is no trust domain, or is empty | refused | SPIFFE bundle 4 |
//! | a trust domain twice, or a known member of an object twice | refused; gRPC takes the last one | SPIFFE bundle 4: consumers must |
//! | `spiffe_sequence` that is no whole number | refused | SPIFFE bundle 4.1.1 |
//! | a key without `kty` | refused | RFC 7517, 4.1 |
//! | a key with another `use` than `x509-svid`, or none, or a `kty` that is not known | passed over | SPIFFE bundle 4.2 |
//! | an `x5c` with any number of certificates but one | refused | gRFC A87 |
//! | a certificate that does not decode, or whose key is not of that `kty` | refused | gRPC |
//!
//! A document that is refused changes nothing: the last good one stays. Half a document could revoke by accident.
//!
//! What it does not do: it does not fetch the document, and `spiffe_refresh_hint` is for who does.

use std::{collections::BTreeMap, fmt};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use crate::{id::TrustDomain, material::Material, svid};

/// The bundles of several trust domains. Iterating it yields each with its roots.
///
/// ```
/// use mesh_tls::bundle_map::BundleMap;
///
/// let map = BundleMap::parse(br#"{"trust_domains": {"a.example": {"keys": []}}}"#)?;
/// let a = "a.example".parse().unwrap();
/// assert_eq!(map.roots(&a), Some(&[][..]), "it revokes whoever it trusted before");
///
/// let twice = br#"{"trust_domains": {"a.example": {"keys": []}, "a.example": {"keys": []}}}"#;
/// assert!(BundleMap::parse(twice).is_err());
/// # Ok::<(), mesh_tls::bundle_map::InvalidBundleMap>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BundleMap {
    bundles: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
}

/// A document that is no SPIFFE bundle map. It says what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidBundleMap(String);

#[derive(Deserialize)]
struct Document {
    trust_domains: Domains,
}

struct Domains(BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>);

#[derive(Deserialize)]
struct Bundle {
    keys: Vec<Jwk>,
    #[serde(rename = "spiffe_sequence")]
    _sequence: Option<u64>,
    #[serde(rename = "spiffe_refresh_hint")]
    _refresh_hint: Option<u64>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    x5c: Option<Vec<String>>,
}

// === impl BundleMap ===

impl BundleMap {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// When any of it breaks a rule of the [module](self).
    pub fn parse(json: &[u8]) -> Result<Self, InvalidBundleMap> {
        // The reader does not look at the letters of what it passes over.
        let text = str::from_utf8(json).map_err(|error| InvalidBundleMap(error.to_string()))?;
        match serde_json::from_str::<Document>(text) {
            Ok(Document { trust_domains: Domains(bundles) }) => Ok(Self { bundles }),
            Err(error) => Err(InvalidBundleMap(without_quotation(error.to_string()))),
        }
    }

    /// The roots of a trust domain; `None` when the map does not name it, which trusts nobody of it just as well.
    #[must_use]
    pub fn roots(&self, domain: &TrustDomain) -> Option<&[CertificateDer<'static>]> {
        self.bundles.get(domain).map(Vec::as_slice)
    }

    /// How many trust domains it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bundles.len()
    }

    /// Whether it names no trust domain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }
}

impl IntoIterator for BundleMap {
    type Item = (TrustDomain, Vec<CertificateDer<'static>>);
    type IntoIter =
        std::collections::btree_map::IntoIter<TrustDomain, Vec<CertificateDer<'static>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.bundles.into_iter()
    }
}

impl Material {
    /// Trusts, each for its own trust domain, the roots of a map, in place of what it trusted before for those domains.
    #[must_use]
    pub fn with_bundle_map(self, map: BundleMap) -> Self {
        map.into_iter().fold(self, |material, (domain, roots)| material.with_bundle(domain, roots))
    }
}

// === impl Domains ===

impl<'de> Deserialize<'de> for Domains {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DomainsVisitor)
    }
}

struct DomainsVisitor;

impl<'de> Visitor<'de> for DomainsVisitor {
    type Value = Domains;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of trust domains")
    }

    /// By hand, because a map that is collected keeps the last of two and says nothing.
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Domains, A::Error> {
        let mut bundles = BTreeMap::new();
        while let Some(name) = entries.next_key::<String>()? {
            // Parsed as a name alone: a SPIFFE ID would be taken for its trust domain.
            let domain = match name.parse::<TrustDomain>() {
                Ok(domain) if domain.as_str() == name => domain,
                Ok(_) => return Err(A::Error::custom("a key is not the name of a trust domain")),
                Err(why) => return Err(A::Error::custom(format_args!("a trust domain: {why}"))),
            };
            let bundle: Bundle = entries.next_value()?;
            let roots = bundle
                .roots()
                .map_err(|why| A::Error::custom(format_args!("trust domain {domain}, {why}")))?;
            if bundles.insert(domain.clone(), roots).is_some() {
                return Err(A::Error::custom(format_args!("trust domain {domain} is there twice")));
            }
        }
        Ok(Domains(bundles))
    }
}

// === impl Bundle ===

impl Bundle {
    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let of_key = |(index, key): (usize, &Jwk)| {
            key.root().map_err(|why| format!("key {}: {why}", index + 1)).transpose()
        };
        self.keys.iter().enumerate().filter_map(of_key).collect()
    }
}

// === impl Jwk ===

impl Jwk {
    /// `None` for a key that is not for us.
    fn root(&self) -> Result<Option<CertificateDer<'static>>, &'static str> {
        if self.usage.as_deref() != Some("x509-svid") {
            return Ok(None);
        }
        let algorithms: &[&str] = match &*self.kty {
            "RSA" => &["1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10"],
            "EC" => &["1.2.840.10045.2.1"],
            "OKP" => &["1.3.101.112", "1.3.101.113"],
            _ => return Ok(None),
        };
        let Some([encoded]) = self.x5c.as_deref() else {
            return Err("x5c must hold exactly one certificate");
        };
        let der = decode(encoded).ok_or("x5c is not base64")?;
        let algorithm = svid::key_algorithm(&der).ok_or("x5c is not a certificate")?;
        match algorithms.contains(&&*algorithm) {
            true => Ok(Some(der)),
            false => Err("the certificate's key is not of the kty"),
        }
    }
}

/// The reader of JSON quotes a string that should have been something else. A file that was put here by mistake may
/// hold a key, and then what it holds is not repeated.
fn without_quotation(text: String) -> String {
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            let (before, behind) = (text.get(..first), text.get(last + 1..));
            format!("{}…{}", before.unwrap_or_default(), behind.unwrap_or_default())
        }
        _ => text,
    }
}

/// Base64 (RFC 4648, 4), by the reader of PEM that is here anyway. Only letters of base64 are let in to it: a line of
/// dashes would end the one certificate and begin another.
fn decode(base64: &str) -> Option<CertificateDer<'static>> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
    if base64.is_empty() || !base64.bytes().all(letter) {
        return None;
    }
    let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

// === impl InvalidBundleMap ===

impl fmt::Display for InvalidBundleMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidBundleMap {}

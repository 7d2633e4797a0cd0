//! What decides who a peer is: SPIFFE IDs, certificates, and the files of an identity.

use mesh_tls::{
    Material, MaterialErrorKind, SpiffeId, TrustDomain,
    bundle_map::BundleMap,
    pki_types::{CertificateDer, pem::PemObject},
    workload_api::{Choice, InvalidMessage, Response},
};
use serde_json::Value;

/// The parser and the grammar agree on what is an ID and on its two parts; each way to build it builds the same.
pub(super) fn spiffe_id(data: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(data);
    let parsed = text.parse::<SpiffeId>();
    let parts = parsed.as_ref().ok().map(|id| (id.trust_domain(), id.path()));
    let parts = parts.as_ref().map(|(domain, path)| (domain.as_str(), *path));
    if parts != grammar(&text) {
        return Err(format!(
            "{text:?} was read as {parts:?}, the grammar says {:?}",
            grammar(&text)
        ));
    }
    let Ok(id) = parsed else { return Ok(()) };
    let (domain, segments) = (id.trust_domain(), id.path().split('/').skip(1));
    let others = [
        id.to_string().parse(),
        SpiffeId::new(&domain, id.path()),
        SpiffeId::from_segments(&domain, &segments.collect::<Vec<_>>()),
    ];
    if others.iter().any(|other| other.as_ref() != Ok(&id)) {
        return Err(format!("{id} is another when built again: {others:?}"));
    }
    let members =
        [domain.as_str().parse(), text.parse::<TrustDomain>(), Ok(domain.id().trust_domain())];
    if members.iter().any(|member| !member.as_ref().is_ok_and(|domain| id.is_member_of(domain))) {
        return Err(format!("{id} is no member of its own trust domain: {members:?}"));
    }
    Ok(())
}

/// The grammar of SPIFFE-ID 2, letter by letter: the trust domain and the path.
fn grammar(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("spiffe://")?;
    let domain = rest.find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'));
    let (domain, path) = rest.split_at(domain.unwrap_or(rest.len()));
    let mut segment = "";
    for (at, letter) in path.char_indices().chain([(path.len(), '/')]) {
        match letter {
            '/' if at == 0 => {}
            '/' if matches!(segment, "" | "." | "..") => return None,
            '/' => segment = "",
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' if at > 0 => {
                segment = path[..=at].rsplit('/').next()?;
            }
            _ => return None,
        }
    }
    (matches!(domain.len(), 1..=255) && text.len() <= 2048).then_some((domain, path))
}

/// The certificate that a peer sends. One that is taken shows its ID in so many letters, and is taken only whole; one
/// that is not is refused as the certificate that it is, and for nothing else.
pub(super) fn certificate(data: &[u8]) -> Result<(), String> {
    let read =
        |der: &[u8]| Material::from_pem(pem("CERTIFICATE", der).as_bytes(), KEY.as_bytes(), b"");
    match read(data) {
        Ok(_) if !data.windows(9).any(|part| part == b"spiffe://") => {
            Err("an identity which is not in the certificate".to_owned())
        }
        Ok(_) if read(&[data, &[0]].concat()).is_ok() => {
            Err("taken with a byte behind it".to_owned())
        }
        Ok(_) if read(&data[..data.len() - 1]).is_ok() => Err("taken without its end".to_owned()),
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), MaterialErrorKind::OwnCertificate(_)) => Ok(()),
        Err(error) => Err(format!("refused for another reason: {error:?}")),
    }
}

/// A file that holds chain, key and bundle. Its certificates, written again with a remark between each two, read as the
/// same; a refusal is for want of a part, for a form that is not read, or for the identity.
pub(super) fn material(data: &[u8]) -> Result<(), String> {
    let read = |text: &[u8]| Material::from_pem(text, text, text);
    let certificates =
        |text| CertificateDer::pem_slice_iter(text).filter_map(Result::ok).collect::<Vec<_>>();
    match read(data) {
        Ok(material) => {
            let chain = certificates(data);
            let written: String = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
            let written = written + KEY;
            let (shown, again) = (format!("{material:?}"), read(written.as_bytes()));
            let same = again.as_ref().is_ok_and(|again| format!("{again:?}") == shown);
            if !same || certificates(written.as_bytes()) != chain {
                return Err(format!("{shown}, written again, is {again:?}"));
            }
            Ok(())
        }
        Err(error) => {
            let holds = |words: &[u8]| data.windows(words.len()).any(|window| window == words);
            let kind = error.kind();
            let for_want = [MaterialErrorKind::NoCertificate, MaterialErrorKind::NoKey];
            let is_right = for_want.contains(kind)
                || matches!(kind, MaterialErrorKind::OwnCertificate(_))
                || *kind == MaterialErrorKind::NotPem && data.first() == Some(&0x30)
                || *kind == MaterialErrorKind::EncryptedKey && holds(b"ENCRYPTED");
            if is_right { Ok(()) } else { Err(format!("refused for another reason: {error:?}")) }
        }
    }
}

/// A bundle map. A reader that knows nothing of it finds the same trust domains, with as many keys as are for us; with a
/// letter behind it, or without its end, it is refused.
pub(super) fn bundle_map(data: &[u8]) -> Result<(), String> {
    let map = match BundleMap::parse(data) {
        Ok(map) => map,
        Err(error) if error.to_string().is_empty() => return Err("refused for nothing".to_owned()),
        Err(_) => return Ok(()),
    };
    let naive: Value = match serde_json::from_slice(data) {
        Ok(naive) => naive,
        // A number that nobody asks for may be of any size.
        Err(error) if error.to_string().contains("number out of range") => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let Some(domains) = naive["trust_domains"].as_object() else {
        return Err("read without trust domains".to_owned());
    };
    let is_ours = |key: &&Value| {
        key["use"] == "x509-svid" && ["RSA", "EC", "OKP"].map(Value::from).contains(&key["kty"])
    };
    let count =
        |bundle: &Value| bundle["keys"].as_array().into_iter().flatten().filter(is_ours).count();
    let expected: Vec<_> = domains.iter().map(|(name, b)| (name.clone(), count(b))).collect();
    let mut found: Vec<_> = map
        .clone()
        .into_iter()
        .map(|(domain, roots)| (domain.as_str().to_owned(), roots.len()))
        .collect();
    found.sort();
    let mut expected = expected;
    expected.sort();
    if found != expected {
        return Err(format!("read as {found:?}, it is {expected:?}"));
    }
    let end = data.iter().rposition(|byte| !byte.is_ascii_whitespace()).unwrap_or_default();
    if BundleMap::parse(&[data, b"x"].concat()).is_ok() || BundleMap::parse(&data[..end]).is_ok() {
        return Err("taken with a letter behind it, or without its end".to_owned());
    }
    Ok(())
}

/// A message of the Workload API. Each ID that is read stands in it in so many letters; a field of a later version
/// behind it changes nothing, and half a field does.
pub(super) fn workload_message(data: &[u8]) -> Result<(), String> {
    let ids = |data: &[u8]| -> Result<Vec<(String, Option<String>)>, InvalidMessage> {
        let response = Response::decode(data)?;
        let owned =
            |(id, hint): (&SpiffeId, Option<&str>)| (id.to_string(), hint.map(str::to_owned));
        let ids = response.ids().map(owned).collect();
        Ok(ids)
    };
    let found = match ids(data) {
        Ok(found) => found,
        Err(error) if error.to_string().is_empty() => return Err("refused for nothing".to_owned()),
        Err(_) => return Ok(()),
    };
    let is_written = |text: &str| data.windows(text.len()).any(|part| part == text.as_bytes());
    if found.is_empty() || !found.iter().all(|(id, _)| is_written(id)) {
        return Err(format!("IDs that are not in it: {found:?}"));
    }
    if ids(&[data, &[0x78, 0x01]].concat()).as_ref() != Ok(&found) {
        return Err("another with a field of a later version".to_owned());
    }
    if ids(&[data, &[0x0A, 0x7F]].concat()).is_ok() {
        return Err("taken with half a field behind it".to_owned());
    }
    let first = Response::decode(data).ok().and_then(|all| all.into_material(&Choice::First));
    first.map(drop).ok_or_else(|| "without a first one".to_owned())
}

/// What is decoded later stays what it is: this is the form of a key, and none.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n";

/// PEM (RFC 7468) behind a line that is none, as OpenSSL writes it.
fn pem(label: &str, der: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut body = String::new();
    for (index, chunk) in der.chunks(3).enumerate() {
        if index > 0 && index % 16 == 0 {
            body.push('\n');
        }
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[bits >> (18 - 6 * place) & 63];
            body.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    format!("subject=none\n-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

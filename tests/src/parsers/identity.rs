//! What decides who a peer is: SPIFFE IDs, certificates, and the files of an identity.

use mesh_tls::{
    Material, MaterialErrorKind, SpiffeId, TrustDomain,
    pki_types::{CertificateDer, pem::PemObject},
};

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
/// same; a refusal is for want of a part, or for the identity.
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
            let for_want = [MaterialErrorKind::NoCertificate, MaterialErrorKind::NoKey];
            let for_identity = matches!(error.kind(), MaterialErrorKind::OwnCertificate(_));
            if for_identity || for_want.contains(error.kind()) {
                return Ok(());
            }
            Err(format!("refused for another reason: {error:?}"))
        }
    }
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

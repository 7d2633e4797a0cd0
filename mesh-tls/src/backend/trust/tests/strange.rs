//! What a stranger has written into a certificate is not repeated at any length: the reason of a refusal is kept, logged and
//! shown, and who is refused need not have proved anything.

use super::*;

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;

fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    // Four octets of length wherever one is not enough would not be DER.
    let length = match content.len() {
        0..=0x7f => vec![length[3]],
        0x80..=0xff => vec![0x81, length[3]],
        0x100..=0xffff => vec![0x82, length[2], length[3]],
        _ => panic!("no certificate is that long"),
    };
    [&[tag][..], &length, content].concat()
}

/// The first field, its header included, and what is behind it.
fn first(der: &[u8]) -> (&[u8], &[u8]) {
    let (header, length) = match der[1] {
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        short => (2, usize::from(short)),
    };
    der.split_at(header + length)
}

fn content(field: &[u8]) -> &[u8] {
    let header = match field[1] {
        0x81 => 3,
        0x82 => 4,
        _ => 2,
    };
    &field[header..]
}

/// The same certificate, said to be signed by an algorithm that nobody knows, with parameters of so many octets.
fn signed_strangely(der: &CertificateDer<'_>, octets: usize) -> CertificateDer<'static> {
    let oid = [0x06, 0x03, 0x2a, 0x03, 0x04];
    let parameters = field(OCTETS, &vec![0xff; octets]);
    let algorithm = field(SEQUENCE, &[&oid[..], &parameters].concat());
    let (whole, _) = first(der);
    let (to_be_signed, rest) = first(content(whole));
    let (_, signature) = first(rest);
    let (version, rest) = first(content(to_be_signed));
    let (serial, rest) = first(rest);
    let (_, rest) = first(rest);
    let to_be_signed = field(SEQUENCE, &[version, serial, &algorithm, rest].concat());
    field(SEQUENCE, &[&to_be_signed, &algorithm, signature].concat()).into()
}

#[test]
fn the_reason_of_a_refusal_is_short_whatever_a_certificate_says() {
    let root = root(authority("root"));
    let store = trusting(&[("td", &[&root])]).unwrap();
    let good = issue(&leaf(), &root);
    for octets in [1, 100, 10_000, 25_000] {
        let strange = signed_strangely(&good, octets);
        let why = verify_chain(&store, &strange, &[], Role::Client).unwrap_err();
        let Untrusted::Chain(text) = &why else { panic!("{why}") };
        assert!(text.contains("algorithm"), "{why}");
        assert!(text.len() <= MAX_REASON, "{octets} octets make {} letters", text.len());
    }
    // The broken twin repeats what webpki says, and that is what the certificate says.
    let said = webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(
        webpki::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![0xff; 10_000],
            public_key_algorithm_id: Vec::new(),
        },
    );
    assert!(said.to_string().len() > 10_000);
    assert_eq!(short(&said).len(), MAX_REASON);
    assert_eq!(short(&webpki::Error::BadDer), "BadDer");
}

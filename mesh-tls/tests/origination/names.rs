//! Which name a server must have.

use mesh_tls::{ConnectErrorKind, Origination, Untrusted};
use rustls::version::TLS13;

use super::{NAME, config, dial, other_names};
use crate::{
    support::{ping, tcp},
    web::{Server, Web},
};

#[tokio::test]
async fn one_of_the_given_names_is_enough_and_the_dialled_one_is_not() {
    let web = Web::new("authority");
    let names = ["*.bank.example", "10.0.0.7", "spiffe://bank.example/api"];
    let server = Server::start(web.site(&names).config(&[&TLS13], None)).await;
    let with = |names: &[&str]| config(&web).with_subject_alt_names(names).unwrap();
    for good in [
        &["API.bank.example"][..],
        &["10.0.0.7"],
        &["spiffe://bank.example/api"],
        &["www.shop.example", "spiffe://bank.example/api"],
        // None at all: the name that is dialled.
        &[],
    ] {
        let mut stream =
            dial(with(good), &server).await.unwrap_or_else(|e| panic!("{good:?}: {e}"));
        ping(&mut stream).await.unwrap();
    }
    let read = server.read();
    for bad in [
        &["www.shop.example"][..],
        &["bank.example"],
        &["a.api.bank.example"],
        &["10.0.0.8"],
        &["spiffe://bank.example/API"],
        &["spiffe://bank.example/api/"],
        &["spiffe://bank.example/ap"],
    ] {
        let error = dial(with(bad), &server).await.unwrap_err();
        assert_eq!(*error.kind(), other_names(bad, &names));
    }
    assert_eq!(server.read(), read);
}

#[tokio::test]
async fn a_host_is_asked_for_as_it_is_meant() {
    let web = Web::new("authority");
    let reaches = async |names: &[&str], host: &str| {
        let server = Server::start(web.site(names).config(&[&TLS13], None)).await;
        let bank = Origination::spawn(config(&web)).unwrap();
        bank.connect(tcp(server.addr).await, host).await.map(drop).map_err(|e| e.kind().clone())
    };
    for (name, host) in [
        (NAME, "API.Bank.EXAMPLE"),
        (NAME, "api.bank.example."),
        ("*.bank.example", "api.bank.example."),
        ("10.0.0.7", "10.0.0.7"),
        ("fd00::7", "[fd00::7]"),
        ("fd00::7", "fd00:0::07"),
    ] {
        assert_eq!(reaches(&[name], host).await, Ok(()), "{name} for {host}");
    }
    let none = Origination::spawn(config(&web)).unwrap();
    let error = none.connect(tokio::io::empty(), "a b").await.unwrap_err();
    assert_eq!(*error.kind(), ConnectErrorKind::InvalidName);
    assert!(!error.is_retryable(), "it never becomes one");
    for (name, host) in [
        // An address is no name, and what stands for one whole label stands for no more and no less.
        ("api.bank.example", "10.0.0.7"),
        ("*.0.0.7", "10.0.0.7"),
        ("10.0.0.7", "[::ffff:10.0.0.7]"),
        ("*.bank.example", "bank.example"),
        ("*.bank.example", "a.api.bank.example"),
        ("a*.bank.example", "api.bank.example"),
        ("*.*.example", "api.bank.example"),
        ("*", "example"),
        ("urn:api.bank.example", "api.bank.example"),
    ] {
        let found = reaches(&[name], host).await;
        let is_other = matches!(
            found,
            Err(ConnectErrorKind::PeerUntrusted(
                Untrusted::OtherNames { .. } | Untrusted::Chain(_)
            ))
        );
        assert!(is_other, "{name} for {host}: {found:?}");
    }
}

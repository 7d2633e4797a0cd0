//! Servers whose certificate was taken back.

use std::time::Duration;

use mesh_tls::{
    ConnectErrorKind, MaterialErrorKind, Origination, Revocation, Untrusted,
    origination::{Config, Roots},
};
use rustls::version::{TLS12, TLS13};
use tokio::time;

use super::{NAME, config, dial, files, refusal};
use crate::{
    support::{PATIENCE, TempDir, eventually, ping, tcp},
    web::{Server, Web, replace},
};

fn untrusted(why: Untrusted) -> ConnectErrorKind {
    ConnectErrorKind::PeerUntrusted(why)
}

#[tokio::test]
async fn a_server_that_was_revoked_gets_nothing() {
    let web = Web::new("authority");
    let dir = TempDir::new("revoked");
    let list = dir.join("list.pem");
    let (good, bad) = (web.site(&[NAME]), web.site(&[NAME]));
    replace(&list, &web.list(&[&bad], 4001));
    for version in [&TLS12, &TLS13] {
        let server = Server::start(good.config(&[version], None)).await;
        let mut stream = dial(config(&web).with_crl(&list), &server).await.unwrap();
        ping(&mut stream).await.unwrap();
        let server = Server::start(bad.config(&[version], None)).await;
        let kind = refusal(config(&web).with_crl(&list), &server).await;
        assert_eq!(kind, untrusted(Untrusted::Revoked));
        // Who does not ask is not told.
        let mut stream = dial(config(&web), &server).await.unwrap();
        ping(&mut stream).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_known_to_be_good_is_refused_unless_it_is_allowed() {
    let (web, other) = (Web::new("authority"), Web::new("other"));
    let [mute, twin] = Web::mute_and_not("mute");
    let dir = TempDir::new("revocation");
    let list = dir.join("list.pem");
    let strict = Revocation::new();
    for (authority, text, but, why) in [
        (&web, other.list(&[], 4001), strict.allow_unknown(true), Untrusted::RevocationUnknown),
        (&web, web.list(&[], 2002), strict.allow_outdated(true), Untrusted::RevocationOutdated),
    ] {
        replace(&list, &text);
        let server = Server::start(authority.site(&[NAME]).config(&[&TLS13], None)).await;
        let asked = config(authority).with_crl(&list);
        assert_eq!(refusal(asked.clone(), &server).await, untrusted(why));
        let mut stream = dial(asked.with_revocation(but), &server).await.unwrap();
        ping(&mut stream).await.unwrap();
    }
    // A list in the name of an authority that must not sign any; the control may.
    replace(&list, &twin.list(&[], 4001));
    let server = Server::start(mute.site(&[NAME]).config(&[&TLS13], None)).await;
    let kind = refusal(config(&mute).with_crl(&list), &server).await;
    assert_eq!(kind, untrusted(Untrusted::RevocationForged));
    let mut stream = dial(config(&twin).with_crl(&list), &server).await.unwrap();
    ping(&mut stream).await.unwrap();
}

#[tokio::test]
async fn who_is_revoked_while_connected_is_drained_and_nobody_else() {
    let web = Web::new("authority");
    let dir = TempDir::new("revoked");
    let list = dir.join("list.pem");
    replace(&list, &web.list(&[], 4001));
    let (good, bad) = (web.site(&[NAME]), web.site(&[NAME]));
    let kept = Server::start(good.config(&[&TLS13], None)).await;
    let lost = Server::start(bad.config(&[&TLS13], None)).await;
    let config = files(config(&web).with_crl(&list)).with_drain_grace(Duration::from_millis(50));
    let bank = Origination::spawn(config).unwrap();
    let mut good = bank.connect(tcp(kept.addr).await, NAME).await.unwrap();
    let mut doubtful = bank.connect(tcp(lost.addr).await, NAME).await.unwrap();
    ping(&mut doubtful).await.unwrap();

    replace(&list, &web.list(&[&bad], 4001));
    time::timeout(PATIENCE, bank.reached(2)).await.unwrap();
    let ended = async { while ping(&mut doubtful).await.is_ok() {} };
    time::timeout(PATIENCE, ended).await.expect("it ends behind its grace");
    let error = bank.connect(tcp(lost.addr).await, NAME).await.unwrap_err();
    assert_eq!(*error.kind(), untrusted(Untrusted::Revoked));
    ping(&mut good).await.expect("it was not revoked");
    assert_eq!(bank.stats().drained_untrusted, 1);
}

#[tokio::test]
async fn a_bad_list_leaves_the_last_good_one_in_use_and_is_told_of() {
    let (web, strange) = (Web::new("authority"), Web::new("strange"));
    let dir = TempDir::new("revoked");
    let (roots, list) = (dir.join("ca.pem"), dir.join("list.pem"));
    let (good, bad) = (web.site(&[NAME]), web.site(&[NAME]));
    replace(&roots, &web.pem());
    replace(&list, &web.list(&[&bad], 4001));
    let server = Server::start(bad.config(&[&TLS13], None)).await;
    let bank = Config::new(Roots::file(&roots)).with_crl(&list);
    let bank = Origination::spawn(files(bank)).unwrap();
    let two = format!("{}{}", web.list(&[], 4001), web.list(&[&good], 4001));
    for (text, part) in [
        ("nothing", "list.pem: no revocation list found"),
        (&*two, "list.pem: revocation list 2 cannot be used: a second list of one issuer"),
    ] {
        replace(&list, text);
        let told = || bank.status().last_error.is_some_and(|error| error.contains(part));
        eventually(part, told).await;
        let error = bank.connect(tcp(server.addr).await, NAME).await.unwrap_err();
        assert_eq!(*error.kind(), untrusted(Untrusted::Revoked), "{part}");
    }
    assert_eq!((bank.stats().updates_refused, bank.status().generation), (2, 1));
    // The roots are another matter, and so is the list once it is good.
    replace(&roots, &format!("{}{}", web.pem(), strange.pem()));
    time::timeout(PATIENCE, bank.reached(2)).await.expect("the roots are taken");
    replace(&list, &web.list(&[], 4001));
    time::timeout(PATIENCE, bank.reached(3)).await.expect("the list is taken");
    eventually("all is well", || bank.status().last_error.is_none()).await;
    let mut stream = bank.connect(tcp(server.addr).await, NAME).await.unwrap();
    ping(&mut stream).await.unwrap();
    assert_eq!(bank.status().crl.unwrap().count, 1);
}

#[test]
fn a_bad_list_is_an_error_at_the_start() {
    let web = Web::new("authority");
    let dir = TempDir::new("lists");
    let (list, bad) = (dir.join("list.pem"), web.pem());
    for (text, kind) in
        [(None, MaterialErrorKind::Unreadable), (Some(&bad), MaterialErrorKind::NoCrl)]
    {
        text.iter().for_each(|text| replace(&list, text));
        let error = Origination::load(config(&web).with_crl(&list)).unwrap_err();
        assert_eq!((error.kind(), error.file()), (&kind, Some(&*list)), "{error}");
    }
}

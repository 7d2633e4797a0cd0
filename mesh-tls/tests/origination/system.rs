//! The roots of the operating system, which a variable of the environment names: so the test is a process of its own.

use std::{env, path::PathBuf, time::Duration};

use mesh_tls::{
    ConnectErrorKind, Origination, Untrusted,
    origination::{Config, Roots},
};
use rustls::version::TLS13;
use tokio::{process::Command, time};

use super::NAME;
use crate::{
    support::{PATIENCE, TempDir, eventually, ping, tcp},
    web::{Server, Web, replace},
};

const FILE: &str = "SSL_CERT_FILE";
/// Says to the process that it is the other one.
const OTHER: &str = "MESH_TLS_TEST_OF_SYSTEM_ROOTS";

#[tokio::test]
async fn roots_of_the_system_are_read_again() {
    if env::var_os(OTHER).is_some() {
        return follows(&PathBuf::from(env::var_os(FILE).unwrap())).await;
    }
    let dir = TempDir::new("system");
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "system::roots_of_the_system_are_read_again", "--nocapture"])
        .env(FILE, dir.join("ca.pem"))
        .env_remove("SSL_CERT_DIR")
        .env(OTHER, "yes")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
}

async fn follows(file: &std::path::Path) {
    let (old, new) = (Web::new("old"), Web::new("new"));
    replace(file, &old.pem());
    let config = Config::new(Roots::system())
        .with_system_interval(Duration::from_millis(20))
        .with_drain_grace(Duration::from_millis(50));
    let bank = Origination::spawn(config).unwrap();
    assert_eq!(bank.status().roots.from.to_string(), "system");
    let server = Server::start(old.site(&[NAME]).config(&[&TLS13], None)).await;
    let mut pooled = bank.connect(tcp(server.addr).await, NAME).await.unwrap();
    ping(&mut pooled).await.unwrap();

    // Bad ones leave the last good ones in use, and the same ones again are nothing new.
    replace(file, "nothing");
    let told = || {
        let error = bank.status().last_error;
        error.is_some_and(|error| error.contains("no certificate authorities of the system"))
    };
    eventually("it is told", told).await;
    bank.connect(tcp(server.addr).await, NAME).await.unwrap();
    replace(file, &old.pem());
    eventually("all is well", || bank.status().last_error.is_none()).await;
    assert_eq!((bank.status().generation, bank.stats().updates_refused), (1, 1));
    ping(&mut pooled).await.unwrap();

    replace(file, &new.pem());
    time::timeout(PATIENCE, bank.reached(2)).await.expect("they are others");
    let error = bank.connect(tcp(server.addr).await, NAME).await.unwrap_err();
    assert_eq!(*error.kind(), ConnectErrorKind::PeerUntrusted(Untrusted::UnknownIssuer));
    let ended = async { while ping(&mut pooled).await.is_ok() {} };
    time::timeout(PATIENCE, ended).await.expect("it ends behind its grace");
    let server = Server::start(new.site(&[NAME]).config(&[&TLS13], None)).await;
    let mut stream = bank.connect(tcp(server.addr).await, NAME).await.unwrap();
    ping(&mut stream).await.unwrap();
}

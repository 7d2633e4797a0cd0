//! What an operator sees: status, metrics, and that nobody looks at the files any more.

use std::{collections::BTreeMap, time::Duration};

use mesh_tls::{
    Origination,
    origination::{Config, Roots},
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use rustls::{pki_types::UnixTime, version::TLS13};
use tokio::time;

use super::{NAME, config, files};
use crate::{
    support::{PATIENCE, TempDir, eventually, ping, tcp},
    web::{Server, Web, replace},
};

/// The beginning of the year 3000.
const YEAR_3000: u64 = 32_503_680_000;

#[tokio::test]
async fn the_status_tells_what_is_in_use_and_no_secret() {
    let [next, last, expired] = [3000, 4001, 2002].map(|year| Web::until(&year.to_string(), year));
    let ours = Web::new("ours");
    let dir = TempDir::new("status");
    let (roots, own) = (dir.join("ca.pem"), dir.join("both.pem"));
    replace(&roots, &format!("{}{}{}", last.pem(), expired.pem(), next.pem()));
    let site = ours.site(&["client.shop.example", "10.0.0.7", "urn:shop:client"]);
    site.swap_into(&own);
    let bare = Config::new(Roots::file(&roots)).with_server_name(NAME).unwrap();
    let bank = Origination::spawn(files(bare.clone().with_certificate(&own, &own))).unwrap();

    let status = bank.status();
    assert_eq!((&*status.name, status.generation), (NAME, 1));
    assert_eq!(status.roots.from.to_string(), roots.display().to_string());
    assert_eq!((status.roots.count, status.roots.expired), (3, 1));
    assert_eq!(status.roots.next_subject.as_deref(), Some("CN=3000"));
    assert_eq!(status.roots.next_not_after.map(|time| time.as_secs()), Some(YEAR_3000));
    assert_eq!((&status.crl, &status.last_error), (&None, &None));
    let shown = status.certificate.as_ref().unwrap();
    assert_eq!((&shown.file, &*shown.subject), (&own, "CN=common.example"));
    assert_eq!(shown.names, ["client.shop.example", "10.0.0.7", "urn:shop:client"]);
    assert_eq!(bank.stats().not_after, shown.not_after.as_secs());
    assert!(shown.not_before < UnixTime::now() && UnixTime::now() < shown.not_after);

    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["roots"]["from"], roots.display().to_string());
    assert_eq!(json["roots"]["next_not_after"], YEAR_3000);
    assert_eq!(json["certificate"]["names"][1], "10.0.0.7");
    assert_eq!(json["certificate"]["not_after"], bank.stats().not_after);
    assert_eq!([&json["crl"], &json["last_error"]], [&serde_json::Value::Null; 2]);
    let key = site.key.lines().nth(1).unwrap();
    let all = format!("{json} {status:?} {bank:?}");
    assert!(!all.contains(key) && !all.contains("PRIVATE"), "{all}");

    // Another root, and a change that is not taken.
    replace(&roots, &last.pem());
    time::timeout(PATIENCE, bank.reached(2)).await.unwrap();
    let status = bank.status();
    assert_eq!((status.generation, status.roots.count, status.roots.expired), (2, 1, 0));
    assert_eq!(status.roots.next_subject.as_deref(), Some("CN=4001"));
    replace(&roots, "nothing");
    eventually("it is told", || bank.status().last_error.is_some()).await;
    assert_eq!(bank.status().roots, status.roots, "the last good one");
    assert_eq!(bank.stats().updates_refused, 1);

    let given = Origination::spawn(config(&last).with_name("a bank")).unwrap().status();
    assert_eq!((&*given.name, given.roots.from.to_string()), ("a bank", "given".into()));
    assert_eq!(given.certificate, None);
}

#[tokio::test]
async fn a_driver_that_is_gone_is_told_of() {
    let web = Web::new("authority");
    let dir = TempDir::new("driver");
    let roots = dir.join("ca.pem");
    replace(&roots, &web.pem());
    let (bank, driver) = Origination::load(Config::new(Roots::file(&roots))).unwrap();
    assert_eq!(bank.status().last_error, None);
    drop(driver);
    let error = bank.status().last_error.unwrap();
    assert!(error.contains("driver has ended"), "{error}");
    // Nothing can change: nobody misses it.
    let (given, driver) = Origination::load(config(&web)).unwrap();
    drop(driver);
    assert_eq!(given.status().last_error, None);
}

type Recorded = BTreeMap<String, f64>;

/// What was recorded of servers outside the mesh, by name and labels.
fn recorded(snapshotter: &Snapshotter) -> Recorded {
    let mut all = Recorded::new();
    for (key, unit, described, value) in snapshotter.snapshot().into_vec() {
        assert!(unit.is_some() && described.is_some(), "{} is not described", key.key().name());
        let labels: BTreeMap<_, _> = key.key().labels().map(|l| (l.key(), l.value())).collect();
        assert_eq!(labels.get("identity"), Some(&""), "none of ours: {labels:?}");
        let labels: Vec<_> = labels
            .iter()
            .filter(|(name, value)| **name != "identity" && !value.is_empty())
            .map(|(_, value)| *value)
            .collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => *value,
            DebugValue::Histogram(_) => continue,
        };
        all.insert(format!("{} {}", key.key().name(), labels.join(" ")), value);
    }
    all
}

#[tokio::test]
async fn each_upstream_has_its_metrics() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    mesh_tls::describe_metrics();
    let (web, strange) = (Web::until("authority", 3000), Web::new("authority"));
    let dir = TempDir::new("metrics");
    let (own, list) = (dir.join("both.pem"), dir.join("list.pem"));
    web.site(&["client.shop.example"]).swap_into(&own);
    replace(&list, &web.list(&[], 3000));
    let server = Server::start(web.site(&[NAME]).config(&[&TLS13], None)).await;

    let mutual = config(&web).with_certificate(&own, &own).with_crl(&list);
    let bank = Origination::spawn(mutual.with_name("bank")).unwrap();
    let shop = Origination::spawn(config(&strange).with_name("shop")).unwrap();
    let mut stream = bank.connect(tcp(server.addr).await, NAME).await.unwrap();
    ping(&mut stream).await.unwrap();
    shop.connect(tcp(server.addr).await, NAME).await.unwrap_err();
    let silent = config(&web).with_name("slow").with_handshake_timeout(Duration::from_millis(1));
    let slow = Origination::spawn(silent).unwrap();
    let (near, _far) = tokio::io::duplex(64);
    slow.connect(near, NAME).await.unwrap_err();

    let all = recorded(&snapshotter);
    for (series, value) in [
        // side, reason, result, upstream: by the names of the labels.
        ("mesh_tls_handshakes_total ok client bank", 1.0),
        ("mesh_tls_handshakes_total untrusted refused client shop", 1.0),
        ("mesh_tls_handshakes_total other failed client slow", 1.0),
        ("mesh_tls_updates_total published bank", 1.0),
        ("mesh_tls_generation bank", 1.0),
        ("mesh_tls_not_after_timestamp_seconds bank", bank.stats().not_after as f64),
        ("mesh_tls_not_after_timestamp_seconds shop", 0.0),
        ("mesh_tls_roots_not_after_timestamp_seconds bank", YEAR_3000 as f64),
        ("mesh_tls_crl_next_update_timestamp_seconds bank", YEAR_3000 as f64),
        ("mesh_tls_crl_next_update_timestamp_seconds shop", 0.0),
    ] {
        assert_eq!(all.get(series), Some(&value), "{series} in {all:#?}");
    }
}

#[tokio::test]
async fn the_gauges_are_of_the_last_one_that_has_the_name() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    mesh_tls::describe_metrics();
    let web = Web::until("authority", 3000);
    let roots = "mesh_tls_roots_not_after_timestamp_seconds replaced";
    let load = |web| Origination::load(config(web).with_name("replaced")).unwrap();
    let old = load(&web);
    let new = load(&Web::new("authority"));
    drop(old);
    let told = recorded(&snapshotter)[roots];
    assert!(told > YEAR_3000 as f64, "the new one's, not the old one's and not 0: {told}");
    drop(new);
    assert_eq!(recorded(&snapshotter)[roots], 0.0, "it is gone");
}

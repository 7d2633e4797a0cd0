//! Rules for our own certificate: refused where it is loaded, and what was good before stays.

use std::time::Duration;

use mesh_tls::{Material, MaterialError, MaterialErrorKind as Kind, MeshTls, StaticSource};
use rcgen::CertificateParams;

use super::{Judged, Outcome, scene::*};

pub(super) fn judge(id: &str) -> Judged {
    Some(match id {
        "own.key_mismatch" => on_load(
            |trust| {
                let Peer { chain, key: _ } = trust.leaf(&leaf());
                trust.material(Peer { chain, key: secret(&key()) })
            },
            |kind| *kind == Kind::KeyMismatch,
        ),
        "own.expired" => {
            let dated = |change: fn(&mut CertificateParams)| {
                on_load(
                    move |trust| {
                        let mut params = leaf();
                        change(&mut params);
                        trust.material(trust.leaf(&params))
                    },
                    |kind| matches!(kind, Kind::OwnCertificate(_)),
                )
            };
            dated(|leaf| leaf.not_after = rcgen::date_time_ymd(YEAR - 1, 12, 31))
                .and_then(|_| dated(|leaf| leaf.not_before = rcgen::date_time_ymd(YEAR, 1, 2)))
        }
        "own.untrusted" => on_load(
            |trust| trust.material(Peer::new(&leaf(), &root(authority("foreign")), &[])),
            |kind| matches!(kind, Kind::OwnCertificate(_)),
        ),
        "own.id_changed" => on_load(
            |trust| {
                let mut params = leaf();
                params.subject_alt_names = vec![uri("spiffe://td.test/other")];
                trust.material(trust.leaf(&params))
            },
            |kind| matches!(kind, Kind::UnexpectedId { .. }),
        ),
        "own.no_key/corrupt/not_pem" => forms(),
        _ => return None,
    })
}

/// Our own authority, of the same trust domain as our certificate.
struct Own(Issuer);

impl Own {
    fn leaf(&self, params: &CertificateParams) -> Peer {
        Peer::new(params, &self.0, &[])
    }

    fn material(&self, own: Peer) -> Material {
        let domain = "td.test".parse().expect("a trust domain");
        Material::new(own.chain, own.key).with_bundle(domain, vec![self.0.der().clone()])
    }
}

/// Refused as the first material, and as a later one, when the first stays in use.
fn on_load(bad: impl Fn(&Own) -> Material, why: fn(&Kind) -> bool) -> Result<Outcome, String> {
    let own = Own(root(authority("root")));
    run(async {
        match build(bad(&own)).await.map(drop) {
            Err(error) if why(error.kind()) => {}
            other => return Err(format!("at the start: {other:?}")),
        }
        let good = own.material(own.leaf(&leaf()));
        let Judge { mesh, hand, .. } = build(good).await.map_err(|error| error.to_string())?;
        hand.set(bad(&own));
        while mesh.stats().updates_refused == 0 {
            tokio::task::yield_now().await;
        }
        let status = mesh.status();
        if status.generation != 1 || status.last_error.is_none() {
            return Err(format!("the last good one must stay: {status:?}"));
        }
        Ok(Outcome::RefusedOnLoad)
    })
}

async fn build(material: Material) -> Result<Judge, MaterialError> {
    let clock = std::sync::Arc::new(mesh_tls::clock::ManualClock::new(now()));
    let (source, hand) = StaticSource::new(material);
    let mesh = MeshTls::builder(source)
        .clock(std::sync::Arc::clone(&clock))
        .expect_id("spiffe://td.test/workload".parse().expect("an ID"))
        .first_material_timeout(Duration::ZERO)
        .spawn()
        .await?;
    Ok(Judge { mesh, hand, clock })
}

/// Text that is not what it should be. None of it reaches an identity.
fn forms() -> Result<Outcome, String> {
    let good = dev_ca().issue("/workload").map_err(|error| error.to_string())?;
    let (cert, key, bundle) = (good.cert_pem(), good.key_pem(), good.bundle_pem());
    let read = |cert: &str, key: &str| {
        Material::from_pem(cert.as_bytes(), key.as_bytes(), bundle.as_bytes())
            .map(drop)
            .map_err(|error| error.kind().clone())
    };
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let corrupt = |pem: &str| pem.replacen('M', "!", 1);
    for (what, found, expected) in [
        ("all good", read(cert, key), Ok(())),
        ("no key", read(cert, cert), Err(Kind::NoKey)),
        ("encrypted key", read(cert, &encrypted), Err(Kind::EncryptedKey)),
        ("corrupt key", read(cert, &corrupt(key)), Err(Kind::NoKey)),
        ("corrupt certificate", read(&corrupt(cert), key), Err(Kind::NoCertificate)),
        ("not PEM", read("not PEM", key), Err(Kind::NoCertificate)),
        ("nothing", read("", key), Err(Kind::NoCertificate)),
    ] {
        if found != expected {
            return Err(format!("{what}: {found:?}, expected {expected:?}"));
        }
    }
    Ok(Outcome::RefusedOnLoad)
}

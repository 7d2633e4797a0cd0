//! No byte of a key in any log, `Debug` or error, at any level.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "dev-ca", feature = "bundle-map", feature = "workload-api", unix))]

mod support;
#[path = "support/workload_api.rs"]
mod workload;

use std::{
    fmt::Debug,
    fs, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_tls::{
    DevCaSource, DevIdentity, FileSource, Material, MeshTls, PeerPolicy, StaticSource,
    WorkloadApiSource, bundle_map::BundleMap, workload_api::Response,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use support::{TempDir, ca, eventually, mesh_of};
use tracing_subscriber::fmt::MakeWriter;
use workload::{Agent, Answer, Say};

/// Everything that was said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Said {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What crates say that do not know tracing; rustls is one.
impl log::Log for Said {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = format!("{} {}: {}\n", record.level(), record.target(), record.args());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(text.bytes());
    }

    fn flush(&self) {}
}

impl Said {
    fn note(&self, what: &dyn Debug) {
        let text = format!("{what:?}\n{what:#?}\n");
        self.0.lock().unwrap().extend(text.bytes());
    }

    fn error(&self, error: &(dyn std::error::Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.note(&error);
            self.0.lock().unwrap().extend(format!("{error}\n").bytes());
            next = error.source();
        }
    }

    fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

/// A few bytes of the key in each form in which bytes are printed.
fn forms(key: &[u8], pem: &str) -> Vec<(String, Vec<u8>)> {
    // The end of PKCS#8 of this kind is the public key, which a certificate shows to everybody: the secret is before.
    let at = 40;
    let secret = &key[at..at + 8];
    let joined = |format: fn(&u8) -> String, between: &str| {
        secret.iter().map(format).collect::<Vec<_>>().join(between)
    };
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    // Eight bytes are at least nine whole letters, wherever they begin.
    let base64 = body[(at * 4).div_ceil(3)..(at + 8) * 4 / 3].to_owned();
    vec![
        ("bytes".into(), secret.to_vec()),
        ("hexadecimal".into(), joined(|b| format!("{b:02x}"), "").into_bytes()),
        ("capital hexadecimal".into(), joined(|b| format!("{b:02X}"), "").into_bytes()),
        ("hexadecimal with colons".into(), joined(|b| format!("{b:02x}"), ":").into_bytes()),
        ("a list".into(), joined(u8::to_string, ", ").into_bytes()),
        ("a hexadecimal list".into(), joined(|b| format!("{b:02x}"), ", ").into_bytes()),
        ("a byte string".into(), secret.escape_ascii().to_string().into_bytes()),
        ("base64".into(), base64.into_bytes()),
    ]
}

fn found(said: &[u8], secrets: &[(String, Vec<u8>)]) -> Vec<String> {
    let holds = |secret: &[u8]| said.windows(secret.len()).any(|window| window == secret);
    secrets.iter().filter(|(_, secret)| holds(secret)).map(|(form, _)| form.clone()).collect()
}

fn secrets_of(identity: &DevIdentity) -> Vec<(String, Vec<u8>)> {
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
    forms(key.secret_der(), identity.key_pem())
}

fn answer(identity: &DevIdentity) -> Answer {
    let ders = |pem: &str| {
        let ders = CertificateDer::pem_slice_iter(pem.as_bytes());
        ders.flat_map(|der| der.unwrap().to_vec()).collect::<Vec<u8>>()
    };
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
    let id = b"spiffe://test.local/server".to_vec();
    let (chain, bundle) = (ders(identity.cert_pem()), ders(identity.bundle_pem()));
    let svids = vec![[id, chain, key.secret_der().to_vec(), bundle, b"hint".to_vec()]];
    Answer { svids, ..Answer::default() }
}

/// A certificate that is shown outside the mesh, with the key in each place.
#[cfg(feature = "origination")]
async fn of_servers_outside(said: &Said, dir: &TempDir, bad: &[&[u8]]) {
    use mesh_tls::{
        Origination,
        origination::{Config, Roots},
    };

    let config = Config::new(Roots::file(dir.join("ca.crt")))
        .with_certificate(dir.join("tls.crt"), dir.join("tls.key"))
        .with_poll_interval(Duration::from_millis(10));
    said.note(&config);
    let bank = Origination::spawn(config.clone()).unwrap();
    said.note(&(&bank, bank.connector()));
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        let good = fs::read(dir.join(name)).unwrap();
        for bad in bad {
            fs::write(dir.join(name), bad).unwrap();
            eventually("told", || bank.status().last_error.is_some()).await;
            said.note(&bank.status());
            said.error(&Origination::load(config.clone()).unwrap_err());
        }
        fs::write(dir.join(name), good).unwrap();
        eventually("good again", || bank.status().last_error.is_none()).await;
    }
}

#[tokio::test]
async fn no_byte_of_a_key_is_ever_said() {
    let said = Said::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(said.clone())
        .finish();
    // Of every thread: files are read on others.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log::set_boxed_logger(Box::new(said.clone())).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let ours = ca();
    let identity = ours.issue("/server").unwrap();
    let key = identity.key_pem();

    // Debug of all that holds a key.
    said.note(&identity);
    said.note(&identity.material().unwrap());
    let (source, hand) = StaticSource::new(identity.material().unwrap());
    said.note(&(&source, &hand));
    let mesh = MeshTls::builder(source).spawn().await.unwrap();
    said.note(&(&mesh, mesh.status(), mesh.connector(PeerPolicy::nobody())));
    said.note(&mesh.acceptor(PeerPolicy::nobody()));
    said.note(&mesh.reqwest_config(&PeerPolicy::any_authenticated()).unwrap());

    let development = DevCaSource::new(&Arc::new(ca()), "/server").unwrap();
    said.note(&development);
    said.note(&MeshTls::builder(development).spawn().await.unwrap());

    // Handshakes, good and bad.
    let (client, _hand) = mesh_of(ours.issue("/client").unwrap().material().unwrap()).await;
    for policy in [PeerPolicy::any_authenticated(), PeerPolicy::nobody()] {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let acceptor = mesh.acceptor(policy);
        let talk = async {
            match client.connect(here, PeerPolicy::any_authenticated()).await {
                Ok(mut stream) => {
                    said.note(&stream.info());
                    let mut end = [0];
                    let _judged = tokio::io::AsyncReadExt::read(&mut stream, &mut end).await;
                }
                Err(error) => said.error(&error),
            }
        };
        let serve = async {
            match acceptor.accept_io(there).await {
                Ok(stream) => said.note(&stream),
                Err(error) => said.error(&error),
            }
        };
        tokio::join!(talk, serve);
    }
    // Errors about the key itself, and about everything beside it.
    let cert = identity.cert_pem();
    let stranger = ours.issue("/server").unwrap();
    let cut = &key[..key.len() / 2];
    for (cert, key) in [(key, cert), (cert, cut), (cut, cut), (&*key.replace("KEY", "LOCK"), key)] {
        match Material::from_pem(cert.as_bytes(), key.as_bytes(), key.as_bytes()) {
            Ok(material) => said.note(&material),
            Err(error) => said.error(&error),
        }
    }
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap().secret_der().to_vec();
    let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    for key in [&der[..], encrypted.as_bytes(), &der[..der.len() / 2]] {
        said.error(&Material::from_pem(cert.as_bytes(), key, b"").unwrap_err());
        said.error(&Material::from_pem(key, key, key).unwrap_err());
    }
    if let Err(error) = BundleMap::parse(key.as_bytes()) {
        said.error(&error);
    }
    let json = format!(r#"{{"trust_domains": "{}"}}"#, key.replace('\n', "\\n"));
    let quoted = BundleMap::parse(json.as_bytes()).unwrap_err();

    // Files with the key in each place.
    let dir = TempDir::new("secrets");
    identity.write_to(dir.path()).unwrap();
    let source = FileSource::in_directory(dir.path())
        .poll_interval(Duration::from_millis(10))
        .settle(Duration::from_millis(1));
    said.note(&source);
    let files = MeshTls::builder(source).spawn().await.unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        let good = fs::read(dir.join(name)).unwrap();
        for bad in [stranger.key_pem().as_bytes(), cut.as_bytes(), &der[..], encrypted.as_bytes()] {
            fs::write(dir.join(name), bad).unwrap();
            eventually("told", || files.status().last_error.is_some()).await;
            said.note(&files.status());
        }
        fs::write(dir.join(name), good).unwrap();
        eventually("good again", || files.status().last_error.is_none()).await;
    }

    #[cfg(feature = "origination")]
    {
        let bad = [stranger.key_pem().as_bytes(), cut.as_bytes(), &der[..], encrypted.as_bytes()];
        of_servers_outside(&said, &dir, &bad).await;
    }

    // A certificate for servers outside the mesh.
    #[cfg(feature = "origination")]
    {
        use mesh_tls::origination::{Config, Origination, Roots};
        let config = || {
            let roots = Roots::pem(identity.bundle_pem().as_bytes()).unwrap();
            let config = Config::new(roots).with_poll_interval(Duration::from_millis(10));
            config.with_certificate(dir.join("tls.crt"), dir.join("tls.key"))
        };
        said.note(&config());
        let outside = Origination::spawn(config()).unwrap();
        said.note(&(&outside, outside.connector()));
        let good = fs::read(dir.join("tls.key")).unwrap();
        for bad in [stranger.key_pem().as_bytes(), cut.as_bytes(), &der[..], encrypted.as_bytes()] {
            fs::write(dir.join("tls.key"), bad).unwrap();
            eventually("told", || outside.status().last_error.is_some()).await;
            said.note(&outside.status());
            said.error(&Origination::spawn(config()).unwrap_err());
        }
        fs::write(dir.join("tls.key"), good).unwrap();
    }

    // The Workload API.
    let agent = Agent::start(&dir.join("agent.sock"));
    agent.answer(&answer(&identity));
    let source = WorkloadApiSource::unix(dir.join("agent.sock"));
    said.note(&source);
    let served = MeshTls::builder(source).spawn().await.unwrap();
    let whole = answer(&identity).encode();
    said.note(&Response::decode(&whole).unwrap());
    let mut confused = answer(&identity);
    confused.svids[0].swap(1, 2);
    for bad in [whole[..whole.len() - 9].to_vec(), confused.encode()] {
        said.error(&Response::decode(&bad).unwrap_err());
        agent.say(Say::Message(bad));
        eventually("told", || served.status().last_error.is_some()).await;
        said.note(&served.status());
        agent.answer(&answer(&identity));
        eventually("good again", || served.status().last_error.is_none()).await;
    }

    let text = said.text();
    assert!(text.len() > 10_000, "it must have said something: {} bytes", text.len());
    // At the lowest level, and of the libraries below too.
    assert_eq!(found(&text, &[("frames".into(), b"TRACE client_handshake".to_vec())]).len(), 1);
    assert!(found(&text, &[("an ID".into(), b"test.local/server".to_vec())]).len() == 1);
    for identity in [&identity, &stranger] {
        assert_eq!(found(&text, &secrets_of(identity)), Vec::<String>::new());
    }
    // A string of JSON in the wrong place is what its reader would quote.
    assert_eq!(found(quoted.to_string().as_bytes(), &secrets_of(&identity)), Vec::<String>::new());

    // The broken twins: each form is found where it is.
    for (form, secret) in secrets_of(&identity) {
        let leak = [b"level=TRACE key=", &secret[..], b"\n"].concat();
        assert_eq!(found(&leak, &secrets_of(&identity)), [form]);
    }
    assert_eq!(found(key.replace('\n', "").as_bytes(), &secrets_of(&identity)), ["base64"]);
    assert_eq!(found(format!("{der:?}").as_bytes(), &secrets_of(&identity)), ["a list"]);
}

//! What a client of the Workload API must do, each shown with an agent on a socket. Where time passes, it is the
//! runtime's, which stands still until it is needed.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mesh_tls::{
    DevCa, IdentitySource, Material, SourceEvent, WorkloadApiSource,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    workload_api::{Address, Choice, InvalidMessage, Response},
};

use super::scene::{self, authority, list, root};

#[path = "../../../../mesh-tls/tests/support/workload_api.rs"]
mod agent;

use agent::{Agent, Answer, Say, Svid};

type Check = Result<(), String>;

pub(super) fn check(rule: &str) -> Check {
    let begins = |words: &str| rule.starts_with(words);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        if begins("every request carries metadata") {
            metadata().await
        } else if begins("InvalidArgument and Unimplemented") {
            last_words().await
        } else if begins("Unavailable, PermissionDenied: retry") {
            retried().await
        } else if begins("each stream message is the complete state") {
            complete_states()
        } else if begins("PermissionDenied after a good response") {
            denied_later().await
        } else if begins("message with an empty mandatory field") {
            empty_fields().await
        } else if begins("first SVID in the list is the default") {
            choices()
        } else if begins("on stream end reconnect") {
            reconnects().await
        } else if begins("x509_svid = concatenated DER") {
            encodings()
        } else if begins("federated_bundles keyed by") {
            federated()
        } else if begins("endpoint from SPIFFE_ENDPOINT_SOCKET") {
            addresses()
        } else {
            Err(format!("nothing shows {rule:?}"))
        }
    })
}

struct Scene {
    agent: Agent,
    source: WorkloadApiSource,
}

impl Scene {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mesh-vectors-{}-{number}.sock", std::process::id());
        let path: PathBuf = std::env::temp_dir().join(name);
        let agent = Agent::start(&path);
        Self { agent, source: WorkloadApiSource::unix(path).seed(1) }
    }

    /// The next event in words, and how long it took; `None` when there is none for a long time.
    async fn next(&mut self) -> Option<(String, Duration)> {
        let start = tokio::time::sleep(Duration::ZERO).deadline();
        let event = tokio::time::timeout(Duration::from_secs(3600), self.source.next()).await;
        let word = match event.ok()? {
            Ok(SourceEvent::Update(material)) => format!("update {material:?}"),
            Ok(SourceEvent::Withdrawn) => "withdrawn".to_owned(),
            Ok(_) => "another event".to_owned(),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                format!("error {}", cause.unwrap_or_default())
            }
        };
        Some((word, tokio::time::sleep(Duration::ZERO).deadline() - start))
    }

    async fn says(&mut self, expected: &str) -> Result<Duration, String> {
        match self.next().await {
            Some((word, took)) if word.contains(expected) => Ok(took),
            other => Err(format!("{other:?}, expected {expected:?}")),
        }
    }
}

fn svid(path: &str, hint: &str) -> Svid {
    svid_of(&scene::dev_ca(), path, hint)
}

fn svid_of(ca: &DevCa, path: &str, hint: &str) -> Svid {
    let identity = ca.issue(path).expect("an identity");
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).expect("a key");
    let id = format!("spiffe://{}{path}", ca.trust_domain()).into_bytes();
    let (chain, bundle) = (ders(identity.cert_pem()), ders(identity.bundle_pem()));
    [id, chain, key.secret_der().to_vec(), bundle, hint.as_bytes().to_vec()]
}

fn ders(pem: &str) -> Vec<u8> {
    let ders = CertificateDer::pem_slice_iter(pem.as_bytes());
    ders.flat_map(|der| der.expect("PEM").to_vec()).collect()
}

fn one() -> Answer {
    Answer { svids: vec![svid("/a", "")], ..Answer::default() }
}

fn material(answer: &Answer, choice: &Choice) -> Result<Material, String> {
    let response = Response::decode(&answer.encode()).map_err(|error| error.to_string())?;
    response.into_material(choice).ok_or_else(|| "not among them".to_owned())
}

fn ensure(holds: bool, what: &str) -> Check {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

async fn metadata() -> Check {
    let mut scene = Scene::new();
    scene.agent.answer(&one());
    scene.says("update").await?;
    let requests = scene.agent.requests.lock().map_err(|error| error.to_string())?;
    let header = requests.first().and_then(|request| request.headers().get("workload.spiffe.io"));
    ensure(header.is_some_and(|value| value == "true"), "the header is missing")
}

async fn last_words() -> Check {
    for code in [3, 12] {
        let mut scene = Scene::new();
        scene.agent.say(Say::Status(code));
        scene.says(&format!("status {code}")).await?;
        ensure(scene.next().await.is_none(), "an hour later it has something to say")?;
        ensure(scene.agent.calls() == 1, "it was asked again")?;
    }
    Ok(())
}

async fn retried() -> Check {
    for code in [14, 7] {
        let mut scene = Scene::new();
        let mut waited = Vec::new();
        for _ in 0..4 {
            scene.agent.say(Say::Status(code));
            waited.push(scene.says(&format!("status {code}")).await?);
        }
        let grows = waited.iter().zip(waited.iter().skip(1)).all(|(one, next)| one < next);
        ensure(grows && waited[1] >= Duration::from_secs(1), &format!("no back-off: {waited:?}"))?;
        scene.agent.answer(&one());
        scene.says("update").await?;
    }
    Ok(())
}

fn complete_states() -> Check {
    let mut full = one();
    full.federated.push(("spiffe://other.test".into(), ders(&scene::dev_ca().bundle_pem())));
    let shown = |answer: &Answer| Ok::<_, String>(format!("{:?}", material(answer, &Choice::First)?));
    ensure(shown(&full)?.contains("other.test"), "the federated bundle is not there")?;
    full.federated.clear();
    ensure(!shown(&full)?.contains("other.test"), "what is absent is still there")
}

async fn denied_later() -> Check {
    let mut scene = Scene::new();
    scene.agent.answer(&one());
    scene.says("update").await?;
    scene.agent.say(Say::Status(7));
    scene.says("withdrawn").await.map(drop)
}

async fn empty_fields() -> Check {
    for (at, name) in ["spiffe_id", "x509_svid", "x509_svid_key", "bundle"].into_iter().enumerate()
    {
        let mut scene = Scene::new();
        scene.agent.answer(&one());
        scene.says("update").await?;
        let mut answer = one();
        answer.svids[0][at].clear();
        scene.agent.answer(&answer);
        scene.says(&format!("{name} is empty")).await?;
        scene.agent.answer(&one());
        scene.says("update").await?;
        ensure(scene.agent.calls() == 1, "the stream was given up")?;
    }
    Ok(())
}

fn choices() -> Check {
    let long = "x".repeat(1025);
    let svids = vec![svid("/a", ""), svid("/b", "in"), svid("/c", "in"), svid("/d", &long)];
    let answer = Answer { svids, ..Answer::default() };
    let response = Response::decode(&answer.encode()).map_err(|error| error.to_string())?;
    let paths: Vec<_> = response.ids().map(|(id, hint)| (id.path(), hint)).collect();
    let expected = [("/a", None), ("/b", Some("in")), ("/c", Some("in")), ("/d", None)];
    ensure(paths == expected, &format!("{paths:?}"))?;
    // Which one was taken shows by its only sibling in a message of one.
    let same = |choice: &Choice, at: usize| -> Check {
        let alone = Answer { svids: vec![answer.svids[at].clone()], ..Answer::default() };
        let (chosen, alone) = (material(&answer, choice)?, material(&alone, &Choice::First)?);
        ensure(identical(chosen, alone), &format!("{choice:?} is not the one at {at}"))
    };
    same(&Choice::First, 0)?;
    same(&Choice::Hint("in".into()), 1)?;
    ensure(material(&answer, &Choice::Hint(long)).is_err(), "a hint of over 1024 bytes")
}

/// Whether two materials are of one identity: shown by the status of a handle on each.
fn identical(left: Material, right: Material) -> bool {
    let serial = |material| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        std::thread::spawn(move || {
            runtime.ok()?.block_on(async {
                let (source, _hand) = mesh_tls::StaticSource::new(material);
                let mesh = mesh_tls::MeshTls::builder(source).spawn().await.ok()?;
                mesh.status().identity
            })
        })
        .join()
        .ok()
        .flatten()
    };
    let left = serial(left);
    left.is_some() && left == serial(right)
}

async fn reconnects() -> Check {
    let mut scene = Scene::new();
    scene.agent.answer(&one());
    scene.says("update").await?;
    // A stream that has lived for a while.
    let quiet = tokio::time::timeout(Duration::from_secs(60), scene.source.next()).await;
    ensure(quiet.is_err(), "it spoke without being told")?;
    scene.agent.say(Say::HangUp);
    scene.agent.answer(&one());
    let took = scene.says("update").await?;
    ensure(took < Duration::from_secs(1), &format!("not at once: {took:?}"))?;
    for _ in 0..2 {
        scene.agent.say(Say::HangUp);
    }
    scene.says("error").await?;
    scene.agent.answer(&one());
    let mut took = Duration::ZERO;
    for _ in 0..3 {
        let (word, more) = scene.next().await.ok_or("nothing came")?;
        took += more;
        if word.contains("update") {
            return ensure(took >= Duration::from_secs(1), "it did not back off");
        }
    }
    Err("no update came".to_owned())
}

fn encodings() -> Check {
    // A leaf, an intermediate, and a bundle of two.
    let (top, other) = (root(authority("root")), root(authority("other")));
    let middle = scene::below(authority("middle"), &top);
    let peer = scene::Peer::new(&scene::leaf(), &middle, &[&middle]);
    let chain: Vec<u8> = peer.chain.iter().flat_map(|der| der.to_vec()).collect();
    let bundle = [top.der().as_ref(), other.der().as_ref()].concat();
    let key = peer.key.secret_der().to_vec();
    let id = b"spiffe://td.test/workload".to_vec();
    let svids = vec![[id, chain.clone(), key, bundle.clone(), vec![]]];
    let crls = vec![list(&top, 1, 2031).to_vec(), list(&middle, 1, 2031).to_vec()];
    let answer = Answer { svids, crls, federated: Vec::new() };
    let shown = format!("{:?}", material(&answer, &Choice::First)?);
    let expected = r#"chain: 2, key: "redacted", trust: Trust { roots: {td.test: 2}, crls: 2 }"#;
    ensure(shown.contains(expected), &shown)?;
    for (at, name, whole) in [(1, "x509_svid", chain), (3, "bundle", bundle)] {
        let mut cut = answer.clone();
        cut.svids[0][at] = whole[..whole.len() - 1].to_vec();
        let refused = Response::decode(&cut.encode()).map(drop);
        ensure(refused == Err(InvalidMessage::BadField(name)), &format!("{refused:?}"))?;
    }
    Ok(())
}

fn federated() -> Check {
    let mut answer = one();
    let roots = ders(&scene::dev_ca().bundle_pem());
    answer.federated.push(("spiffe://other.test".into(), roots.clone()));
    let shown = format!("{:?}", material(&answer, &Choice::First)?);
    ensure(shown.contains("{other.test: 1, td.test: 1}"), &shown)?;
    answer.federated.push(("spiffe://other.test".into(), roots));
    let twice = Response::decode(&answer.encode()).map(drop);
    ensure(matches!(twice, Err(InvalidMessage::TwoBundles(_))), &format!("{twice:?}"))
}

fn addresses() -> Check {
    let from_env = WorkloadApiSource::from_env().is_ok();
    let set = std::env::var_os(mesh_tls::workload_api::ENDPOINT_SOCKET).is_some();
    ensure(from_env == set, "the variable is not what was read")?;
    for (text, valid) in [
        ("unix:///run/agent.sock", true),
        ("tcp://127.0.0.1:8000", true),
        ("tcp://localhost:8000", false),
        ("http://127.0.0.1:8000", false),
    ] {
        ensure(text.parse::<Address>().is_ok() == valid, text)?;
    }
    Ok(())
}

//! The SPIFFE Workload API, from an agent on a Unix domain socket that does whatever an agent may do.
#![allow(clippy::disallowed_methods, reason = "time is what is measured")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "dev-ca", feature = "workload-api", unix))]

mod support;
#[path = "support/workload_api.rs"]
mod workload;

use std::time::Duration;

use mesh_tls::{
    ConnectErrorKind, DevCa, DevIdentity, IdentitySource, MeshTls, PeerPolicy, SourceEvent,
    Untrusted, WorkloadApiSource,
    workload_api::{Choice, ENDPOINT_SOCKET, InvalidMessage, Response},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use support::{PATIENCE, TempDir, ca, eventually, mesh_of};
use tokio::time;
use workload::{Agent, Answer, Say, Svid};

fn chain(pem: &str) -> Vec<u8> {
    let ders = CertificateDer::pem_slice_iter(pem.as_bytes());
    ders.flat_map(|der| der.unwrap().to_vec()).collect()
}

fn svid(ca: &DevCa, path: &str, hint: &str) -> Svid {
    let identity: DevIdentity = ca.issue(path).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
    let id = format!("spiffe://{}{path}", ca.trust_domain());
    let hint = hint.as_bytes().to_vec();
    let key = key.secret_der().to_vec();
    [id.into_bytes(), chain(identity.cert_pem()), key, chain(identity.bundle_pem()), hint]
}

fn one(ca: &DevCa, path: &str) -> Answer {
    Answer { svids: vec![svid(ca, path, "")], ..Answer::default() }
}

struct Scene {
    _dir: TempDir,
    agent: Agent,
    mesh: MeshTls,
}

/// An identity from an agent whose first answer is this.
async fn scene(first: &Answer) -> Scene {
    scene_with(first, |source| source).await
}

async fn scene_with(
    first: &Answer,
    with: impl FnOnce(WorkloadApiSource) -> WorkloadApiSource,
) -> Scene {
    let dir = TempDir::new("agent");
    let agent = Agent::start(&dir.join("agent.sock"));
    agent.answer(first);
    let source = with(WorkloadApiSource::unix(dir.join("agent.sock")).seed(1));
    let mesh = MeshTls::builder(source).spawn();
    let mesh = time::timeout(PATIENCE, mesh).await.unwrap().unwrap();
    Scene { _dir: dir, agent, mesh }
}

impl Scene {
    fn path(&self) -> String {
        self.mesh.status().identity.map(|own| own.id().path().to_owned()).unwrap_or_default()
    }

    async fn generation(&self, number: u64) {
        let reached = time::timeout(PATIENCE, self.mesh.reached(number)).await;
        assert!(reached.is_ok(), "{:?}", self.mesh.status());
    }

    async fn error(&self, text: &str) {
        let said = || self.mesh.status().last_error.is_some_and(|error| error.contains(text));
        eventually(text, said).await;
    }
}

#[tokio::test]
async fn the_request_is_what_the_specification_says() {
    let scene = scene(&one(&ca(), "/a")).await;
    let requests = scene.agent.requests.lock().unwrap();
    let request = &requests[0];
    assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
    assert_eq!(request.method(), "POST");
    for (name, value) in
        [("workload.spiffe.io", "true"), ("content-type", "application/grpc"), ("te", "trailers")]
    {
        assert_eq!(request.headers()[name], value);
    }
    assert_eq!(scene.path(), "/a");
}

#[tokio::test]
async fn each_message_is_a_whole_new_state() {
    let (ours, other) = (ca(), DevCa::new("other.test".parse().unwrap()).unwrap());
    let mut answer = one(&ours, "/server");
    answer.federated.push(("spiffe://other.test".into(), chain(&other.bundle_pem())));
    let scene = scene(&answer).await;
    let peer = other.issue("/client").unwrap().with_bundle_pem(other.bundle_pem());
    let peer = peer.material().unwrap();
    let peer = peer.with_bundle_pem("test.local".parse().unwrap(), ours.bundle_pem().as_bytes());
    let (peer, _hand) = mesh_of(peer.unwrap()).await;
    let acceptor = scene.mesh.acceptor(PeerPolicy::any_authenticated());
    let meet = async || {
        let (here, there) = tokio::io::duplex(16 * 1024);
        let (accepted, connected) = tokio::join!(
            acceptor.accept_io(there),
            peer.connect(here, PeerPolicy::any_authenticated())
        );
        drop(connected);
        accepted.map(drop)
    };
    assert!(meet().await.is_ok(), "the federated bundle verifies the peer");
    // Bundle only: the same SVID, and the other trust domain is gone.
    let gone = Answer { federated: Vec::new(), ..answer.clone() };
    scene.agent.answer(&gone);
    scene.generation(2).await;
    assert!(meet().await.is_err(), "what is absent is taken back");
    // Its bundle is empty: the same, said aloud.
    let mut empty = answer.clone();
    empty.federated = vec![("spiffe://other.test".into(), Vec::new())];
    scene.agent.answer(&answer);
    scene.generation(3).await;
    assert!(meet().await.is_ok());
    scene.agent.answer(&empty);
    scene.generation(4).await;
    assert!(meet().await.is_err());
    assert_eq!(scene.agent.calls(), 1, "one stream for all of it");
}

#[tokio::test]
async fn the_first_svid_is_the_default_and_a_hint_chooses_another() {
    let ours = ca();
    let two = Answer {
        svids: vec![
            svid(&ours, "/a", "x"),
            svid(&ours, "/b", "inside"),
            svid(&ours, "/c", "inside"),
        ],
        ..Answer::default()
    };
    assert_eq!(scene(&two).await.path(), "/a");
    let inside = scene_with(&two, |source| source.hint("inside")).await;
    assert_eq!(inside.path(), "/b", "of two with one hint, the first");
    let by_id = "spiffe://test.local/c".parse().unwrap();
    assert_eq!(scene_with(&two, |source| source.id(by_id)).await.path(), "/c");
    // The hint is not there any more: it was taken away, and not replaced by the default.
    inside.agent.answer(&one(&ours, "/a"));
    eventually("withdrawn", || inside.mesh.status().generation == 0).await;
    inside.agent.answer(&two);
    inside.generation(2).await;
    assert_eq!(inside.path(), "/b");
}

#[tokio::test]
async fn a_message_with_an_empty_field_is_discarded_and_the_stream_goes_on() {
    let ours = ca();
    let scene = scene(&one(&ours, "/a")).await;
    for (at, name) in ["spiffe_id", "x509_svid", "x509_svid_key", "bundle"].into_iter().enumerate()
    {
        let mut answer = one(&ours, "/b");
        answer.svids[0][at].clear();
        assert_eq!(Response::decode(&answer.encode()).unwrap_err(), InvalidMessage::Empty(name));
        scene.agent.answer(&answer);
        scene.error(&format!("{name} is empty")).await;
        assert_eq!((scene.path(), scene.mesh.status().generation), ("/a".into(), 1));
    }
    scene.agent.say(Say::Message(Vec::new()));
    scene.error("no SVID").await;
    scene.agent.say(Say::Message(vec![0xFF; 40]));
    scene.error("does not decode").await;
    let mut other = one(&ours, "/b");
    other.svids[0][0] = b"spiffe://test.local/other".to_vec();
    scene.agent.answer(&other);
    scene.error("another ID").await;
    scene.agent.say(Say::Drip(one(&ours, "/c").encode()));
    scene.generation(2).await;
    assert_eq!((scene.path(), scene.agent.calls()), ("/c".into(), 1));
    assert_eq!(scene.mesh.status().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_opened_again() {
    let ours = ca();
    let scene = scene(&one(&ours, "/a")).await;
    time::sleep(Duration::from_secs(60)).await;
    for (round, end) in (2..).zip([Say::HangUp, Say::Status(0), Say::Status(14)]) {
        scene.agent.say(end);
        scene.agent.answer(&one(&ours, &format!("/round{round}")));
        scene.generation(round).await;
        assert_eq!(scene.path(), format!("/round{round}"));
        assert_eq!(scene.agent.calls(), round);
        assert_eq!(scene.mesh.stats().source_errors, 0, "an old stream may end");
        time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_withdraws_what_there_was_and_is_asked_again() {
    let ours = ca();
    let scene = scene(&one(&ours, "/a")).await;
    scene.agent.say(Say::Status(7));
    eventually("withdrawn", || scene.mesh.status().generation == 0).await;
    let (here, _there) = tokio::io::duplex(1024);
    let refused = scene.mesh.connect(here, PeerPolicy::any_authenticated()).await;
    assert_eq!(refused.unwrap_err().kind(), &ConnectErrorKind::NotReady);
    // Denied again, and again: it waits longer and goes on asking.
    scene.agent.say(Say::Status(7));
    scene.error("status 7").await;
    scene.agent.say(Say::Status(7));
    scene.agent.answer(&one(&ours, "/b"));
    scene.generation(2).await;
    assert_eq!((scene.path(), scene.agent.calls()), ("/b".into(), 4));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_away_keeps_the_identity_and_is_found_again() {
    let ours = ca();
    let Scene { _dir, agent, mesh } = scene(&one(&ours, "/a")).await;
    let path = _dir.join("agent.sock");
    drop(agent);
    eventually("it is missed", || mesh.stats().source_errors > 3).await;
    assert_eq!(mesh.status().generation, 1, "the last good one stays");
    let agent = Agent::start(&path);
    agent.answer(&one(&ours, "/b"));
    time::timeout(Duration::from_secs(31), mesh.reached(2)).await.expect("30 s at the most");
}

#[tokio::test(start_paused = true)]
async fn a_last_word_is_not_asked_for_twice() {
    for code in [3, 12] {
        let scene = scene(&one(&ca(), "/a")).await;
        scene.agent.say(Say::Status(code));
        scene.error(&format!("status {code}")).await;
        time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(scene.agent.calls(), 1);
        assert_eq!(scene.path(), "/a", "what there is stays: nobody has taken it away");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_answers_and_hangs_up_is_not_asked_without_a_pause() {
    let ours = ca();
    let dir = TempDir::new("hurried");
    let agent = Agent::start(&dir.join("agent.sock"));
    for _ in 0..40 {
        agent.answer(&one(&ours, "/a"));
        agent.say(Say::HangUp);
    }
    let mut source = WorkloadApiSource::unix(dir.join("agent.sock")).seed(1);
    let begun = time::Instant::now();
    let mut updates = 0;
    while updates < 10 {
        updates += usize::from(matches!(source.next().await, Ok(SourceEvent::Update(_))));
    }
    let took = begun.elapsed();
    assert_eq!(agent.calls(), 10, "each of them answers");
    assert!(took >= Duration::from_secs(9), "a second before each but the first: {took:?}");
    assert!(took < Duration::from_secs(12), "and not much more, as each is good: {took:?}");
}

#[tokio::test]
async fn revocation_lists_of_the_agent_count() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = |path: &str, serial: u64| -> Svid {
        let mut params = CertificateParams::default();
        let id = format!("spiffe://test.local{path}");
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &root).unwrap();
        [id.into_bytes(), cert.der().to_vec(), key.serialize_der(), root.der().to_vec(), vec![]]
    };
    let list = |serial: u64| {
        let now = rcgen::date_time_ymd(2020, 1, 1);
        let revoked = rcgen::RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: rcgen::date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&root).unwrap().der().to_vec()
    };
    let server = scene(&Answer { svids: vec![leaf("/server", 1)], ..Answer::default() }).await;
    let mut answer = Answer { svids: vec![leaf("/client", 2)], ..Answer::default() };
    let client = scene(&answer).await;
    let meet = async || {
        let (here, there) = tokio::io::duplex(16 * 1024);
        let acceptor = server.mesh.acceptor(PeerPolicy::any_authenticated());
        let any = PeerPolicy::any_authenticated();
        let (_accepted, connected) =
            tokio::join!(acceptor.accept_io(there), client.mesh.connect(here, any));
        connected.map(drop).map_err(|error| error.kind().clone())
    };
    assert!(meet().await.is_ok());
    answer.crls = vec![list(1)];
    client.agent.answer(&answer);
    client.generation(2).await;
    assert_eq!(meet().await, Err(ConnectErrorKind::PeerUntrusted(Untrusted::Revoked)));
    answer.crls = vec![list(99)];
    client.agent.answer(&answer);
    client.generation(3).await;
    assert!(meet().await.is_ok());
    // An own certificate that is revoked is not taken.
    answer.crls = vec![list(2)];
    answer.svids = vec![leaf("/client", 2)];
    client.agent.answer(&answer);
    client.error("has been revoked").await;
}

#[test]
fn the_environment_names_the_socket() {
    const NAME: &str = "the_environment_names_the_socket";
    if std::env::var_os(ENDPOINT_SOCKET).is_some() {
        let source = WorkloadApiSource::from_env().unwrap();
        return assert!(format!("{source:?}").contains("/run/agent.sock"), "{source:?}");
    }
    let error = WorkloadApiSource::from_env().unwrap_err();
    assert!(error.to_string().contains("scheme"), "{error}");
    // To set it here would be a race with every other test: this one again, in a process of its own.
    let program = std::env::current_exe().unwrap();
    let again = |socket: &str| {
        let mut command = std::process::Command::new(&program);
        let run = command.args(["--exact", NAME]).env(ENDPOINT_SOCKET, socket).output().unwrap();
        assert!(String::from_utf8_lossy(&run.stdout).contains("1 test"), "it must run");
        run.status.success()
    };
    assert!(again("unix:///run/agent.sock"));
    assert!(!again("https://agent.test"), "the control");
}

#[tokio::test]
async fn an_agent_on_tcp_serves_as_well() {
    let ours = ca();
    let (agent, addr) = Agent::start_tcp().await;
    agent.answer(&one(&ours, "/a"));
    let address = format!("tcp://{addr}").parse().unwrap();
    let mesh = MeshTls::builder(WorkloadApiSource::new(address).seed(1)).spawn().await.unwrap();
    assert_eq!(mesh.status().identity.unwrap().id().path(), "/a");
    agent.answer(&one(&ours, "/b"));
    time::timeout(PATIENCE, mesh.reached(2)).await.unwrap();
    agent.say(Say::HangUp);
    agent.answer(&one(&ours, "/c"));
    time::timeout(PATIENCE, mesh.reached(3)).await.unwrap();
}

#[test]
fn a_choice_that_is_not_there_is_nothing() {
    let message = one(&ca(), "/a").encode();
    let choose = |choice| Response::decode(&message).unwrap().into_material(&choice).is_some();
    assert!(choose(Choice::First));
    assert!(!choose(Choice::Hint("inside".into())));
    assert!(choose(Choice::Id("spiffe://test.local/a".parse().unwrap())));
    let shown = format!("{:?}", Response::decode(&message).unwrap());
    assert!(shown.contains("/a") && !shown.contains("key"), "{shown}");
}

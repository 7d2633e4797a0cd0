//! Endpoints die under load: one is killed, one answers nothing any more, and both come back. Callers notice nothing,
//! and traffic returns by itself.
//!
//! What bounds the return of an endpoint, once somebody listens there again: the rest of its ejection, which is never
//! more than the longest that is configured; then a request goes there, and over a new connection it takes at most the
//! time to connect and the time of a try. Where the pool has a connection that has become silent, that is found out by
//! the requests over it, which may cost one more ejection; after that ejection it has been silent for long enough to be
//! left.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "figures of the story")]

mod support;

use std::{
    collections::BTreeMap,
    io::Read,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use mesh_core::{Ratio, Timestamp, outlier, retry};
use mesh_tower::{
    BoxError, Clock,
    pool::{Config, HttpEndpoints, Protocol},
    upstream::{Builder, HttpUpstream, Life, Upstream},
};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::Semaphore,
    task::JoinHandle,
    time::sleep,
};
use tower::ServiceExt;

use support::{
    Body, ClosedPort, PATIENCE, Server, bytes, closed_port, endpoint, full, in_time, serve,
};

const MS: Duration = Duration::from_millis(1);
/// The time of a try, and the time to connect.
const TRY: Duration = Duration::from_millis(250);
const LONGEST_EJECTION: Duration = Duration::from_secs(1);
/// What a busy machine adds to all of that.
const SLACK: Duration = Duration::from_secs(5);
/// Until an endpoint is back, if its connections were closed.
const BACK: Duration =
    LONGEST_EJECTION.saturating_add(TRY).saturating_add(TRY).saturating_add(SLACK);
/// And if they have become silent.
const BACK_FROM_SILENCE: Duration = LONGEST_EJECTION.saturating_add(BACK);
const BAR: f64 = 0.999;

type Shop = HttpUpstream<Empty<Bytes>>;

// === Endpoints that are processes ===

const PORT: &str = "MESH_STORY_SERVES_AT";

/// Not a test: what a child of one does, which is this program again. It ends with its input, so with its parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_child_serves() {
    let Ok(address) = std::env::var(PORT) else { return };
    let listener = TcpListener::bind(address).await.unwrap();
    let own = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            let answer = move |_| async move { Response::new(full(own.to_string())) };
            tokio::spawn(serve(socket, answer, Arc::default()));
        }
    });
    // The other thread serves meanwhile.
    drop(std::io::stdin().read(&mut [0]));
}

struct Process {
    address: SocketAddr,
    child: Child,
}

impl Process {
    async fn start(port: &ClosedPort) -> Self {
        let address = port.address;
        // `env` only starts what follows it.
        let child = itself("env", &[], "a_child_serves", PORT, &address.to_string());
        let process = Self { address, child };
        process.listens().await;
        process
    }

    async fn listens(&self) {
        in_time(async {
            while TcpStream::connect(self.address).await.is_err() {
                sleep(5 * MS).await;
            }
        })
        .await;
    }

    /// SIGKILL.
    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGSTOP: the kernel goes on to take connections and bytes, and nobody answers.
    async fn stop(&self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-STOP", &pid]).status().await.unwrap().success());
    }
}

// === Load ===

#[derive(Default)]
struct Seen {
    ok: AtomicU64,
    failed: AtomicU64,
    /// When an endpoint was last heard of.
    heard: Mutex<BTreeMap<String, Timestamp>>,
    errors: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Seen {
    fn all(&self) -> u64 {
        self.ok.load(SeqCst) + self.failed.load(SeqCst)
    }

    fn success(&self) -> f64 {
        self.ok.load(SeqCst) as f64 / self.all() as f64
    }

    async fn requests(&self, count: u64) {
        // Patience is for the next of them: how many a busy machine carries in a minute is not the question.
        let mut had = self.all();
        while had < count {
            in_time(async {
                while self.all() == had {
                    sleep(5 * MS).await;
                }
            })
            .await;
            had = self.all();
        }
    }

    /// How long it takes until that endpoint answers.
    async fn back(&self, address: SocketAddr) -> Duration {
        let from = Clock.now();
        let name = address.to_string();
        in_time(async {
            while self.heard.lock().unwrap().get(&name).is_none_or(|at| *at <= from) {
                sleep(MS).await;
            }
        })
        .await;
        Clock.now().since(from)
    }
}

/// Callers who ask one request after the other.
struct Load {
    seen: Arc<Seen>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(shop: &Shop) -> Self {
        let seen = Arc::new(Seen::default());
        let callers = (0..16).map(|_| tokio::spawn(call(shop.clone(), seen.clone()))).collect();
        Self { seen, callers }
    }

    async fn end(self) -> Arc<Seen> {
        self.seen.is_over.store(true, SeqCst);
        for caller in self.callers {
            caller.await.unwrap();
        }
        self.seen
    }
}

async fn call(shop: Shop, seen: Arc<Seen>) {
    while !seen.is_over.load(SeqCst) {
        let answer = async {
            let response = shop.clone().oneshot(Request::get("/").body(Empty::new())?).await?;
            let is_good = response.status().is_success();
            Ok::<_, BoxError>((is_good, bytes(response).await?))
        };
        match tokio::time::timeout(PATIENCE, answer).await.expect("hangs") {
            Ok((true, from)) => {
                seen.ok.fetch_add(1, SeqCst);
                let from = String::from_utf8(from.to_vec()).unwrap();
                seen.heard.lock().unwrap().insert(from, Clock.now());
            }
            other => {
                seen.failed.fetch_add(1, SeqCst);
                seen.errors.lock().unwrap().push(format!("{other:?}"));
            }
        }
        sleep(2 * MS).await;
    }
}

// === The mesh ===

fn pool(protocol: Protocol) -> Config {
    Config::default().with_protocol(protocol).with_connect_timeout(TRY)
}

/// Everything on that this story is about.
fn protected(endpoints: &[SocketAddr]) -> Builder {
    let outlier = outlier::Config::default()
        .with_consecutive_5xx(3)
        .with_max_ejection_percent(Ratio::ONE)
        .and_then(|config| config.with_base_ejection_time(LONGEST_EJECTION / 4))
        .and_then(|config| config.with_max_ejection_time(LONGEST_EJECTION))
        .unwrap();
    let retry = retry::Config::istio()
        .with_retries(3)
        .with_retry_on("5xx,reset,connect-failure,refused-stream".parse().unwrap())
        .with_per_try_timeout(Some(TRY));
    plain(endpoints).retry(retry).outlier(outlier)
}

fn plain(endpoints: &[SocketAddr]) -> Builder {
    Upstream::builder("shop")
        .endpoints(endpoints.iter().copied().map(endpoint))
        .timeout(8 * TRY)
        .retry(retry::Config::none())
        .outlier(outlier::Config::off())
}

/// One is killed, one stopped: the third carries on alone. Then both are started anew. The load, and how long each took
/// to be back.
async fn story(
    build: impl FnOnce(&[SocketAddr]) -> Builder,
    protocol: Protocol,
    requests: u64,
) -> (Arc<Seen>, [Duration; 2]) {
    let ports = [(); 3].map(|()| closed_port());
    let mut all = Vec::new();
    for port in &ports {
        all.push(Process::start(port).await);
    }
    let addresses = ports.each_ref().map(|port| port.address);
    let shop: Shop = build(&addresses).pool(pool(protocol)).spawn(HttpEndpoints::plain()).unwrap();
    let load = Load::on(&shop);
    load.seen.requests(requests / 10).await;
    all[0].kill().await;
    load.seen.requests(requests / 5).await;
    all[1].stop().await;
    sleep(1_500 * MS).await;

    all[0] = Process::start(&ports[0]).await;
    let first = load.seen.back(addresses[0]).await;
    all[1].kill().await;
    all[1] = Process::start(&ports[1]).await;
    let second = load.seen.back(addresses[1]).await;
    load.seen.requests(requests).await;
    assert!(shop.status().iter().all(|status| status.life != Life::Draining));
    (load.end().await, [first, second])
}

async fn callers_notice_nothing(protocol: Protocol) {
    let (seen, back) = story(protected, protocol, 10_000).await;
    let errors = seen.errors.lock().unwrap().clone();
    println!(
        "{protocol:?}: {} requests, {:.3} % ok, back after {back:?}",
        seen.all(),
        100.0 * seen.success()
    );
    assert!(seen.success() >= BAR, "{} of {}: {errors:?}", errors.len(), seen.all());
    for back in back {
        assert!(back <= BACK, "{back:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_callers_notice_nothing() {
    callers_notice_nothing(Protocol::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_callers_notice_nothing() {
    callers_notice_nothing(Protocol::Http2).await;
}

/// The twin without retries and ejections misses the bar by far: the load does hit what dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_mesh_callers_notice() {
    let (seen, _) = story(plain, Protocol::Http2, 2_000).await;
    assert!(seen.success() < BAR, "{} of {} are good", seen.ok.load(SeqCst), seen.all());
}

// === Connections that go silent ===

/// A way to an endpoint on which bytes get lost: what goes over it while it is cut never arrives, and the connections of
/// that time stay silent for ever, as they do behind a middlebox that has forgotten them.
struct Way {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Way {
    async fn to(endpoint: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = cut.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, endpoint, is_cut.clone()));
            }
        });
        Self { address, cut }
    }
}

async fn carry(mut near: TcpStream, endpoint: SocketAddr, cut: Arc<AtomicBool>) {
    let mut far = TcpStream::connect(endpoint).await.unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let lost = async {
        while !cut.load(SeqCst) {
            sleep(MS).await;
        }
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        () = lost => std::future::pending().await,
    }
}

/// How long it takes an endpoint to be back after its connections have gone silent, if it is within `patience`.
async fn back_after_silence(pool: Config, patience: Duration) -> (Arc<Seen>, Option<Duration>) {
    let ports = [(); 2].map(|()| closed_port());
    let all = [Process::start(&ports[0]).await, Process::start(&ports[1]).await];
    let way = Way::to(all[0].address).await;
    let build = protected(&[way.address, all[1].address]).pool(pool);
    let shop: Shop = build.spawn(HttpEndpoints::plain()).unwrap();
    let load = Load::on(&shop);
    load.seen.requests(1_000).await;
    way.cut.store(true, SeqCst);
    sleep(1_500 * MS).await;
    way.cut.store(false, SeqCst);
    let back = tokio::time::timeout(patience, load.seen.back(all[0].address)).await.ok();
    (load.end().await, back)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_left() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (seen, back) = back_after_silence(pool(protocol), BACK_FROM_SILENCE).await;
        println!(
            "{protocol:?}: {} requests, {:.3} % ok, back after {back:?}",
            seen.all(),
            100.0 * seen.success()
        );
        let errors = seen.errors.lock().unwrap().clone();
        assert!(seen.success() >= BAR, "{} of {}: {errors:?}", errors.len(), seen.all());
        assert!(back.is_some(), "{protocol:?}");
    }
    // The twin that keeps its connection never sees the endpoint again: the kernel would, in a quarter of an hour.
    let (_, back) =
        back_after_silence(pool(Protocol::Http2).with_max_silence(None), BACK_FROM_SILENCE).await;
    assert_eq!(back, None);
}

/// A slow answer of a removed endpoint arrives whole, and the endpoint gets nothing more.
#[tokio::test]
async fn a_removed_endpoint_finishes_what_it_has_begun() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let gate = Arc::new(Semaphore::new(0));
        let held = gate.clone();
        let slow = Server::http(move |_| slowly(held.clone())).await;
        let other = Server::http(async |_| Response::new(full("other"))).await;
        let shop: Shop = plain(&[slow.address])
            .no_timeout()
            .pool(pool(protocol))
            .spawn(HttpEndpoints::plain())
            .unwrap();
        let get = || shop.clone().oneshot(Request::get("/").body(Empty::new()).unwrap());
        let drains = || shop.status().iter().any(|status| status.life == Life::Draining);

        let response = get().await.unwrap();
        shop.set_endpoints([other.endpoint()]);
        assert!(drains());
        for _ in 0..10 {
            assert_eq!(bytes(get().await.unwrap()).await.unwrap(), "other");
        }
        assert!(drains(), "it is slow, and still at it");
        gate.add_permits(2);
        assert_eq!(bytes(response).await.unwrap().len(), 3 * PIECE.len());
        assert!(!drains());
        assert_eq!((slow.requests(), other.requests()), (1, 10));
    }
}

const PIECE: &str = "a piece of an answer";

/// A head and a piece at once, and two more pieces when the gate lets them through.
async fn slowly(gate: Arc<Semaphore>) -> Response<Body> {
    let pieces = stream::unfold((0, gate), async |(number, gate)| {
        match number {
            0 => {}
            1 | 2 => gate.acquire().await.unwrap().forget(),
            _ => return None,
        }
        let frame: Result<_, BoxError> = Ok(Frame::data(Bytes::from_static(PIECE.as_bytes())));
        Some((frame, (number + 1, gate)))
    });
    Response::new(StreamBody::new(pieces).boxed_unsync())
}

/// A dead address is asked in vain until somebody listens there again; nothing has to be told or restarted.
#[tokio::test]
async fn a_dead_address_comes_back_by_itself() {
    let port = closed_port();
    let shop: Shop = protected(&[port.address])
        .pool(pool(Protocol::Auto))
        .spawn(HttpEndpoints::plain())
        .unwrap();
    let get = || shop.clone().oneshot(Request::get("/").body(Empty::new()).unwrap());
    for _ in 0..5 {
        get().await.unwrap_err();
    }
    assert_eq!(shop.status()[0].life, Life::Ejected);
    let _process = Process::start(&port).await;
    let from = Clock.now();
    while get().await.is_err() {
        sleep(10 * MS).await;
    }
    let back = Clock.now().since(from);
    assert!(back <= BACK, "{back:?}");
    assert_eq!(shop.status()[0].life, Life::Ready);
}

// === Packets that vanish ===

const INSIDE: &str = "MESH_STORY_IS_INSIDE";
const FAR: &str = "10.77.0.2";

/// A machine of its own, as far as the network goes: packets to it can be made to vanish, new connections and old ones
/// alike, and it can be replaced by another of the same address that has never heard of its connections.
struct Machine(Process);

impl Machine {
    async fn start(port: u16) -> Self {
        let address = SocketAddr::new(FAR.parse().unwrap(), port);
        let child =
            itself("unshare", &["--net"], "a_child_serves", PORT, &format!("0.0.0.0:{port}"));
        let pid = child.id().unwrap().to_string();
        let ip = |line: String| async move {
            let words: Vec<_> = line.split(' ').collect();
            Command::new(words[0]).args(&words[1..]).status().await.unwrap().success()
        };
        // Until the child has left for a network of its own, its end of the cable would be ours.
        in_time(async {
            let own = std::fs::read_link("/proc/self/ns/net").unwrap();
            while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == own {
                sleep(MS).await;
            }
        })
        .await;
        assert!(ip(format!("ip link add near type veth peer name far netns {pid}")).await);
        let inside = format!("nsenter --target {pid} --net ip");
        assert!(ip(format!("{inside} addr add {FAR}/24 dev far")).await);
        assert!(ip(format!("{inside} link set far up")).await);
        assert!(ip("ip addr add 10.77.0.1/24 dev near".into()).await);
        assert!(ip("ip link set near up".into()).await);
        let process = Process { address, child };
        process.listens().await;
        Self(process)
    }

    /// Packets go to a machine that nobody is.
    async fn lose(&self) {
        let words = [
            "neigh",
            "replace",
            FAR,
            "lladdr",
            "02:00:00:00:00:01",
            "dev",
            "near",
            "nud",
            "permanent",
        ];
        assert!(Command::new("ip").args(words).status().await.unwrap().success());
    }

    async fn end(mut self) {
        self.0.kill().await;
        // Its end of the cable goes when the kernel gets round to it.
        let words = ["link", "del", "near"];
        drop(Command::new("ip").args(words).stderr(Stdio::null()).status().await);
    }
}

/// This program once more, for the test of that name, by way of another.
fn itself(by: &str, args: &[&str], test: &str, name: &str, value: &str) -> Child {
    let mut command = Command::new(by);
    command.args(args).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(name, value);
    command.stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn packets_that_vanish_are_survived() {
    let may = Command::new("unshare")
        .args(["--map-root-user", "--net", "ip", "link", "set", "lo", "up"])
        .status()
        .await;
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: networks of one's own are not allowed here");
        return;
    }
    let args = ["--map-root-user", "--net"];
    let mut child = itself("unshare", &args, "inside_a_network_of_its_own", INSIDE, "yes");
    // What hangs in there is found out in there.
    assert!(child.wait().await.unwrap().success(), "see above");
}

/// Not a test by itself: see [`packets_that_vanish_are_survived`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_a_network_of_its_own() {
    if std::env::var(INSIDE).is_err() {
        return;
    }
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().await.unwrap().success());
    for (port, protocol) in [(8_001, Protocol::Http1), (8_002, Protocol::Http2)] {
        let machine = Machine::start(port).await;
        let address = machine.0.address;
        let port_near = closed_port();
        let near = Process::start(&port_near).await;
        let shop: Shop = protected(&[address, near.address])
            .pool(pool(protocol))
            .spawn(HttpEndpoints::plain())
            .unwrap();
        let load = Load::on(&shop);
        load.seen.requests(3_000).await;
        machine.lose().await;
        sleep(1_500 * MS).await;
        machine.end().await;
        let machine = Machine::start(port).await;
        // Who serves at every address of its own says so.
        let back = load.seen.back(SocketAddr::new([0, 0, 0, 0].into(), port)).await;
        load.seen.requests(10_000).await;
        let seen = load.end().await;
        println!(
            "{protocol:?}: {} requests, {:.3} % ok, back after {back:?}",
            seen.all(),
            100.0 * seen.success()
        );
        let errors = seen.errors.lock().unwrap().clone();
        assert!(seen.success() >= BAR, "{} of {}: {errors:?}", errors.len(), seen.all());
        assert!(back <= BACK_FROM_SILENCE, "{back:?}");
        machine.end().await;
    }
}

//! Packets that vanish, in a network of one's own.

use std::{net::SocketAddr, process::Stdio};

use mesh_tower::pool::{HttpEndpoints, Protocol};
use tokio::{process::Command, time::sleep};

use super::{
    processes::{A_CHILD_SERVES, PORT, itself},
    *,
};

const INSIDE: &str = "MESH_STORY_IS_INSIDE";
const FAR: &str = "10.77.0.2";

/// A machine of its own, as far as the network goes: packets to it can be made to vanish, new connections and old ones
/// alike, and it can be replaced by another of the same address that has never heard of its connections.
struct Machine(Process);

impl Machine {
    async fn start(port: u16) -> Self {
        let address = SocketAddr::new(FAR.parse().unwrap(), port);
        let child = itself("unshare", &["--net"], A_CHILD_SERVES, PORT, &format!("0.0.0.0:{port}"));
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
    let mut child = itself("unshare", &args, "packets::inside_a_network_of_its_own", INSIDE, "yes");
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
        seen.is_good(protocol, back);
        assert!(back <= BACK_FROM_SILENCE, "{back:?}");
        machine.end().await;
    }
}

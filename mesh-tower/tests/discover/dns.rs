//! DNS against dnsmasq, a real server, whose records change. Skipped, with a message, where it is not installed.

use std::{
    env, fs, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use mesh_core::{Labels, backoff};
use mesh_tower::{
    Clock,
    discover::dns::{Config, Dns, Family, Resolver},
    upstream::{DiscoveryStatus, MakeEndpoint, Origin, Upstream},
};

/// A server of the zone `mesh.test` on a port of its own. Its hosts can be changed while it runs.
struct Dnsmasq {
    program: PathBuf,
    port: u16,
    hosts: PathBuf,
    ttl: u32,
    child: Option<Child>,
}

/// Below the ports that the system hands out: it would give one that is free for a moment to a client of the test beside.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports = std::iter::repeat_with(|| {
        let nth = std::process::id().wrapping_mul(7).wrapping_add(NEXT.fetch_add(1, Relaxed));
        20_000 + u16::try_from(nth % 10_000).expect("less")
    });
    let is_free = |port: &u16| {
        let address = ("127.0.0.1", *port);
        UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
    };
    ports.by_ref().take(10_000).find(is_free).expect("a free port")
}

impl Dnsmasq {
    /// `None` if it is not installed.
    fn install(test: &str, ttl: u32) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let places = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        let Some(program) = places.map(|place| place.join("dnsmasq")).find(|file| file.exists())
        else {
            eprintln!("{test}: skipped, for dnsmasq is not installed (Debian: dnsmasq-base)");
            return None;
        };
        let port = free_port();
        let directory = env::temp_dir().join(format!("mesh-dns-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for the hosts");
        let hosts = directory.join("hosts");
        Some(Self { program, port, hosts, ttl, child: None })
    }

    /// Starts it, in place of the one that runs.
    fn start(&mut self, hosts: &str, arguments: &[&str]) {
        self.stop();
        fs::write(&self.hosts, hosts).expect("the hosts can be written");
        let child = Command::new(&self.program)
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="])
            .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts"])
            .args(["--local=/mesh.test/", &format!("--port={}", self.port)])
            .arg(format!("--local-ttl={}", self.ttl))
            .arg(format!("--addn-hosts={}", self.hosts.display()))
            .args(arguments)
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("dnsmasq starts"));
    }

    /// Other hosts, without a restart.
    fn set_hosts(&self, hosts: &str) {
        fs::write(&self.hosts, hosts).expect("the hosts can be written");
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args(["-HUP", &pid]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }

    fn resolver(&self) -> Resolver {
        Resolver::at([SocketAddr::from(([127, 0, 0, 1], self.port))]).expect("one server")
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.stop();
        let removed = self.hosts.parent().map_or(Ok(()), fs::remove_dir_all);
        if let Err(error) = removed {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}

fn nothing(_: &Origin<'_>) {}

/// Impatient: the tests wait for it in real time.
fn impatient(config: Config) -> Config {
    let ms = Duration::from_millis;
    config
        .with_retry(backoff::Config::fixed(ms(50)))
        .with_refresh(ms(50), ms(100))
        .and_then(|config| config.with_timeout(ms(500)))
        .expect("in order")
}

fn listed<M>(upstream: &Upstream<M>) -> Vec<(String, u32)>
where
    M: MakeEndpoint<Service: Clone>,
{
    let status = upstream.status();
    let of = |s: &mesh_tower::upstream::EndpointStatus| {
        (s.endpoint.address().to_string(), s.endpoint.weight().get())
    };
    status.iter().map(of).collect()
}

async fn wait_for<M>(
    upstream: &Upstream<M>,
    what: &str,
    is_there: impl Fn(&[(String, u32)], &DiscoveryStatus) -> bool,
) where
    M: MakeEndpoint<Service: Clone>,
{
    for _ in 0..6_000 {
        if let Some(discovery) = upstream.discovery()
            && is_there(&listed(upstream), &discovery)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: {:?}, {:?}", listed(upstream), upstream.discovery());
}

async fn wait_for_set<M>(upstream: &Upstream<M>, want: &[(&str, u32)])
where
    M: MakeEndpoint<Service: Clone>,
{
    let is_it = |got: &[(String, u32)]| {
        got.iter().map(|(address, weight)| (address.as_str(), *weight)).eq(want.iter().copied())
    };
    wait_for(upstream, &format!("{want:?}"), |got, d| is_it(got) && d.failures == 0).await;
}

#[tokio::test]
async fn the_addresses_of_a_host_are_followed_and_kept_while_the_server_is_away() {
    let Some(mut server) = Dnsmasq::install("addresses", 1) else { return };
    server.start("127.0.0.1 pay.mesh.test\n127.0.0.2 pay.mesh.test\n", &[]);
    let labels: Labels = [("version", "v1")].into_iter().collect();
    let config = Config::addresses("pay.mesh.test.", 8080).unwrap().with_labels(labels.clone());
    let dns = Dns::new(impatient(config), &server.resolver());
    let upstream = Upstream::builder("pay").discover(dns).spawn(nothing).unwrap();
    wait_for_set(&upstream, &[("127.0.0.1:8080", 1), ("127.0.0.2:8080", 1)]).await;
    assert!(upstream.status().iter().all(|status| *status.endpoint.labels() == labels));

    server.set_hosts("127.0.0.2 pay.mesh.test\n127.0.0.3 pay.mesh.test\n");
    let changed = [("127.0.0.2:8080", 1), ("127.0.0.3:8080", 1)];
    wait_for_set(&upstream, &changed).await;

    // NXDOMAIN keeps the set, and says so.
    server.set_hosts("127.0.0.9 other.mesh.test\n");
    wait_for(&upstream, "an error", |got, d| d.failures > 2 && got.len() == 2).await;
    let error = upstream.discovery().unwrap().last_error.unwrap();
    assert!(error.message.starts_with("there is no name pay.mesh.test."), "{error:?}");
    server.set_hosts("127.0.0.2 pay.mesh.test\n127.0.0.3 pay.mesh.test\n");
    wait_for_set(&upstream, &changed).await;

    // So does a server that is gone; and it is found again when it is back.
    server.stop();
    wait_for(&upstream, "errors", |got, d| d.failures > 1 && got.len() == 2).await;
    let discovery = upstream.discovery().unwrap();
    let error = discovery.last_error.unwrap();
    assert!(error.message.starts_with("the lookup of pay.mesh.test. failed"), "{error:?}");
    assert!(discovery.age.unwrap() > Duration::ZERO);
    server.start("127.0.0.4 pay.mesh.test\n", &[]);
    wait_for_set(&upstream, &[("127.0.0.4:8080", 1)]).await;
}

#[tokio::test]
async fn a_name_without_addresses_empties_the_set_and_families_are_told_apart() {
    let Some(mut server) = Dnsmasq::install("families", 1) else { return };
    server.start("127.0.0.1 pay.mesh.test\nfd00::1 pay.mesh.test\n", &[]);
    let of = |family| {
        let config = Config::addresses("pay.mesh.test.", 80).unwrap().with_family(family);
        let dns = Dns::new(impatient(config), &server.resolver());
        Upstream::builder("pay").discover(dns).spawn(nothing).unwrap()
    };
    let (first, v4, both) = (of(Family::V4First), of(Family::V4), of(Family::Both));
    wait_for_set(&first, &[("127.0.0.1:80", 1)]).await;
    wait_for_set(&v4, &[("127.0.0.1:80", 1)]).await;
    wait_for_set(&both, &[("127.0.0.1:80", 1), ("[fd00::1]:80", 1)]).await;
    server.set_hosts("fd00::1 pay.mesh.test\n");
    wait_for_set(&v4, &[]).await;
    wait_for_set(&first, &[("[fd00::1]:80", 1)]).await;
    wait_for_set(&both, &[("[fd00::1]:80", 1)]).await;
}

#[tokio::test]
async fn services_have_the_weights_of_their_records() {
    let Some(mut server) = Dnsmasq::install("services", 1) else { return };
    let hosts = "127.0.0.1 a.mesh.test\n127.0.0.2 b.mesh.test\n127.0.0.3 c.mesh.test\n\
                 127.0.0.4 c.mesh.test\n";
    let name = "_http._tcp.shop.mesh.test";
    // Target, port, priority, weight.
    let srv = |record: &str| format!("--srv-host={name},{record}");
    server.start(
        hosts,
        &[&srv("a.mesh.test,81,10,70"), &srv("b.mesh.test,82,10,30"), &srv("c.mesh.test,83,20,99")],
    );
    let dns = Dns::new(impatient(Config::srv(name).unwrap()), &server.resolver());
    let upstream = Upstream::builder("shop").discover(dns).spawn(nothing).unwrap();
    wait_for_set(&upstream, &[("127.0.0.1:81", 70), ("127.0.0.2:82", 30)]).await;

    // Another split; then the second has gone, and the third, with two addresses, has its priority.
    server.start(hosts, &[&srv("a.mesh.test,81,10,50"), &srv("b.mesh.test,82,10,50")]);
    wait_for_set(&upstream, &[("127.0.0.1:81", 50), ("127.0.0.2:82", 50)]).await;
    server.start(hosts, &[&srv("a.mesh.test,81,10,0"), &srv("c.mesh.test,83,10,1")]);
    let shared = [("127.0.0.1:81", 2), ("127.0.0.3:83", 1), ("127.0.0.4:83", 1)];
    wait_for_set(&upstream, &shared).await;
}

#[tokio::test]
async fn the_ttl_of_the_records_is_the_time_to_the_next_question() {
    let Some(mut server) = Dnsmasq::install("ttl", 2) else { return };
    server.start("127.0.0.1 pay.mesh.test\n", &[]);
    let config = Config::addresses("pay.mesh.test.", 80)
        .unwrap()
        .with_retry(backoff::Config::fixed(Duration::from_millis(50)))
        .with_refresh(Duration::from_millis(50), Duration::from_secs(60))
        .and_then(|config| config.with_timeout(Duration::from_millis(500)))
        .unwrap();
    let dns = Dns::new(config, &server.resolver());
    // Before the first answer: whenever that is noticed here, its records live on for two seconds from now at least.
    let begun = Clock.now();
    let upstream = Upstream::builder("pay").discover(dns).spawn(nothing).unwrap();
    wait_for_set(&upstream, &[("127.0.0.1:80", 1)]).await;
    wait_for(&upstream, "a second answer", |_, d| d.updates > 1).await;
    let took = Clock.now().since(begun);
    assert!(took >= Duration::from_millis(1_500), "asked again before they expired: {took:?}");
}

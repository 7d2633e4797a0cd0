use std::{collections::BTreeMap, future::poll_fn, net::IpAddr, sync::Mutex};

use hickory_resolver::proto::rr::Name;
use mesh_core::{Ratio, backoff};

use super::{
    lookup::{Record, Service},
    *,
};

/// Answers from a list; what is not in it does not exist.
#[derive(Default)]
struct Zone {
    replies: Mutex<BTreeMap<(String, &'static str), Reply>>,
    asked: Mutex<Vec<String>>,
}

#[derive(Clone)]
enum Reply {
    Addresses(u64, Vec<&'static str>),
    /// Priority, weight, port, target.
    Services(u64, Vec<(u16, u16, u16, &'static str)>),
    Fails,
    Hangs,
}

use Reply::{Addresses, Fails, Hangs, Services};

impl Zone {
    fn set(&self, name: &str, kind: &'static str, reply: Reply) {
        self.replies.lock().unwrap().insert((name.to_owned(), kind), reply);
    }

    fn reply(&self, name: &Name, kind: &'static str) -> Result<Reply, Trouble> {
        let name = name.to_string();
        self.asked.lock().unwrap().push(format!("{kind} {name}"));
        let replies = self.replies.lock().unwrap();
        match replies.get(&(name.clone(), kind)) {
            Some(Fails) => Err(Trouble::Failed(name, "server failure".into())),
            Some(reply) => Ok(reply.clone()),
            None if replies.keys().any(|(known, _)| *known == name) => Ok(Addresses(7, vec![])),
            None => Err(Trouble::NoSuchName(name)),
        }
    }
}

impl Ask for Zone {
    fn addresses(&self, name: Name, v6: bool) -> Record<'_, IpAddr> {
        let reply = self.reply(&name, if v6 { "AAAA" } else { "A" });
        Box::pin(async move {
            let (ttl, addresses) = match reply? {
                Addresses(ttl, addresses) => (ttl, addresses),
                Hangs => std::future::pending().await,
                Services(..) | Fails => unreachable!(),
            };
            let parsed = addresses.iter().map(|address| address.parse().unwrap());
            Ok((parsed.collect(), Duration::from_secs(ttl)))
        })
    }

    fn services(&self, name: Name) -> Record<'_, Service> {
        let reply = self.reply(&name, "SRV");
        Box::pin(async move {
            let (ttl, services) = match reply? {
                Services(ttl, services) => (ttl, services),
                Addresses(ttl, _) => (ttl, vec![]),
                Fails | Hangs => unreachable!(),
            };
            let service = |(priority, weight, port, target): (u16, u16, u16, &str)| Service {
                priority,
                weight,
                port,
                target: Name::from_ascii(target).unwrap(),
            };
            Ok((services.into_iter().map(service).collect(), Duration::from_secs(ttl)))
        })
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn host() -> Config {
    Config::addresses("host.test.", 80).unwrap()
}

fn service() -> Config {
    Config::srv("_http._tcp.shop.test.").unwrap()
}

fn dns(config: Config, zone: &Arc<Zone>) -> Dns {
    Dns::with_ask(config, zone.clone()).with_chance(Chance::seeded(1))
}

/// The addresses and weights of the next set, or the next error.
async fn next(dns: &mut Dns) -> Result<Vec<(String, u32)>, Error> {
    let item = poll_fn(|cx| Pin::new(&mut *dns).poll_update(cx)).await.unwrap();
    match item {
        Ok(Update::Set(set)) => {
            Ok(set.iter().map(|e| (e.address().to_string(), e.weight().get())).collect())
        }
        Ok(other) => unreachable!("{other:?}"),
        Err(error) => Err(*error.downcast().unwrap()),
    }
}

async fn once(config: Config, zone: &Arc<Zone>) -> Result<Vec<(String, u32)>, Error> {
    next(&mut dns(config, zone)).await
}

fn set(endpoints: &[(&str, u32)]) -> Vec<(String, u32)> {
    endpoints.iter().map(|(address, weight)| ((*address).to_owned(), *weight)).collect()
}

#[tokio::test(start_paused = true)]
async fn it_asks_again_when_the_answer_expires_within_bounds() {
    async fn wait(config: Config, ttl: u64) -> Duration {
        let zone = Arc::new(Zone::default());
        zone.set("host.test.", "A", Addresses(ttl, vec!["10.0.0.1"]));
        let mut dns = dns(config, &zone);
        next(&mut dns).await.unwrap();
        let before = Clock.now();
        next(&mut dns).await.unwrap();
        Clock.now().since(before)
    }
    assert_eq!(wait(host(), 0).await, secs(5));
    assert_eq!(wait(host(), 60).await, secs(60));
    assert_eq!(wait(host(), 86_400).await, secs(300));
    // Without bounds that bind, the TTL is all there is: the bounds above did it.
    let unbound = host().with_refresh(Duration::from_nanos(1), secs(1_000_000)).unwrap();
    assert_eq!(wait(unbound, 86_400).await, secs(86_400));

    let waits = [wait(host().with_jitter(secs(10)), 60).await];
    assert!(waits.iter().all(|wait| (secs(60)..secs(70)).contains(wait)), "{waits:?}");
    assert_ne!(waits[0], secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_how_old_the_last_answer_is_and_backs_off() {
    let zone = Arc::new(Zone::default());
    zone.set("host.test.", "A", Fails);
    let retry = backoff::Config::grpc(secs(1), secs(4), Ratio::from_percent(200)).unwrap();
    let mut dns = dns(host().with_retry(retry), &zone);
    let error = next(&mut dns).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the lookup of host.test. failed (there has been no good answer yet)"
    );
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "server failure");

    zone.set("host.test.", "A", Addresses(30, vec!["10.0.0.1"]));
    next(&mut dns).await.unwrap();
    let good = Clock.now();
    zone.set("host.test.", "A", Fails);
    let mut last = None;
    for failure in 1..=5 {
        let error = next(&mut dns).await.unwrap_err();
        let now = Clock.now();
        assert_eq!((error.failures(), error.age()), (failure, Some(now.since(good))));
        if let Some(last) = last.replace(now) {
            let (least, most) = retry.bounds(failure - 1);
            let wait = now.since(last);
            assert!(least <= wait && wait < most + Duration::from_millis(2), "{failure}: {wait:?}");
        }
        assert!(!error.is_no_such_name());
    }
    zone.set("host.test.", "A", Addresses(30, vec!["10.0.0.2"]));
    assert_eq!(next(&mut dns).await.unwrap(), set(&[("10.0.0.2:80", 1)]));
    zone.set("host.test.", "A", Fails);
    assert_eq!(next(&mut dns).await.unwrap_err().failures(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_hangs_is_given_up() {
    let zone = Arc::new(Zone::default());
    zone.set("host.test.", "A", Hangs);
    let before = Clock.now();
    let error = once(host().with_timeout(secs(3)).unwrap(), &zone).await.unwrap_err();
    assert_eq!(Clock.now().since(before), secs(3));
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "no answer within 3s");
    assert_eq!(host().with_timeout(Duration::ZERO).unwrap_err().field(), "timeout");
}

#[tokio::test(start_paused = true)]
async fn no_data_empties_the_set_and_no_such_name_does_not() {
    let zone = Arc::new(Zone::default());
    let error = once(host(), &zone).await.unwrap_err();
    assert!(error.is_no_such_name());
    assert_eq!(
        error.to_string(),
        "there is no name host.test. (there has been no good answer yet)"
    );
    assert_eq!(once(host().with_nxdomain_empties(true), &zone).await.unwrap(), []);

    zone.set("host.test.", "TXT", Addresses(0, vec![]));
    assert_eq!(once(host(), &zone).await.unwrap(), []);
    zone.set("host.test.", "A", Fails);
    assert!(once(host().with_nxdomain_empties(true), &zone).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn families() {
    let (v4, v6) = (("10.0.0.1:80", 1), ("[fd00::1]:80", 1));
    let a = || Addresses(60, vec!["10.0.0.1"]);
    let aaaa = || Addresses(60, vec!["fd00::1"]);
    let none = || Addresses(60, vec![]);
    // A, AAAA; then the endpoints of V4First, V4, V6, Both; `None` is an error.
    type Want = Option<Vec<(&'static str, u32)>>;
    let cases: [(Reply, Reply, [Want; 4]); 5] = [
        (a(), aaaa(), [Some(vec![v4]), Some(vec![v4]), Some(vec![v6]), Some(vec![v4, v6])]),
        (a(), none(), [Some(vec![v4]), Some(vec![v4]), Some(vec![]), Some(vec![v4])]),
        (none(), aaaa(), [Some(vec![v6]), Some(vec![]), Some(vec![v6]), Some(vec![v6])]),
        (a(), Fails, [Some(vec![v4]), Some(vec![v4]), None, None]),
        (Fails, aaaa(), [None, None, Some(vec![v6]), None]),
    ];
    for (number, (a, aaaa, want)) in cases.into_iter().enumerate() {
        let zone = Arc::new(Zone::default());
        zone.set("host.test.", "A", a);
        zone.set("host.test.", "AAAA", aaaa);
        for (family, want) in
            [Family::V4First, Family::V4, Family::V6, Family::Both].iter().zip(want)
        {
            let got = once(host().with_family(*family), &zone).await.ok();
            assert_eq!(got, want.map(|want| set(&want)), "case {number}, {family:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_needs_no_lookup() {
    let zone = Arc::new(Zone::default());
    for (address, at) in [("10.0.0.9", "10.0.0.9:80"), ("fd00::1", "[fd00::1]:80")] {
        let config = Config::addresses(address, 80).unwrap();
        assert_eq!(once(config, &zone).await.unwrap(), set(&[(at, 1)]));
    }
    assert_eq!(*zone.asked.lock().unwrap(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn srv_uses_the_lowest_priority_and_its_weights() {
    let zone = Arc::new(Zone::default());
    zone.set("a.test.", "A", Addresses(60, vec!["10.0.0.1"]));
    zone.set("b.test.", "A", Addresses(60, vec!["10.0.0.2"]));
    zone.set("c.test.", "A", Addresses(60, vec!["10.0.0.3"]));
    let name = "_http._tcp.shop.test.";
    for (records, want) in [
        (
            vec![(20, 100, 80, "c.test."), (10, 70, 80, "a.test."), (10, 30, 81, "b.test.")],
            vec![("10.0.0.1:80", 70), ("10.0.0.2:81", 30)],
        ),
        // All 0 is all alike; beside others 0 is the smallest weight.
        (
            vec![(0, 0, 80, "a.test."), (0, 0, 80, "b.test.")],
            vec![("10.0.0.1:80", 1), ("10.0.0.2:80", 1)],
        ),
        (
            vec![(0, 0, 80, "a.test."), (0, 65_535, 80, "b.test.")],
            vec![("10.0.0.1:80", 1), ("10.0.0.2:80", 65_535)],
        ),
        // Duplicates add up; ports tell apart.
        (
            vec![(0, 2, 80, "a.test."), (0, 3, 80, "a.test."), (0, 4, 81, "a.test.")],
            vec![("10.0.0.1:80", 5), ("10.0.0.1:81", 4)],
        ),
        // A target that does not exist is left out.
        (vec![(0, 2, 80, "a.test."), (0, 3, 80, "gone.test.")], vec![("10.0.0.1:80", 2)]),
        // There is no such service here.
        (vec![(0, 0, 0, ".")], vec![]),
        (vec![], vec![]),
    ] {
        zone.set(name, "SRV", Services(60, records.clone()));
        assert_eq!(once(service(), &zone).await.unwrap(), set(&want), "{records:?}");
    }

    zone.set(name, "SRV", Services(60, vec![(0, 1, 80, "gone.test.")]));
    let error = once(service(), &zone).await.unwrap_err();
    assert!(error.is_no_such_name() && error.name() == "gone.test.");
    zone.set(name, "SRV", Services(60, vec![(0, 1, 80, "a.test."), (0, 1, 80, "bad.test.")]));
    zone.set("bad.test.", "A", Fails);
    assert_eq!(once(service(), &zone).await.unwrap_err().name(), "bad.test.");
}

#[tokio::test(start_paused = true)]
async fn the_ttl_of_a_service_is_the_least_of_all_its_records() {
    let zone = Arc::new(Zone::default());
    zone.set("_http._tcp.shop.test.", "SRV", Services(60, vec![(0, 1, 80, "a.test.")]));
    zone.set("a.test.", "A", Addresses(20, vec!["10.0.0.1"]));
    let mut dns = dns(service(), &zone);
    next(&mut dns).await.unwrap();
    let before = Clock.now();
    next(&mut dns).await.unwrap();
    assert_eq!(Clock.now().since(before), secs(20));
}

/// The weight of a target is shared by its addresses, so the shares of the targets are as the records say.
#[test]
fn a_target_with_many_addresses_has_the_share_of_its_record() {
    fn shares_hold(weigh: impl Fn(&[(Service, Vec<IpAddr>)]) -> Vec<(IpAddr, u64)>) -> bool {
        // Weight and number of addresses of each target.
        let cases: [&[(u16, u8)]; 4] =
            [&[(1, 1), (1, 3)], &[(70, 4), (30, 6)], &[(65_535, 250), (1, 1)], &[(5, 7), (3, 11)]];
        cases.iter().all(|case| {
            let target = |(number, (weight, count)): (usize, &(u16, u8))| {
                let service =
                    Service { priority: 0, weight: *weight, port: 80, target: Name::root() };
                (service, (1..=*count).map(|n| IpAddr::from([10, 0, number as u8, n])).collect())
            };
            let targets: Vec<(Service, Vec<IpAddr>)> =
                case.iter().enumerate().map(target).collect();
            let weights: BTreeMap<_, _> = weigh(&targets).into_iter().collect();
            let total: u64 = weights.values().sum();
            let weight_of_all: u64 = case.iter().map(|(weight, _)| u64::from(*weight)).sum();
            targets.iter().all(|(service, addresses)| {
                let sum: u64 = addresses.iter().map(|address| weights[address]).sum();
                let (got, want) =
                    (sum as f64 / total as f64, f64::from(service.weight) / weight_of_all as f64);
                (got / want - 1.0).abs() < 1e-3
            })
        })
    }
    let real = |targets: &[(Service, Vec<IpAddr>)]| {
        let targets: Vec<_> = targets
            .iter()
            .map(|(service, addresses)| (service.clone(), addresses.iter().copied().collect()))
            .collect();
        let weights = lookup::weigh(&targets);
        weights.into_iter().map(|(at, weight)| (at.ip(), u64::from(weight.get()))).collect()
    };
    assert!(shares_hold(real));
    // The broken twin gives each address the weight of the record.
    let twin = |targets: &[(Service, Vec<IpAddr>)]| {
        let all = targets.iter().flat_map(|(service, addresses)| {
            addresses.iter().map(|address| (*address, u64::from(service.weight)))
        });
        all.collect()
    };
    assert!(!shares_hold(twin));
}

#[test]
fn weights_do_not_overflow() {
    // 2, 3, 5, … addresses: the least common multiple is far beyond 32 bits.
    let target = |(number, count): (usize, u8)| {
        let service = Service { priority: 0, weight: u16::MAX, port: 80, target: Name::root() };
        (service, (1..=count).map(|n| IpAddr::from([10, 0, number as u8, n])).collect())
    };
    let counts = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    let targets: Vec<_> = counts.into_iter().enumerate().map(target).collect();
    let weights = lookup::weigh(&targets);
    assert_eq!(weights.len(), counts.iter().map(|n| usize::from(*n)).sum::<usize>());
    assert!(weights.values().all(|weight| weight.get() > 1));
    // The same target over and over adds up to the most there is.
    let same: Vec<_> = (0..100_000).map(|_| target((0, 1))).collect();
    assert_eq!(lookup::weigh(&same).values().next().unwrap().get(), u32::MAX);
}

#[test]
fn what_is_no_name_is_refused() {
    for name in ["", ".", "a..b", &"x".repeat(64), "a b\u{0}"] {
        let error = Config::addresses(name, 80).unwrap_err();
        assert_eq!((error.field(), error.value()), ("name", name));
    }
    for name in ["host", "my_service", "_http._tcp.shop.test", "bücher.example", "10.0.0.1"] {
        assert!(Config::addresses(name, 80).is_ok(), "{name}");
    }
    assert_eq!(Config::addresses("host", 0).unwrap_err().field(), "port");
    assert_eq!(host().with_refresh(Duration::ZERO, secs(1)).unwrap_err().field(), "min_refresh");
    assert!(Resolver::at([]).is_err());
}

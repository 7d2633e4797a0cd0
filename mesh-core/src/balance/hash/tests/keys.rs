//! What a request's key is made of.

use std::{net::SocketAddr, time::Duration};

use super::*;

#[derive(Clone, Debug, Default)]
struct Request {
    headers: Vec<(&'static str, String)>,
    query: Option<&'static str>,
    addresses: Option<(SocketAddr, SocketAddr)>,
}

impl Head for Request {
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers.iter().filter(move |(n, _)| *n == name).map(|(_, value)| value.as_bytes())
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn remote(&self) -> Option<SocketAddr> {
        self.addresses.map(|(remote, _)| remote)
    }

    fn local(&self) -> Option<SocketAddr> {
        self.addresses.map(|(_, local)| local)
    }

    fn custom(&self, name: &str) -> Option<u64> {
        (name == "tenant").then_some(42)
    }
}

impl Request {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

fn hash(policy: &Policy, request: &Request) -> (Option<u64>, Vec<String>) {
    let mut cookies = Vec::new();
    let mut rng = SplitMix64::new(1);
    let hash = policy.hash(request, &mut rng, |cookie| cookies.push(cookie.to_string()));
    (hash, cookies)
}

fn key(part: Part, request: &Request) -> Option<u64> {
    let (hash, cookies) = hash(&Policy::new([part]), request);
    assert!(cookies.is_empty());
    hash
}

fn xx(text: &str) -> Option<u64> {
    Some(xxhash64(text.as_bytes(), 0))
}

#[test]
fn a_header_is_its_sorted_values() {
    let part = || Part::header("X-Shard").unwrap();
    assert_eq!(key(part(), &Request::default()), None);
    assert_eq!(key(part(), &Request::default().with("x-shard", "")), xx(""));
    assert_eq!(key(part(), &Request::default().with("x-shard", "a")), xx("a"));
    for count in [2, 7, 8, 9, 20] {
        let values: Vec<String> = (0..count).map(|n| format!("{:02}", n * 7 % 20)).collect();
        let request = |values: &[String]| {
            values.iter().fold(Request::default(), |request, value| request.with("x-shard", value))
        };
        let mut sorted = values.clone();
        sorted.sort();
        let chained = sorted.iter().fold(0, |seed, value| xxhash64(value.as_bytes(), seed));
        assert_eq!(key(part(), &request(&values)), Some(chained), "{count}");
        let backwards: Vec<String> = values.into_iter().rev().collect();
        assert_eq!(key(part(), &request(&backwards)), Some(chained), "{count} backwards");
    }
}

#[test]
fn a_query_parameter_is_its_first_value_as_sent() {
    let part = || Part::query_parameter("id").unwrap();
    let with = |query| Request { query, ..Request::default() };
    assert_eq!(key(part(), &with(None)), None);
    assert_eq!(key(part(), &with(Some(""))), None);
    assert_eq!(key(part(), &with(Some("a=1&idx=2"))), None);
    assert_eq!(key(part(), &with(Some("a=1&id=%20=&id=3"))), xx("%20="));
    assert_eq!(key(part(), &with(Some("id"))), xx(""));
    for bad in ["", "a&b", "a=b", "a#b"] {
        assert_eq!(Part::query_parameter(bad).unwrap_err().field(), "query_parameter");
    }
}

#[test]
fn a_source_is_an_address_without_its_port() {
    let with = |remote: &str| {
        let remote = remote.parse().unwrap();
        Request { addresses: Some((remote, remote)), ..Request::default() }
    };
    assert_eq!(key(Part::source_address(), &Request::default()), None);
    assert_eq!(key(Part::source_address(), &with("10.1.2.3:4")), xx("10.1.2.3"));
    assert_eq!(key(Part::source_address(), &with("[2001:db8::1]:4")), xx("2001:db8::1"));
    assert_eq!(key(Part::custom("tenant"), &Request::default()), Some(42));
    assert_eq!(key(Part::custom("other"), &Request::default()), None);
}

#[test]
fn a_cookie_is_found_among_others() {
    let part = || Part::cookie(Cookie::new("user").unwrap());
    let with = |header: &str| Request::default().with("cookie", header);
    assert_eq!(key(part(), &with("a=1; user=ann; user=bob")), xx("ann"));
    assert_eq!(key(part(), &with("user=\"ann\"")), xx("ann"));
    assert_eq!(key(part(), &with("broken; user=a=b")), xx("a=b"));
    assert_eq!(key(part(), &with("users=ann; User=ann")), None);
    assert_eq!(key(part(), &with("user=")), None);
    assert_eq!(key(part(), &with("user=\"")), xx("\""));
    let two = Request::default().with("cookie", "a=1").with("cookie", "user=ann");
    assert_eq!(key(part(), &two), xx("ann"));
}

#[test]
fn who_has_no_cookie_gets_one() {
    let cookie = Cookie::new("user").unwrap().with_path("/shop").unwrap();
    let policy = Policy::new([Part::cookie(cookie.with_ttl(Duration::from_secs(90)))]);
    let (first, cookies) = hash(&policy, &Request::default());
    let [set] = cookies.try_into().unwrap();
    assert!(set.ends_with("\"; Max-Age=90; Path=/shop; HttpOnly"), "{set}");

    // Who comes back with it gets the same key, and no other cookie.
    let pair = set.split(';').next().unwrap();
    let (second, cookies) = hash(&policy, &Request::default().with("cookie", pair));
    assert_eq!((second, cookies.len()), (first, 0));

    // Envoy: the hash of both addresses as text. The value of a connection stays, even without the cookie.
    let addresses = Some(("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap()));
    let (_, cookies) = hash(&policy, &Request { addresses, ..Request::default() });
    let value = xxhash64(b"10.0.0.1:400010.0.0.2:80", 0);
    assert_eq!(cookies, [format!("user=\"{value:016x}\"; Max-Age=90; Path=/shop; HttpOnly")]);
}

#[test]
fn a_session_cookie_has_no_age_and_a_value_has_all_its_digits() {
    let cookie = Cookie::new("s").unwrap().with_ttl(Duration::ZERO);
    let set = SetCookie { cookie: &cookie, value: 0xAB };
    assert_eq!(set.to_string(), "s=\"00000000000000ab\"; HttpOnly");
    assert_eq!(set.value(), *b"00000000000000ab");
    for bad in ["", "a b", "a;b", "a=b", "ä", "a\r\n"] {
        assert_eq!(Cookie::new(bad).unwrap_err().field(), "cookie.name", "{bad:?}");
        assert_eq!(Part::header(bad).unwrap_err().field(), "header_name", "{bad:?}");
    }
    for bad in ["/;", "/\n", "/ä"] {
        assert_eq!(cookie.clone().with_path(bad).unwrap_err().field(), "cookie.path", "{bad:?}");
    }
    assert!(Part::header(":authority").is_ok());
}

/// `rotate_left(old, 1) ^ new`, until a terminal part.
#[test]
fn parts_are_combined_in_order() {
    let header = |name: &str| Part::header(name).unwrap();
    let request = Request::default().with("a", "1").with("b", "2");
    let (one, two) = (xxhash64(b"1", 0), xxhash64(b"2", 0));
    let of = |parts: Vec<Part>| hash(&Policy::new(parts), &request).0;
    assert_eq!(of(vec![]), None);
    assert_eq!(of(vec![header("a"), header("b")]), Some(one.rotate_left(1) ^ two));
    assert_eq!(of(vec![header("b"), header("a")]), Some(two.rotate_left(1) ^ one));
    assert_ne!(of(vec![header("a"), header("a")]), Some(0), "twice the same is not nothing");
    assert_eq!(of(vec![header("a").terminal(), header("b")]), Some(one));
    assert_eq!(of(vec![header("x").terminal(), header("b")]), Some(two), "it is not there");
    assert_eq!(
        of(vec![header("a"), header("x").terminal(), header("b")]),
        Some(one),
        "there is a key after it"
    );
}

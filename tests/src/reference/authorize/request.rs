//! The requests of the model, and all that can be read out of them.

use arbitrary::Arbitrary;
use mesh_core::authorize::{Connection, PlainHead};

use Why::{Dots, End, Layers, Parameter, Slash};

#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Request {
    pub(super) id: Option<u8>,
    pub(super) port: Option<bool>,
    pub(super) host: u8,
    pub(super) method: u8,
    pub(super) path: u8,
    pub(super) header: Vec<u8>,
    pub(super) like: Option<u8>,
    pub(super) tcp: bool,
}

impl Request {
    pub(super) fn connection(&self) -> Connection<'static> {
        let mut connection = Connection::default();
        if let Some(id) = self.id {
            connection = connection.with_principal(pick(&IDS, id));
        }
        match self.port {
            Some(first) => connection.with_port(if first { 80 } else { 81 }),
            None => connection,
        }
    }

    pub(super) fn head(&self) -> PlainHead {
        let head = PlainHead::new(pick(&METHODS, self.method), pick(&PATHS, self.path).0)
            .with_authority(pick(&HOSTS, self.host).0);
        let head = match self.like() {
            Some(value) => head.with_header("x_h", value),
            None => head,
        };
        self.header().into_iter().fold(head, |head, value| head.with_header("x-h", value))
    }

    pub(super) fn like(&self) -> Option<&'static str> {
        self.like.filter(|byte| byte % 4 == 0).map(|byte| pick(&HEADERS, byte / 4))
    }

    pub(super) fn header(&self) -> Vec<&'static str> {
        self.header.iter().take(3).map(|byte| pick(&HEADERS, *byte)).collect()
    }
}

pub(super) fn pick<T: Copy>(all: &[T], byte: u8) -> T {
    all[usize::from(byte) % all.len()]
}

pub(super) const IDS: [&str; 3] = ["td/ns/a/sa/x", "td/ns/ab/sa/x", "other/ns/b/sa/y"];
/// As it was sent, and what it is read as.
pub(super) const HOSTS: [(&str, HostReading); 16] = [
    ("", HostReading::None),
    ("shop", HostReading::Name("shop", "")),
    ("Shop", HostReading::Name("shop", "")),
    ("shop:80", HostReading::Name("shop", "80")),
    ("a.shop", HostReading::Name("a.shop", "")),
    ("shop.:80", HostReading::Name("shop", "80")),
    ("shop.", HostReading::Name("shop", "")),
    ("shop:81", HostReading::Name("shop", "81")),
    ("u@shop", HostReading::Name("shop", "")),
    ("[::1]:81", HostReading::Name("[::1]", "81")),
    ("[0:0::1]", HostReading::Name("[::1]", "")),
    ("sh%6fp", HostReading::Unclear),
    ("x,a.shop", HostReading::Unclear),
    ("x/a.shop", HostReading::Unclear),
    ("shop:80:81", HostReading::Unclear),
    ("127.1", HostReading::Unclear),
];

#[derive(Clone, Copy, Debug)]
pub(super) enum HostReading {
    None,
    /// Without a dot, and the port.
    Name(&'static str, &'static str),
    Unclear,
}

pub(super) const METHODS: [&str; 4] = ["GET", "POST", "get", "HEAD"];
pub(super) const HEADERS: [&str; 7] = ["1", "1", "1", "2", "1, 2", "2,1", ""];

/// Why a path may be read otherwise than as it is handed on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    /// Slashes that were escaped, or stand in a row.
    Slash,
    Dots,
    Layers,
    Parameter,
    End,
}

pub(super) type Reading = (Why, &'static str);

/// As it was sent, as it is handed on, how else it may be read, and what else it may be meant by who refuses.
pub(super) const PATHS: [(&str, &str, &[Reading], &[Reading]); 21] = [
    ("/a", "/a", &[], &[]),
    ("/a/b", "/a/b", &[], &[]),
    ("/b", "/b", &[], &[]),
    ("/x/../a", "/a", &[(Dots, "/x/../a")], &[]),
    ("/a/../b", "/b", &[(Dots, "/a/../b")], &[]),
    ("/%61", "/a", &[], &[]),
    ("/a//b", "/a//b", &[(Slash, "/a/b")], &[]),
    ("/b/..%2fa", "/b/..%2fa", &[(Slash, "/a"), (Dots, "/b/../a")], &[]),
    ("/b%2f%2f../a", "/b%2f%2f../a", &[(Slash, "/b/a"), (Slash, "/a"), (Dots, "/b//../a")], &[]),
    ("/%2561", "/%2561", &[], &[(Layers, "/%61"), (Layers, "/a")]),
    ("/a%252fb", "/a%252fb", &[(Layers, "/a/b")], &[(Layers, "/a%2fb")]),
    ("/b/..%252fa", "/b/..%252fa", &[(Layers, "/a"), (Layers, "/b/../a")], &[]),
    ("/a;x", "/a;x", &[], &[(Parameter, "/a")]),
    ("/;x/a", "/;x/a", &[], &[(Parameter, "/a")]),
    ("/b/..;/a", "/b/..;/a", &[(Parameter, "/a")], &[]),
    ("/b/..%3b/a", "/b/..%3b/a", &[(Parameter, "/b/..;/a"), (Parameter, "/a")], &[]),
    ("/a%3fb", "/a%3fb", &[], &[(End, "/a?b"), (End, "/a")]),
    ("/a%23b", "/a%23b", &[], &[(End, "/a#b"), (End, "/a")]),
    ("/a/", "/a/", &[], &[]),
    ("*", "*", &[], &[]),
    ("", "", &[], &[]),
];

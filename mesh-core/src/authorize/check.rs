use std::{cell::OnceCell, net::IpAddr};

use super::{
    Attribute, Config, Connection, Head, Match,
    header::HeaderText,
    host::{Authority, HostText},
    identity::{Account, Domain, is_in_namespace, with_aliases},
    path::Template,
    reading::{Seen, unescaped},
    text::{Block, Text},
};
use crate::InvalidConfig;

/// A compiled [`Match`].
#[derive(Clone, Debug)]
pub(super) struct Check {
    values: Option<List>,
    exceptions: Option<List>,
    /// To match grants something: the policy allows. Of others it refuses, or brings about that somebody is asked.
    grants: bool,
    /// Whether doubts are judged by what refuses.
    doubts: bool,
}

/// What a decision looks at.
#[derive(Debug)]
pub(super) struct Request<'a, H> {
    pub(super) connection: &'a Connection<'a>,
    pub(super) head: &'a H,
    pub(super) path: Seen<'a>,
    /// In parts, once a policy asks for it.
    authority: OnceCell<Authority<'a>>,
}

impl<'a, H: Head> Request<'a, H> {
    pub(super) fn new(connection: &'a Connection<'a>, head: &'a H, path: Seen<'a>) -> Self {
        Self { connection, head, path, authority: OnceCell::new() }
    }
}

/// How a request is read that can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sense {
    /// In one way, as Istio's proxy does.
    AsIs,
    /// In any way.
    Wide,
    /// In every way.
    Narrow,
}

/// The values for one attribute.
#[derive(Clone, Debug)]
enum List {
    Principals(Vec<Text>),
    Namespaces(Vec<Box<str>>),
    Accounts(Vec<Account>),
    Domains(Vec<Domain>),
    SourceIps(Vec<Block>),
    RemoteIps(Vec<Block>),
    DestinationIps(Vec<Block>),
    Ports(Vec<u16>),
    Snis(Vec<HostText>),
    Hosts(Vec<HostText>),
    Methods(Vec<Text>),
    Paths(Vec<PathText>),
    Header(Box<str>, Vec<HeaderText>),
    Claim(Vec<String>, Vec<Text>),
    RequestPrincipals { issuer: Vec<String>, subject: Vec<String>, values: Vec<(Text, Text)> },
}

#[derive(Clone, Debug)]
struct PathText {
    form: PathForm,
    /// With no escape left, if there is one: what [`Seen::meant`] is compared with.
    meant: Option<PathForm>,
    /// The same without the slash at its end, if there is one.
    folder: Option<PathForm>,
}

#[derive(Clone, Debug)]
enum PathForm {
    Text(Text),
    Template(Template),
}

impl Check {
    /// `None`: it asks nothing.
    pub(super) fn new(
        one: &Match,
        namespace: &str,
        grants: bool,
        config: &Config,
    ) -> Result<Option<Self>, InvalidConfig> {
        // Istio leaves a bad value out of a policy that refuses, which then refuses more.
        let lenient = config.invalid_rules_skipped() && !grants;
        let list = |values: &[String]| {
            let mut good = Vec::new();
            for value in values {
                match List::new(one.attribute(), std::slice::from_ref(value), namespace, config) {
                    Ok(_) => good.push(value.clone()),
                    Err(_) if lenient => {}
                    Err(error) => return Err(error),
                }
            }
            let list = || List::new(one.attribute(), &good, namespace, config);
            (!good.is_empty()).then(list).transpose()
        };
        if let Attribute::Unknown(key) = one.attribute() {
            return Err(InvalidConfig::new("key", format!("{key:?}"), "a key of Istio's `when`"));
        }
        let (values, exceptions) = (list(one.values())?, list(one.exceptions())?);
        let doubts = config.doubts_refused();
        Ok((values.is_some() || exceptions.is_some()).then_some(Self {
            values,
            exceptions,
            grants,
            doubts,
        }))
    }

    pub(super) fn holds<H: Head>(&self, request: &Request<'_, H>) -> bool {
        // What refuses is taken in a wide sense: the values of a policy that refuses, the exceptions of one that grants.
        let (of_values, of_exceptions) = match (self.doubts, self.grants) {
            (false, _) => (Sense::AsIs, Sense::AsIs),
            (true, true) => (Sense::Narrow, Sense::Wide),
            (true, false) => (Sense::Wide, Sense::Narrow),
        };
        if let Some(values) = &self.values
            && !values.matches(request, of_values)
        {
            return false;
        }
        let Some(exceptions) = &self.exceptions else { return true };
        // Who shows no name is not another than the one that must stay out. Where everybody with a name must stay out,
        // who has none is meant.
        if self.doubts && self.grants && exceptions.is_absent(request) {
            return exceptions.is_any();
        }
        !exceptions.matches(request, of_exceptions)
    }
}

impl List {
    fn new(
        attribute: &Attribute,
        values: &[String],
        namespace: &str,
        config: &Config,
    ) -> Result<Self, InvalidConfig> {
        if values.iter().any(String::is_empty) {
            return Err(InvalidConfig::new("values", "\"\"", "a text that is not empty"));
        }
        let texts = || values.iter().map(|value| Text::new(value)).collect::<Vec<_>>();
        let hosts = || values.iter().map(|value| HostText::new(value)).collect::<Vec<_>>();
        let claim = |name: &str| Self::Claim(vec![name.to_owned()], texts());
        Ok(match attribute {
            Attribute::Principal => {
                let values = values.iter().flat_map(|v| with_aliases(v, config.trust_domains()));
                Self::Principals(values.map(|value| Text::new(&value)).collect())
            }
            Attribute::Namespace => {
                Self::Namespaces(values.iter().map(|value| value.as_str().into()).collect())
            }
            Attribute::ServiceAccount => Self::Accounts(all(values, |value| {
                Account::parse(value, namespace).ok_or(("serviceAccounts", ACCOUNT))
            })?),
            Attribute::TrustDomain => Self::Domains(domains(values, config.trust_domains())?),
            Attribute::SourceIp => Self::SourceIps(blocks(values)?),
            Attribute::RemoteIp => Self::RemoteIps(blocks(values)?),
            Attribute::DestinationIp => Self::DestinationIps(blocks(values)?),
            Attribute::Port => Self::Ports(all(values, |value| {
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                let port = value.parse().ok().filter(|_| is_number);
                port.ok_or(("ports", "a port from 0 to 65535"))
            })?),
            Attribute::Sni => Self::Snis(hosts()),
            Attribute::Host => Self::Hosts(hosts()),
            Attribute::Method => Self::Methods(texts()),
            Attribute::Path => Self::Paths(all(values, |value| {
                PathText::new(value).map_err(|expected| ("paths", expected))
            })?),
            Attribute::Header(name) => match name.to_ascii_lowercase().as_str() {
                ":method" => Self::Methods(texts()),
                ":authority" | "host" => Self::Hosts(hosts()),
                name if is_token(name) => {
                    let texts = values.iter().map(|value| HeaderText::new(name, value));
                    Self::Header(name.into(), texts.collect())
                }
                name => {
                    let name = format!("{name:?}");
                    return Err(InvalidConfig::new("request.headers", name, "a header's name"));
                }
            },
            Attribute::RequestPrincipal => Self::RequestPrincipals {
                issuer: vec!["iss".to_owned()],
                subject: vec!["sub".to_owned()],
                values: values.iter().map(|value| issuer_and_subject(value)).collect(),
            },
            Attribute::Audience => claim("aud"),
            Attribute::Presenter => claim("azp"),
            Attribute::Claim(path) => Self::Claim(path.clone(), texts()),
            Attribute::Unknown(key) => {
                return Err(InvalidConfig::new("key", key, "a key of Istio's `when`"));
            }
        })
    }

    fn matches<H: Head>(&self, request: &Request<'_, H>, sense: Sense) -> bool {
        let Request { connection, head, path, authority } = request;
        let id = connection.principal();
        let any = |texts: &[Text], text: &str| texts.iter().any(|t| t.matches(text.as_bytes()));
        match self {
            Self::Principals(texts) => id.is_some_and(|id| any(texts, id)),
            Self::Namespaces(names) => {
                id.is_some_and(|id| names.iter().any(|name| is_in_namespace(id, name)))
            }
            Self::Accounts(all) => id.is_some_and(|id| all.iter().any(|one| one.owns(id))),
            Self::Domains(all) => id.is_some_and(|id| all.iter().any(|one| one.owns(id))),
            Self::SourceIps(blocks) => is_in(connection.source_ip(), blocks, sense),
            Self::RemoteIps(blocks) => is_in(connection.remote_ip(), blocks, sense),
            Self::DestinationIps(blocks) => is_in(connection.destination_ip(), blocks, sense),
            Self::Ports(ports) => match connection.port() {
                Some(port) => ports.contains(&port),
                None => sense == Sense::Wide,
            },
            Self::Snis(names) => connection.sni().is_some_and(|sni| {
                let authority = Authority::new(sni);
                names.iter().any(|wanted| wanted.matches(authority, sense))
            }),
            Self::Hosts(hosts) => {
                let authority = authority.get_or_init(|| Authority::new(head.authority()));
                hosts.iter().any(|wanted| wanted.matches(*authority, sense))
            }
            Self::Methods(texts) if sense == Sense::Wide => {
                let is_one = |method: &str| {
                    texts.iter().any(|text| text.matches_any_case(method.as_bytes()))
                };
                is_one(head.method()) || (is_got(head.method(), &path.path) && is_one("GET"))
            }
            Self::Methods(texts) => any(texts, head.method()),
            Self::Paths(paths) => {
                let is_one = |path: &str| paths.iter().any(|wanted| wanted.matches(path, sense));
                let mut others = path.others.iter();
                // `*`, or the nothing of a tunnel, is no path; a handler may make any of it.
                let is_path = path.path.starts_with('/');
                match sense {
                    Sense::AsIs => is_one(&path.path),
                    Sense::Narrow if !is_path => self.is_any() && !path.path.is_empty(),
                    Sense::Wide if !is_path => true,
                    Sense::Wide => {
                        let is_meant = |path: &str| paths.iter().any(|wanted| wanted.means(path));
                        is_one(&path.path)
                            || others.any(|path| is_one(path))
                            || path.meant().iter().any(|path| is_meant(path))
                    }
                    Sense::Narrow => is_one(&path.path) && others.all(|path| is_one(path)),
                }
            }
            Self::Header(name, texts) => texts.iter().any(|text| text.matches(*head, name, sense)),
            Self::Claim(path, texts) => head.has_claim(path, &mut |value| any(texts, value)),
            Self::RequestPrincipals { issuer, subject, values } => {
                values.iter().any(|(iss, sub)| {
                    head.has_claim(issuer, &mut |value| iss.matches(value.as_bytes()))
                        && head.has_claim(subject, &mut |value| sub.matches(value.as_bytes()))
                })
            }
        }
    }

    /// Whether one of the values is `*`: whatever there is, is one of them.
    fn is_any(&self) -> bool {
        match self {
            Self::Principals(texts) | Self::Methods(texts) | Self::Claim(_, texts) => {
                texts.iter().any(Text::is_any)
            }
            Self::Header(_, texts) => texts.iter().any(HeaderText::is_any),
            Self::Hosts(hosts) | Self::Snis(hosts) => hosts.iter().any(HostText::is_any),
            Self::Namespaces(names) => names.iter().any(|name| &**name == "*"),
            Self::Domains(domains) => domains.iter().any(|domain| matches!(domain, Domain::Any)),
            Self::Paths(paths) => {
                paths.iter().any(|path| matches!(&path.form, PathForm::Text(text) if text.is_any()))
            }
            Self::RequestPrincipals { values, .. } => {
                values.iter().any(|(issuer, subject)| issuer.is_any() && subject.is_any())
            }
            Self::Accounts(_)
            | Self::SourceIps(_)
            | Self::RemoteIps(_)
            | Self::DestinationIps(_)
            | Self::Ports(_) => false,
        }
    }

    /// Whether the request has nothing of the sort.
    fn is_absent<H: Head>(&self, request: &Request<'_, H>) -> bool {
        let Request { connection, head, path, .. } = request;
        match self {
            Self::Principals(_) | Self::Namespaces(_) | Self::Accounts(_) | Self::Domains(_) => {
                connection.principal().is_none()
            }
            Self::SourceIps(_) => connection.source_ip().is_none(),
            Self::RemoteIps(_) => connection.remote_ip().is_none(),
            Self::DestinationIps(_) => connection.destination_ip().is_none(),
            Self::Ports(_) => connection.port().is_none(),
            Self::Snis(_) => connection.sni().is_none(),
            Self::Hosts(_) => head.authority().is_empty(),
            Self::Methods(_) => head.method().is_empty(),
            Self::Paths(_) => path.path.is_empty(),
            Self::Header(name, _) => {
                head.header(name).chain(head.lookalikes(name)).next().is_none()
            }
            Self::Claim(path, _) => !head.has_claim(path, &mut |_| true),
            Self::RequestPrincipals { issuer, .. } => !head.has_claim(issuer, &mut |_| true),
        }
    }
}

impl PathText {
    fn new(value: &str) -> Result<Self, &'static str> {
        let form = PathForm::new(value)?;
        let meant = value.contains('%').then(|| form.unescaped());
        // What ends in `/*` ends in no slash.
        let folder = value.strip_suffix('/').filter(|folder| !matches!(*folder, "" | "*"));
        let folder = folder.map(PathForm::new).transpose()?.map(|folder| folder.unescaped());
        Ok(Self { form, meant, folder })
    }

    fn matches(&self, path: &str, sense: Sense) -> bool {
        let is_meant = |meant: &PathForm| !path.contains('%') && meant.matches(path, sense);
        self.form.matches(path, sense)
            || (sense == Sense::Wide
                && (self.meant.as_ref().is_some_and(is_meant)
                    || self.folder.as_ref().is_some_and(is_meant)))
    }

    /// Whether it may mean a path that was taken out of its escapes.
    fn means(&self, path: &str) -> bool {
        self.meant.as_ref().unwrap_or(&self.form).matches(path, Sense::Wide)
            || self.folder.as_ref().is_some_and(|folder| folder.matches(path, Sense::Wide))
    }
}

impl PathForm {
    fn new(value: &str) -> Result<Self, &'static str> {
        Ok(match Template::parse(value).transpose()? {
            None => Self::Text(Text::new(value)),
            Some(template) => Self::Template(template),
        })
    }

    fn unescaped(&self) -> Self {
        match self {
            Self::Text(text) => Self::Text(text.map(|letters| unescaped(letters).into())),
            Self::Template(template) => Self::Template(template.unescaped()),
        }
    }

    /// In a wide sense, a slash at the end of the path is none.
    fn matches(&self, path: &str, sense: Sense) -> bool {
        let is_wide = sense == Sense::Wide;
        let is_one = |path: &str| match self {
            Self::Text(text) => text.matches(path.as_bytes()),
            Self::Template(template) => template.matches(path, is_wide),
        };
        is_one(path) || (is_wide && path.strip_suffix('/').is_some_and(is_one))
    }
}

const ACCOUNT: &str = "an account or namespace/account, without *";

fn all<T>(
    values: &[String],
    mut parse: impl FnMut(&str) -> Result<T, (&'static str, &'static str)>,
) -> Result<Vec<T>, InvalidConfig> {
    let one = |value: &String| {
        parse(value)
            .map_err(|(field, expected)| InvalidConfig::new(field, format!("{value:?}"), expected))
    };
    values.iter().map(one).collect()
}

fn blocks(values: &[String]) -> Result<Vec<Block>, InvalidConfig> {
    all(values, |value| {
        Block::parse(value).ok_or(("ipBlocks", "an address, or a block such as 10.0.0.0/8"))
    })
}

/// A name of the mesh's own trust domain means all of its names.
fn domains(values: &[String], own: &[String]) -> Result<Vec<Domain>, InvalidConfig> {
    let parsed = all(values, |value| {
        let is_name = !value.contains('/') && value.matches('*').count() <= 1;
        is_name
            .then(|| Domain::new(value))
            .ok_or(("trustDomains", "a trust domain with at most one *"))
    })?;
    let of_mesh = values.iter().any(|value| own.contains(value));
    let aliases = own.iter().filter(|_| of_mesh).map(|name| Domain::new(name));
    Ok(parsed.into_iter().chain(aliases).collect())
}

/// Issuer and subject; the last slash is between them, since an issuer may be a URL (Istio `requestPrincipalGenerator`).
fn issuer_and_subject(value: &str) -> (Text, Text) {
    let exact = |text: &str| Text::Exact(text.into());
    match (value, value.rsplit_once('/')) {
        ("*", _) => (Text::Any, Text::Any),
        (_, Some((issuer, subject))) if value.starts_with('*') => {
            (Text::new(issuer), exact(subject))
        }
        (_, Some((issuer, subject))) => (
            exact(issuer),
            match subject.strip_suffix('*') {
                Some("") => Text::Any,
                Some(prefix) => Text::Prefix(prefix.into()),
                None => exact(subject),
            },
        ),
        (_, None) if value.starts_with('*') => (Text::Any, Text::new(value)),
        (_, None) if value.ends_with('*') => (Text::new(value), Text::Any),
        (_, None) => (exact(value), exact("")),
    }
}

/// Everybody has an address: one that nobody told may be any.
fn is_in(address: Option<IpAddr>, blocks: &[Block], sense: Sense) -> bool {
    match address {
        Some(address) => blocks.iter().any(|block| block.contains(address)),
        None => sense == Sense::Wide,
    }
}

/// Whether the handler of GET answers it: its head alone, or, over HTTP/2, as an upgrade (RFC 9110 §9.3.2, RFC 8441 §5).
fn is_got(method: &str, path: &str) -> bool {
    method.eq_ignore_ascii_case("HEAD") || (method == "CONNECT" && path.starts_with('/'))
}

/// A header's name by the grammar of HTTP.
fn is_token(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

use std::fmt;

/// What of a request a policy looks at, and what its values mean.
///
/// | attribute | field, or key of `when` | values | HTTP only |
/// | --- | --- | --- | --- |
/// | `Principal` | `principals`, `source.principal` | text; the SPIFFE ID without `spiffe://` | |
/// | `Namespace` | `namespaces`, `source.namespace` | text with any number of `*`: what follows `/ns/` in the ID | |
/// | `ServiceAccount` | `serviceAccounts`, `source.serviceAccount` | `namespace/account` or `account`, no `*` | |
/// | `TrustDomain` | `trustDomains`, `source.trustDomain` | text with at most one `*` | |
/// | `SourceIp` | `ipBlocks`, `source.ip` | address or CIDR block | |
/// | `RemoteIp` | `remoteIpBlocks`, `remote.ip` | address or CIDR block | |
/// | `DestinationIp` | `destination.ip` | address or CIDR block | |
/// | `Port` | `ports`, `destination.port` | 0 to 65535 | |
/// | `Sni` | `connection.sni` | text, case ignored | |
/// | `Host` | `hosts` | text, case ignored; the authority with its port | yes |
/// | `Method` | `methods` | text | yes |
/// | `Path` | `paths` | text, or a template with `{*}` and `{**}` | yes |
/// | `Header` | `request.headers[name]` | text | yes |
/// | `RequestPrincipal` | `requestPrincipals`, `request.auth.principal` | issuer, `/`, subject | yes |
/// | `Audience`, `Presenter` | `request.auth.audiences`, `request.auth.presenter` | text | yes |
/// | `Claim` | `request.auth.claims[name]`, nested `[a][b]` | text | yes |
/// | `Unknown` | any other key | never understood | |
///
/// *Text* is exact, `prefix*`, `*suffix`, or `*` for any that is not empty. A `*` elsewhere is an asterisk (Istio
/// `matcher.StringMatcher`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Attribute {
    /// Who the peer has proved to be.
    Principal,
    /// The namespace in the peer's ID.
    Namespace,
    /// The service account in the peer's ID.
    ServiceAccount,
    /// The trust domain of the peer's ID.
    TrustDomain,
    /// The address that the connection comes from.
    SourceIp,
    /// The address that the request came from first, as trusted proxies say.
    RemoteIp,
    /// The address that the connection came to.
    DestinationIp,
    /// The port that the connection came to.
    Port,
    /// The server name of the TLS handshake.
    Sni,
    /// The request's authority.
    Host,
    /// The request's method.
    Method,
    /// The request's path.
    Path,
    /// A header, by its name in lower case.
    Header(String),
    /// Issuer and subject of a token that was verified.
    RequestPrincipal,
    /// The token's `aud`.
    Audience,
    /// The token's `azp`.
    Presenter,
    /// A claim of the token, by the names that lead to it.
    Claim(Vec<String>),
    /// Nothing that is known: see [`Config::with_invalid_rules_skipped`](super::Config::with_invalid_rules_skipped).
    Unknown(String),
}

impl Attribute {
    /// The header of this name. Its case does not count.
    pub fn header(name: &str) -> Self {
        Self::Header(name.to_ascii_lowercase())
    }

    /// The attribute of a key of `when`.
    ///
    /// ```
    /// use mesh_core::authorize::Attribute;
    ///
    /// assert_eq!(Attribute::of_key("source.ip"), Attribute::SourceIp);
    /// assert_eq!(Attribute::of_key("request.headers[X-User]"), Attribute::header("x-user"));
    /// assert_eq!(Attribute::of_key("request.auth.claims[a][b]"), Attribute::Claim(vec!["a".into(), "b".into()]));
    /// assert_eq!(Attribute::of_key("source.mood"), Attribute::Unknown("source.mood".into()));
    /// ```
    pub fn of_key(key: &str) -> Self {
        match key {
            "source.principal" => Self::Principal,
            "source.namespace" => Self::Namespace,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.trustDomain" => Self::TrustDomain,
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::Port,
            "connection.sni" => Self::Sni,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Audience,
            "request.auth.presenter" => Self::Presenter,
            _ => Self::in_brackets(key).unwrap_or_else(|| Self::Unknown(key.to_owned())),
        }
    }

    fn in_brackets(key: &str) -> Option<Self> {
        let inside = |rest: &str| Some(rest.strip_prefix('[')?.strip_suffix(']')?.to_owned());
        if let Some(rest) = key.strip_prefix("request.headers") {
            let name = inside(rest)?;
            return (!name.is_empty()).then(|| Self::header(&name));
        }
        let names = inside(key.strip_prefix("request.auth.claims")?)?;
        let names: Vec<_> = names.split("][").map(str::to_owned).collect();
        let is_name = |name: &String| !name.is_empty() && !name.contains(['[', ']']);
        names.iter().all(is_name).then_some(Self::Claim(names))
    }

    /// Whether it is of a token that somebody must have verified.
    pub fn is_of_token(&self) -> bool {
        matches!(self, Self::RequestPrincipal | Self::Audience | Self::Presenter | Self::Claim(_))
    }

    /// Whether only a request of HTTP has it, and a connection alone has not.
    pub fn is_http_only(&self) -> bool {
        match self {
            Self::Host
            | Self::Method
            | Self::Path
            | Self::Header(_)
            | Self::RequestPrincipal
            | Self::Audience
            | Self::Presenter
            | Self::Claim(_) => true,
            Self::Principal
            | Self::Namespace
            | Self::ServiceAccount
            | Self::TrustDomain
            | Self::SourceIp
            | Self::RemoteIp
            | Self::DestinationIp
            | Self::Port
            | Self::Sni
            | Self::Unknown(_) => false,
        }
    }
}

impl fmt::Display for Attribute {
    /// The key of `when`, or the field of an operation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Principal => "source.principal",
            Self::Namespace => "source.namespace",
            Self::ServiceAccount => "source.serviceAccount",
            Self::TrustDomain => "source.trustDomain",
            Self::SourceIp => "source.ip",
            Self::RemoteIp => "remote.ip",
            Self::DestinationIp => "destination.ip",
            Self::Port => "destination.port",
            Self::Sni => "connection.sni",
            Self::Host => "hosts",
            Self::Method => "methods",
            Self::Path => "paths",
            Self::RequestPrincipal => "request.auth.principal",
            Self::Audience => "request.auth.audiences",
            Self::Presenter => "request.auth.presenter",
            Self::Header(name) => return write!(f, "request.headers[{name}]"),
            Self::Claim(names) => {
                f.write_str("request.auth.claims")?;
                return names.iter().try_for_each(|name| write!(f, "[{name}]"));
            }
            Self::Unknown(key) => key,
        })
    }
}

/// What an attribute must be: one of the values if there are any, and none of the exceptions.
///
/// ```
/// use mesh_core::authorize::{Attribute, Match};
///
/// let readers = Match::of(Attribute::Method, ["GET", "HEAD"]);
/// let anything_but = Match::not(Attribute::Path, ["/admin*"]);
/// assert_eq!((readers.values().len(), anything_but.exceptions().len()), (2, 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    attribute: Attribute,
    values: Vec<String>,
    exceptions: Vec<String>,
}

impl Match {
    /// One of these values.
    pub fn of<T: Into<String>>(attribute: Attribute, values: impl IntoIterator<Item = T>) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        Self { attribute, values, exceptions: Vec::new() }
    }

    /// None of these values (Istio `notPaths`, `notValues` and so on).
    pub fn not<T: Into<String>>(
        attribute: Attribute,
        exceptions: impl IntoIterator<Item = T>,
    ) -> Self {
        Self::of(attribute, Vec::<String>::new()).except(exceptions)
    }

    /// And none of these.
    #[must_use]
    pub fn except<T: Into<String>>(mut self, exceptions: impl IntoIterator<Item = T>) -> Self {
        self.exceptions.extend(exceptions.into_iter().map(Into::into));
        self
    }

    /// What it looks at.
    pub fn attribute(&self) -> &Attribute {
        &self.attribute
    }

    /// One of which it must be, if there are any.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// None of which it may be.
    pub fn exceptions(&self) -> &[String] {
        &self.exceptions
    }
}

//! How the endpoints of a destination are spoken to: as the `tls` of its DestinationRule says, else as `endpoints.yaml`.

use std::{path::Path, time::Duration};

use mesh_tls::{
    PeerPolicy, SpiffeId,
    origination::{self, Roots},
};
use mesh_tower::istio::{ClientTls, Destination, TlsMode};

use super::{ConfigError, Policies, Tls, endpoints::Listed};

/// How the endpoints of an upstream are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Transport {
    #[default]
    Plain,
    /// Mutual TLS of the mesh with endpoints that this policy allows.
    Mutual { peers: PeerPolicy, sni: Option<String> },
    /// TLS with servers outside the mesh.
    Outside(Box<origination::Config>),
}

/// As the identity's own files.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// What came of a destination's documents.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) transport: Transport,
    pub(super) rule: Option<ClientTls>,
    pub(super) warning: Option<String>,
}

/// What is known of this proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local<'a> {
    /// That of the configuration: where relative paths begin.
    pub(crate) directory: &'a Path,
    /// There is a certificate of our own.
    pub(crate) has_identity: bool,
}

impl Local<'_> {
    pub(super) fn transport(
        self,
        policies: &Policies,
        to: &Destination,
        listed: &Listed,
    ) -> Result<Carried, ConfigError> {
        let Some(rule) = policies.client_tls(to)? else {
            let transport = without_rule(to, listed)?;
            return Ok(Carried { transport, ..Carried::default() });
        };
        let mut warning = None;
        let transport = match rule.mode() {
            TlsMode::Disable => {
                if listed.tls == Some(Tls::Mutual) {
                    let why = "DISABLE: the connections are plaintext, although endpoints.yaml says mutual";
                    warning = Some(rule.advice("mode", why).to_string());
                }
                Transport::Plain
            }
            TlsMode::IstioMutual => self.mutual(&rule, to, listed)?,
            TlsMode::Simple | TlsMode::Mutual => self.outside(&rule, to)?,
        };
        Ok(Carried { transport, rule: Some(rule), warning })
    }

    fn mutual(
        self,
        rule: &ClientTls,
        to: &Destination,
        listed: &Listed,
    ) -> Result<Transport, ConfigError> {
        let wrong = |field: &str, why: &str| ConfigError::new(rule.problem(field, why));
        if !self.has_identity {
            let why = "ISTIO_MUTUAL needs an identity of our own: set identity in proxy.yaml";
            return Err(wrong("mode", why));
        }
        let mut problems = ConfigError::default();
        let mut peers = PeerPolicy::nobody();
        for name in rule.subject_alt_names() {
            match name.parse::<SpiffeId>() {
                Ok(id) => peers = peers.or(&PeerPolicy::exact(id)),
                Err(error) => problems.push(rule.problem(
                    "subjectAltNames",
                    format!(
                        "{name:?} is no SPIFFE ID ({error}), and ISTIO_MUTUAL proves no other name"
                    ),
                )),
            }
        }
        if rule.subject_alt_names().is_empty() {
            match &listed.peers {
                Some(listed) => peers = listed.clone(),
                // Istio asks the registry for the host's service accounts. There is none here.
                None => problems.push(rule.problem(
                    "subjectAltNames",
                    "is missing: whose certificates may the endpoints show? Name their SPIFFE IDs, here or as \
                     peers in endpoints.yaml",
                )),
            }
        }
        let named = |port| ClientTls::mesh_server_name(to.full_host(), to.subset(), port);
        let sni = rule.sni().map(str::to_owned).or_else(|| to.port().map(named));
        problems.into_result(Transport::Mutual { peers, sni })
    }

    fn outside(self, rule: &ClientTls, to: &Destination) -> Result<Transport, ConfigError> {
        let wrong = |field: &str, why: &dyn ToString| {
            ConfigError::new(rule.problem(field, why.to_string()))
        };
        let roots = rule.ca_certificates();
        let roots = roots.map_or_else(Roots::system, |file| Roots::file(self.directory.join(file)));
        let config = origination::Config::new(roots)
            .with_server_name(rule.sni().unwrap_or_else(|| to.full_host()))
            .map_err(|error| match rule.sni() {
                Some(_) => wrong("sni", &error),
                None => wrong("sni", &format_args!("is missing, and the host is none: {error}")),
            })?
            .with_subject_alt_names(rule.subject_alt_names())
            .map_err(|error| wrong("subjectAltNames", &error))?;
        let config = config.with_poll_interval(POLL_INTERVAL);
        let config = match rule.ca_crl() {
            Some(file) => config.with_crl(self.directory.join(file)),
            None => config,
        };
        let config = match (rule.client_certificate(), rule.private_key()) {
            (Some(cert), Some(key)) => {
                config.with_certificate(self.directory.join(cert), self.directory.join(key))
            }
            (Some(_), None) | (None, Some(_)) | (None, None) => config,
        };
        Ok(Transport::Outside(Box::new(config)))
    }
}

fn without_rule(to: &Destination, listed: &Listed) -> Result<Transport, ConfigError> {
    match (listed.tls, &listed.peers) {
        (Some(Tls::Plaintext), _) => Ok(Transport::Plain),
        (Some(Tls::Mutual), Some(peers)) => {
            Ok(Transport::Mutual { peers: peers.clone(), sni: None })
        }
        (Some(Tls::Mutual), None) | (None, _) => Err(ConfigError::new(format_args!(
            "endpoints.yaml: upstreams.{}.tls: is missing, and no DestinationRule says it of {to}; expected mutual or \
             plaintext",
            to.host()
        ))),
    }
}

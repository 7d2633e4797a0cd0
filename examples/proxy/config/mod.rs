//! The configuration: a directory of Istio documents beside two native files, read and checked as a whole.
//!
//! All problems of all files are reported at once. What is read here is plain data; [`crate::routes`] carries it out.

mod client_tls;
pub(crate) mod duration;
mod endpoints;
mod error;
mod files;
pub(crate) mod peers;
mod place;
mod policies;
mod proxy;
mod routing;
mod yaml;

use std::path::Path;

pub(crate) use client_tls::{Local, Transport};
pub(crate) use endpoints::{Listed, Protocol, Tls};
pub(crate) use error::ConfigError;
pub(crate) use files::Files;
use mesh_core::{Endpoint, authorize::Authorizer, balance::locality::Caller, route::Client};
use mesh_tower::{
    istio::{ClientTls, MtlsMode},
    upstream,
};
pub(crate) use policies::Policies;
pub(crate) use proxy::{Identity, Inbound, Proxy};
pub(crate) use routing::Routing;

/// Everything that the proxy is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) proxy: Proxy,
    pub(crate) routing: Routing,
    /// Who may connect to the inbound listener.
    pub(crate) mode: MtlsMode,
    /// What they may do there.
    pub(crate) authorizer: Authorizer,
    pub(crate) warnings: Vec<String>,
}

/// One upstream, ready to be built.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamSettings {
    pub(crate) config: upstream::Config,
    pub(crate) transport: Transport,
    /// The document's block that wants it so, if one does.
    pub(crate) rule: Option<ClientTls>,
    pub(crate) protocol: Protocol,
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Settings {
    /// Reads the files of `directory`.
    pub(crate) fn read(files: &Files, directory: &Path) -> Result<Self, ConfigError> {
        let mut problems = ConfigError::default();
        let proxy = problems.take(Proxy::read(files, directory));
        let has_identity = proxy.as_ref().is_none_or(|proxy| proxy.identity.is_some());
        let listed = problems.take(endpoints::read(files, has_identity));
        let unsupported = proxy.as_ref().map(|proxy| proxy.unsupported).unwrap_or_default();
        let documents =
            files.iter().filter(|(name, _)| ![proxy::FILE, endpoints::FILE].contains(name));
        let policies = problems.take(Policies::read(documents, unsupported));
        let (Some(proxy), Some(listed), Some(policies)) = (proxy, listed, policies) else {
            return Err(problems);
        };
        let empty = files.iter().filter(|(_, text)| yaml::is_empty(text));
        let mut warnings: Vec<_> =
            empty.map(|(name, _)| format!("{name}: there is nothing in it")).collect();
        warnings.extend(policies.warnings());
        warnings.extend(policies.of_others(&proxy.namespace, &proxy.labels));
        let client =
            Client::default().with_namespace(&proxy.namespace).with_labels(proxy.labels.clone());
        let local = Local { directory, has_identity };
        let caller = Caller::at(proxy.locality.clone()).with_labels(proxy.labels.clone());
        let routing = problems.take(Routing::new(&policies, listed, client, caller, local));
        let mode = problems.take(mode(&proxy, &policies));
        let authorizer = problems.take(policies.authorizer(&proxy.namespace, &proxy.labels));
        let (Some(mode), Some((routing, more)), Some(authorizer)) = (mode, routing, authorizer)
        else {
            return Err(problems);
        };
        warnings.extend(more);
        if proxy.inbound.is_none() && !authorizer.is_empty() {
            warnings.push("AuthorizationPolicy has no effect: there is no inbound".to_owned());
        }
        problems.into_result(Self { proxy, routing, mode, authorizer, warnings })
    }
}

/// What `PeerAuthentication` says of this workload.
fn mode(proxy: &Proxy, policies: &Policies) -> Result<MtlsMode, ConfigError> {
    let port = proxy.inbound.as_ref().map(|inbound| inbound.app.port());
    let mode = policies.mtls_mode(&proxy.namespace, &proxy.labels, port);
    if mode == MtlsMode::Strict && proxy.identity.is_none() && proxy.inbound.is_some() {
        return Err(ConfigError::new(
            "proxy.yaml: identity: is missing; PeerAuthentication wants STRICT mutual TLS of this \
             workload, which needs a certificate, a key and a bundle",
        ));
    }
    Ok(mode)
}

#[cfg(test)]
mod tests;

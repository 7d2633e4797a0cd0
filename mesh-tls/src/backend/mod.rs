//! Every call into rustls and webpki, so that the next version of them touches one folder.

#[cfg(feature = "origination")]
mod about;
mod config;
mod configs;
mod outcome;
#[cfg(feature = "origination")]
mod outside;
mod provider;
mod trust;
mod verify;

#[cfg(feature = "origination")]
pub(crate) use about::{About, names_of};
pub(crate) use config::{ClientSettings, LiveConfig, OwnKey, client, server};
pub(crate) use configs::Configs;
pub(crate) use outcome::{Failure, alert_in, capture, classify, proved, tls_info};
#[cfg(feature = "origination")]
pub(crate) use outside::{Anchors, OutsideVerifier, Revoked, outside_client};
pub(crate) use provider::{Provider, default_provider};
pub(crate) use trust::{Role, TrustStore, list_issuer};
pub(crate) use verify::PeerVerifier;

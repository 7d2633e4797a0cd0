use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType, rdata::SRV},
    },
};

use super::{
    error::Trouble,
    lookup::{Answered, Ask, Record, Service},
};
use crate::{BoxError, Clock};

/// Who is asked: the name servers of the system, or others.
///
/// Its lookups spawn short-lived tasks of the resolver's own on the current tokio runtime. Cheap to clone; clones share
/// their sockets.
#[derive(Clone, Debug)]
pub struct Resolver(TokioResolver);

impl Resolver {
    /// As the system is configured: `/etc/resolv.conf` and `/etc/hosts` on Unix. Read once.
    ///
    /// Answers are not kept: each source asks when its answer expires, and a cache in between could hold one for longer
    /// than [`Config::with_refresh`](super::Config::with_refresh) allows.
    ///
    /// # Errors
    ///
    /// A configuration that cannot be read.
    pub fn system() -> Result<Self, BoxError> {
        let mut builder = TokioResolver::builder_tokio()?;
        builder.options_mut().cache_size = 0;
        Ok(Self(builder.build()?))
    }

    /// These name servers and no others, by UDP, and by TCP where an answer is too long for it. Names are taken as they are: no
    /// search domains, no `/etc/hosts`.
    ///
    /// # Errors
    ///
    /// No server.
    pub fn at(servers: impl IntoIterator<Item = SocketAddr>) -> Result<Self, BoxError> {
        let servers: Vec<_> = servers.into_iter().map(server).collect();
        if servers.is_empty() {
            let expected = "at least one name server";
            return Err(mesh_core::InvalidConfig::new("servers", "none", expected).into());
        }
        let mut options = ResolverOpts::default();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(config, provider).with_options(options);
        Ok(Self(builder.build()?))
    }

    /// A resolver of the program's own. Should it keep answers, then they count for as long as it keeps them.
    pub fn from_hickory(resolver: TokioResolver) -> Self {
        Self(resolver)
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<Answered<RData>, Trouble> {
        match self.0.lookup(name.clone(), kind).await {
            Ok(lookup) => {
                Ok((lookup.answers().iter().map(|r| r.data.clone()).collect(), ttl(&lookup)))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if none.response_code == ResponseCode::NoError =>
            {
                let ttl = none.negative_ttl.unwrap_or(0);
                Ok((Vec::new(), Duration::from_secs(ttl.into())))
            }
            Err(error) if error.is_nx_domain() => Err(Trouble::NoSuchName(name.to_string())),
            Err(error) => Err(Trouble::Failed(name.to_string(), error.into())),
        }
    }
}

impl Ask for Resolver {
    fn addresses(&self, name: Name, v6: bool) -> Record<'_, IpAddr> {
        Box::pin(async move {
            let kind = if v6 { RecordType::AAAA } else { RecordType::A };
            let (records, ttl) = self.ask(name, kind).await?;
            let addresses = records.iter().filter_map(RData::ip_addr);
            Ok((addresses.filter(|address| address.is_ipv6() == v6).collect(), ttl))
        })
    }

    fn services(&self, name: Name) -> Record<'_, Service> {
        Box::pin(async move {
            let (records, ttl) = self.ask(name, RecordType::SRV).await?;
            let service = |record| {
                // The others lead to it, such as CNAME.
                let RData::SRV(srv) = record else { return None };
                let SRV { priority, weight, port, target, .. } = srv;
                Some(Service { priority, weight, port, target })
            };
            Ok((records.into_iter().filter_map(service).collect(), ttl))
        })
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    connections.iter_mut().for_each(|connection| connection.port = address.port());
    NameServerConfig::new(address.ip(), true, connections)
}

/// How long the answer is good for, from now.
fn ttl(lookup: &Lookup) -> Duration {
    let now = Clock.instant(Clock.now()).into_std();
    lookup.valid_until().saturating_duration_since(now)
}

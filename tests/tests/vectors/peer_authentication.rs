//! Each case becomes `PeerAuthentication` documents, read by `mesh_tower::istio`; what a mode accepts, a `mesh_tls` acceptor
//! says.

use std::{collections::BTreeMap, sync::Arc};

use mesh_core::Labels;
use mesh_tls::{
    DevCa, MeshTls, PeerPolicy, ServerMode, StaticSource,
    rustls::{self, ClientConfig},
};
use mesh_tower::istio::{self, MtlsMode, Unsupported};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::{any_server::AnyServer, case::Case, compare::equal};

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    let steps: Vec<Step> = case.steps()?;
    match steps.as_slice() {
        [] => effective(case, None),
        [Step::ModeForPort { port, .. }] => effective(case, Some(*port)),
        [Step::Connection { kind, .. }] => accepted(case, *kind),
        _ => Err("expected one step at most".to_owned()),
    }
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    ModeForPort {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        port: u16,
    },
    Connection {
        #[serde(rename = "at_ms")]
        _at_ms: u64,
        kind: Kind,
    },
}

// === Which policy decides ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    root_namespace: String,
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    namespace: String,
    created: u64,
    mode: Option<String>,
    selector: Option<BTreeMap<String, String>>,
    #[serde(default)]
    ports: BTreeMap<u16, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Effective {
    mode: String,
}

fn effective(case: &Case, port: Option<u16>) -> Result<(), String> {
    let settings: Settings = case.config()?;
    let expect: Effective = case.expect()?;
    let text: String = settings.policies.iter().map(Policy::document).collect();
    let documents = istio::read(&text, "case.yaml", Unsupported::Error)
        .map_err(|errors| errors.to_string())?
        .with_root_namespace(&settings.root_namespace);
    // All policies are for the workload, whatever they select.
    let labels: Labels =
        settings.policies.iter().flat_map(|policy| &policy.selector).flatten().collect();
    let mut namespaces = settings.policies.iter().map(|policy| policy.namespace.as_str());
    let namespace = namespaces.find(|name| *name != settings.root_namespace).unwrap_or("my-ns");
    let mode = match documents.mtls_mode(namespace, &labels, port) {
        MtlsMode::Strict => "STRICT",
        MtlsMode::Permissive => "PERMISSIVE",
        MtlsMode::Disable => "DISABLE",
    };
    equal("mode", mode, expect.mode.as_str())
}

impl Policy {
    fn document(&self) -> String {
        let (seconds, millis) = (self.created / 1_000, self.created % 1_000);
        let created = format!("1970-01-01T00:{:02}:{:02}.{millis:03}Z", seconds / 60, seconds % 60);
        let selector = self.selector.as_ref().map(|labels| {
            let labels: String =
                labels.iter().map(|(name, value)| format!("      {name}: \"{value}\"\n")).collect();
            format!("  selector:\n    matchLabels:\n{labels}")
        });
        let mode = self.mode.as_ref().map(|mode| format!("  mtls: {{mode: {mode}}}\n"));
        let ports: String = self
            .ports
            .iter()
            .map(|(port, mode)| format!("    {port}: {{mode: {mode}}}\n"))
            .collect();
        let ports = if ports.is_empty() { ports } else { format!("  portLevelMtls:\n{ports}") };
        let spec = [selector.unwrap_or_default(), mode.unwrap_or_default(), ports].concat();
        let spec = if spec.is_empty() { "spec: {}\n".to_owned() } else { format!("spec:\n{spec}") };
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: it\n  \
             namespace: {}\n  creationTimestamp: \"{created}\"\n{spec}---\n",
            self.namespace
        )
    }
}

// === What a mode accepts ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneMode {
    mode: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Mtls,
    Plaintext,
    TlsNoClientCert,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    accepted_as_declared: bool,
}

fn accepted(case: &Case, kind: Kind) -> Result<(), String> {
    let OneMode { mode } = case.config()?;
    let expect: Accepted = case.expect()?;
    let mode = match mode.as_str() {
        "STRICT" => ServerMode::Strict,
        "PERMISSIVE" => ServerMode::Permissive,
        "DISABLE" => ServerMode::Disabled,
        other => return Err(format!("unknown mode {other:?}")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    let got = runtime.block_on(connect(mode, kind)).map_err(|error| error.to_string())?;
    equal("accepted_as_declared", got, expect.accepted_as_declared)
}

/// Whether the server takes the connection for what it is.
async fn connect(mode: ServerMode, kind: Kind) -> Result<bool, Box<dyn std::error::Error>> {
    let ca = DevCa::new("dev.local".parse()?)?;
    let identity = async |path: &str| -> Result<MeshTls, Box<dyn std::error::Error>> {
        let (source, _handle) = StaticSource::new(ca.issue(path)?.material()?);
        Ok(MeshTls::builder(source).spawn().await?)
    };
    let (server, client) = (identity("/sa/server").await?, identity("/sa/client").await?);
    let acceptor = server.acceptor(PeerPolicy::trust_domain("dev.local".parse()?)).with_mode(mode);
    let (client_end, server_end) = tokio::io::duplex(64 * 1024);
    let calling = async move {
        match kind {
            Kind::Mtls => {
                let wanted = PeerPolicy::trust_domain("dev.local".parse()?);
                drop(client.connect(client_end, wanted).await?);
            }
            Kind::Plaintext => {
                let mut stream = client_end;
                stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await?;
                std::future::pending::<()>().await;
            }
            Kind::TlsNoClientCert => anonymous(client_end).await?,
        }
        // The connection stays: what counts is what the server makes of it.
        std::future::pending::<Result<(), Box<dyn std::error::Error>>>().await
    };
    let accepted = tokio::select! {
        biased;
        accepted = acceptor.accept_io(server_end) => accepted,
        // The client has failed first, or waits for nothing.
        _ = calling => return Ok(false),
    };
    let Ok(stream) = accepted else { return Ok(false) };
    let info = stream.info();
    Ok(match kind {
        Kind::Mtls => info.peer().is_some(),
        Kind::Plaintext => info.tls().is_none(),
        Kind::TlsNoClientCert => info.tls().is_some() && info.peer().is_none(),
    })
}

/// TLS of a client that has no certificate, takes any server, and tries to speak.
async fn anonymous(stream: DuplexStream) -> Result<(), Box<dyn std::error::Error>> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), "dev.local".try_into()?)?;
    let mut stream = stream;
    let mut buffer = [0; 4096];
    while tls.is_handshaking() || tls.wants_write() {
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out)?;
        }
        stream.write_all(&out).await?;
        if tls.is_handshaking() {
            let read = stream.read(&mut buffer).await?;
            tls.read_tls(&mut &buffer[..read])?;
            tls.process_new_packets()?;
        }
    }
    std::future::pending().await
}

//! `tls` of a DestinationRule: how a client connects.

use super::{
    Destination, Documents, Errors, Unsupported,
    cursor::{Field, Fields, Report},
    problem::{Cause, Origin, Problem},
    yaml::Place,
};

/// How connections to a host are secured (`trafficPolicy.tls`): for whoever makes them. An upstream of this crate has its
/// connections from a transport that its caller brings, so it cannot do this by itself: see
/// [`Documents::with_client_tls`]. With mesh-tls as the transport it is an `origination::Config` for `SIMPLE` and `MUTUAL`, and
/// a `PeerPolicy` for `ISTIO_MUTUAL`; the example `origination` is one page of it, and the proxy does all of it
/// (`examples/proxy/config/client_tls.rs`).
///
/// | mode | connections | server's names, one of which its certificate must have | server name in the handshake | own certificate |
/// | --- | --- | --- | --- | --- |
/// | `DISABLE` | plaintext | | | |
/// | `SIMPLE` | TLS | `subjectAltNames`, else `sni`, else the host | `sni`, else the host | none |
/// | `MUTUAL` | TLS | the same | the same | `clientCertificate` and `privateKey`, both |
/// | `ISTIO_MUTUAL` | TLS of the mesh | `subjectAltNames`, else the SPIFFE IDs of the host's service accounts | `sni`, else [`mesh_server_name`](Self::mesh_server_name) | the mesh's |
///
/// `caCertificates` are the roots of the server's certificate; without, those of the system; of `ISTIO_MUTUAL` always the
/// mesh's. `caCrl`, of `SIMPLE` and `MUTUAL`, are revocation lists that its chain is held against. Names are compared exactly,
/// but that a certificate for `*.bank.example` is for `api.bank.example` too.
///
/// Differences from Istio: with `sni` and no `subjectAltNames` Istio compares no name at all, so that any certificate of the
/// roots will do; here it is the `sni`. `insecureSkipVerify: true` and `credentialName` are refused: the first proves
/// nothing, the other is not carried out. Fields that a mode does not have are errors.
///
/// ```
/// use mesh_tower::istio::{self, TlsMode, Unsupported};
///
/// let documents = istio::read("\
/// apiVersion: networking.istio.io/v1
/// kind: DestinationRule
/// metadata: {name: bank}
/// spec:
///   host: bank.example
///   trafficPolicy:
///     tls: {mode: SIMPLE, caCertificates: /etc/bank.pem, sni: api.bank.example}
/// ", "bank.yaml", Unsupported::Error)?.with_client_tls();
/// let tls = documents.client_tls("bank.example", None)?.expect("the rule has a block");
/// assert_eq!((tls.mode(), tls.ca_certificates()), (TlsMode::Simple, Some("/etc/bank.pem")));
/// assert_eq!(tls.server_names("bank.example"), ["api.bank.example"]);
/// # Ok::<_, istio::Errors>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientTls {
    mode: TlsMode,
    client_certificate: Option<String>,
    private_key: Option<String>,
    ca_certificates: Option<String>,
    ca_crl: Option<String>,
    subject_alt_names: Vec<String>,
    sni: Option<String>,
    origin: Origin,
    place: Place,
    path: String,
    /// It may be left out, with a warning that was given.
    is_optional: bool,
}

/// How a client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "Istio's modes")]
pub enum TlsMode {
    /// Plaintext.
    Disable,
    /// TLS; only the server proves itself.
    Simple,
    /// TLS with a certificate of our own, from files.
    Mutual,
    /// TLS with the identity that the mesh gives.
    IstioMutual,
}

impl ClientTls {
    /// The mode.
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// The file of our own certificate; of `MUTUAL` always, else never.
    pub fn client_certificate(&self) -> Option<&str> {
        self.client_certificate.as_deref()
    }

    /// The file of its key; of `MUTUAL` always, else never.
    pub fn private_key(&self) -> Option<&str> {
        self.private_key.as_deref()
    }

    /// The file of the roots of the server's certificate; `None`: the system's, or the mesh's.
    pub fn ca_certificates(&self) -> Option<&str> {
        self.ca_certificates.as_deref()
    }

    /// The file of the revocation lists that the server's certificate must not be in; of `SIMPLE` and `MUTUAL`, where it is
    /// given.
    pub fn ca_crl(&self) -> Option<&str> {
        self.ca_crl.as_deref()
    }

    /// The names as they stand; empty if none do.
    pub fn subject_alt_names(&self) -> &[String] {
        &self.subject_alt_names
    }

    /// The server name of the handshake as it stands.
    pub fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// The names one of which the server's certificate must have, of a `host` in full. Empty for plaintext, and for
    /// `ISTIO_MUTUAL` without names: then it is the SPIFFE IDs of the host's service accounts, which no document says.
    pub fn server_names(&self, host: &str) -> Vec<String> {
        match self.mode {
            TlsMode::Disable => Vec::new(),
            _ if !self.subject_alt_names.is_empty() => self.subject_alt_names.clone(),
            TlsMode::IstioMutual => Vec::new(),
            TlsMode::Simple | TlsMode::Mutual => {
                vec![self.sni.clone().unwrap_or_else(|| host.to_owned())]
            }
        }
    }

    /// The server name by which Istio's proxies know a port and a subset of a host in full.
    ///
    /// ```
    /// use mesh_tower::istio::ClientTls;
    ///
    /// let name = ClientTls::mesh_server_name("shop.sales.svc.cluster.local", Some("v1"), 8080);
    /// assert_eq!(name, "outbound_.8080_.v1_.shop.sales.svc.cluster.local");
    /// ```
    pub fn mesh_server_name(host: &str, subset: Option<&str>, port: u16) -> String {
        format!("outbound_.{port}_.{}_.{host}", subset.unwrap_or_default())
    }

    /// What is wrong with a field of the block, as it turned out for whoever makes the connections: in the words of all other
    /// problems, with the place.
    ///
    /// ```
    /// use mesh_tower::istio::{self, Unsupported};
    ///
    /// let text = "\
    /// apiVersion: networking.istio.io/v1
    /// kind: DestinationRule
    /// metadata: {name: bank}
    /// spec:
    ///   host: bank.example
    ///   trafficPolicy:
    ///     tls: {mode: SIMPLE, caCertificates: /nowhere.pem}
    /// ";
    /// let documents = istio::read(text, "bank.yaml", Unsupported::Error)?.with_client_tls();
    /// let tls = documents.client_tls("bank.example", None)?.expect("the rule has a block");
    /// assert_eq!(
    ///     tls.problem("caCertificates", "/nowhere.pem cannot be read").to_string(),
    ///     "bank.yaml:7:10: error: DestinationRule bank: spec.trafficPolicy.tls.caCertificates: \
    ///      /nowhere.pem cannot be read",
    /// );
    /// # Ok::<_, istio::Errors>(())
    /// ```
    #[must_use]
    pub fn problem(&self, field: &str, why: impl Into<String>) -> Problem {
        let path = format!("{}.{field}", self.path);
        Problem::new(self.origin.clone(), self.place, path, Cause::Invalid, why)
    }

    /// The same about what can be carried out and is worth a second look: a warning.
    #[must_use]
    pub fn advice(&self, field: &str, why: impl Into<String>) -> Problem {
        let path = format!("{}.{field}", self.path);
        Problem::new(self.origin.clone(), self.place, path, Cause::Advice, why)
    }

    pub(super) fn read(field: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = field.fields(report)?;
        let mode = fields.take("mode");
        // As in protobuf: a message without a mode has the first.
        let mode = mode.map_or(Some(TlsMode::Disable), |mode| read_mode(&mode, report));
        if let Some(skip) = fields.take("insecureSkipVerify")
            && skip.boolean(report) == Some(true)
        {
            skip.unsupported(
                "is not supported: a server that need not prove itself is anybody",
                report,
            );
        }
        fields.refuse("credentialName", "is not supported: name files", report);
        let mut text = |name, needed: bool| {
            let field = match needed {
                true => fields.require(name, report),
                false => fields.take(name),
            };
            read_text(&field?, report)
        };
        let mode = mode?;
        let is_mutual = mode == TlsMode::Mutual;
        let tls = Self {
            mode,
            client_certificate: text("clientCertificate", is_mutual),
            private_key: text("privateKey", is_mutual),
            ca_certificates: text("caCertificates", false),
            ca_crl: text("caCrl", false),
            sni: text("sni", false),
            subject_alt_names: read_names(&mut fields, report),
            origin: report.origin().clone(),
            place: field.place(),
            path: field.path.clone(),
            is_optional: report.mode() == Unsupported::Warn,
        };
        fields.finish(report);
        tls.refuse_others(field, report);
        if tls.is_optional {
            report.unsupported(tls.place, &tls.path, IS_FOR);
        }
        Some(tls)
    }

    /// What the mode does not have.
    fn refuse_others(&self, field: &Field<'_>, report: &mut Report<'_>) {
        let (certificate, roots, names) = match self.mode {
            TlsMode::Disable => (false, false, false),
            TlsMode::Simple => (false, true, true),
            TlsMode::Mutual => (true, true, true),
            TlsMode::IstioMutual => (false, false, true),
        };
        for (name, is_there, may) in [
            ("clientCertificate", self.client_certificate.is_some(), certificate),
            ("privateKey", self.private_key.is_some(), certificate),
            ("caCertificates", self.ca_certificates.is_some(), roots),
            ("caCrl", self.ca_crl.is_some(), roots),
            ("subjectAltNames", !self.subject_alt_names.is_empty(), names),
            ("sni", self.sni.is_some(), names),
        ] {
            if is_there && !may {
                let path = format!("{}.{name}", field.path);
                report.invalid(field.place(), &path, "is not allowed in this mode");
            }
        }
    }

    fn unsupported(&self) -> Problem {
        let why = "is not carried out by an upstream: make its connections by client_tls, and say so by with_client_tls";
        Problem::new(self.origin.clone(), self.place, &*self.path, Cause::Unsupported, why)
    }
}

const IS_FOR: &str = "is for whoever makes connections, by client_tls";

/// Whether a warning says no more than that a block is for whoever makes connections.
pub(super) fn is_of_client_tls(warning: &Problem) -> bool {
    warning.message() == IS_FOR
}

fn read_mode(field: &Field<'_>, report: &mut Report<'_>) -> Option<TlsMode> {
    match field.text(report)? {
        "DISABLE" => Some(TlsMode::Disable),
        "SIMPLE" => Some(TlsMode::Simple),
        "MUTUAL" => Some(TlsMode::Mutual),
        "ISTIO_MUTUAL" => Some(TlsMode::IstioMutual),
        _ => {
            field.invalid(
                "is not allowed, expected DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL",
                report,
            );
            None
        }
    }
}

/// An empty text is an absent one, as in protobuf; here it is a mistake.
fn read_text(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = field.text(report)?;
    if text.is_empty() {
        field.report(report, "is empty");
        return None;
    }
    Some(text.to_owned())
}

fn read_names(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Vec<String> {
    let Some(field) = fields.take("subjectAltNames") else { return Vec::new() };
    let items = field.list(report).unwrap_or_default();
    if items.is_empty() {
        field.report(report, "is empty: it would mean any name");
    }
    items.iter().filter_map(|item| read_text(item, report)).collect()
}

impl Documents {
    /// Says that whoever makes connections does so by [`client_tls`](Self::client_tls). Without it, an upstream whose rule has
    /// a `tls` block is an error: it would be connected to in another way than the block says. (With
    /// [`Unsupported::Warn`] it is a warning when the text is read, which is taken back here.)
    #[must_use]
    pub fn with_client_tls(mut self) -> Self {
        self.carries_tls = true;
        self.warnings.retain(|warning| !is_of_client_tls(warning));
        self
    }

    /// How to connect to `host`, named as for [`upstream`](Self::upstream), or to one of its subsets.
    ///
    /// `None` if no block says: then Istio's auto mTLS holds, which is `ISTIO_MUTUAL` for an endpoint with the label
    /// `tlsMode: istio`, and else plaintext. Any block, whatever its mode, turns that off.
    ///
    /// # Errors
    ///
    /// A host that no document is about or that may mean several; a subset that no rule defines.
    ///
    /// An example stands at [`ClientTls`].
    pub fn client_tls(
        &self,
        host: &str,
        subset: Option<&str>,
    ) -> Result<Option<ClientTls>, Errors> {
        Ok(self.blocks_of(host, subset)?.and_then(|blocks| blocks.tls().cloned()))
    }

    /// How to connect to the upstream of a [`destination`](Self::destination): to its host, subset and port.
    ///
    /// # Errors
    ///
    /// A subset that no rule defines.
    pub fn client_tls_of(&self, to: &Destination) -> Result<Option<ClientTls>, Errors> {
        let view = self.view_of(to.full_host(), to.port());
        let blocks = view.blocks_of(to.host(), to.subset())?;
        Ok(blocks.and_then(|blocks| blocks.tls().cloned()))
    }

    /// Blocks that nobody carries out.
    pub(super) fn refuse_tls<'a>(
        &self,
        blocks: impl Iterator<Item = Option<&'a ClientTls>>,
    ) -> Result<(), Errors> {
        let mut problems: Vec<Problem> = Vec::new();
        for tls in blocks.flatten().filter(|tls| !self.carries_tls && !tls.is_optional) {
            let problem = tls.unsupported();
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Errors::refuse(problems).map(drop)
    }
}

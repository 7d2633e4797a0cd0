use super::Normalization;

/// How policies are compiled and how a request is read where it could be read in two ways.
///
/// [`Config::default`] refuses in doubt. [`Config::istio`] decides as Istio and its proxy do, whatever comes of it.
///
/// | | default | `istio` |
/// | --- | --- | --- |
/// | [`with_normalization`](Self::with_normalization) | `Base` | `Base`, as Istio's `pathNormalization` |
/// | [`with_doubts_refused`](Self::with_doubts_refused) | yes | no |
/// | [`with_invalid_rules_skipped`](Self::with_invalid_rules_skipped) | no | yes |
///
/// ```
/// use mesh_core::authorize::{Config, Normalization};
///
/// let config = Config::default().with_normalization(Normalization::DecodeAndMergeSlashes);
/// assert!(config.doubts_refused() && !config.invalid_rules_skipped());
/// assert!(!Config::istio().doubts_refused());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    normalization: Normalization,
    doubts_refused: bool,
    invalid_rules_skipped: bool,
    trust_domains: Vec<String>,
}

impl Config {
    /// As Istio decides: doubts count for nothing, and a rule that cannot be understood is left out.
    pub fn istio() -> Self {
        Self { doubts_refused: false, invalid_rules_skipped: true, ..Self::default() }
    }

    /// How paths are brought into one form. Default: [`Normalization::Base`], as in Istio.
    #[must_use]
    pub fn with_normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = normalization;
        self
    }

    /// Whether a request that can be read in two ways is judged by the reading that refuses it. Default: yes. What a
    /// doubt is, stands in the [module's docs](super).
    #[must_use]
    pub fn with_doubts_refused(mut self, refused: bool) -> Self {
        self.doubts_refused = refused;
        self
    }

    /// Whether a rule that cannot be understood is left out, as in Istio, where a `DENY` policy then lets through what it
    /// should not. Default: no, it is an error.
    #[must_use]
    pub fn with_invalid_rules_skipped(mut self, skipped: bool) -> Self {
        self.invalid_rules_skipped = skipped;
        self
    }

    /// The trust domain of the mesh and its aliases (Istio `trustDomain`, `trustDomainAliases`). A principal of a policy
    /// that names one of them, or `cluster.local`, means all of them. Default: none, a principal means what it says.
    ///
    /// ```
    /// use mesh_core::authorize::{Attribute, Authorizer, Config, Connection, Match, PlainHead, Policy, Rule};
    ///
    /// let old = Match::of(Attribute::Principal, ["cluster.local/ns/shop/sa/cart"]);
    /// let policy = Policy::deny("old").with_rule(Rule::any().with_source([old]));
    /// let config = Config::default().with_trust_domains(["shop.example"]);
    /// let authorizer = Authorizer::new([policy], &config)?;
    /// let cart = Connection::default().with_principal("shop.example/ns/shop/sa/cart");
    /// assert!(!authorizer.decide(&cart, &PlainHead::new("GET", "/")).is_allowed());
    /// # Ok::<_, mesh_core::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn with_trust_domains<T: Into<String>>(
        mut self,
        domains: impl IntoIterator<Item = T>,
    ) -> Self {
        self.trust_domains = domains.into_iter().map(Into::into).collect();
        self
    }

    /// How paths are brought into one form.
    pub fn normalization(&self) -> Normalization {
        self.normalization
    }

    /// Whether the reading that refuses counts.
    pub fn doubts_refused(&self) -> bool {
        self.doubts_refused
    }

    /// Whether a rule that cannot be understood is left out.
    pub fn invalid_rules_skipped(&self) -> bool {
        self.invalid_rules_skipped
    }

    /// The trust domain of the mesh and its aliases.
    pub fn trust_domains(&self) -> &[String] {
        &self.trust_domains
    }
}

impl Default for Config {
    /// Refuses in doubt: a policy exists to refuse, and what it lets through by mistake nobody sees.
    fn default() -> Self {
        Self {
            normalization: Normalization::Base,
            doubts_refused: true,
            invalid_rules_skipped: false,
            trust_domains: Vec::new(),
        }
    }
}

use std::collections::BTreeSet;

use crate::{InvalidConfig, Labels};

/// Where requests go that no subset is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the policies of Envoy")]
pub enum Fallback {
    /// Nowhere: the request fails as with no endpoints. The default, as in Envoy.
    #[default]
    NoFallback,
    /// To any endpoint.
    AnyEndpoint,
    /// To the default subset.
    DefaultSubset,
}

/// The keys of a kind of subset, and where requests go whose subset has no endpoints.
///
/// ```
/// use mesh_core::balance::subset::{Fallback, Selector};
///
/// let selector = Selector::new(["stage", "v"])?.with_fallback(Fallback::AnyEndpoint);
/// assert_eq!(selector.keys().collect::<Vec<_>>(), ["stage", "v"]);
/// let selector = selector.with_fallback_keys(["v"])?;
///
/// let error = selector.clone().with_fallback_keys(["v", "stage"]).unwrap_err();
/// assert_eq!((error.field(), error.expected()), ("fallback_keys_subset", "a proper subset of keys"));
/// let error = selector.with_fallback_keys(Vec::<String>::new()).unwrap_err();
/// assert_eq!((error.field(), error.expected()), ("fallback_keys_subset", "not empty"));
/// assert_eq!(Selector::new(Vec::<String>::new()).unwrap_err().field(), "keys");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    keys: BTreeSet<String>,
    fallback: Option<SelectorFallback>,
    single_host: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SelectorFallback {
    To(Fallback),
    Keys(BTreeSet<String>),
}

impl Selector {
    /// Endpoints that have the same values of `keys` make a subset.
    ///
    /// # Errors
    ///
    /// No keys.
    pub fn new<I>(keys: I) -> Result<Self, InvalidConfig>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let keys: BTreeSet<String> = keys.into_iter().map(Into::into).collect();
        if keys.is_empty() {
            return Err(InvalidConfig::new("keys", "nothing", "at least one key"));
        }
        Ok(Self { keys, fallback: None, single_host: false })
    }

    /// In place of the fallback of all subsets.
    #[must_use]
    pub fn with_fallback(self, fallback: Fallback) -> Self {
        Self { fallback: Some(SelectorFallback::To(fallback)), ..self }
    }

    /// Tries again with only these of the keys (Envoy `KEYS_SUBSET`).
    ///
    /// # Errors
    ///
    /// No key, a key that is none of the selector's, or all of them: that would find nothing new.
    pub fn with_fallback_keys<I>(self, keys: I) -> Result<Self, InvalidConfig>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let keys: BTreeSet<String> = keys.into_iter().map(Into::into).collect();
        let invalid = |expected| {
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            Err(InvalidConfig::new("fallback_keys_subset", keys.join(","), expected))
        };
        if keys.is_empty() {
            return invalid("not empty");
        }
        if !keys.is_subset(&self.keys) || keys == self.keys {
            return invalid("a proper subset of keys");
        }
        Ok(Self { fallback: Some(SelectorFallback::Keys(keys)), ..self })
    }

    /// Of endpoints with the same values only the first counts (Envoy `single_host_per_subset`).
    #[must_use]
    pub fn with_single_host(self, single_host: bool) -> Self {
        Self { single_host, ..self }
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    pub(super) fn key_set(&self) -> &BTreeSet<String> {
        &self.keys
    }

    pub(super) fn fallback(&self) -> Option<&SelectorFallback> {
        self.fallback.as_ref()
    }

    pub(super) fn is_single_host(&self) -> bool {
        self.single_host
    }
}

/// Which subsets there are, and where requests go that none is for.
///
/// | setting | default | Envoy `lb_subset_config` |
/// | --- | --- | --- |
/// | fallback | no fallback | `fallback_policy` |
/// | default subset | every endpoint | `default_subset` |
/// | selectors | none | `subset_selectors` |
/// | list as any | no | `list_as_any` |
/// | panic mode any | no | `panic_mode_any` |
/// | redundant keys | no | `allow_redundant_keys` |
/// | locality weight aware, scaled | no | `locality_weight_aware`, `scale_locality_weight` |
///
/// ```
/// use mesh_core::balance::subset::{Config, Fallback, Selector};
///
/// let config = Config::default()
///     .with_fallback(Fallback::DefaultSubset)
///     .with_default_subset([("stage", "prod")].into_iter().collect())
///     .with_selector(Selector::new(["v"])?)?;
///
/// // The same keys again would never be looked at.
/// let error = config.with_selector(Selector::new(["v"])?).unwrap_err();
/// assert_eq!(error.to_string(), "subset_selectors: v is not allowed, expected each set of keys once");
/// # Ok::<(), mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Config {
    fallback: Fallback,
    default_subset: Labels,
    selectors: Vec<Selector>,
    list_as_any: bool,
    panic_mode_any: bool,
    redundant_keys: bool,
    locality_weights: LocalityWeights,
}

/// What the weights of the localities are worth within a subset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "ignored, taken over, or scaled")]
pub enum LocalityWeights {
    /// Nothing: a subset knows no weights of localities.
    #[default]
    Ignored,
    /// As much as in the whole.
    Kept,
    /// In proportion to what the subset has of the locality's endpoints, see [`scaled_weight`](super::scaled_weight).
    Scaled,
}

impl LocalityWeights {
    /// What a locality of `weight` weighs in a subset that has `in_subset` of `all` its endpoints; `None` if nothing does.
    ///
    /// ```
    /// use mesh_core::balance::subset::LocalityWeights;
    ///
    /// assert_eq!(LocalityWeights::Ignored.of(10, 1, 4), None);
    /// assert_eq!(LocalityWeights::Kept.of(10, 1, 4), Some(10));
    /// assert_eq!(LocalityWeights::Scaled.of(10, 1, 4), Some(3));
    /// ```
    pub fn of(self, weight: u32, in_subset: u64, all: u64) -> Option<u32> {
        match self {
            Self::Ignored => None,
            Self::Kept => Some(weight),
            Self::Scaled => Some(super::scaled_weight(weight, in_subset, all)),
        }
    }
}

impl Config {
    /// Where requests go that no subset is for.
    #[must_use]
    pub fn with_fallback(self, fallback: Fallback) -> Self {
        Self { fallback, ..self }
    }

    /// The endpoints that have all of these values.
    #[must_use]
    pub fn with_default_subset(self, default_subset: Labels) -> Self {
        Self { default_subset, ..self }
    }

    /// Adds a kind of subset.
    ///
    /// # Errors
    ///
    /// There is a selector of the same keys.
    pub fn with_selector(mut self, selector: Selector) -> Result<Self, InvalidConfig> {
        if self.selectors.iter().any(|other| other.keys == selector.keys) {
            let keys: Vec<_> = selector.keys().collect();
            let keys = keys.join(",");
            return Err(InvalidConfig::new("subset_selectors", keys, "each set of keys once"));
        }
        self.selectors.push(selector);
        Ok(self)
    }

    /// Whether an endpoint with a list of values is in the subset of each of them.
    #[must_use]
    pub fn with_list_as_any(self, list_as_any: bool) -> Self {
        Self { list_as_any, ..self }
    }

    /// Whether any endpoint is used when the fallback (of all subsets, not that of a selector) has none that is
    /// available.
    #[must_use]
    pub fn with_panic_mode_any(self, panic_mode_any: bool) -> Self {
        Self { panic_mode_any, ..self }
    }

    /// Whether criteria may name keys beside those of a selector: those of the first selector whose keys all occur
    /// count then, and no others.
    #[must_use]
    pub fn with_redundant_keys(self, redundant_keys: bool) -> Self {
        Self { redundant_keys, ..self }
    }

    /// What the weights of localities are worth within a subset.
    #[must_use]
    pub fn with_locality_weights(self, locality_weights: LocalityWeights) -> Self {
        Self { locality_weights, ..self }
    }

    /// See [`Config::with_fallback`].
    pub fn fallback(&self) -> Fallback {
        self.fallback
    }

    /// See [`Config::with_default_subset`].
    pub fn default_subset(&self) -> &Labels {
        &self.default_subset
    }

    /// See [`Config::with_selector`].
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// See [`Config::with_list_as_any`].
    pub fn list_as_any(&self) -> bool {
        self.list_as_any
    }

    /// See [`Config::with_panic_mode_any`].
    pub fn panic_mode_any(&self) -> bool {
        self.panic_mode_any
    }

    /// See [`Config::with_redundant_keys`].
    pub fn redundant_keys(&self) -> bool {
        self.redundant_keys
    }

    /// See [`Config::with_locality_weights`].
    pub fn locality_weights(&self) -> LocalityWeights {
        self.locality_weights
    }
}

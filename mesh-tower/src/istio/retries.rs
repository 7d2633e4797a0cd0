//! `retries` of a VirtualService's rule.

use mesh_core::{backoff, retry};

use super::{
    cursor::{Field, Report},
    yaml::shorten,
};

/// How often a route's requests are retried, and on what: `HTTPRetry` of Istio, in full, or Istio's default.
///
/// [`Retries::to_config`] is what the machines get. The rest is what Istio would tell Envoy beside it, so that it can be
/// compared: words that mean nothing to either, and settings that this crate does not need.
///
/// | Istio | Envoy | here |
/// | --- | --- | --- |
/// | `attempts` | `num_retries` | [`retry::Config::retries`]; 0 is no policy at all |
/// | `retryOn`, its words | `retry_on` | [`retry::Config::retry_on`]; as text [`Retries::retry_on`] |
/// | `retryOn`, its numbers | `retriable_status_codes` | the same; as text [`Retries::status_codes`]. A number without a name in HTTP's registry is a word, which means nothing |
/// | `perTryTimeout` | `per_try_timeout` | [`retry::Config::per_try_timeout`] |
/// | `backoff` | `base_interval` | [`retry::Config::backoff`], up to 10 times it |
/// | `retryIgnorePreviousHosts` | `previous_hosts` | [`retry::Config::avoid_previous`]; unset: yes, but no with `consistentHash` |
/// | | `host_selection_retry_max_attempts` 5 | not needed: the balancer passes over what was tried, where Envoy draws again, [`Retries::HOST_SELECTIONS`] times at most |
/// | `retryRemoteLocalities` | `previous_priorities` | [`retry::Config::previous_priorities`] 2 |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    config: retry::Config,
    retry_on: String,
    status_codes: Vec<u16>,
    ignore_previous_hosts: Option<bool>,
    remote_localities: bool,
}

impl Retries {
    /// How often Istio lets Envoy draw an endpoint that was not tried yet.
    pub const HOST_SELECTIONS: u32 = 5;

    /// The settings of the machine. `is_hashed`: whether the endpoint is chosen by `consistentHash`; then the same
    /// endpoint is tried again unless `retryIgnorePreviousHosts` says otherwise.
    pub fn to_config(&self, is_hashed: bool) -> retry::Config {
        let avoids = self.ignore_previous_hosts.unwrap_or(!is_hashed);
        let priorities = self.previous_priorities().unwrap_or(0);
        self.config.clone().with_avoid_previous(avoids).with_previous_priorities(priorities)
    }

    /// The conditions as Istio hands them to Envoy: without blanks, empty words and status codes, with
    /// `retriable-status-codes` if there are codes. Of codes alone Istio makes a list with a comma in front.
    ///
    /// ```
    /// use mesh_tower::istio::{self, Unsupported};
    ///
    /// let documents = istio::read("\
    /// apiVersion: networking.istio.io/v1
    /// kind: VirtualService
    /// metadata: {name: shop}
    /// spec:
    ///   hosts: [shop]
    ///   http:
    ///     - route: [{destination: {host: shop}}]
    ///       retries: {attempts: 3, retryOn: \" 5xx, ,404 \"}
    /// ", "shop.yaml", Unsupported::Error)?;
    /// let retries = documents.virtual_services()[0].retries();
    /// assert_eq!((retries.retry_on(), retries.status_codes()), ("5xx,retriable-status-codes", &[404][..]));
    /// assert_eq!(retries.to_config(false).retries(), 3);
    /// # Ok::<_, istio::Errors>(())
    /// ```
    pub fn retry_on(&self) -> &str {
        &self.retry_on
    }

    /// The status codes of `retryOn`, in its order.
    pub fn status_codes(&self) -> &[u16] {
        &self.status_codes
    }

    /// After how many attempts a priority that was not tried yet is turned to: `Some(2)` if `retryRemoteLocalities` is on.
    pub fn previous_priorities(&self) -> Option<u32> {
        self.remote_localities.then_some(2)
    }

    /// `None` if it cannot be read; what is wrong has been reported.
    pub(super) fn read(field: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = field.fields(report)?;
        let attempts = fields.require("attempts", report);
        let attempts = attempts.and_then(|attempts| attempts.number(i32::MAX as u32, report));
        let mut this = Self::default();
        if attempts == Some(0) && !fields.is_empty() {
            // Istio's own validation refuses it too: what is set would have no effect.
            let why = "attempts: 0 turns retries off, and leaves no use for other fields";
            report.invalid(field.place(), &field.path, why);
        }
        if let Some(timeout) = fields.take("perTryTimeout").and_then(|f| f.duration(report)) {
            this.config = this.config.with_per_try_timeout(Some(timeout));
        }
        if let Some(field) = fields.take("retryOn")
            && let Some(text) = field.text(report)
            && !text.is_empty()
        {
            this.read_retry_on(text, &field, report);
        }
        if let Some(field) = fields.take("backoff")
            && let Some(base) = field.duration(report)
        {
            match backoff::Config::from_base(base) {
                Ok(backoff) => this.config = this.config.with_backoff(backoff),
                Err(error) => field
                    .invalid(format_args!("is not allowed, expected {}", error.expected()), report),
            }
        }
        let ignore = fields.take("retryIgnorePreviousHosts");
        this.ignore_previous_hosts = ignore.and_then(|field| field.boolean(report));
        let remote = fields.take("retryRemoteLocalities").and_then(|field| field.boolean(report));
        this.remote_localities = remote == Some(true);
        fields.finish(report);
        Some(match attempts? {
            0 => Self { config: retry::Config::none(), retry_on: String::new(), ..Self::default() },
            attempts => Self { config: this.config.with_retries(attempts), ..this },
        })
    }

    /// `retry` of an HTTPRoute's rule: `codes` beside what is safe to retry in any case, `attempts` (default Istio's 2) and
    /// `backoff`. `None` if it cannot be read.
    pub(super) fn read_gateway(field: &Field<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = field.fields(report)?;
        let mut this = Self::default();
        let codes = fields.take("codes").and_then(|field| field.list(report));
        let mut words = "connect-failure,refused-stream".to_owned();
        for code in codes.iter().flatten() {
            let number = code.number(599, report)?;
            if !(400..600).contains(&number) {
                code.invalid("is not allowed, expected 400 to 599", report);
                return None;
            }
            words.push_str(&format!(",{number}"));
        }
        this.read_retry_on(&words, field, report);
        if let Some(attempts) = fields.take("attempts") {
            this.config = this.config.with_retries(attempts.number(i32::MAX as u32, report)?);
        }
        if let Some(base) = fields.take("backoff")
            && let Some(time) = base.duration(report)
        {
            match backoff::Config::from_base(time) {
                Ok(backoff) => this.config = this.config.with_backoff(backoff),
                Err(error) => base
                    .invalid(format_args!("is not allowed, expected {}", error.expected()), report),
            }
        }
        fields.finish(report);
        Some(this)
    }

    pub(super) fn with_per_try_timeout(self, limit: Option<std::time::Duration>) -> Self {
        Self { config: self.config.with_per_try_timeout(limit), ..self }
    }

    /// Words and codes apart. What is neither is reported, and means nothing.
    fn read_retry_on(&mut self, text: &str, field: &Field<'_>, report: &mut Report<'_>) {
        let mut words = Vec::new();
        let mut codes = Vec::new();
        let mut conditions = retry::RetryOn::NONE;
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let number = word.parse::<i64>().ok();
            if let Some(code) = number.and_then(named_code) {
                codes.push(code);
                continue;
            }
            words.push(word);
            match word.parse::<retry::RetryOn>() {
                Ok(known) if number.is_none() => conditions |= known,
                _ => {
                    let message = format!(
                        "\"{}\" is not a condition, expected Envoy's conditions or HTTP codes",
                        shorten(word, 60),
                    );
                    report.unsupported(field.place(), &field.path, message);
                }
            }
        }
        self.retry_on = words.join(",");
        if !codes.is_empty() && !self.retry_on.contains(STATUS_CODES) {
            self.retry_on.push(',');
            self.retry_on.push_str(STATUS_CODES);
        }
        for code in &codes {
            // Of those that have a name each is one.
            conditions = conditions.with_status_code(*code).unwrap_or(conditions);
        }
        self.status_codes = codes;
        self.config = self.config.clone().with_retry_on(conditions);
    }
}

/// Istio's default: what a rule that names no `retries` gets.
impl Default for Retries {
    fn default() -> Self {
        Self {
            config: retry::Config::istio(),
            retry_on: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
                .to_owned(),
            status_codes: Vec::new(),
            ignore_previous_hosts: None,
            remote_localities: false,
        }
    }
}

const STATUS_CODES: &str = "retriable-status-codes";

/// Go's `http.StatusText` has a name for it, which is how Istio tells a status code from a word.
fn named_code(number: i64) -> Option<u16> {
    let named = matches!(
        number,
        100..=103
            | 200..=208
            | 226
            | 300..=305
            | 307
            | 308
            | 400..=418
            | 421..=426
            | 428
            | 429
            | 431
            | 451
            | 500..=508
            | 510
            | 511
    );
    named.then(|| u16::try_from(number).ok()).flatten()
}

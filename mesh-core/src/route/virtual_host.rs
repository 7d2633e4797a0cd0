use super::{client::Client, gateway, rule::Rule, table::Table};
use crate::InvalidConfig;

/// Hosts, and the rules of their requests.
///
/// ```
/// use mesh_core::route::{Client, Forward, NoPattern, PlainHead, Rule, VirtualHost};
///
/// let shop = VirtualHost::new(["shop", "*.shop.example"], vec![Rule::new(Forward::to("v1").into())]);
/// let table = shop.compile(&Client::default(), NoPattern::refuse, |rule| Ok(rule.name().to_owned())).unwrap();
/// assert!(table.find(&PlainHead::new("GET", "/")).is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHost<T> {
    hosts: Vec<String>,
    rules: Rules<T>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Rules<T> {
    InOrder(Vec<Rule<T>>),
    ByPrecedence(Vec<gateway::Rule<Rule<T>>>),
}

impl<T> VirtualHost<T> {
    /// Names and wildcards as in [`Hosts`](super::Hosts), with rules of which the first that matches counts.
    pub fn new(hosts: impl IntoIterator<Item = impl Into<String>>, rules: Vec<Rule<T>>) -> Self {
        let hosts = hosts.into_iter().map(Into::into).collect();
        Self { hosts, rules: Rules::InOrder(rules) }
    }

    /// The same with rules of Gateway API, in the order of their [precedence](gateway). What the rules themselves match
    /// counts for nothing: that is said by [`gateway::Rule::with_match`].
    pub fn by_precedence(
        hosts: impl IntoIterator<Item = impl Into<String>>,
        rules: Vec<gateway::Rule<Rule<T>>>,
    ) -> Self {
        let hosts = hosts.into_iter().map(Into::into).collect();
        Self { hosts, rules: Rules::ByPrecedence(rules) }
    }

    /// The same rules under other names.
    ///
    /// ```
    /// use mesh_core::route::{Forward, Rule, VirtualHost};
    ///
    /// let shop = VirtualHost::new(["shop"], vec![Rule::new(Forward::to("v1").into())]);
    /// assert_eq!(shop.with_hosts(["shop.sales"]).hosts(), ["shop.sales"]);
    /// ```
    #[must_use]
    pub fn with_hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Its names.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Its rules, in the order given.
    pub fn rules(&self) -> impl Iterator<Item = &Rule<T>> {
        let (in_order, ranked) = match &self.rules {
            Rules::InOrder(rules) => (rules.as_slice(), [].as_slice()),
            Rules::ByPrecedence(rules) => ([].as_slice(), rules.as_slice()),
        };
        in_order.iter().chain(ranked.iter().map(gateway::Rule::then))
    }

    /// The table of its rules, each made into a `U`.
    ///
    /// # Errors
    ///
    /// What [`Table::new`] and `make` refuse.
    pub fn compile<U, P>(
        self,
        client: &Client,
        compile: impl FnMut(&str) -> Result<P, InvalidConfig>,
        mut make: impl FnMut(&Rule<T>) -> Result<U, InvalidConfig>,
    ) -> Result<Table<U, P>, InvalidConfig> {
        match self.rules {
            Rules::InOrder(rules) => {
                let made =
                    rules.into_iter().map(|rule| Ok((rule.matches().to_vec(), make(&rule)?)));
                Table::new(made.collect::<Result<Vec<_>, _>>()?, client, compile)
            }
            Rules::ByPrecedence(rules) => {
                let made = rules.into_iter().map(|rule| rule.try_map(|rule| make(&rule)));
                Table::by_precedence(made.collect::<Result<_, _>>()?, compile)
            }
        }
    }
}

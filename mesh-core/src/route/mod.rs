//! Routing: which rule takes a request, what it changes, and which destination gets it.
//!
//! # Why not a radix tree of paths, as in web frameworks
//!
//! Those forbid what Istio allows: routes that overlap, are told apart by a header or a query, and count in the order in
//! which they were written. So the order is the rule here, and an index of paths only says which routes need not be looked
//! at ([`Table`]). What it finds is what asking one route after the other would find.
//!
//! # Why not endpoint weights for a canary
//!
//! A balancer bends the shares of its endpoints by their load, as it should. A canary of 5 % must get 5 %
//! whether or not it is the faster one. So the split is drawn first, and only then does a balancer choose within
//! the chosen subset. The draw is made once for each request: retries stay in the chosen destination
//! (Envoy weighted clusters; Linkerd draws again for each retry).
//!
//! # How it decides
//!
//! 1. **Host**: [`Hosts`] finds the rules by the request's authority: the exact name, else the longest wildcard.
//! 2. **Rule**: the first of the host's rules that matches, in their order ([`Match`] says what is looked at); for Gateway
//!    API the most exact one ([`gateway`]). No rule: 404.
//! 3. **Fault**: [`Fault::draw`] says whether the request is held back or answered by an error.
//! 4. **Destination**: they stand side by side on a line, each as long as its weight, in the order given; a point is
//!    drawn on the line, and the half-open range that it falls into is the choice ([`Split`]). The rules of Istio's
//!    VirtualService hold: `share = weight / sum`, the sum need not be 100; one destination alone gets everything
//!    whatever its weight; among several, weight 0 means none at all, and all zero is refused. The sum may
//!    not exceed 2³²−1 (Envoy).
//! 5. **Change**: path ([`Rewriter`]), authority and headers ([`HeaderChanges`]).
//! 6. **Copies**: each [`Mirror`] is drawn apart.
//!
//! A table is built once, off the way of requests, and is found in without allocating.
//!
//! # What it does not do
//!
//! It does not look at health: a destination whose endpoints are all down still gets its share. It parses no text of a
//! regular expression: who builds a table brings a [`Pattern`]. Claims of tokens (`@request.auth.claims`) are no headers
//! here.
//!
//! # Example
//!
//! ```
//! use mesh_core::{SplitMix64, route::Split};
//!
//! let split = Split::new(vec![("v1", 95), ("v2", 5)]).unwrap();
//! let mut rng = SplitMix64::new(1);
//! let canary = (0..10_000).filter(|_| *split.pick(&mut rng) == "v2").count();
//! assert!((400..600).contains(&canary));
//!
//! let error = Split::new(vec![("v1", 0), ("v2", 0)]).unwrap_err();
//! assert_eq!(error.field(), "weight");
//! ```

mod client;
mod fault;
pub mod gateway;
mod head;
mod headers;
mod hosts;
mod index;
mod matching;
mod path;
mod rewrite;
mod rule;
mod selector;
mod share;
mod split;
mod table;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod text;
mod virtual_host;

pub use client::Client;
pub use fault::{Abort, AbortStatus, Delay, Fault, Injected};
pub use head::{Head, PlainHead, split_port};
pub use headers::{HeaderChanges, Put};
pub use hosts::Hosts;
pub use matching::Match;
pub use path::PathMatch;
pub use rewrite::{PathRewrite, Rewriter};
pub use rule::{Action, DirectResponse, Forward, Mirror, Redirect, Rule};
pub use selector::Selector;
pub use share::Share;
pub use split::Split;
pub use table::{Found, Table};
pub use text::{NoPattern, Pattern, TextMatch};
pub use virtual_host::VirtualHost;

//! Authorization: which requests a workload takes, by who sends them and what they ask for.
//!
//! # Why not in the handlers
//!
//! A check in a handler is forgotten in the next one. A policy stands before all of them, is written by who answers for it,
//! is changed without a release, and is told apart in the metrics. And why not the peer policy of the TLS acceptor alone: that
//! says who may connect, not what for.
//!
//! # How it decides
//!
//! In this order, which is Istio's (`AuthorizationPolicy`); the first line that applies counts:
//!
//! | | | |
//! | --- | --- | --- |
//! | 1 | the path has no one form | refused, [`Reason::BadPath`] |
//! | 2 | a `CUSTOM` policy matches, and its provider does not grant the request | refused, [`Reason::NotGranted`] |
//! | 3 | a `DENY` policy matches | refused, [`Reason::Denied`] |
//! | 4 | there is no `ALLOW` policy | allowed, [`Reason::NoAllowPolicy`] |
//! | 5 | an `ALLOW` policy matches | allowed, [`Reason::Allowed`] |
//! | 6 | none does | refused, [`Reason::NotAllowed`] |
//!
//! `AUDIT` policies decide nothing, and are named in the [`Decision`]; so is what policies on trial would change.
//!
//! A policy matches if one of its rules does; without rules it never does. A rule is (any source) and (any operation) and (all
//! conditions); within each, all attributes must hold; an attribute holds if one of its values does and none of its exceptions.
//! What the values mean, [`Attribute`] says. Paths are brought into one form first ([`Normalization`]), and have no query;
//! their case counts.
//!
//! # What it does in doubt
//!
//! Some requests can be read in two ways. [`Config::default`] takes the one that refuses, for the values of policies that
//! refuse (`DENY`, `CUSTOM`) and for the exceptions of those that allow; what grants must hold whichever way it is read.
//! [`Config::istio`] reads as Istio's proxy does.
//!
//! | | to refuse it is enough that | to grant it takes that | Istio |
//! | --- | --- | --- | --- |
//! | a path that a handler may decode further (`//`, `%2F`, `%252F`, `\`, `/..;/`), or whose dots its router took for segments | one reading matches | every reading matches | the path as it is handed on |
//! | another escape, also of an escape (`%40`, `%2540`), a parameter (`/a;b`), a `?` or `#` that is escaped, a slash at the end | it matches without them; an escape in the policy means its letter | it matches as it is handed on | the path as it is handed on |
//! | no path: the `*` of OPTIONS, the nothing of a tunnel | always | it is there, and the value is `*` | as it was sent |
//! | an authority, or a server name of TLS, with a port, a dot at its end, or a user before it; an address in other letters (`[0::1]`) | it matches by its name, and by its port if the policy names one; none is 80 or 443 | it matches as it was sent, and without the user | as it was sent |
//! | an authority that is not one name to everybody: none at all, with letters that no name has (`secret%2eexample`, `a,b`), with two ports, a number (`127.1`) | always | it is there, and the value is `*` | as it was sent |
//! | a header with several values, in one line or more; another of a like name (`x_user`, which is `x-user` to CGI) | all joined by `,` match, or one line, or one value of the list | all joined match, and every line | all joined by `,` |
//! | a header without a value, for `*` | it is there | it is not | it is there |
//! | a method in another case; `HEAD`, and `CONNECT` to a path (RFC 8441), which the handler of `GET` answers | it matches but for case, or as `GET` | it matches | it matches |
//! | an address or a port of the connection that nobody told | always | never | never |
//! | a segment of a template with letters that no path has | it is any segment | it matches no `{*}` | it matches no `{*}` |
//! | an exception of an `ALLOW` policy about what the request does not have: a principal where nobody proved anything | | it is there, or the exception is `*`: only who has none is meant | it is another, so the exception does not apply |
//!
//! So nobody is let in whom Istio refuses. Who refuses `GET` and wants `HEAD` says so by an exception. A port of the authority
//! is what the caller wrote: to refuse one, name it by [`Attribute::Port`]. The lines of a cookie are joined by `; `, as Envoy
//! does, and its values are parted there.
//!
//! A rule that cannot be understood is an error of [`Authorizer::new`]. Istio leaves it out, and a `DENY` policy then lets
//! through what it should not.
//!
//! # What it does not do
//!
//! It verifies nothing: who a peer is, and what its token says, is told to it ([`Connection`], [`Head::has_claim`]). It asks no
//! provider: who carries out `CUSTOM` policies does ([`Authorizer::decide_asking`]). It does not look at bodies, trailers or
//! queries, nor into a tunnel, and does not know by which headers an application takes a request for another one
//! (`X-HTTP-Method-Override`, `X-Forwarded-Host`, `X-Original-URL`): name them in a policy of their own. Upper and lower case
//! of a path are two. Who shows no identity is nobody, so a refusal of a principal does not meet him who connects without
//! TLS: demand TLS, or say who may.
//!
//! # Example
//!
//! ```
//! use mesh_core::authorize::{Attribute, Authorizer, Config, Connection, Match, PlainHead, Policy, Reason, Rule};
//!
//! // Who is of the namespace `shop` may read; nobody may touch /admin.
//! let shop = Match::of(Attribute::Namespace, ["shop"]);
//! let read = Match::of(Attribute::Method, ["GET", "HEAD"]);
//! let admin = Match::of(Attribute::Path, ["/admin", "/admin/*"]);
//! let policies = [
//!     Policy::allow("readers").with_rule(Rule::any().with_source([shop]).with_operation([read])),
//!     Policy::deny("no-admin").with_rule(Rule::any().with_operation([admin])),
//! ];
//! let authorizer = Authorizer::new(policies, &Config::default())?;
//!
//! let cart = Connection::default().with_principal("spiffe://cluster.local/ns/shop/sa/cart");
//! let reason = |connection, method, path| {
//!     authorizer.decide(connection, &PlainHead::new(method, path)).reason()
//! };
//! assert_eq!(reason(&cart, "GET", "/items"), Reason::Allowed);
//! assert_eq!(reason(&cart, "POST", "/items"), Reason::NotAllowed);
//! assert_eq!(reason(&cart, "GET", "/items/..%2fadmin"), Reason::Denied);
//! assert_eq!(reason(&Connection::default(), "GET", "/items"), Reason::NotAllowed);
//! # Ok::<_, mesh_core::InvalidConfig>(())
//! ```

mod attribute;
mod authorizer;
mod check;
mod config;
mod decision;
mod header;
mod host;
mod identity;
mod path;
mod policy;
mod reading;
mod request;
#[cfg(test)]
mod tests;
mod text;

pub use attribute::{Attribute, Match};
pub use authorizer::Authorizer;
pub use config::Config;
pub use decision::{Decision, Reason, RuleId};
pub use path::{BadPath, Normalization};
pub use policy::{Action, Policy, Rule};
pub use request::{Connection, Head, PlainHead, is_lookalike};

//! The rules for X.509-SVIDs, each against certificates made to break it, as a client and as a server; SPIFFE bundle
//! maps; and what a client of the Workload API must do.

mod bundle_map;
mod chain;
mod handshake;
mod leaf;
mod own;
mod scene;
#[cfg(unix)]
mod workload_api;

use mesh_tls::Untrusted;
use serde::Deserialize;

use crate::case::Case;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Config {
    X509SvidRules {
        id: String,
        /// The rule in words; the ID says which certificate breaks it.
        #[serde(rename = "condition")]
        _condition: String,
    },
    SpiffeBundleMap {
        case: String,
    },
    WorkloadApiClient {
        rule: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    verdict: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    grpc: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promise {
    holds: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum Verdict {
    #[serde(rename = "accept")]
    Accept,
    #[serde(rename = "reject")]
    Reject,
    #[serde(rename = "reject or full handshake")]
    RejectOrFullHandshake,
    #[serde(rename = "reject-with-clear-error")]
    RejectWithClearError,
    #[serde(rename = "reject-on-load")]
    RejectOnLoad,
    #[serde(rename = "reject-on-load (knob)")]
    RejectOnLoadByDefault,
    #[serde(rename = "reject-on-load, keep last good")]
    RejectOnLoadAndKeep,
    /// Implementations differ; ours is in the docs, and in the table here.
    #[serde(rename = "policy")]
    Policy,
}

/// What a rule came to, after the reason for it has been compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Accepted,
    Refused,
    RefusedOnLoad,
    /// As documented, where the sources leave it open.
    OurChoice,
}

/// What a rule's own code yields: `None` when it knows no such rule.
type Judged = Option<Result<Outcome, String>>;

pub(crate) fn run(case: &Case) -> Result<(), String> {
    case.others_are(&[])?;
    match case.config()? {
        Config::X509SvidRules { id, .. } => {
            // A verdict that is none needs no handshakes to be found out.
            let Rule { verdict } = case.expect()?;
            let judged = leaf::judge(&id)
                .or_else(|| chain::judge(&id))
                .or_else(|| own::judge(&id))
                .or_else(|| handshake::judge(&id));
            let outcome = judged.ok_or_else(|| format!("no certificate for rule {id:?}"))??;
            let fits = match verdict {
                Verdict::Accept => outcome == Outcome::Accepted,
                Verdict::Reject | Verdict::RejectOrFullHandshake => outcome == Outcome::Refused,
                Verdict::RejectWithClearError
                | Verdict::RejectOnLoad
                | Verdict::RejectOnLoadByDefault
                | Verdict::RejectOnLoadAndKeep => outcome == Outcome::RefusedOnLoad,
                Verdict::Policy => outcome == Outcome::OurChoice,
            };
            if fits { Ok(()) } else { Err(format!("{outcome:?}, expected {verdict:?}")) }
        }
        Config::SpiffeBundleMap { case: name } => {
            let Map { grpc } = case.expect()?;
            bundle_map::check(&name, &grpc)
        }
        Config::WorkloadApiClient { rule } => {
            let Promise { holds } = case.expect()?;
            let found = promise(&rule);
            match (holds, found) {
                (true, Ok(())) | (false, Err(_)) => Ok(()),
                (true, Err(error)) => Err(error),
                (false, Ok(())) => Err("it holds".to_owned()),
            }
        }
    }
}

#[cfg(unix)]
fn promise(rule: &str) -> Result<(), String> {
    workload_api::check(rule)
}

#[cfg(not(unix))]
fn promise(_rule: &str) -> Result<(), String> {
    Ok(())
}

/// Both sides must have come to this.
fn both(found: Result<[Option<Untrusted>; 2], String>, expected: Option<&Untrusted>) -> Result<Outcome, String> {
    sides(found, [expected, expected])
}

/// A client of ours must have come to the first, a server of ours to the second.
fn sides(
    found: Result<[Option<Untrusted>; 2], String>,
    expected: [Option<&Untrusted>; 2],
) -> Result<Outcome, String> {
    let found = found?;
    if found.each_ref().map(Option::as_ref) != expected {
        return Err(format!("as client and as server {found:?}, expected {expected:?}"));
    }
    // Where one side has nothing to object, the rule was about the other.
    let refused = found.iter().any(Option::is_some);
    Ok(if refused { Outcome::Refused } else { Outcome::Accepted })
}

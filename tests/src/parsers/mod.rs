//! What must hold of every parser of configuration and headers, whatever the bytes.
//!
//! A check is a property test on damaged seeds, the replay of a corpus, and a fuzz target, like those of the
//! [machines](crate::reference). "It did not panic" is never all: what was read is written and read again, or each
//! complaint must point into the text.

mod connection;
mod identity;

use std::{fmt::Display, str::FromStr, time::Duration};

use mesh_core::{
    InvalidConfig, Labels, Ratio,
    deadline::header::{format_grpc_timeout, parse_grpc_timeout, parse_millis},
    retry::{GrpcCodes, RetryOn},
    route::{Action, Client, Rule, VirtualHost},
};
use mesh_tower::{
    istio::{self, Documents, Errors, MeshConfig, Problem, Unsupported, Workload},
    route::Router,
};

/// The check of one parser.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Parser {
    /// The name of its corpus.
    pub name: &'static str,
    /// An error says which property does not hold.
    pub check: fn(&[u8]) -> Result<(), String>,
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser { name: "istio", check: istio_documents },
    Parser { name: "mesh_config", check: mesh_config },
    Parser { name: "timeout_headers", check: timeout_headers },
    Parser { name: "retry_on", check: round_trip::<RetryOn> },
    Parser { name: "grpc_codes", check: round_trip::<GrpcCodes> },
    Parser { name: "ratio", check: round_trip::<Ratio> },
    Parser { name: "spiffe_id", check: identity::spiffe_id },
    Parser { name: "certificate", check: identity::certificate },
    Parser { name: "material", check: identity::material },
    Parser { name: "first_bytes", check: connection::first_bytes },
    Parser { name: "drained", check: connection::drained },
    Parser { name: "bundle_map", check: identity::bundle_map },
    Parser { name: "workload_message", check: identity::workload_message },
];

/// What was read can be asked for each host.
fn istio_documents(data: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(data);
    let read = |mode| istio::read(&text, "fuzz.yaml", mode);
    for documents in both_modes(&text, read, Documents::warnings)? {
        resolve(&documents).map_err(|errors| format!("an error that says nothing: {errors:?}"))?;
    }
    Ok(())
}

/// Documents can be read under whatever mesh-wide settings were.
fn mesh_config(data: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(data);
    let read = |mode| MeshConfig::read(&text, "fuzz.yaml", mode);
    for config in both_modes(&text, read, MeshConfig::warnings)? {
        let documents = Documents::default().with_mesh_config(config);
        resolve(&documents).map_err(|errors| format!("an error that says nothing: {errors:?}"))?;
    }
    Ok(())
}

/// Every complaint names a line of the text; what is refused in the lenient mode is refused in the strict one too, and
/// a refusal says why. Returns what was read.
fn both_modes<T>(
    text: &str,
    read: impl Fn(Unsupported) -> Result<T, Errors>,
    warnings: fn(&T) -> &[Problem],
) -> Result<impl Iterator<Item = T>, String> {
    // A carriage return alone breaks a line too (YAML 1.2, 5.4).
    let lines = text.replace("\r\n", "\n").matches(['\n', '\r']).count() as u64 + 1;
    let (strict, lenient) = (read(Unsupported::Error), read(Unsupported::Warn));
    for result in [&strict, &lenient] {
        let problems = match result {
            Ok(value) => warnings(value),
            Err(errors) => errors.problems(),
        };
        for problem in problems {
            if problem.message().is_empty() {
                return Err(format!("a problem without a message: {problem:?}"));
            }
            if problem.line().is_some_and(|line| line == 0 || line > lines) {
                return Err(format!("a problem outside of the {lines} lines: {problem}"));
            }
        }
    }
    match (&strict, &lenient) {
        (Ok(_), Err(errors)) => Err(format!("refused only in the lenient mode: {errors}")),
        (Err(errors), _) if errors.problems().is_empty() => Err("refused for nothing".to_owned()),
        _ => Ok([strict, lenient].into_iter().flatten()),
    }
}

/// Asks for every upstream and for the routes; whatever is refused must say why.
fn resolve(documents: &Documents) -> Result<(), Errors> {
    // An upstream whose `tls` nobody carries out is refused, and says so.
    if documents.upstreams().is_err_and(|refused| refused.problems().is_empty()) {
        return documents.upstreams().map(drop);
    }
    let documents = &documents.clone().with_client_tls();
    let client = Client::default();
    let routes = documents.routes(&client);
    let policies = documents.authorization_policies().iter().map(|document| {
        let namespace = document.policy().namespace();
        documents.authorization(&Workload::new(namespace, Labels::default()))
    });
    let refused = policies.filter_map(Result::err);
    for refused in [documents.upstreams().err(), routes.as_ref().err().cloned()]
        .into_iter()
        .flatten()
        .chain(refused)
    {
        if refused.problems().is_empty() {
            return Err(refused);
        }
    }
    // Of what was read a router can be made, and each destination has its upstream.
    if let Ok(routes) = routes {
        let router = Router::new(routes.clone(), &client, |to| documents.destination(to));
        let copies = routes.iter().flat_map(VirtualHost::rules).any(has_mirrors);
        let Ok(router) = router else {
            assert!(copies, "read and not to be carried out: {router:?}");
            return Ok(());
        };
        router.destinations().into_iter().try_for_each(|(_, config)| config.map(drop))?;
    }
    Ok(())
}

fn has_mirrors<T>(rule: &Rule<T>) -> bool {
    match rule.action() {
        Action::Forward(forward) => !forward.mirrors().is_empty(),
        Action::Redirect(_) | Action::Respond(_) => false,
    }
}

/// What is written is read as the same, rounded to no more than the unit; what is read is not negative or absurd.
fn timeout_headers(data: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(data);
    for read in [parse_grpc_timeout(&text), parse_millis(&text)].into_iter().flatten() {
        let written = format_grpc_timeout(read);
        let Some(again) = parse_grpc_timeout(written.as_str()) else {
            return Err(format!(
                "{text:?}: {read:?} is written as {written}, which cannot be read"
            ));
        };
        if written.as_str().len() > 9 {
            return Err(format!(
                "{read:?} is written as {written}: longer than eight digits and a unit"
            ));
        }
        // Below a millisecond it is rounded up: 0 would be no timeout at all.
        let expected =
            if read.is_zero() { Duration::ZERO } else { read.max(Duration::from_millis(1)) };
        let unit = match written.as_str().as_bytes().last() {
            Some(b'm') => Duration::from_millis(1),
            Some(b'S') => Duration::from_secs(1),
            Some(b'M') => Duration::from_secs(60),
            _ => Duration::from_secs(3_600),
        };
        let expected = expected.min(unit.saturating_mul(99_999_999));
        if again > expected || expected - again >= unit {
            return Err(format!("{text:?}: {read:?} became {again:?}"));
        }
    }
    Ok(())
}

/// What is read is written in words that are read as the same; a refusal names its field.
fn round_trip<T>(data: &[u8]) -> Result<(), String>
where
    T: FromStr<Err = InvalidConfig> + Display + PartialEq,
{
    let text = String::from_utf8_lossy(data);
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            match written.parse::<T>() {
                Ok(again) if again == value => Ok(()),
                Ok(again) => Err(format!("{text:?} became {written:?}, read as {again}")),
                Err(error) => Err(format!("{text:?} became {written:?}: {error}")),
            }
        }
        Err(error) if error.field().is_empty() => Err(format!("{text:?}: no field in {error:?}")),
        Err(_) => Ok(()),
    }
}

//! What must hold of every parser of configuration and headers, whatever the bytes.
//!
//! A check is a property test on damaged seeds, the replay of a corpus, and a fuzz target, like those of the
//! [machines](crate::reference). "It did not panic" is never all: what was read is written and read again, or each
//! complaint must point into the text.

use std::time::Duration;

use mesh_core::{
    deadline::header::{format_grpc_timeout, parse_grpc_timeout, parse_millis},
    retry::RetryOn,
    route::{Action, Client, Rule, VirtualHost},
};
use mesh_tower::{
    istio::{self, Documents, Errors, Unsupported},
    route::Router,
};

/// The check of one parser.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// The name of its corpus.
    pub name: &'static str,
    /// An error says which property does not hold.
    pub check: fn(&[u8]) -> Result<(), String>,
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser { name: "istio", check: istio_documents },
    Parser { name: "timeout_headers", check: timeout_headers },
    Parser { name: "retry_on", check: retry_on },
];

/// Every complaint names a line of the text; what is an error at all is one in the lenient mode too, or a warning
/// there; what was read can be asked for each host.
fn istio_documents(data: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().count() as u64 + 1;
    let strict = istio::read(&text, "fuzz.yaml", Unsupported::Error);
    let lenient = istio::read(&text, "fuzz.yaml", Unsupported::Warn);
    for result in [&strict, &lenient] {
        let problems = match result {
            Ok(documents) => documents.warnings(),
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
        (Ok(_), Err(errors)) => return Err(format!("refused only in the lenient mode: {errors}")),
        (Err(errors), _) if errors.problems().is_empty() => {
            return Err("refused for nothing".to_owned());
        }
        _ => {}
    }
    for documents in [strict, lenient].into_iter().flatten() {
        resolve(&documents).map_err(|errors| format!("an error that says nothing: {errors:?}"))?;
    }
    Ok(())
}

/// Asks for every upstream and for the routes; whatever is refused must say why.
fn resolve(documents: &Documents) -> Result<(), Errors> {
    let client = Client::default();
    let routes = documents.routes(&client);
    for refused in
        [documents.upstreams().err(), routes.as_ref().err().cloned()].into_iter().flatten()
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
        let most = Duration::from_secs(99_999_999 * 3_600);
        if again > expected
            || again.as_secs_f64() * 1.001 < expected.min(most).as_secs_f64() * 0.998
        {
            return Err(format!("{text:?}: {read:?} became {again:?}"));
        }
    }
    Ok(())
}

/// What is read is written in words that are read as the same.
fn retry_on(data: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(data);
    match text.parse::<RetryOn>() {
        Ok(on) => {
            let written = on.to_string();
            match written.parse::<RetryOn>() {
                Ok(again) if again == on => Ok(()),
                other => Err(format!("{text:?} became {written:?}, read as {other:?}")),
            }
        }
        Err(error) if error.field().is_empty() => Err(format!("{text:?}: no field in {error:?}")),
        Err(_) => Ok(()),
    }
}

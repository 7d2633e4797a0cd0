use std::{fmt, sync::Arc};

use super::yaml::Place;

/// What is wrong with a document, and where.
///
/// Printed as one line, in the way of a compiler: place, severity, document, field, and what would be right.
///
/// ```
/// use mesh_tower::istio::{self, Cause, Unsupported};
///
/// let text = "\
/// apiVersion: networking.istio.io/v1
/// kind: DestinationRule
/// metadata: {name: shop}
/// spec:
///   host: shop
///   trafficPolicy:
///     outlierDetection: {maxEjectionPercent: 50, interval: 10x}
/// ";
/// let errors = istio::read(text, "shop.yaml", Unsupported::Error).unwrap_err();
/// let problem = &errors.problems()[0];
/// assert_eq!(problem.cause(), Cause::Invalid);
/// assert_eq!((problem.line(), problem.path()), (Some(7), "spec.trafficPolicy.outlierDetection.interval"));
/// assert_eq!(
///     problem.to_string(),
///     "shop.yaml:7:58: error: DestinationRule shop: spec.trafficPolicy.outlierDetection.interval: \
///      \"10x\" is not a duration, expected e.g. \"10s\", \"1m30s\", \"0.25s\"",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    origin: Origin,
    place: Place,
    path: String,
    severity: Severity,
    cause: Cause,
    message: String,
}

impl Problem {
    pub(super) fn new(
        origin: Origin,
        place: Place,
        path: impl Into<String>,
        cause: Cause,
        message: impl Into<String>,
    ) -> Self {
        let severity = match cause {
            Cause::Advice => Severity::Warning,
            Cause::Syntax
            | Cause::Limit
            | Cause::Unsupported
            | Cause::Invalid
            | Cause::Unresolved => Severity::Error,
        };
        Self { origin, place, path: path.into(), severity, cause, message: message.into() }
    }

    /// The order of the text; what belongs to no document comes last.
    pub(super) fn position(&self) -> (usize, u64, u64) {
        let document = self.document().unwrap_or(usize::MAX);
        (document, self.line().unwrap_or(0), self.column().unwrap_or(0))
    }

    pub(super) fn into_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The name of the text, as it was given to [`read`](super::read); empty if the problem belongs to no text.
    pub fn source_name(&self) -> &str {
        &self.origin.source
    }

    /// Which document of the text: 1 is the first; empty documents do not count. `None` if it belongs to none.
    pub fn document(&self) -> Option<usize> {
        (self.origin.document > 0).then_some(self.origin.document)
    }

    /// The document's `kind`; empty if it has none.
    pub fn kind(&self) -> &str {
        &self.origin.kind
    }

    /// The document's `metadata.name`; empty if it has none.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// The line, from 1.
    pub fn line(&self) -> Option<u64> {
        self.place.line()
    }

    /// The column in the line, in characters, from 1.
    pub fn column(&self) -> Option<u64> {
        self.place.column()
    }

    /// The field, such as `spec.http[0].route[1].weight`; empty for the document as a whole.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it kept the text from being read.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What sort of problem it is.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// What is wrong and what would be right, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { source, document, kind, name } = &self.origin;
        if !source.is_empty() {
            f.write_str(source)?;
            match (self.line(), self.column()) {
                (Some(line), Some(column)) => write!(f, ":{line}:{column}: ")?,
                _ if *document > 0 => write!(f, ": document {document}: ")?,
                _ => f.write_str(": ")?,
            }
        }
        write!(f, "{}: ", self.severity)?;
        match (kind.is_empty(), name.is_empty()) {
            (false, false) => write!(f, "{kind} {name}: ")?,
            (false, true) => write!(f, "{kind}: ")?,
            (true, false) => write!(f, "{name}: ")?,
            (true, true) => {}
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Whether a problem keeps a text from being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a text is read or it is not")]
pub enum Severity {
    /// The text was read all the same.
    Warning,
    /// The text was refused.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// What sort of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The text is no YAML, or its aliases expand too far.
    Syntax,
    /// The text is larger or nested deeper than anything that is read.
    Limit,
    /// Istio knows the field, kind or version perhaps; this crate does not.
    Unsupported,
    /// A value that the field cannot have, or a field that is missing.
    Invalid,
    /// A name that no document explains: an unknown host, or a subset of no rule.
    Unresolved,
    /// Allowed, but probably not what was meant.
    Advice,
}

/// All that is wrong with a text. Never empty.
///
/// Printed as one problem a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

impl Errors {
    /// The problems again if they are all warnings.
    pub(super) fn refuse(problems: Vec<Problem>) -> Result<Vec<Problem>, Self> {
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(Self(problems));
        }
        Ok(problems)
    }

    /// The problems in the order of the text, warnings among them.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    /// The problems by themselves.
    pub fn into_problems(self) -> Vec<Problem> {
        self.0
    }
}

impl From<Problem> for Errors {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// The document that a thing was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// The name of the text.
    pub(super) source: Arc<str>,
    /// From 1; 0 is the text as a whole.
    pub(super) document: usize,
    pub(super) kind: Arc<str>,
    pub(super) name: Arc<str>,
}

//! Walks a document's tree: what a reader asks for is taken, and what is left at the end was not understood.

use std::time::Duration;

use mesh_core::{Labels, Ratio};

use super::{
    Unsupported, duration,
    problem::{Cause, Origin, Problem, Severity},
    yaml::{Key, Node, Place, Value, shorten},
};

/// A hostile text can be wrong in 100,000 places; nobody reads more than these.
const MAX_PROBLEMS: usize = 1_000;

/// Collects the problems of one document.
#[derive(Debug)]
pub(super) struct Report<'a> {
    origin: Origin,
    mode: Unsupported,
    problems: &'a mut Vec<Problem>,
    errors: usize,
    /// What only routes carry out, where that is an error.
    routed: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(super) fn new(origin: Origin, mode: Unsupported, problems: &'a mut Vec<Problem>) -> Self {
        Self { origin, mode, problems, errors: 0, routed: Vec::new() }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What becomes of what is not carried out.
    pub(super) fn mode(&self) -> Unsupported {
        self.mode
    }

    /// Nothing of this document may be left out: a policy in part lets through what the whole would refuse.
    pub(super) fn be_strict(&mut self) {
        self.mode = Unsupported::Error;
    }

    /// Whether the document can be used: warnings do not count.
    pub(super) fn is_clean(&self) -> bool {
        self.errors == 0
    }

    /// A field, value, kind or version that this crate does not carry out.
    pub(super) fn unsupported(&mut self, place: Place, path: &str, message: impl Into<String>) {
        let problem =
            Problem::new(self.origin.clone(), place, path, Cause::Unsupported, message.into());
        self.push(match self.mode {
            Unsupported::Error => problem,
            Unsupported::Warn => problem.into_warning(),
        });
    }

    /// Something that routes carry out and an upstream alone does not: an error for whoever asks for the upstream, or a
    /// warning now.
    pub(super) fn routed(&mut self, place: Place, path: &str, message: impl Into<String>) {
        let problem =
            Problem::new(self.origin.clone(), place, path, Cause::Unsupported, message.into());
        match self.mode {
            Unsupported::Error => push(&mut self.routed, problem),
            Unsupported::Warn => self.push(problem.into_warning()),
        }
    }

    pub(super) fn take_routed(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.routed)
    }

    pub(super) fn invalid(&mut self, place: Place, path: &str, message: impl Into<String>) {
        self.push(Problem::new(self.origin.clone(), place, path, Cause::Invalid, message));
    }

    pub(super) fn advise(&mut self, place: Place, path: &str, message: impl Into<String>) {
        self.push(Problem::new(self.origin.clone(), place, path, Cause::Advice, message));
    }

    fn push(&mut self, problem: Problem) {
        self.errors += usize::from(problem.severity() == Severity::Error);
        push(self.problems, problem);
    }
}

/// Adds a problem, up to a bound. What is beyond it may be an error, so the one that says so is.
pub(super) fn push(problems: &mut Vec<Problem>, problem: Problem) {
    if problems.len() < MAX_PROBLEMS {
        return problems.push(problem);
    }
    if problems.len() == MAX_PROBLEMS {
        let origin = Origin { source: problem.source_name().into(), ..Origin::default() };
        let more = format!("more than {MAX_PROBLEMS} problems, the rest is left out");
        problems.push(Problem::new(origin, Place::default(), "", Cause::Limit, more));
    }
}

/// A field that was asked for and is there.
#[derive(Clone, Debug)]
pub(super) struct Field<'n> {
    pub(super) path: String,
    pub(super) node: &'n Node,
}

/// The fields of a mapping that nobody has asked for yet.
#[derive(Debug)]
#[must_use = "what is left over is reported by finish"]
pub(super) struct Fields<'n> {
    path: String,
    place: Place,
    left: Vec<&'n (Key, Node)>,
    asked: Vec<&'static str>,
}

// === impl Fields ===

impl<'n> Fields<'n> {
    /// The field of this name. `null` reads as absent, as in Kubernetes.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Field<'n>> {
        self.asked.push(name);
        let index = self.left.iter().position(|(key, _)| key.name == name)?;
        let (_, node) = self.left.swap_remove(index);
        (node.value != Value::Null).then(|| Field { path: join(&self.path, name), node })
    }

    /// The field of this name; it is reported if it is missing.
    pub(super) fn require(
        &mut self,
        name: &'static str,
        report: &mut Report<'_>,
    ) -> Option<Field<'n>> {
        let field = self.take(name);
        if field.is_none() {
            report.invalid(self.place, &join(&self.path, name), "is missing");
        }
        field
    }

    /// Takes a field that is known and not carried out, with the reason. `None` if it is not there.
    pub(super) fn refuse(
        &mut self,
        name: &'static str,
        why: &str,
        report: &mut Report<'_>,
    ) -> Option<Field<'n>> {
        let place = self.left.iter().find(|(key, _)| key.name == name)?.0.place;
        let field = self.take(name)?;
        report.unsupported(place, &field.path, why);
        Some(field)
    }

    /// Takes a field that only routes carry out, with what becomes of it elsewhere. `None` if it is not there.
    pub(super) fn route(
        &mut self,
        name: &'static str,
        why: &str,
        report: &mut Report<'_>,
    ) -> Option<Field<'n>> {
        let place = self.left.iter().find(|(key, _)| key.name == name).map(|(key, _)| key.place);
        let field = self.take(name)?;
        report.routed(place.unwrap_or_default(), &field.path, why);
        Some(field)
    }

    /// Whether there is a field of this name, without asking for it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.left.iter().any(|(key, node)| key.name == name && node.value != Value::Null)
    }

    /// Whether anything was not asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// What nobody has asked for yet.
    pub(super) fn left(&self) -> &[&'n (Key, Node)] {
        &self.left
    }

    /// Reports everything that was not asked for.
    pub(super) fn finish(mut self, report: &mut Report<'_>) {
        self.left.sort_by_key(|(key, _)| (key.place.line(), key.place.column()));
        for (key, _) in &self.left {
            let name = shorten(&key.name, 60);
            let like = self.asked.iter().find(|known| is_slip(known, &key.name));
            let message = match like {
                Some(known) => format!("is not supported; is {known} meant?"),
                None => "is not supported".to_owned(),
            };
            report.unsupported(key.place, &join(&self.path, &name), message);
        }
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether `written` is `known` but for case, `_` and `-`, or for one letter too many, missing, wrong or swapped.
fn is_slip(known: &str, written: &str) -> bool {
    let plain = |text: &str| -> Vec<char> {
        text.chars()
            .filter(|c| !matches!(c, '_' | '-'))
            .take(64)
            .flat_map(char::to_lowercase)
            .collect()
    };
    let (a, b) = (plain(known), plain(written));
    if a.len().abs_diff(b.len()) > 1 || a.len() < 4 {
        return false;
    }
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..], &b[start..]);
    match a.len().cmp(&b.len()) {
        std::cmp::Ordering::Greater => a[1..] == *b,
        std::cmp::Ordering::Less => *a == b[1..],
        std::cmp::Ordering::Equal => {
            a.is_empty()
                || a[1..] == b[1..]
                || (a.len() > 1 && (a[0], a[1]) == (b[1], b[0]) && a[2..] == b[2..])
        }
    }
}

// === impl Field ===

impl<'n> Field<'n> {
    /// The document itself.
    pub(super) fn root(node: &'n Node) -> Self {
        Self { path: String::new(), node }
    }

    pub(super) fn place(&self) -> Place {
        self.node.place
    }

    /// Reports that the value `is not …`.
    pub(super) fn invalid(&self, why: impl std::fmt::Display, report: &mut Report<'_>) {
        report.invalid(self.place(), &self.path, format!("{} {why}", self.node.value));
    }

    /// Reports a mistake in words of its own.
    pub(super) fn report(&self, report: &mut Report<'_>, why: &str) {
        report.invalid(self.place(), &self.path, why);
    }

    pub(super) fn unsupported(&self, why: impl std::fmt::Display, report: &mut Report<'_>) {
        report.unsupported(self.place(), &self.path, format!("{} {why}", self.node.value));
    }

    pub(super) fn fields(&self, report: &mut Report<'_>) -> Option<Fields<'n>> {
        let Value::Map(fields) = &self.node.value else {
            self.invalid("is not a mapping", report);
            return None;
        };
        Some(Fields {
            path: self.path.clone(),
            place: self.place(),
            left: fields.iter().collect(),
            asked: Vec::new(),
        })
    }

    pub(super) fn list(&self, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let Value::List(nodes) = &self.node.value else {
            self.invalid("is not a list", report);
            return None;
        };
        let item = |(index, node)| Self { path: format!("{}[{index}]", self.path), node };
        Some(nodes.iter().enumerate().map(item).collect())
    }

    /// The entries of a mapping whose names are not fields.
    pub(super) fn entries(&self, report: &mut Report<'_>) -> Option<Vec<(&'n Key, Self)>> {
        let Value::Map(fields) = &self.node.value else {
            self.invalid("is not a mapping", report);
            return None;
        };
        let entry = |(key, node): &'n (Key, Node)| {
            let path = join(&self.path, &shorten(&key.name, 60));
            (key, Self { path, node })
        };
        Some(fields.iter().map(entry).collect())
    }

    /// Labels; a value that is no text is reported.
    pub(super) fn labels(&self, report: &mut Report<'_>) -> Option<Labels> {
        let entries = self.entries(report)?;
        Some(
            entries
                .iter()
                .filter_map(|(key, value)| Some((key.name.as_str(), value.text(report)?)))
                .collect(),
        )
    }

    pub(super) fn text(&self, report: &mut Report<'_>) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => return Some(text),
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
                self.invalid("is not a text, write it in quotes", report);
            }
            Value::Null | Value::List(_) | Value::Map(_) => self.invalid("is not a text", report),
        }
        None
    }

    pub(super) fn boolean(&self, report: &mut Report<'_>) -> Option<bool> {
        if let Value::Bool(value) = self.node.value {
            return Some(value);
        }
        self.invalid("is not allowed, expected true or false", report);
        None
    }

    /// A whole number from 0 to `max`.
    pub(super) fn number(&self, max: u32, report: &mut Report<'_>) -> Option<u32> {
        if let Value::Integer(value) = self.node.value
            && let Ok(value) = u32::try_from(value)
            && value <= max
        {
            return Some(value);
        }
        self.invalid(
            format_args!("is not allowed, expected a whole number from 0 to {max}"),
            report,
        );
        None
    }

    /// A share from 0 to 100 per cent, decimals allowed.
    pub(super) fn percent(&self, report: &mut Report<'_>) -> Option<Ratio> {
        let text = match &self.node.value {
            Value::Integer(value) => format!("{value}%"),
            Value::Float(value) => format!("{value}%"),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                String::new()
            }
        };
        let ratio = text.parse::<Ratio>().ok().filter(|ratio| *ratio <= Ratio::ONE);
        if ratio.is_none() {
            self.invalid(
                "is not allowed, expected a number from 0 to 100, up to four decimals",
                report,
            );
        }
        ratio
    }

    /// A number, decimals allowed, up to six of them.
    pub(super) fn decimal(&self, report: &mut Report<'_>) -> Option<Ratio> {
        let decimal = match &self.node.value {
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                String::new()
            }
        };
        let number = parts_of_a_million(&decimal, 6);
        if number.is_none() {
            self.invalid("is not allowed, expected a number from 0 to 4294", report);
        }
        number
    }

    /// A `Percent`: `{value: 12.5}`, from 0 to 100, cut to whole millionths as in Istio, which asks no less: smaller
    /// shares than one in a million are none.
    ///
    /// Why not times 10,000 and cut, as Istio does: in binary 12.3456 × 10,000 is a little less than 123,456. Here it is
    /// that.
    pub(super) fn share(&self, report: &mut Report<'_>) -> Option<Ratio> {
        let mut fields = self.fields(report)?;
        let value = fields.take("value");
        fields.finish(report);
        // A message without its number is 0, as in protobuf.
        let Some(value) = value else { return Some(Ratio::ZERO) };
        let decimal = match &value.node.value {
            Value::Integer(number) => number.to_string(),
            // The shortest decimals that mean the number, never with an exponent.
            Value::Float(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                String::new()
            }
        };
        let share = millionths(&decimal).filter(|share| *share <= Ratio::ONE);
        if share.is_none() {
            value.invalid("is not allowed, expected a number from 0 to 100", report);
        }
        share
    }

    /// A duration of which 0 means something.
    pub(super) fn duration_or_zero(&self, report: &mut Report<'_>) -> Option<Duration> {
        let parsed = match &self.node.value {
            Value::Text(text) => duration::parse(text),
            // A bare 0 is what Go calls a duration; any other bare number lacks its unit.
            Value::Integer(0) => Ok(Duration::ZERO),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Map(_) => Err(duration::Refused::Form),
        };
        parsed.map_err(|refused| self.invalid(refused, report)).ok()
    }

    /// A duration of at least a millisecond.
    pub(super) fn duration(&self, report: &mut Report<'_>) -> Option<Duration> {
        let duration = self.duration_or_zero(report)?;
        if duration.is_zero() {
            self.invalid(duration::Refused::Zero, report);
            return None;
        }
        Some(duration)
    }
}

/// Per cent in decimals, cut to millionths.
fn millionths(percent: &str) -> Option<Ratio> {
    parts_of_a_million(percent, 4)
}

/// A decimal number, cut to so many digits after the point, the last of which counts millionths.
fn parts_of_a_million(decimal: &str, digits: u32) -> Option<Ratio> {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let fraction = fraction.chars().chain("000000".chars()).take(digits as usize);
    let fraction: String = fraction.collect();
    let whole: u32 = whole.parse().ok()?;
    let scale = 10_u32.pow(digits);
    Some(Ratio::from_ppm(whole.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?))
}

#[cfg(test)]
mod tests {
    use mesh_core::Ratio;

    use super::{is_slip, millionths};

    #[test]
    fn a_share_is_cut_to_whole_millionths() {
        let of = |percent: f64| millionths(&percent.to_string()).map(Ratio::as_ppm);
        for (percent, ppm) in [
            (0.0, 0),
            (50.0, 500_000),
            (100.0, 1_000_000),
            (12.5, 125_000),
            (9e-5, 0),
            (1e-4, 1),
            (3e-4, 3),
            (0.00019, 1),
            (12.3456, 123_456),
            (33.333_399, 333_333),
            (99.999_999, 999_999),
        ] {
            assert_eq!(of(percent), Some(ppm), "{percent}");
        }
        for percent in [-1.0, 1e9, f64::INFINITY, f64::NAN] {
            assert_eq!(of(percent), None, "{percent}");
        }
        assert_eq!(millionths(""), None);
        // The broken twin: in binary, a millionth is lost.
        assert_ne!(of(12.3456), Some((12.3456_f64 * 10_000.0) as u32));
    }

    #[test]
    fn slips_are_recognised() {
        for written in
            ["Interval", "intervall", "intrval", "intreval", "inter_val", "intervaL", "imterval"]
        {
            assert!(is_slip("interval", written), "{written}");
        }
        for written in ["intervals2", "other", "", "interv", "lavretni"] {
            assert!(!is_slip("interval", written), "{written}");
        }
        assert!(!is_slip("tcp", "tls"));
    }
}

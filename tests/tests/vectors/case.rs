//! A file of golden cases, and what an adapter sees of one.

use std::{fmt::Display, time::Duration};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

/// One file: `NAME.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "what")]
    _what: String,
    /// Some files list the defaults of their peer.
    #[serde(default)]
    pub(crate) defaults: Value,
    pub(crate) cases: Vec<Case>,
}

impl File {
    pub(crate) fn of(cases: Vec<Case>) -> Self {
        Self { _source: String::new(), _what: String::new(), defaults: Value::Null, cases }
    }
}

/// Facts of a run: `steps` drive the machine made of `config`, `expect` is what must come of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(rename = "from")]
    _from: String,
    config: Value,
    steps: Vec<Value>,
    expect: Value,
    /// Keys beside these, such as `random`; an adapter must take each of them.
    #[serde(flatten)]
    others: Map<String, Value>,
    #[serde(skip)]
    defaults: Value,
}

impl Case {
    /// A case without steps, of a file in another form.
    pub(crate) fn new(name: String, config: Value, expect: Value) -> Self {
        let (steps, others) = (Vec::new(), Map::new());
        Self { name, _from: String::new(), config, steps, expect, others, defaults: Value::Null }
    }

    pub(crate) fn with_defaults(mut self, defaults: &Value) -> Self {
        self.defaults = defaults.clone();
        self
    }

    /// The configuration. The type should deny unknown fields.
    pub(crate) fn config<T: DeserializeOwned>(&self) -> Result<T, String> {
        parse("config", self.config.clone())
    }

    /// `config.kind` in a file that has several.
    pub(crate) fn kind(&self) -> Result<&str, String> {
        self.config
            .get("kind")
            .and_then(Value::as_str)
            .ok_or_else(|| "config.kind is missing".to_owned())
    }

    /// The steps. The type should deny unknown fields.
    pub(crate) fn steps<T: DeserializeOwned>(&self) -> Result<Vec<T>, String> {
        let steps = self.steps.iter().enumerate();
        steps.map(|(index, step)| parse(&format!("steps[{index}]"), step.clone())).collect()
    }

    /// What must come of it. The type should deny unknown fields.
    pub(crate) fn expect<T: DeserializeOwned>(&self) -> Result<T, String> {
        parse("expect", self.expect.clone())
    }

    /// A key beside the usual ones, `None` if it is absent.
    pub(crate) fn other<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, String> {
        self.others.get(key).map(|value| parse(key, value.clone())).transpose()
    }

    /// The defaults that the file states.
    pub(crate) fn defaults<T: DeserializeOwned>(&self) -> Result<T, String> {
        parse("defaults", self.defaults.clone())
    }

    /// An adapter that knows no other key says so: a key that nobody takes would not be checked.
    pub(crate) fn others_are(&self, known: &[&str]) -> Result<(), String> {
        match self.others.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(format!("unknown key {key:?}")),
            None => Ok(()),
        }
    }

    /// Every value that states what must happen, as a copy of the case in which that value is another.
    pub(crate) fn perturbed(&self) -> Vec<(String, Self)> {
        let mut copies = Vec::new();
        for path in leaves(&self.expect, "expect") {
            let mut copy = self.clone();
            change(&mut copy.expect, &path.steps);
            copies.push((path.text, copy));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let asserts = step.get("event").and_then(Value::as_str) == Some("assert");
            for key in step.as_object().into_iter().flat_map(Map::keys) {
                let states =
                    if asserts { !INPUTS.contains(&&**key) } else { STATEMENTS.contains(&&**key) };
                if !states {
                    continue;
                }
                for path in leaves(&step[key], &format!("steps[{index}].{key}")) {
                    let mut copy = self.clone();
                    change(&mut copy.steps[index][key], &path.steps);
                    copies.push((path.text, copy));
                }
            }
        }
        copies
    }
}

/// What some files expect: their steps state the rest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matching {
    pub(crate) all_steps_match: bool,
}

/// Keys of a step that state what must have happened, whatever the event.
const STATEMENTS: [&str; 6] =
    ["want", "ratio", "ejected", "multiplier", "active", "backoff_multiplier"];

/// Keys of an `assert` that only say when and of what.
const INPUTS: [&str; 4] = ["at_ms", "event", "origin", "host"];

/// Keys of `expect` that state nothing: words, and how exactly a figure must be met.
const REMARKS: [&str; 4] = ["note", "tolerance", "estimate_tolerance", "relative_tolerance"];

struct Path {
    text: String,
    steps: Vec<Step>,
}

enum Step {
    Key(String),
    Index(usize),
}

fn leaves(value: &Value, text: &str) -> Vec<Path> {
    let under = |mut paths: Vec<Path>, step: fn(&str) -> Step, key: &str| {
        for path in &mut paths {
            path.steps.insert(0, step(key));
        }
        paths
    };
    let key = |key: &str| Step::Key(key.to_owned());
    let index = |index: &str| Step::Index(index.parse().unwrap_or_default());
    match value {
        Value::Object(fields) if !fields.is_empty() => fields
            .iter()
            .filter(|(name, _)| !REMARKS.contains(&name.as_str()))
            .flat_map(|(name, value)| under(leaves(value, &format!("{text}.{name}")), key, name))
            .collect(),
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .enumerate()
            .flat_map(|(at, value)| {
                under(leaves(value, &format!("{text}[{at}]")), index, &at.to_string())
            })
            .collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => vec![Path { text: text.to_owned(), steps: Vec::new() }],
    }
}

/// Another value of the same type, far enough away for any tolerance.
fn change(value: &mut Value, path: &[Step]) {
    if let Some((first, rest)) = path.split_first() {
        return match first {
            Step::Key(key) => change(&mut value[key.as_str()], rest),
            Step::Index(index) => change(&mut value[*index], rest),
        };
    }
    *value = match value.take() {
        Value::Null => Value::from(12_345),
        Value::Bool(flag) => Value::from(!flag),
        Value::Number(number) => match number.as_u64() {
            Some(number) => {
                Value::from(if number < u64::MAX / 4 { number * 2 + 7 } else { number / 2 })
            }
            None => Value::from(number.as_f64().unwrap_or_default() * 2.0 + 7.25),
        },
        Value::String(text) => Value::from(text + "_"),
        Value::Array(mut items) => {
            items.push(Value::from("unheard of"));
            Value::from(items)
        }
        Value::Object(mut fields) => {
            fields.insert("unheard_of".to_owned(), Value::from(1));
            Value::from(fields)
        }
    };
}

/// A duration as Go writes it: `3s`, `1m30s`, `1.5s`, `100us`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is not a duration");
    let mut rest = text;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, unit) = rest.split_at(digits);
        let letters = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let each = match &unit[..letters] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            _ => return Err(invalid()),
        };
        nanos += number.parse::<f64>().map_err(|_| invalid())? * each;
        rest = &unit[letters..];
    }
    Ok(Duration::from_nanos(nanos.round() as u64))
}

/// How often a step happens that does not say it.
pub(crate) fn one() -> u32 {
    1
}

/// Tells a value of null from none at all.
pub(crate) fn stated<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// As `map_err` wants it.
pub(crate) fn text(error: impl Display) -> String {
    error.to_string()
}

fn parse<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("{what}: {error}"))
}

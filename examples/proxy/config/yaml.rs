//! The two native files: YAML with no field that is not known.

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

use super::ConfigError;

/// Reads a file of one document. Its problems say file, line and column.
pub(super) fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, ConfigError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let message = in_words(error.without_snippet());
        match error.location() {
            Some(at) => {
                ConfigError::new(format_args!("{file}:{}:{}: {message}", at.line(), at.column()))
            }
            None => ConfigError::new(format_args!("{file}: {message}")),
        }
    })
}

/// Whether there is nothing in it but remarks.
pub(super) fn is_empty(text: &str) -> bool {
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

/// As whoever has written the file would say it: the parser speaks to whoever calls it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others are about YAML itself, and plain")]
fn in_words(error: &Error) -> String {
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("{key} is here for the second time; remove one of them")
        }
        Error::MultipleDocuments { .. } => {
            "a second document begins here; this file is one".to_owned()
        }
        Error::InvalidScalar { ty, .. } if ty.starts_with(['u', 'i']) => {
            "is not allowed, expected a whole number".to_owned()
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("{variant:?} is not allowed, expected {}", expected.join(" or "))
        }
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("unknown field `{field}`, expected one of {}", expected.join(", "))
        }
        Error::SerdeMissingField { field, .. } => format!("the field `{field}` is missing"),
        Error::NullIntoString { .. } => "a value is missing".to_owned(),
        other => {
            let text = other.to_string();
            let first = text.lines().next().unwrap_or("cannot be read");
            // The place is said already.
            first.split(" at line ").next().unwrap_or(first).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_remarks_is_empty() {
        for text in ["", "\n \n", "# x\n---\n", "\u{feff}"] {
            assert!(is_empty(text), "{text:?}");
        }
        assert!(!is_empty("# x\na: b"));
    }
}

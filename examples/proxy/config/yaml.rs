//! The two native files: YAML with no field that is not known.

use serde::de::DeserializeOwned;

use super::ConfigError;

/// Reads a file of one document. Its problems say file, line and column.
pub(super) fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, ConfigError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let plain = error.without_snippet().to_string();
        let message = plain.lines().next().unwrap_or("cannot be read");
        match error.location() {
            Some(at) => {
                ConfigError::new(format_args!("{file}:{}:{}: {message}", at.line(), at.column()))
            }
            None => ConfigError::new(format_args!("{file}: {message}")),
        }
    })
}

use std::fmt;

/// All that is wrong with a configuration, one problem a line: where, what, and what would be right.
#[derive(Debug, Default)]
pub(crate) struct ConfigError(Vec<String>);

impl ConfigError {
    pub(crate) fn new(problem: impl fmt::Display) -> Self {
        Self(vec![problem.to_string()])
    }

    pub(crate) fn push(&mut self, problem: impl fmt::Display) {
        self.0.push(problem.to_string());
    }

    /// Keeps the value of a part that could be read, and the problems of one that could not.
    pub(crate) fn take<T>(&mut self, result: Result<T, Self>) -> Option<T> {
        result.map_err(|error| self.0.extend(error.0)).ok()
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

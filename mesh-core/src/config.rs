use std::fmt;

/// A setting that cannot be used: which field, what it was, and what is allowed.
///
/// ```
/// use mesh_core::InvalidConfig;
///
/// let error = InvalidConfig::new("max_ejection_percent", 120, "0 to 100");
/// assert_eq!(error.to_string(), "max_ejection_percent: 120 is not allowed, expected 0 to 100");
/// assert_eq!(error.field(), "max_ejection_percent");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    field: &'static str,
    value: String,
    expected: &'static str,
}

impl InvalidConfig {
    /// `field` was `value`, and should have been `expected`.
    pub fn new(field: &'static str, value: impl fmt::Display, expected: &'static str) -> Self {
        Self { field, value: value.to_string(), expected }
    }

    /// The field's name.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The refused value, as text.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is allowed.
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is not allowed, expected {}", self.field, self.value, self.expected)
    }
}

impl std::error::Error for InvalidConfig {}

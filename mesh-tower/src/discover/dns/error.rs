use std::{error, fmt, time::Duration};

use crate::BoxError;

/// A lookup that failed, and how old the answer is that still counts.
#[derive(Debug)]
pub struct Error {
    name: String,
    cause: Option<BoxError>,
    age: Option<Duration>,
    failures: u32,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    NoSuchName(String),
    Failed(String, BoxError),
}

impl Error {
    pub(super) fn new(trouble: Trouble, age: Option<Duration>, failures: u32) -> Self {
        let (name, cause) = match trouble {
            Trouble::NoSuchName(name) => (name, None),
            Trouble::Failed(name, cause) => (name, Some(cause)),
        };
        Self { name, cause, age, failures }
    }

    /// The name that was looked up: the configured one, or a target of its SRV records.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the name server says that there is no such name, rather than nothing of use.
    pub fn is_no_such_name(&self) -> bool {
        self.cause.is_none()
    }

    /// How old the last good answer is; `None` if there was none.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// How many lookups have failed since the last good answer, this one included.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            None => write!(f, "there is no name {}", self.name)?,
            Some(_) => write!(f, "the lookup of {} failed", self.name)?,
        }
        match self.age {
            Some(age) => write!(f, " (the last good answer is {age:.1?} old)"),
            None => f.write_str(" (there has been no good answer yet)"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

//! What came out beside what the case states, in one form of words.

use std::fmt::Debug;

/// Of values, or of references to them.
#[expect(clippy::needless_pass_by_value, reason = "callers build it where they say it")]
pub(crate) fn equal<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, expected {expected:?}"))
}

/// What is not stated is not compared.
pub(crate) fn same<T: PartialEq + Debug>(
    what: &str,
    found: T,
    stated: Option<T>,
) -> Result<(), String> {
    stated.map_or(Ok(()), |stated| equal(what, found, stated))
}

/// Figures that a file has rounded, or that come from another order of additions.
pub(crate) fn near(what: &str, found: f64, expected: f64, tolerance: f64) -> Result<(), String> {
    if (found - expected).abs() <= tolerance {
        return Ok(());
    }
    Err(format!("{what}: {found}, expected {expected}"))
}

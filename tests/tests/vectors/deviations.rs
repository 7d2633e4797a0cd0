//! `deviations.toml`: the cases that we decide otherwise, each with its reason.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    #[serde(default)]
    deviation: Vec<Deviation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviation {
    file: String,
    /// The name of the case.
    case: String,
    reason: String,
    /// Where the public docs say so.
    docs: String,
}

/// The list, and which of it was met.
pub(crate) struct Deviations {
    listed: BTreeSet<(String, String)>,
    met: BTreeSet<(String, String)>,
}

impl Deviations {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let listing: Listing =
            toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut listed = BTreeSet::new();
        for Deviation { file, case, reason, docs } in listing.deviation {
            if reason.trim().len() < 20 || docs.trim().is_empty() {
                return Err(format!(
                    "{}: {file}, {case}: no reason, or no place in the docs",
                    path.display()
                ));
            }
            if !listed.insert((file.clone(), case.clone())) {
                return Err(format!("{}: {file}, {case} is listed twice", path.display()));
            }
        }
        Ok(Self { listed, met: BTreeSet::new() })
    }

    pub(crate) fn is_listed(&mut self, file: &str, case: &str) -> bool {
        let key = (file.to_owned(), case.to_owned());
        let listed = self.listed.contains(&key);
        if listed {
            self.met.insert(key);
        }
        listed
    }

    /// Listed, but no file had such a case.
    pub(crate) fn unmet(&self) -> Vec<String> {
        self.listed.difference(&self.met).map(|(file, case)| format!("{file}, {case}")).collect()
    }
}

//! The directory as it is at one moment.

use std::{collections::BTreeMap, fs, io, path::Path};

use super::ConfigError;

/// A file of policies is some kilobytes; what is larger is a mistake, and must not fill the memory.
const MAX_BYTES: u64 = 1024 * 1024;

/// The YAML files of the directory, by name. Two readings are equal if nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files(BTreeMap<String, String>);

impl Files {
    /// Reads every `*.yaml` and `*.yml` of the directory, hidden ones apart (editors and Kubernetes volumes leave
    /// such).
    pub(crate) fn read(directory: &Path) -> Result<Self, ConfigError> {
        let shown = directory.display();
        let entries = fs::read_dir(directory).map_err(|error| {
            ConfigError::new(format_args!(
                "{shown}: {error}; --config wants a directory of YAML files"
            ))
        })?;
        let mut files = BTreeMap::new();
        let mut problems = ConfigError::default();
        for entry in entries {
            let entry =
                entry.map_err(|error| ConfigError::new(format_args!("{shown}: {error}")))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') || !(name.ends_with(".yaml") || name.ends_with(".yml")) {
                continue;
            }
            match read(&entry.path()) {
                Ok(text) => drop(files.insert(name, text)),
                Err(why) => problems.push(format_args!("{name}: {why}")),
            }
        }
        problems.into_result(Self(files))
    }

    #[cfg(test)]
    pub(super) fn of<const N: usize>(files: [(&str, &str); N]) -> Self {
        Self(files.map(|(name, text)| (name.to_owned(), text.to_owned())).into())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
}

fn read(path: &Path) -> Result<String, String> {
    let about = fs::metadata(path).map_err(|error| match (error.kind(), path.is_symlink()) {
        (io::ErrorKind::NotFound, true) => "is a link to a file that is not there".to_owned(),
        _ => unreadable(&error),
    })?;
    // A pipe would be waited for, without an end.
    if !about.is_file() {
        let kind = if about.is_dir() { "a directory" } else { "no file" };
        return Err(format!("is {kind}; expected a file, or give it a name that does not end so"));
    }
    let size = about.len();
    if size > MAX_BYTES {
        return Err(format!("{size} bytes are too many, at most {MAX_BYTES} are read"));
    }
    fs::read_to_string(path).map_err(|error| unreadable(&error))
}

fn unreadable(error: &io::Error) -> String {
    let cures = [
        (io::ErrorKind::InvalidData, "is no text in UTF-8"),
        (io::ErrorKind::PermissionDenied, "may not be read by the user who runs mesh-proxy"),
    ];
    let cure = cures.iter().find(|(kind, _)| *kind == error.kind());
    cure.map_or_else(|| format!("cannot be read: {error}"), |(_, cure)| (*cure).to_owned())
}

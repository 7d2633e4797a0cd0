//! All files at one moment.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::Files;
use crate::error::{MaterialError, MaterialErrorKind};

/// How often one reading starts over when directories are swapped under it.
const ATTEMPTS: usize = 3;
/// No identity, map or list is larger; what is, was put there by mistake and would only cost memory.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The bytes of all files, in the order of [`Files::paths`]; or why there are none.
#[derive(PartialEq, Eq)]
pub(super) struct Contents(pub(super) Vec<Result<Secret, io::ErrorKind>>);

/// Wiped when dropped: one of them is the key.
pub(super) type Secret = Zeroizing<Vec<u8>>;

// === impl Files ===

impl Files {
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let trust = self.trust.iter().map(|(_, path)| path);
        [&self.cert, &self.key].into_iter().chain(trust)
    }

    pub(super) fn read(&self) -> Result<Contents, MaterialError> {
        for _ in 0..ATTEMPTS {
            let before = self.resolve();
            let contents = before.iter().map(|path| read(path.as_deref().map_err(|kind| *kind)?));
            let contents = contents.collect();
            if self.resolve() == before {
                return Ok(Contents(contents));
            }
        }
        Err(MaterialError::new(MaterialErrorKind::Unsettled).in_file(&self.cert))
    }

    #[cfg(unix)]
    pub(super) fn warn_of_an_open_key(&self) {
        use std::os::unix::fs::PermissionsExt;
        /// Of everybody who is neither the owner nor of the group.
        const OTHERS: u32 = 0o006;
        let Ok(metadata) = self.key.metadata() else { return };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            let (file, mode) = (self.key.display(), format_args!("{mode:03o}").to_string());
            tracing::warn!(%file, mode, "everybody on this machine may read or replace the private key; chmod 640 it");
        }
    }

    fn resolve(&self) -> Vec<Result<PathBuf, io::ErrorKind>> {
        self.paths().map(|path| path.canonicalize().map_err(|error| error.kind())).collect()
    }
}

// === impl Contents ===

impl Contents {
    /// As a file is for a moment while it is overwritten in place.
    pub(super) fn has_empty_file(&self) -> bool {
        self.0.iter().flatten().any(|bytes| bytes.is_empty())
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contents(redacted)")
    }
}

/// Into one buffer that is large enough from the start: a growing one would leave copies behind that nobody wipes.
fn read(path: &Path) -> Result<Secret, io::ErrorKind> {
    let read = || {
        let file = File::open(path)?;
        let expected = file.metadata()?.len();
        if expected > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(expected).unwrap_or_default() + 1]);
        let mut filled = 0;
        // One byte more than there should be: a file that has grown meanwhile is read again at the next poll.
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match (&file).read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == bytes.len() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        bytes.truncate(filled);
        Ok(bytes)
    };
    read().map_err(|error: io::Error| error.kind())
}

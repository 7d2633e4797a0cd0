//! All files at one moment.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::error::{MaterialError, MaterialErrorKind};

/// How often one reading starts over when directories are swapped under it.
const ATTEMPTS: usize = 3;
/// No identity, map or list is larger; what is, was put there by mistake and would only cost memory.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The bytes of all files, in the order of their paths.
#[derive(PartialEq, Eq)]
pub(crate) struct Contents(pub(crate) Vec<Bytes>);

/// The bytes of a file, or why there are none. Wiped when dropped: one of them is the key.
pub(crate) type Bytes = Result<Zeroizing<Vec<u8>>, io::ErrorKind>;

/// All files, as they are at one moment.
pub(super) fn read(paths: &[PathBuf]) -> Result<Contents, MaterialError> {
    let resolve = || -> Vec<Result<PathBuf, io::ErrorKind>> {
        paths.iter().map(|path| path.canonicalize().map_err(|error| error.kind())).collect()
    };
    for _ in 0..ATTEMPTS {
        let before = resolve();
        let contents = before.iter().map(|path| read_one(path.as_deref().map_err(|kind| *kind)?));
        let contents = contents.collect();
        if resolve() == before {
            return Ok(Contents(contents));
        }
    }
    let unsettled = MaterialError::new(MaterialErrorKind::Unsettled);
    Err(paths.iter().take(1).fold(unsettled, MaterialError::in_file))
}

/// The text of a file that could be read.
pub(crate) fn text<'a>(bytes: &'a Bytes, path: &Path) -> Result<&'a [u8], MaterialError> {
    match bytes {
        Ok(bytes) => Ok(bytes),
        Err(kind) => Err(MaterialError::unreadable(path.into(), (*kind).into())),
    }
}

#[cfg(unix)]
pub(crate) fn warn_of_an_open_key(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    /// Of everybody who is neither the owner nor of the group.
    const OTHERS: u32 = 0o006;
    let Ok(metadata) = key.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        let (file, mode) = (key.display(), format_args!("{mode:03o}").to_string());
        tracing::warn!(%file, mode, "everybody on this machine may read or replace the private key; chmod 640 it");
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
fn read_one(path: &Path) -> Bytes {
    let read = || {
        // A pipe would be waited for, and with it everybody who waits for the identity.
        let found = path.metadata()?;
        if found.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !found.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
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

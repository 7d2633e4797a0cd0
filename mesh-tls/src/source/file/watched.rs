//! Files that are looked at again and again, whatever is in them: steps 1 to 3 of the [module](super).

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{task, time};

use super::read::{Contents, read};
use crate::error::MaterialError;

/// Between the two readings that must agree.
const SETTLE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Watched {
    paths: Arc<[PathBuf]>,
    poll_interval: Duration,
    settle: Duration,
    started: bool,
    /// The last contents told, good or bad.
    told: Option<Contents>,
    /// New contents with an empty file among them, to be seen once more.
    doubted: Option<Contents>,
    /// The last word was that nothing could be read.
    failed: bool,
}

impl Watched {
    /// A rotation is announced hours ahead; a few seconds later is soon.
    pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(5);

    pub(crate) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            paths: paths.into_iter().collect(),
            poll_interval: Self::POLL_INTERVAL,
            settle: SETTLE,
            started: false,
            told: None,
            doubted: None,
            failed: false,
        }
    }

    pub(super) fn also(&mut self, path: PathBuf) {
        self.paths = self.paths.iter().cloned().chain([path]).collect();
    }

    pub(crate) fn set_poll_interval(&mut self, interval: Duration) {
        self.poll_interval = interval;
    }

    pub(super) fn set_settle(&mut self, settle: Duration) {
        self.settle = settle;
    }

    #[cfg(unix)]
    pub(super) fn has_told(&self) -> bool {
        self.told.is_some()
    }

    /// What is there at the start, read on this thread. What comes later is told by [`Watched::changed`].
    #[cfg(feature = "origination")]
    pub(crate) fn first(&mut self) -> Result<&Contents, MaterialError> {
        self.started = true;
        Ok(self.told.insert(read(&self.paths)?))
    }

    /// The next contents, of all files at one moment; the first ones at once.
    pub(crate) async fn changed(&mut self) -> Result<&Contents, MaterialError> {
        loop {
            if std::mem::replace(&mut self.started, true) {
                time::sleep(self.poll_interval).await;
            }
            let contents = self.read().await?;
            // Whoever was told of an error is told that it is over.
            if self.told.as_ref() == Some(&contents) && !self.failed {
                continue;
            }
            time::sleep(self.settle).await;
            if self.read().await? != contents {
                // Somebody is still writing. The next poll looks again.
                continue;
            }
            // At the start there is nothing to lose.
            let is_doubtful = self.told.is_some() && contents.has_empty_file();
            if is_doubtful && self.doubted.as_ref() != Some(&contents) {
                self.doubted = Some(contents);
                continue;
            }
            (self.doubted, self.failed) = (None, false);
            // Bad contents are remembered too: they are worth one error, not one at every poll.
            return Ok(self.told.insert(contents));
        }
    }

    async fn read(&mut self) -> Result<Contents, MaterialError> {
        let paths = Arc::clone(&self.paths);
        let reading = task::spawn_blocking(move || read(&paths));
        let read = reading.await.unwrap_or_else(|died| Err(MaterialError::from_source(died)));
        self.failed |= read.is_err();
        read
    }
}

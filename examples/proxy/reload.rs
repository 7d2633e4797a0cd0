//! Follows the configuration directory while requests fly.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::signal::unix::Signal;

use crate::{
    admin::Admin,
    config::{ConfigError, Files, Settings},
    proxy::Live,
};

const INTERVAL: Duration = Duration::from_millis(500);

/// Looks at the directory twice a second. A change is taken once two readings agree, so that half a file is not; SIGHUP says
/// that it is whole, and that an answer is wanted. A bad configuration is told of and counted once, and the good one stays;
/// the page says so for as long as it is so.
pub(crate) async fn follow(
    directory: PathBuf,
    live: Live,
    admin: Arc<Admin>,
    mut hangups: Signal,
    files: Files,
) {
    let mut known = Ok(files);
    let mut last = known.clone();
    loop {
        let is_asked = tokio::select! {
            () = tokio::time::sleep(INTERVAL) => false,
            asked = hangups.recv() => asked.is_some(),
        };
        let now = Files::read(&directory).map_err(|error| error.to_string());
        if is_asked || (now == last && now != known) {
            let is_new = now != known;
            known.clone_from(&now);
            let result = now
                .as_ref()
                .map_err(ConfigError::new)
                .and_then(|files| apply(files, &directory, &live));
            admin.set_rejected(result.as_ref().err().map(ToString::to_string));
            match result {
                Ok(()) => {
                    metrics::counter!("mesh_config_reloads_total").increment(1);
                    tracing::info!(directory = %directory.display(), "configuration reloaded");
                }
                Err(error) => {
                    if is_new {
                        metrics::counter!("mesh_config_rejected_total").increment(1);
                    }
                    tracing::error!("configuration rejected, the last good one stays:\n{error}");
                }
            }
        }
        last = now;
    }
}

fn apply(files: &Files, directory: &Path, live: &Live) -> Result<(), ConfigError> {
    let settings = Settings::read(files, directory)?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    live.apply(settings)
}

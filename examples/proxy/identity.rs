//! Our own identity, from files that may be replaced at any time.

use std::time::Duration;

use mesh_tls::{FileSource, MeshTls};

use crate::config::{ConfigError, Identity};

/// Loads the identity, and spawns the task that follows its files; the task ends with the last user of the identity.
pub(crate) async fn load(files: &Identity) -> Result<MeshTls, ConfigError> {
    let Identity { certificate, key, bundle, expect } = files;
    let source = FileSource::new(certificate, key, bundle).poll_interval(Duration::from_secs(2));
    // Files that are not there when the proxy starts are a mistake to be told of, not something to wait for.
    let builder = MeshTls::builder(source).first_material_timeout(Duration::ZERO);
    let builder = match expect {
        Some(id) => builder.expect_id(id.clone()),
        None => builder,
    };
    builder
        .spawn()
        .await
        .map_err(|error| ConfigError::new(format_args!("proxy.yaml: identity: {error}")))
}

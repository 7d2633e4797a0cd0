//! An identity held in memory, replaced by hand: for a secret store of your own, and for tests.

use tokio::sync::mpsc;

use super::{IdentitySource, SourceEvent};
use crate::{error::MaterialError, material::Material};

/// A source whose material is set through its [`MaterialHandle`].
#[derive(Debug)]
pub struct StaticSource {
    first: Option<Material>,
    updates: mpsc::UnboundedReceiver<SourceEvent>,
}

/// Replaces the material of a [`StaticSource`]. Cloning it makes another hand on the same source.
#[derive(Debug, Clone)]
pub struct MaterialHandle {
    updates: mpsc::UnboundedSender<SourceEvent>,
}

impl StaticSource {
    /// A source that starts with `material`, and the handle that replaces it.
    #[must_use]
    pub fn new(material: Material) -> (Self, MaterialHandle) {
        let (sender, updates) = mpsc::unbounded_channel();
        (Self { first: Some(material), updates }, MaterialHandle { updates: sender })
    }
}

impl IdentitySource for StaticSource {
    async fn next(&mut self) -> Result<SourceEvent, MaterialError> {
        if let Some(first) = self.first.take() {
            return Ok(SourceEvent::Update(first));
        }
        match self.updates.recv().await {
            Some(event) => Ok(event),
            // Nobody is left who could replace it: what there is stays for good.
            None => std::future::pending().await,
        }
    }
}

impl MaterialHandle {
    /// Delivers new material to the driver, which checks and publishes it in order.
    ///
    /// [`MeshTls::reached`](crate::MeshTls::reached) waits for the result,
    /// [`MeshTls::status`](crate::MeshTls::status) names the reason when there is none.
    pub fn set(&self, material: Material) {
        // Without a source at the other end there is nobody to tell.
        let _gone = self.updates.send(SourceEvent::Update(material));
    }

    /// Takes the identity away: every handshake that starts after it fails.
    pub fn withdraw(&self) {
        let _gone = self.updates.send(SourceEvent::Withdrawn);
    }
}

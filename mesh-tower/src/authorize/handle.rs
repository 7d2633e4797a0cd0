use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use arc_swap::ArcSwap;

use super::policy::Authorizer;
use crate::observe::Authorized;

/// What to do with a request that the policies refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "it is refused or it is not")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes, and is told and counted: to see what policies would do.
    Watch,
}

/// Looks at the policies of a layer, and replaces them while requests are under way.
///
/// ```
/// use mesh_tower::authorize::{AuthorizeLayer, Mode, policy::*};
///
/// let layer = AuthorizeLayer::new(Authorizer::default(), |_: &http::Extensions| Connection::default());
/// let handle = layer.handle();
/// handle.replace(Authorizer::new([Policy::allow("nothing")], &Config::default())?);
/// handle.set_mode(Mode::Watch);
/// assert_eq!(handle.authorizer().policies().collect::<Vec<_>>(), ["default/nothing"]);
/// # Ok::<_, mesh_core::InvalidConfig>(())
/// ```
#[derive(Clone, Debug)]
pub struct Handle(pub(super) Arc<Shared>);

/// What all services of a layer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) current: ArcSwap<Snapshot>,
    is_watching: AtomicBool,
    refused: AtomicU64,
}

/// The policies that a request sees, and their counters.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) observer: Authorized,
}

impl Handle {
    /// Replaces the policies. A request that was decided before is not decided again.
    pub fn replace(&self, authorizer: Authorizer) {
        self.0.current.store(Arc::new(Snapshot::new(&self.0.name, authorizer)));
    }

    /// The policies in force.
    pub fn authorizer(&self) -> Arc<Authorizer> {
        self.0.current.load().authorizer.clone()
    }

    /// Enforces the policies, or watches them.
    pub fn set_mode(&self, mode: Mode) {
        self.0.is_watching.store(mode == Mode::Watch, Relaxed);
    }

    /// How many requests were refused since the layer was made. The metrics say by which policies.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }

    /// Whether the policies are enforced.
    pub fn mode(&self) -> Mode {
        self.0.mode()
    }
}

impl Shared {
    pub(super) fn new(name: Arc<str>, mode: Mode, authorizer: Authorizer) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::new(&name, authorizer)),
            is_watching: AtomicBool::new(mode == Mode::Watch),
            refused: AtomicU64::new(0),
            name,
        }
    }

    pub(super) fn on_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn mode(&self) -> Mode {
        if self.is_watching.load(Relaxed) { Mode::Watch } else { Mode::Enforce }
    }
}

impl Snapshot {
    fn new(name: &Arc<str>, authorizer: Authorizer) -> Self {
        let observer = Authorized::new(name, authorizer.policies());
        Self { authorizer: Arc::new(authorizer), observer }
    }
}

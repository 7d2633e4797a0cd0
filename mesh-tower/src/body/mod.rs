//! The two bodies of a request through the mesh: [`ReplayBody`] towards the endpoint, [`MeshBody`] back to the caller.

mod mesh;
mod replay;

pub use mesh::MeshBody;
pub(crate) use replay::Whole;
pub use replay::{Kept, ReplayBody};

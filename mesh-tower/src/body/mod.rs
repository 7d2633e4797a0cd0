//! The bodies of a request through the mesh: [`ReplayBody`] towards the endpoint, [`MeshBody`] back to the caller, and
//! [`AnswerBody`] where a layer may answer in a service's place.

mod answer;
mod mesh;
mod replay;

pub use answer::AnswerBody;
pub use mesh::MeshBody;
pub(crate) use replay::Whole;
pub use replay::{Kept, ReplayBody};

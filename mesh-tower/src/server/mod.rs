//! (coming)
use mesh_core::deadline::Deadline;

/// stub
#[derive(Clone, Copy, Debug)]
pub struct Inbound;
impl Inbound {
    /// stub
    pub fn deadline(&self) -> Deadline {
        Deadline::NONE
    }
    /// stub
    pub fn attempt(&self) -> u32 {
        1
    }
}

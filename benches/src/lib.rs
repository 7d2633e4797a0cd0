//! What the mesh costs: the cases that are measured, and the ways of measuring them.
//!
//! A [`Case`] is a piece of work that can be repeated: a request through the client stack around a service that
//! does nothing, one decision of one machine, or the same of a peer from the registry. The cases know nothing of how
//! they are measured:
//!
//! | measure | by | where |
//! | --- | --- | --- |
//! | instructions, with a limit that fails the build | gungraun | `icount.rs` |
//! | allocations, which must be none | dhat | `alloc.rs` |
//! | a record's cost however many came before, with a window that grows as the check of it | callgrind | `constant.rs` |
//! | a change among ten thousand endpoints: its median, the worst, and the endpoints that it copies | [`publish`] | `publish.rs` |
//! | time on one thread and on two, instructions and allocations, in one table | [`time`], [`count`] | the report: `src/main.rs` |
//!
//! Instructions are the gate: they are the same on every run and on a busy machine. Time is the story.

#![expect(clippy::print_stdout, reason = "reports are printed")]
#![expect(clippy::disallowed_methods, reason = "what measures time has to read it")]

pub mod case;
pub mod choosing;
pub mod count;
pub mod decisions;
pub mod machines;
pub mod peers;
pub mod publish;
pub mod report;
pub mod stack;
pub mod time;
pub mod windows;

pub use case::Case;

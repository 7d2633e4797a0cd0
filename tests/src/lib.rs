//! Shared parts of the workspace's tests.

mod always;

pub mod parsers;

pub mod reference;

pub mod sim;

pub use always::Always;

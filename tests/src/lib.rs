//! Shared parts of the workspace's tests.

pub mod reference;

pub mod sim;

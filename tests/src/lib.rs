//! Shared parts of the workspace's tests.

pub mod parsers;

pub mod reference;

pub mod sim;

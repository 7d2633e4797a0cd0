//! The atomics that the machines are built from: the standard library's, or loom's when a model runs.

#[cfg(not(loom))]
#[expect(unused_imports, reason = "one list for all machines; each uses its part")]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

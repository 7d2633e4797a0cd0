//! (coming)

mod config;

pub use config::{Config, Policy, Subset};

//! Where endpoints come from: what an upstream makes of its source's items, and of many of them.

mod churn;
#[cfg(feature = "dns")]
mod dns;
mod follow;

//! A workspace's files: load, validate, explain.
//!
//! - [`settings`], [`models`], [`connectors`], [`policy`]: one struct per concern, each field says what it is;
//! - [`secret`]: values that never appear in a log.

pub mod connectors;
pub mod models;
pub mod policy;
pub mod secret;
pub mod settings;

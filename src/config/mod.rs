//! A workspace's files: load, validate, explain.
//!
//! - [`workspace`]: all of them together: [`workspace::Definitions::load`] is the way in;
//! - [`settings`], [`models`], [`connectors`], [`policy`], [`workflow`], [`agent`]: one struct per
//!   file, each field says what it is;
//! - [`document`]: YAML that remembers where everything stands; [`structure`]: its shape;
//!   `check`: its meaning; [`problem`]: what the owner is told;
//! - [`secret`]: values that never appear in a log.

pub mod agent;
mod check;
pub mod connectors;
pub mod document;
pub mod models;
mod nearest;
pub mod policy;
pub mod problem;
pub mod secret;
pub mod settings;
pub mod structure;
pub mod workflow;
pub mod workspace;

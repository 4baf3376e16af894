//! A workspace's files: load, validate, explain.
//!
//! - [`workspace`]: all of them together: [`workspace::Definitions::load`] is the way in;
//! - [`settings`], [`models`], [`connectors`], [`channels`], [`policy`], [`workflow`], [`agent`]: one struct per
//!   file, each field says what it is;
//! - [`document`] with [`node`]: YAML that remembers where everything stands; [`structure`]: its shape;
//!   `check`: its meaning; [`problem`]: what the owner is told;
//! - [`autonomy`]: how trust is earned, in the settings and in a workflow; [`trust`]: what a workflow trusts;
//!   [`inputs`]: what triggers bring;
//! - [`schemas`]: the JSON Schemas editors use; [`template`]: the workspace an owner starts from;
//! - [`secret`]: values that never appear in a log.

pub mod agent;
pub mod autonomy;
pub mod channels;
mod check;
pub mod connectors;
pub mod document;
pub mod inputs;
pub mod models;
mod nearest;
pub mod node;
pub mod policy;
pub mod problem;
pub mod schemas;
pub mod secret;
pub mod settings;
pub mod structure;
pub mod template;
pub mod trust;
pub mod workflow;
pub mod workspace;

#[cfg(test)]
mod tests;

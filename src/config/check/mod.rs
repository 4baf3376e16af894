//! What `steward check` knows beyond the shape of each file: whether names exist, templates can be
//! filled in, steps can be reached. Offline; nothing stops at the first problem.
//!
//! - [`workflow`] with [`steps`], and [`agent`]: a raw file in, its resolved definition out;
//! - [`triggers`]: what opens runs: mailboxes, hooks, schedules;
//! - [`settings`]: settings, connectors; [`policy`]: rules and tags; [`channels`]: the ways to the owner;
//! - [`models`]: providers, models, tiers; [`money`]: budgets and prices;
//! - [`trust`]: what a workflow trusts more than where it came from;
//! - `outputs`: what steps give to the ones after them;
//! - `templates` with `paths`: what a template names, held against what there is;
//! - `graph`: the order of steps, cycles, steps that can never run; `schema`: JSON Schemas themselves.

pub(super) mod agent;
pub(super) mod channels;
pub(super) mod graph;
pub(super) mod models;
pub(super) mod money;
pub(super) mod outputs;
pub(super) mod paths;
pub(super) mod policy;
pub(super) mod schema;
pub(super) mod settings;
pub(super) mod steps;
pub(super) mod templates;
pub(super) mod triggers;
pub(super) mod trust;
pub(in crate::config) mod workflow;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::workflow::Agent;

/// What the files of a workspace may refer to. A part whose file could not be read is `None`: what
/// refers to it is given the benefit of the doubt, so that one fault is reported once.
#[derive(Default)]
pub(super) struct Names {
    /// The tiers of `config/models.yaml`.
    pub(super) tiers: Option<Vec<String>>,
    /// The mailboxes of `config/settings.yaml`.
    pub(super) mailboxes: Option<Vec<String>>,
    /// The agents; `None` for one that has problems of its own.
    pub(super) agents: BTreeMap<String, Option<Agent>>,
    /// The currency of the settings.
    pub(super) currency: Option<String>,
    /// JSON Schema of what templates know as `workspace`.
    pub(super) workspace: Value,
    /// The workspace's time zone.
    pub(super) time_zone: Option<String>,
}

//! Actions: what a step may propose, and what is known of each kind before anything is called.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::digest::Digest;
use crate::domain::label::Label;

/// An effect that a step proposes: exactly this, nothing else, is what a review approves.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Action {
    /// Its kind, such as `email.send`.
    pub action: String,
    /// Its parameters, an object.
    pub params: Value,
}

impl Action {
    /// SHA-256 of the canonical JSON (RFC 8785) of the whole action.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_json(&json!({"action": self.action, "params": self.params}))
    }

    /// A parameter that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.params.get(name)?.as_str()
    }
}

/// The label of each parameter of an action.
pub type Labels = BTreeMap<String, Label>;

/// How far an action reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Nowhere: a value in, a value out.
    Pure,
    /// Reads Steward's own memory.
    Read,
    /// Writes Steward's own memory; can be undone from there.
    Internal,
    /// Leaves the house.
    External,
}

/// What happens when the same effect is carried out twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Repeat {
    /// Repeating is harmless.
    Natural,
    /// The other party honours our key and does it once.
    Token,
    /// The connector can look up whether it happened.
    Probe,
    /// Nothing is known: only the owner can tell.
    None,
}

/// What is known of one kind of action.
#[derive(Clone, Copy, Debug)]
pub struct ActionSpec {
    /// Its name, as written in workflows.
    pub name: &'static str,
    /// How far it reaches.
    pub reach: Reach,
    /// Parameters that decide who or what is reached: recipient, URL, account.
    pub targets: &'static [&'static str],
    /// Parameters it cannot do without.
    pub required: &'static [&'static str],
    /// Parameters it may have besides.
    pub optional: &'static [&'static str],
    /// Where its response comes from, besides its parameters.
    pub answers: Label,
    /// One line for the owner.
    pub about: &'static str,
}

/// Every action Steward knows. A test holds this table against the connectors.
pub const ACTIONS: &[ActionSpec] = &[
    ActionSpec {
        name: "email.send",
        reach: Reach::External,
        targets: &["to", "cc"],
        required: &["to", "subject", "body"],
        optional: &["cc", "in_reply_to", "references"],
        answers: Label::System,
        about: "send one plain-text email",
    },
    ActionSpec {
        name: "http.request",
        reach: Reach::External,
        targets: &["url"],
        required: &["method", "url"],
        optional: &["headers", "body", "idempotency_header"],
        answers: Label::Untrusted,
        about: "call a web service on an allowed host",
    },
    ActionSpec {
        name: "memory.search",
        reach: Reach::Read,
        targets: &[],
        required: &["query"],
        optional: &["limit"],
        answers: Label::Owner,
        about: "find passages in memory, with citations",
    },
    ActionSpec {
        name: "noop",
        reach: Reach::Pure,
        targets: &[],
        required: &[],
        optional: &["value"],
        answers: Label::Owner,
        about: "give back its value",
    },
    ActionSpec {
        name: "records.get",
        reach: Reach::Read,
        targets: &[],
        required: &["kind", "key"],
        optional: &[],
        answers: Label::Owner,
        about: "read one record; `found: false` when there is none",
    },
    ActionSpec {
        name: "records.put",
        reach: Reach::Internal,
        targets: &[],
        required: &["kind", "key", "data"],
        optional: &["if_version"],
        answers: Label::System,
        about: "write a new version of a record",
    },
    ActionSpec {
        name: "records.revert",
        reach: Reach::Internal,
        targets: &[],
        required: &["kind", "key", "version"],
        optional: &[],
        answers: Label::System,
        about: "write what a record held before that version, unless it was changed since",
    },
    ActionSpec {
        name: STAGE_ACTION,
        reach: Reach::Internal,
        targets: &[],
        required: &["workflow", "version", "was", "stage"],
        optional: &["reason"],
        answers: Label::System,
        about: "change how far a version of a workflow is trusted",
    },
];

/// Changes how far a version is trusted. It is for Steward's own workflow alone: no file may name it.
pub const STAGE_ACTION: &str = "workflow.stage";

/// The action of that name.
#[must_use]
pub fn spec(name: &str) -> Option<&'static ActionSpec> {
    ACTIONS.iter().find(|spec| spec.name == name)
}

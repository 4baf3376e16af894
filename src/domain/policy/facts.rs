//! What a ruling rests on besides the action itself. It is recorded with the ruling, so that the same
//! judgement can be made again, by other rules too.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use crate::domain::event::Verified;
use crate::domain::ids::WorkflowName;
use crate::domain::workflow::Stage;

/// Everything a ruling rests on besides the action and the labels of its parameters.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// The workflow that proposes.
    pub workflow: WorkflowName,
    /// How far its version is trusted.
    pub stage: Stage,
    /// The door its run came through.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trigger: String,
    /// The moment, in the owner's time.
    pub local: DateTime,
    /// The lowest confidence among the outputs it was made from, if any declared one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// The owner asked to see every effect of this step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub review_asked: bool,
    /// The step says what undoes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undoable: bool,
    /// Who wrote the mail that the run answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// What was done before; nothing when nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// What looks like an attempt to steer or deceive, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspicious: Vec<String>,
    /// The paths that counted as the owner's word because the workflow trusts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted: Vec<String>,
}

impl Facts {
    /// Facts of which little is known, at a moment of the owner's.
    #[must_use]
    pub fn bare(workflow: WorkflowName, stage: Stage, local: DateTime) -> Self {
        Self {
            workflow,
            stage,
            trigger: String::new(),
            local,
            confidence: None,
            review_asked: false,
            undoable: false,
            sender: None,
            history: None,
            suspicious: Vec::new(),
            trusted: Vec::new(),
        }
    }
}

/// Who wrote the mail that opened the run, and what an answer to them may rest on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sender {
    /// Their address.
    pub address: String,
    /// Their mail's id, without brackets.
    pub message_id: String,
    /// The thread it belongs to.
    pub thread: String,
    /// What Steward itself verified of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// The workflow trusts answers to them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub granted: bool,
    /// The steps through which something of the owner's own may have come into the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private: Vec<String>,
}

impl Sender {
    /// Whether Steward verified that it is them.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        let domain = self.address.rsplit('@').next().unwrap_or_default();
        self.verified.as_ref().is_some_and(|verified| verified.is_of(domain))
    }
}

/// What was done before, as the database knew it when it was asked.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Of each target, by its spelling.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, Seen>,
    /// How many effects of this action there were in the last 24 hours, whomever they reached.
    #[serde(default)]
    pub action_day: u32,
    /// What all model calls cost today, millionths of the currency; what is set aside included.
    #[serde(default)]
    pub spent_today: i64,
    /// What those of this workflow cost today.
    #[serde(default)]
    pub spent_workflow_today: i64,
}

/// What was done before with one target. What is allowed or under review counts as what happened does;
/// what was withdrawn or failed does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Effects of this action in the last hour, this one not counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hour: u32,
    /// The same in the last 24 hours.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub day: u32,
    /// Whether it was ever reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub before: bool,
    /// Whether its domain or host was ever reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub domain_before: bool,
    /// Whether a record of kind `contact`, written by the owner alone, names it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub contact: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

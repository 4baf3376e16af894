//! The journal's events: the only way a run changes. A run is the fold of its events, live and
//! after a crash alike, so everything a run needs to go on is in here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::action::{Action, Labels};
use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::ids::{EffectId, ReviewId, RunId, StepId, WorkflowName};
use crate::domain::label::Label;
use crate::domain::policy::Decision;

/// One thing that happened in a run. `kind` is the journal's column, `data` the rest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data")]
#[expect(missing_docs, reason = "the fields say what they are; the structs they share are documented")]
pub enum Event {
    /// A trigger was acknowledged.
    #[serde(rename = "run.opened")]
    RunOpened(Opened),
    /// An attempt of a step began.
    #[serde(rename = "step.started")]
    StepStarted { step: StepId, attempt: u32 },
    /// One try of one model, good or bad.
    #[serde(rename = "model.called")]
    ModelCalled { step: StepId, attempt: u32, call: ModelCall },
    /// An attempt failed and another one follows.
    #[serde(rename = "attempt.failed")]
    AttemptFailed { step: StepId, attempt: u32, error: StepError, retry_at: jiff::Timestamp },
    /// A step gave its output.
    #[serde(rename = "step.succeeded")]
    StepSucceeded {
        step: StepId,
        attempt: u32,
        output: Value,
        label: Label,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confidence: Option<f64>,
    },
    /// A step was not needed.
    #[serde(rename = "step.skipped")]
    StepSkipped { step: StepId, reason: String },
    /// The owner said no to a step's action.
    #[serde(rename = "step.declined")]
    StepDeclined { step: StepId, reason: String },
    /// A step failed for good.
    #[serde(rename = "step.failed")]
    StepFailed { step: StepId, error: StepError },
    /// A step proposed an action and policy judged it.
    #[serde(rename = "effect.proposed")]
    EffectProposed(Proposal),
    /// The same key has been used before: its first result is used again.
    #[serde(rename = "effect.reused")]
    EffectReused { step: StepId, effect: EffectId, of_run: RunId, response: Value },
    /// The connector is about to be called; from here on the effect may have happened.
    #[serde(rename = "effect.started")]
    EffectStarted { step: StepId, effect: EffectId, digest: Digest, action: Action, again: bool },
    /// The effect happened.
    #[serde(rename = "effect.succeeded")]
    EffectSucceeded { step: StepId, effect: EffectId, response: Value },
    /// The effect did not happen.
    #[serde(rename = "effect.failed")]
    EffectFailed { step: StepId, effect: EffectId, error: StepError },
    /// The proposed effect will not be started: denied, declined, or overtaken by the end of the run.
    #[serde(rename = "effect.withdrawn")]
    EffectWithdrawn { step: StepId, effect: EffectId, reason: String },
    /// Nobody can tell whether the effect happened.
    #[serde(rename = "effect.unknown")]
    EffectUnknown { step: StepId, effect: EffectId, evidence: String },
    /// The owner is asked.
    #[serde(rename = "review.opened")]
    ReviewOpened(Question),
    /// The owner, or a deadline, decided.
    #[serde(rename = "review.decided")]
    ReviewDecided { step: StepId, review: ReviewId, verdict: Verdict, by: String },
    /// The question no longer matters.
    #[serde(rename = "review.superseded")]
    ReviewSuperseded { step: StepId, review: ReviewId, reason: String },
    /// Somebody wants the run to stop.
    #[serde(rename = "run.cancelling")]
    RunCancelling { by: String },
    /// The run is over.
    #[serde(rename = "run.finished")]
    RunFinished { outcome: Outcome, reason: String },
}

impl Event {
    /// The step the event is about, if it is about one.
    #[must_use]
    pub fn step(&self) -> Option<&StepId> {
        match self {
            Self::RunOpened(_) | Self::RunCancelling { .. } | Self::RunFinished { .. } => None,
            Self::EffectProposed(proposal) => Some(&proposal.step),
            Self::ReviewOpened(question) => Some(&question.step),
            Self::StepStarted { step, .. }
            | Self::ModelCalled { step, .. }
            | Self::AttemptFailed { step, .. }
            | Self::StepSucceeded { step, .. }
            | Self::StepSkipped { step, .. }
            | Self::StepDeclined { step, .. }
            | Self::StepFailed { step, .. }
            | Self::EffectReused { step, .. }
            | Self::EffectStarted { step, .. }
            | Self::EffectSucceeded { step, .. }
            | Self::EffectFailed { step, .. }
            | Self::EffectWithdrawn { step, .. }
            | Self::EffectUnknown { step, .. }
            | Self::ReviewDecided { step, .. }
            | Self::ReviewSuperseded { step, .. } => Some(step),
        }
    }
}

/// What a trigger brought.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// The workflow asked for.
    pub workflow: WorkflowName,
    /// The version the run is pinned to.
    pub version: Digest,
    /// For the owner to recognise it by.
    pub title: String,
    /// The input, valid under the version's schema.
    pub input: Value,
    /// Where the input came from.
    pub label: Label,
    /// Which door it came through: `email`, `webhook`, `api`, `cli`.
    pub trigger: String,
}

/// A proposed action, with everything its judgement rests on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// The step that proposes.
    pub step: StepId,
    /// The attempt that proposes.
    pub attempt: u32,
    /// The effect it would become.
    pub effect: EffectId,
    /// Exactly what would be done.
    pub action: Action,
    /// SHA-256 of the canonical action.
    pub digest: Digest,
    /// Where each parameter came from.
    pub labels: Labels,
    /// The key under which it happens at most once.
    pub key: String,
    /// What policy said, and why.
    pub decision: Decision,
}

/// A question to the owner.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The step that waits for the answer.
    pub step: StepId,
    /// The review that carries it.
    pub review: ReviewId,
    /// What kind of answer is wanted.
    pub ask: Ask,
    /// One line.
    pub title: String,
    /// Why the owner is asked, one sentence each.
    pub reasons: Vec<String>,
    /// The few things needed to decide.
    pub artifacts: Vec<Artifact>,
    /// What the answer is bound to: the action's digest, or the question's.
    pub digest: Digest,
    /// The action in question, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// JSON Schema of the answer, if one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Value>,
    /// When the question expires. A time-out never means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<jiff::Timestamp>,
}

/// What kind of answer a review wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// May this action be carried out?
    Approval,
    /// No model could answer: what is the output of this step?
    Answer,
    /// The workflow asks.
    Question,
    /// Did this effect happen?
    InDoubt,
}

impl Ask {
    /// The name used in tables and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Answer => "answer",
            Self::Question => "question",
            Self::InDoubt => "in_doubt",
        }
    }
}

/// One thing shown with a review.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// What it is, such as `input.body`.
    pub title: String,
    /// Where it came from.
    pub label: Label,
    /// The thing itself.
    pub value: Value,
}

/// How a review ended. Outcomes stay distinct: an edit is not an approval.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// Do exactly this.
    Approved,
    /// Do this instead.
    Edited {
        /// The parameters to use.
        params: Value,
    },
    /// Do not.
    Rejected {
        /// Why not.
        reason: String,
    },
    /// The answer to a question.
    Answered {
        /// The answer, valid under the form.
        answer: Value,
    },
    /// Nobody decided in time.
    Expired,
}

impl Verdict {
    /// The review's status after it.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Edited { .. } => "edited",
            Self::Rejected { .. } => "rejected",
            Self::Answered { .. } => "answered",
            Self::Expired => "expired",
        }
    }
}

/// One try of one model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ModelCall {
    /// The model as named in `config/models.yaml`.
    pub model: String,
    /// `ok`, or what went wrong.
    pub outcome: String,
    /// The model that the provider says answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// Tokens read.
    #[serde(default)]
    pub input_tokens: u64,
    /// Tokens written.
    #[serde(default)]
    pub output_tokens: u64,
    /// Millionths of the workspace's currency.
    #[serde(default)]
    pub cost_micros: i64,
    /// How long it took.
    pub millis: u64,
}

/// Why a step or an attempt failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// What kind of failure; it alone decides whether to try again.
    pub kind: ErrorKind,
    /// One sentence for the owner.
    pub message: String,
    /// What the other party asked to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
}

impl StepError {
    /// A failure of that kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }
}

/// The kinds of failure. A new one must say here whether it is worth another attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No answer in time.
    Timeout,
    /// The other party is down or overloaded.
    Unavailable,
    /// The other party asked to come back later.
    RateLimited,
    /// Somebody else changed the record first.
    Conflict,
    /// Another effect under way holds the same key.
    KeyTaken,
    /// A template, parameter or output does not fit.
    Invalid,
    /// The other party said no for good.
    Refused,
    /// Policy said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// A fault in Steward.
    Internal,
}

impl ErrorKind {
    /// Whether another attempt could succeed without anybody changing anything.
    #[must_use]
    pub fn retryable(self) -> bool {
        match self {
            Self::Timeout | Self::Unavailable | Self::RateLimited | Self::Conflict | Self::KeyTaken => true,
            Self::Invalid | Self::Refused | Self::Denied | Self::Expired | Self::Internal => false,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every step was done or not needed.
    Succeeded,
    /// The owner said no to something.
    Declined,
    /// A step failed.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// Steward itself could not go on with it.
    Parked,
}

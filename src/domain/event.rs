//! The journal's events: the only way a run changes. A run is the fold of its events, live and
//! after a crash alike, so everything a run needs to go on is in here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::action::{Action, Labels};
use crate::domain::digest::Digest;
pub use crate::domain::failure::{ErrorKind, StepError};
use crate::domain::ids::{
    CallId, EffectId, HappeningId, ReservationId, ReviewId, RunId, StepId, WorkflowName,
};
use crate::domain::label::Label;
pub use crate::domain::origin::{Parent, Rerun, Verified};
use crate::domain::policy::Decision;
use crate::domain::risk::{Risk, Stakes};
pub use crate::domain::tool::ToolCall;

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
    /// An agent looked something up.
    #[serde(rename = "tool.called")]
    ToolCalled { step: StepId, attempt: u32, call: ToolCall },
    /// An attempt failed and another one follows.
    #[serde(rename = "attempt.failed")]
    AttemptFailed { step: StepId, attempt: u32, error: StepError, retry_at: jiff::Timestamp },
    /// A step gave its output.
    #[serde(rename = "step.succeeded")]
    StepSucceeded {
        step: StepId,
        #[serde(default = "first", skip_serializing_if = "is_first")]
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
    /// A list was made for a step that does the same for each of its items.
    #[serde(rename = "each.began")]
    EachBegan { step: StepId, items: Vec<Value>, label: Label },
    /// A step waits for an event, a moment, or whichever comes first.
    #[serde(rename = "wait.began")]
    WaitBegan {
        step: StepId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<Topic>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due_at: Option<jiff::Timestamp>,
    },
    /// A step waits no longer: for the event named, or because its time came or its run ends.
    #[serde(rename = "wait.ended")]
    WaitEnded {
        step: StepId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        happening: Option<HappeningId>,
    },
    /// A step opened a run of another workflow and waits for its end.
    #[serde(rename = "child.opened")]
    ChildOpened { step: StepId, run: RunId },
    /// What a step did has been undone.
    #[serde(rename = "effect.compensated")]
    EffectCompensated {
        step: StepId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effect: Option<EffectId>,
    },
    /// Somebody wants the run to stop.
    #[serde(rename = "run.cancelling")]
    RunCancelling { by: String },
    /// The run will end so; what it did is undone first, the last thing first.
    #[serde(rename = "run.compensating")]
    RunCompensating { outcome: Outcome, reason: String },
    /// The owner holds the run: nothing begins.
    #[serde(rename = "run.paused")]
    RunPaused { by: String },
    /// The owner lets the run go on.
    #[serde(rename = "run.resumed")]
    RunResumed { by: String },
    /// The run goes on although it was over: these steps are done anew.
    #[serde(rename = "run.reopened")]
    RunReopened {
        by: String,
        steps: Vec<StepId>,
        /// Those of them whose effects may happen a second time, under fresh keys.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        again: Vec<StepId>,
    },
    /// Steward itself cannot go on with the run: the owner is asked.
    #[serde(rename = "run.parked")]
    RunParked(Parked),
    /// The owner has looked at a parked run.
    #[serde(rename = "run.unparked")]
    RunUnparked { review: ReviewId, by: String },
    /// The run is over.
    #[serde(rename = "run.finished")]
    RunFinished {
        outcome: Outcome,
        reason: String,
        /// What the workflow gives to whoever waits for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Value>,
    },
}

/// Most steps succeed at their first attempt: the commonest entry need not say so.
fn first() -> u32 {
    1
}

fn is_first(attempt: &u32) -> bool {
    *attempt == first()
}

impl Event {
    /// The step the event is about, if it is about one.
    #[must_use]
    pub fn step(&self) -> Option<&StepId> {
        match self {
            Self::RunOpened(_)
            | Self::RunCancelling { .. }
            | Self::RunCompensating { .. }
            | Self::RunPaused { .. }
            | Self::RunResumed { .. }
            | Self::RunReopened { .. }
            | Self::RunParked(_)
            | Self::RunUnparked { .. }
            | Self::RunFinished { .. } => None,
            Self::EffectProposed(proposal) => Some(&proposal.step),
            Self::ReviewOpened(question) => Some(&question.step),
            Self::StepStarted { step, .. }
            | Self::ModelCalled { step, .. }
            | Self::ToolCalled { step, .. }
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
            | Self::EffectCompensated { step, .. }
            | Self::EachBegan { step, .. }
            | Self::WaitBegan { step, .. }
            | Self::WaitEnded { step, .. }
            | Self::ChildOpened { step, .. }
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
    /// Which door it came through: `email`, `webhook`, `api`, `cli`, `run`, `rerun`.
    pub trigger: String,
    /// What Steward itself verified of whoever sent the input; nothing where it verified nothing, whatever
    /// the input claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// The run that waits for this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The run that this one does anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,
    /// The most its model calls may cost, millionths of the currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_micros: Option<i64>,
}

/// What an event from outside is called: its name, and what it is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Topic {
    /// Its name, such as `email.reply`.
    pub event: String,
    /// What it is about, such as a thread.
    #[serde(rename = "match")]
    pub matches: String,
}

/// A run that Steward cannot go on with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Parked {
    /// What the owner is asked; its step is [`Parked::STEP`].
    pub question: Question,
    /// Where the code was when it failed, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
}

impl Parked {
    /// Stands in a parked run's review for the step: the question is about the whole run.
    pub const STEP: &str = "*";
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
    /// Where each of its parameters came from.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What is at stake with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stakes: Option<Stakes>,
    /// JSON Schema of the answer, if one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Value>,
    /// How much hangs on it.
    #[serde(default)]
    pub risk: Risk,
    /// When the question expires. A time-out never means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<jiff::Timestamp>,
    /// What an approval allows this run to cost beyond all limits, millionths of the currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allows_micros: Option<i64>,
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
    /// Undoing failed: what now?
    Undo,
    /// Steward cannot go on with the run: what now?
    Parked,
    /// A budget is spent: may this cost more, once?
    Budget,
}

impl Ask {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Approval, Self::Answer, Self::Question, Self::InDoubt, Self::Undo, Self::Parked, Self::Budget];

    /// The name used in tables and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Answer => "answer",
            Self::Question => "question",
            Self::InDoubt => "in_doubt",
            Self::Undo => "undo",
            Self::Parked => "parked",
            Self::Budget => "budget",
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
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ModelCall {
    /// The model as named in `config/models.yaml`.
    pub model: String,
    /// `ok`, or what went wrong.
    pub outcome: String,
    /// The model that the provider says answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// Tokens read, those from the provider's own prompt cache among them.
    #[serde(default)]
    pub input_tokens: u64,
    /// Tokens read from the provider's own prompt cache.
    #[serde(default, skip_serializing_if = "is_none")]
    pub cached_tokens: u64,
    /// Tokens written.
    #[serde(default)]
    pub output_tokens: u64,
    /// The provider did not count, or not everything: the tokens and the cost are estimates, rather too
    /// high than too low.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// Millionths of the workspace's currency.
    #[serde(default)]
    pub cost_micros: i64,
    /// The reservation that paid it; none for what is free. The commit that journals the call settles it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<ReservationId>,
    /// How long it took.
    pub millis: u64,
    /// Which turn of a conversation with tools it was, from 1 on; 0 when the agent has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// What it was for, when it was not simply for the output: `vote 2`, `finalize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Whether the answer is an earlier one, from the cache: nobody was called, nothing was paid.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// Where the request and the answer are kept; `None` for what was never sent, and for built-in models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_none(count: &u64) -> bool {
    *count == 0
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

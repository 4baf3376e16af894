//! The state machine of one step: a pure function from a status and an event to the next status.
//! No arm catches all: what is not written here cannot happen, and says so by name.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::action::Action;
use crate::domain::event::{Ask, Event, Proposal, StepError, Topic, Verdict};
use crate::domain::ids::{EffectId, ReviewId, RunId};
use crate::domain::label::Label;

/// Where a step stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// An attempt is under way.
    Running,
    /// An attempt failed; another one begins then.
    Backoff {
        /// When.
        until: Timestamp,
        /// Why the last one failed.
        error: StepError,
        /// What was approved and did not happen: the next attempt does the same.
        approved: Option<Box<Proposal>>,
    },
    /// An action was proposed; policy has spoken, nothing is done yet.
    Proposed {
        /// What was proposed.
        proposal: Box<Proposal>,
    },
    /// The owner is asked.
    Asking {
        /// The open review.
        review: ReviewId,
        /// What is asked.
        ask: Ask,
        /// What it is asked about.
        proposal: Option<Box<Proposal>>,
    },
    /// The owner has decided; nothing is done about it yet.
    Decided {
        /// What was asked.
        ask: Ask,
        /// The decision.
        verdict: Verdict,
        /// What it was asked about.
        proposal: Option<Box<Proposal>>,
    },
    /// It may happen, and waits for its moment; until then the owner can call it back.
    Held {
        /// What will be done.
        proposal: Box<Proposal>,
        /// When it goes out.
        until: Timestamp,
    },
    /// The connector has been called, or is about to be.
    Effecting {
        /// What is being done.
        proposal: Box<Proposal>,
    },
    /// The effect did not happen; another attempt or the failure of the step is next.
    Undone {
        /// What did not happen.
        proposal: Box<Proposal>,
    },
    /// Nobody can tell whether the effect happened.
    InDoubt {
        /// What may have happened.
        proposal: Box<Proposal>,
        /// What is known.
        evidence: String,
    },
    /// The same is being done for each item of a list; the items are steps of their own.
    Each {
        /// How many items there are.
        count: usize,
    },
    /// It waits for an event, a moment, or whichever comes first.
    Waiting {
        /// The event.
        topic: Option<Topic>,
        /// The moment.
        due_at: Option<Timestamp>,
    },
    /// It waits for the end of another run.
    Child {
        /// That run.
        run: RunId,
    },
    /// The effect happened; the step's output is next.
    Effected {
        /// What the connector answered.
        response: Value,
        /// Which effect.
        effect: EffectId,
    },
    /// Over, with an output.
    Succeeded {
        /// The output.
        output: Value,
        /// Where it came from.
        label: Label,
        /// How sure its maker was of it.
        confidence: Option<f64>,
    },
    /// Over: not needed.
    Skipped {
        /// Why.
        reason: String,
    },
    /// Over: the owner said no.
    Declined {
        /// The owner's words.
        reason: String,
    },
    /// Over: failed.
    Failed {
        /// Why.
        error: StepError,
    },
}

impl StepStatus {
    /// The name used in screens.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Backoff { .. } => "backoff",
            Self::Proposed { .. } => "proposed",
            Self::Asking { .. } => "asking",
            Self::Decided { .. } => "decided",
            Self::Held { .. } => "held",
            Self::Effecting { .. } => "effecting",
            Self::Undone { .. } => "undone",
            Self::Each { .. } => "each",
            Self::Waiting { .. } => "waiting",
            Self::Child { .. } => "child",
            Self::InDoubt { .. } => "in_doubt",
            Self::Effected { .. } => "effected",
            Self::Succeeded { .. } => "succeeded",
            Self::Skipped { .. } => "skipped",
            Self::Declined { .. } => "declined",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether nothing more happens to the step.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Succeeded { .. } | Self::Skipped { .. } | Self::Declined { .. } | Self::Failed { .. }
        )
    }

    /// The status after `event`.
    ///
    /// # Errors
    /// The status itself, untouched, when the event cannot happen in it.
    pub fn next(self, event: &Event) -> Result<Self, Self> {
        use Event as E;
        Ok(match (self, event) {
            (
                Self::Pending
                | Self::Running
                | Self::Backoff { .. }
                | Self::Decided { ask: Ask::Undo | Ask::Budget, .. },
                E::StepStarted { .. },
            ) => Self::Running,
            (Self::Running, E::EachBegan { items, .. }) => Self::Each { count: items.len() },
            (Self::Running, E::WaitBegan { topic, due_at, .. }) => {
                Self::Waiting { topic: topic.clone(), due_at: *due_at }
            }
            (Self::Waiting { .. } | Self::Child { .. }, E::WaitEnded { .. }) => Self::Running,
            (Self::Running, E::StepSkipped { reason, .. }) => Self::Skipped { reason: reason.clone() },
            (Self::Running, E::ChildOpened { run, .. }) => Self::Child { run: *run },
            (status @ Self::Succeeded { .. }, E::EffectCompensated { .. }) => status,
            (Self::Running, E::ModelCalled { .. } | E::ToolCalled { .. }) => Self::Running,
            (Self::Running, E::AttemptFailed { error, retry_at, .. }) => {
                Self::Backoff { until: *retry_at, error: error.clone(), approved: None }
            }
            (Self::Undone { proposal }, E::AttemptFailed { error, retry_at, .. }) => {
                Self::Backoff { until: *retry_at, error: error.clone(), approved: Some(proposal) }
            }
            (
                Self::Pending | Self::Running | Self::Effected { .. } | Self::Each { .. },
                E::StepSucceeded { output, label, confidence, .. },
            )
            | (Self::Decided { .. }, E::StepSucceeded { output, label, confidence, .. }) => {
                Self::Succeeded { output: output.clone(), label: *label, confidence: *confidence }
            }
            (Self::Pending, E::StepSkipped { reason, .. }) => Self::Skipped { reason: reason.clone() },
            (Self::Decided { .. } | Self::Held { .. } | Self::Running, E::StepDeclined { reason, .. }) => {
                Self::Declined { reason: reason.clone() }
            }
            (
                Self::Pending
                | Self::Running
                | Self::Proposed { .. }
                | Self::Decided { .. }
                | Self::Held { .. }
                | Self::Undone { .. }
                | Self::Each { .. }
                | Self::Backoff { .. },
                E::StepFailed { error, .. },
            ) => Self::Failed { error: error.clone() },
            (Self::Running, E::EffectProposed(proposal)) => {
                Self::Proposed { proposal: Box::new(proposal.clone()) }
            }
            (Self::Running, E::EffectReused { response, effect, .. }) => {
                Self::Effected { response: response.clone(), effect: *effect }
            }
            (Self::Proposed { proposal }, E::ReviewOpened(question)) => {
                Self::Asking { review: question.review, ask: question.ask, proposal: Some(proposal) }
            }
            // Nobody could be asked for another draft: the owner is asked as before.
            (
                Self::Decided { ask: Ask::Approval, proposal: Some(proposal), .. },
                E::ReviewOpened(question),
            ) if question.ask == Ask::Approval => {
                Self::Asking { review: question.review, ask: question.ask, proposal: Some(proposal) }
            }
            (Self::InDoubt { proposal, .. }, E::ReviewOpened(question)) => {
                Self::Asking { review: question.review, ask: question.ask, proposal: Some(proposal) }
            }
            (Self::Running, E::ReviewOpened(question)) => {
                Self::Asking { review: question.review, ask: question.ask, proposal: None }
            }
            // An undo that failed is never forgotten: it becomes a question.
            (Self::Failed { .. }, E::ReviewOpened(question)) if question.ask == Ask::Undo => {
                Self::Asking { review: question.review, ask: question.ask, proposal: None }
            }
            (Self::Asking { ask, proposal, .. }, E::ReviewDecided { verdict, .. }) => {
                Self::Decided { ask, verdict: verdict.clone(), proposal }
            }
            (Self::Asking { .. }, E::ReviewSuperseded { reason, .. }) => {
                Self::Skipped { reason: reason.clone() }
            }
            (
                status @ (Self::Proposed { .. }
                | Self::Asking { .. }
                | Self::Decided { .. }
                | Self::Held { .. }),
                E::EffectWithdrawn { .. },
            ) => status,
            (Self::Proposed { proposal }, E::EffectHeld { until, .. }) => {
                Self::Held { proposal, until: *until }
            }
            (
                Self::Decided { ask: Ask::Approval, proposal: Some(proposal), .. },
                E::EffectHeld { action, digest, until, .. },
            ) => Self::Held { proposal: with_action(proposal, action, *digest), until: *until },
            (Self::Held { proposal, .. }, E::EffectCalledBack { .. }) => Self::Proposed { proposal },
            (Self::Held { proposal, .. }, E::EffectStarted { again: false, .. }) => {
                Self::Effecting { proposal }
            }
            (Self::Proposed { proposal }, E::EffectStarted { .. }) => Self::Effecting { proposal },
            (Self::Decided { proposal: Some(proposal), .. }, E::EffectStarted { action, digest, .. }) => {
                Self::Effecting { proposal: with_action(proposal, action, *digest) }
            }
            (Self::Effecting { proposal }, E::EffectStarted { again: true, .. }) => {
                Self::Effecting { proposal }
            }
            (Self::Effecting { proposal }, E::EffectSucceeded { response, .. })
            | (
                Self::Decided { ask: Ask::InDoubt, proposal: Some(proposal), .. },
                E::EffectSucceeded { response, .. },
            ) => Self::Effected { response: response.clone(), effect: proposal.effect },
            (Self::Effecting { proposal }, E::EffectFailed { .. }) => Self::Undone { proposal },
            (Self::Effecting { proposal }, E::EffectUnknown { evidence, .. }) => {
                Self::InDoubt { proposal, evidence: evidence.clone() }
            }
            (
                status,
                E::RunOpened(_)
                | E::StepStarted { .. }
                | E::ModelCalled { .. }
                | E::ToolCalled { .. }
                | E::AttemptFailed { .. }
                | E::StepSucceeded { .. }
                | E::StepSkipped { .. }
                | E::StepDeclined { .. }
                | E::StepFailed { .. }
                | E::EffectProposed(_)
                | E::EffectReused { .. }
                | E::EffectStarted { .. }
                | E::EffectSucceeded { .. }
                | E::EffectFailed { .. }
                | E::EffectWithdrawn { .. }
                | E::EffectUnknown { .. }
                | E::EffectHeld { .. }
                | E::EffectCalledBack { .. }
                | E::DraftReturned(_)
                | E::ReviewOpened(_)
                | E::ReviewDecided { .. }
                | E::ReviewSuperseded { .. }
                | E::EachBegan { .. }
                | E::WaitBegan { .. }
                | E::WaitEnded { .. }
                | E::ChildOpened { .. }
                | E::EffectCompensated { .. }
                | E::RunCancelling { .. }
                | E::RunCompensating { .. }
                | E::RunPaused { .. }
                | E::RunResumed { .. }
                | E::RunReopened { .. }
                | E::RunParked(_)
                | E::RunUnparked { .. }
                | E::RunFinished { .. },
            ) => return Err(status),
        })
    }
}

/// What is started is what was approved: after an edit, the edited action.
fn with_action(
    mut proposal: Box<Proposal>,
    action: &Action,
    digest: crate::domain::digest::Digest,
) -> Box<Proposal> {
    proposal.action = action.clone();
    proposal.digest = digest;
    proposal
}

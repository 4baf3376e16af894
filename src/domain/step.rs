//! The state machine of one step: a pure function from a status and an event to the next status.
//! No arm catches all: what is not written here cannot happen, and says so by name.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::action::Action;
use crate::domain::event::{Ask, Event, Proposal, StepError, Verdict};
use crate::domain::ids::{EffectId, ReviewId};
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
            Self::Effecting { .. } => "effecting",
            Self::Undone { .. } => "undone",
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
            (Self::Pending | Self::Running | Self::Backoff { .. }, E::StepStarted { .. }) => Self::Running,
            (Self::Running, E::ModelCalled { .. }) => Self::Running,
            (Self::Running, E::AttemptFailed { error, retry_at, .. }) => {
                Self::Backoff { until: *retry_at, error: error.clone(), approved: None }
            }
            (Self::Undone { proposal }, E::AttemptFailed { error, retry_at, .. }) => {
                Self::Backoff { until: *retry_at, error: error.clone(), approved: Some(proposal) }
            }
            (
                Self::Pending | Self::Running | Self::Effected { .. },
                E::StepSucceeded { output, label, confidence, .. },
            )
            | (Self::Decided { .. }, E::StepSucceeded { output, label, confidence, .. }) => {
                Self::Succeeded { output: output.clone(), label: *label, confidence: *confidence }
            }
            (Self::Pending, E::StepSkipped { reason, .. }) => Self::Skipped { reason: reason.clone() },
            (Self::Decided { .. }, E::StepDeclined { reason, .. }) => {
                Self::Declined { reason: reason.clone() }
            }
            (
                Self::Pending
                | Self::Running
                | Self::Proposed { .. }
                | Self::Decided { .. }
                | Self::Undone { .. }
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
            (Self::InDoubt { proposal, .. }, E::ReviewOpened(question)) => {
                Self::Asking { review: question.review, ask: question.ask, proposal: Some(proposal) }
            }
            (Self::Running, E::ReviewOpened(question)) => {
                Self::Asking { review: question.review, ask: question.ask, proposal: None }
            }
            (Self::Asking { ask, proposal, .. }, E::ReviewDecided { verdict, .. }) => {
                Self::Decided { ask, verdict: verdict.clone(), proposal }
            }
            (Self::Asking { .. }, E::ReviewSuperseded { reason, .. }) => {
                Self::Skipped { reason: reason.clone() }
            }
            (
                status @ (Self::Proposed { .. } | Self::Asking { .. } | Self::Decided { .. }),
                E::EffectWithdrawn { .. },
            ) => status,
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
                | E::ReviewOpened(_)
                | E::ReviewDecided { .. }
                | E::ReviewSuperseded { .. }
                | E::RunCancelling { .. }
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

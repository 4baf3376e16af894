//! What the owner says to a question, and what of it goes back to an agent.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::ids::{ReviewId, StepId};

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
    /// Ask the agent for another draft: the question is superseded by the one that follows.
    Responded {
        /// What it is to heed.
        words: String,
    },
    /// Nobody decided in time.
    Expired,
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Responded { .. } => "responded",
            Self::Approved
            | Self::Edited { .. }
            | Self::Rejected { .. }
            | Self::Answered { .. }
            | Self::Expired => self.status(),
        }
    }

    /// The review's status after it.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Edited { .. } => "edited",
            Self::Rejected { .. } => "rejected",
            Self::Answered { .. } => "answered",
            Self::Responded { .. } => "superseded",
            Self::Expired => "expired",
        }
    }
}

/// A draft that goes back to the agent that made it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Returned {
    /// The agent's step.
    pub step: StepId,
    /// The step whose proposal was made from it: it proposes again.
    pub proposes: StepId,
    /// Every step that is done anew: these two, and what lies between them.
    pub anew: Vec<StepId>,
    /// The review that was answered so.
    pub review: ReviewId,
    /// The owner's words.
    pub words: String,
}

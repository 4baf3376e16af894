//! What a run comes from, besides its trigger's input: the run that waits for it, the run it does anew, and what
//! Steward itself verified of whoever sent the input. A mail's own headers claim anything: where nobody has
//! checked, there is nothing.

use serde::{Deserialize, Serialize};

use crate::domain::budget::RunLimit;
use crate::domain::ids::{RunId, StepId};

/// What Steward verified of the sender of a mail, from the mail's own bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// How: `dmarc` says that the domain of the `From` address vouches for the mail (RFC 7489: an aligned
    /// DKIM signature or SPF result).
    pub by: String,
    /// That domain.
    pub domain: String,
}

impl Verified {
    /// The only way of verifying that counts.
    pub const DMARC: &str = "dmarc";

    /// Whether it is a sender's of this domain.
    #[must_use]
    pub fn is_of(&self, domain: &str) -> bool {
        self.by == Self::DMARC && self.domain.trim_end_matches('.').eq_ignore_ascii_case(domain)
    }
}

/// The step of another run that waits for this one's end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parent {
    /// The run that waits.
    pub run: RunId,
    /// Its step.
    pub step: StepId,
    /// That run and those that wait for it in turn, each with its limit: what this one costs they pay too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pays: Vec<RunLimit>,
}

/// What a run does anew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rerun {
    /// The run it is made from.
    pub of: RunId,
    /// The run that all of them go back to: its keys are theirs, so that no completed effect is repeated.
    pub root: RunId,
    /// The owner wants completed effects to happen again.
    pub repeat: bool,
}

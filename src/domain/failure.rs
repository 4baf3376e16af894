//! Why a step failed. The kind alone decides whether it is worth another attempt.

use serde::{Deserialize, Serialize};

use crate::domain::duration::Span;

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
    /// The other party does not take the key it was shown.
    KeyRefused,
    /// Policy said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// The total time of a step or run is over.
    Deadline,
    /// What it may cost is spent.
    Budget,
    /// A run that it waited for did not succeed.
    Child,
    /// A fault in Steward.
    Internal,
}

impl ErrorKind {
    /// Whether another attempt could succeed without anybody changing anything.
    #[must_use]
    pub fn retryable(self) -> bool {
        match self {
            Self::Timeout | Self::Unavailable | Self::RateLimited | Self::Conflict | Self::KeyTaken => true,
            Self::Invalid
            | Self::Refused
            | Self::KeyRefused
            | Self::Denied
            | Self::Expired
            | Self::Deadline
            | Self::Budget
            | Self::Child
            | Self::Internal => false,
        }
    }
}

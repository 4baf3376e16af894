//! Why a model gave no output. [`Kind`] alone decides what follows: the same model again, the next
//! one, the circuit breaker. Every failure falls back to the next model of the chain.

use std::time::Duration;

use crate::domain::budget::Shortage;
use crate::domain::duration::Span;
use crate::domain::event::{ErrorKind, StepError};

/// One try of one model that gave nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// What kind of failure.
    pub kind: Kind,
    /// A short clause for the owner, without a full stop.
    pub message: String,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
    /// The request was sent and no whole answer came: the provider may bill it all the same.
    pub billed: bool,
    /// What a budget lacked, of [`Kind::Exhausted`].
    pub shortage: Option<Box<Shortage>>,
}

/// The kinds of failure. A new one must say below what follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The provider asked to come back later.
    RateLimited,
    /// No connection, a broken answer or a server error.
    Unavailable,
    /// No whole answer in time.
    Timeout,
    /// The key is refused or the account exhausted: it stays so until the owner acts.
    Permanent,
    /// The provider understood and will not: an unknown model, a prompt too long.
    Rejected,
    /// What came is no output: no JSON, or not valid under the schema.
    Invalid,
    /// The model declined to answer.
    Refused,
    /// The model answered with nothing.
    Empty,
    /// The provider's breaker is open.
    Paused,
    /// The provider's queue is full or did not move in time.
    Busy,
    /// What the agent may use for one step is used up.
    Spent,
    /// There is nothing to try: no key, no price, no classes, a condition that does not hold.
    Inapplicable,
    /// A budget does not hold enough for it.
    Exhausted,
}

/// What a failure says about the provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Harm {
    /// Nothing: it is alive and answers.
    None,
    /// Enough of these in a row open the breaker.
    Counts,
    /// Every further call would fail the same way.
    Opens,
}

impl Kind {
    /// Whether the same model may well answer a moment later.
    #[must_use]
    pub fn again(self) -> bool {
        match self {
            Self::RateLimited | Self::Unavailable | Self::Timeout | Self::Empty => true,
            Self::Permanent
            | Self::Rejected
            | Self::Invalid
            | Self::Refused
            | Self::Paused
            | Self::Busy
            | Self::Spent
            | Self::Inapplicable
            | Self::Exhausted => false,
        }
    }

    pub(crate) fn harm(self) -> Harm {
        match self {
            Self::Permanent => Harm::Opens,
            Self::Unavailable | Self::Timeout => Harm::Counts,
            Self::RateLimited
            | Self::Rejected
            | Self::Invalid
            | Self::Refused
            | Self::Empty
            | Self::Paused
            | Self::Busy
            | Self::Spent
            | Self::Inapplicable
            | Self::Exhausted => Harm::None,
        }
    }

    /// How a step fails when this was the end of its chain.
    #[must_use]
    pub fn of_step(self) -> ErrorKind {
        match self {
            Self::RateLimited => ErrorKind::RateLimited,
            Self::Timeout => ErrorKind::Timeout,
            Self::Unavailable | Self::Empty | Self::Paused | Self::Busy => ErrorKind::Unavailable,
            Self::Invalid => ErrorKind::Invalid,
            Self::Spent | Self::Exhausted => ErrorKind::Budget,
            Self::Permanent | Self::Rejected | Self::Refused | Self::Inapplicable => ErrorKind::Refused,
        }
    }
}

impl ModelError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, billed: false, shortage: None }
    }

    /// A failure after the request was sent: nobody can tell whether it costs.
    pub(crate) fn billed(mut self) -> Self {
        self.billed = true;
        self
    }

    pub(crate) fn into_step_error(self, message: String) -> StepError {
        let mut error = StepError::new(self.kind.of_step(), message);
        error.retry_after = self.retry_after.map(Span);
        error
    }
}

/// The first `limit` characters of `text` on one line, with a mark where it was cut.
pub(crate) fn clipped(text: &str, limit: usize) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(limit) {
        line.truncate(end);
        line.push('…');
    }
    line
}

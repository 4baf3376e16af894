//! Where a value came from. Labels only ever rise: what was made from several values carries
//! the least trusted of their labels, so an instruction hidden in an email can never pass for
//! the owner's word.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The origin of a value, from the most to the least trusted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// The owner's own word: definitions, settings, decisions.
    #[default]
    Owner,
    /// Steward itself: ids, times, counts.
    System,
    /// A language model, from trusted input alone.
    Model,
    /// Anything from outside, and anything made from it.
    Untrusted,
}

impl Label {
    /// The label of a value made from values of both labels.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        self.max(other)
    }

    /// The join of all; of none, [`Label::Owner`]: a constant in the owner's file.
    #[must_use]
    pub fn join_all(labels: impl IntoIterator<Item = Self>) -> Self {
        labels.into_iter().fold(Self::Owner, Self::join)
    }

    /// The name used in tables, files and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::System => "system",
            Self::Model => "model",
            Self::Untrusted => "untrusted",
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

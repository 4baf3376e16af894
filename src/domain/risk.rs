//! How much hangs on a question: it decides how soon and how loudly the owner is asked, and over which
//! channels he may answer.

use serde::{Deserialize, Serialize};

/// A class of risk, from the mildest.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Easily put right.
    Low,
    /// What nobody has classed.
    #[default]
    Medium,
    /// Money, law, many people, strangers, what is gone for good.
    High,
}

impl Risk {
    /// The name used in tables, files and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

//! How much hangs on a question: it decides how soon and how loudly the owner is asked, and over which
//! channels he may answer. And what is at stake with a proposed action: what it touches, whether it can be
//! taken back.
//!
//! Tags say what an action touches: those below are found by code, the owner's file adds words and conditions
//! for them and tags of its own. The class follows from the tags. A class decides how the owner is asked, never
//! whether: that is policy's.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Speaks of, or moves, money.
pub const MONEY: &str = "money";
/// Can bind the owner, or be held against them.
pub const LEGAL: &str = "legal";
/// Reaches many at once.
pub const BULK: &str = "bulk";
/// Takes something away at another party.
pub const DELETION: &str = "deletion";
/// Goes to somebody whom something from outside, or a model, chose and the owner does not know.
pub const UNKNOWN_TARGET: &str = "unknown_target";
/// Rests on something that looks like an attempt to steer or deceive.
pub const SUSPICIOUS: &str = "suspicious";
/// Goes to somebody who was never written to before.
pub const FIRST_CONTACT: &str = "first_contact";
/// Goes to a domain or host that was never reached before.
pub const NEW_DOMAIN: &str = "new_domain";
/// Whoever made it was not sure of it.
pub const UNSURE: &str = "unsure";

/// Below this confidence an action is `unsure`.
pub const SURE: f64 = 0.6;

/// More targets than this at once are `bulk`.
pub const FEW: usize = 3;

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
    /// Worth a look: a first contact, a maker who was not sure; and what nobody has classed.
    #[default]
    Medium,
    /// Money, law, many at once, a deletion, an unknown target, something suspicious.
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

    /// What a tag that code knows makes of an action; `None` for a tag of the owner's own.
    #[must_use]
    pub fn of_tag(tag: &str) -> Option<Self> {
        match tag {
            MONEY | LEGAL | BULK | DELETION | UNKNOWN_TARGET | SUSPICIOUS => Some(Self::High),
            FIRST_CONTACT | NEW_DOMAIN | UNSURE => Some(Self::Medium),
            _ => None,
        }
    }
}

/// What is at stake with one action. Where nobody has judged that, as in journals older than this type,
/// it is the gravest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stakes {
    /// The gravest of what its tags say.
    pub risk: Risk,
    /// Whether it can be taken back: it changes nothing, it stays in Steward's own memory, or its step
    /// says what undoes it.
    #[serde(default)]
    pub reversible: bool,
    /// What it touches.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

impl Default for Stakes {
    fn default() -> Self {
        Self { risk: Risk::High, reversible: false, tags: BTreeSet::new() }
    }
}

impl Stakes {
    /// The risk of an action with these tags; a tag of the owner's own comes with its class.
    #[must_use]
    pub fn of(tags: impl IntoIterator<Item = (String, Risk)>, reversible: bool) -> Self {
        let mut stakes = Self { risk: Risk::Low, reversible, tags: BTreeSet::new() };
        for (tag, class) in tags {
            stakes.risk = stakes.risk.max(class);
            stakes.tags.insert(tag);
        }
        stakes
    }

    /// Adds a tag that code knows.
    pub fn add(&mut self, tag: &str) {
        self.risk = self.risk.max(Risk::of_tag(tag).unwrap_or(Risk::Medium));
        self.tags.insert(tag.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_tag_makes_the_class() {
        let low = Stakes::of([], true);
        assert_eq!((low.risk, low.reversible), (Risk::Low, true));
        let mut risk = Stakes::of([(UNSURE.to_owned(), Risk::Medium)], false);
        assert_eq!(risk.risk, Risk::Medium);
        risk.add(MONEY);
        risk.add(FIRST_CONTACT);
        assert_eq!(risk.risk, Risk::High);
        assert_eq!(risk.tags.len(), 3);
    }

    #[test]
    fn what_nobody_judged_is_taken_for_the_gravest() {
        let old: Stakes = serde_json::from_str("{\"risk\": \"high\"}").unwrap();
        assert_eq!(Stakes::default(), old);
    }
}

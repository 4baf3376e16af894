//! How long finished runs are kept. The owner's word for it can change at any time and counts for
//! every run of a workflow, whatever version it is pinned to: it is not part of a version.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::duration::Span;
use crate::domain::ids::WorkflowName;

/// The shortest retention. A run's idempotency key and the keys of its effects live as long as the
/// run: senders of mail repeat for up to five days (RFC 5321, 4.5.4.1), those of webhooks for three.
/// A repetition that comes after the run has gone would be carried out again.
pub const SHORTEST: Span = Span::secs(7 * 24 * 60 * 60);

/// How long a finished run is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keep {
    /// For good.
    #[default]
    Forever,
    /// For this long after its end.
    For(Span),
}

/// Why a text is not a retention.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write how long it is kept as `90d`, or `forever`")]
pub struct NotAKeep;

impl Keep {
    /// When the time of a run that ended at `finished` is up; never, when it is kept for good.
    #[must_use]
    pub fn until(self, finished: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Forever => None,
            Self::For(span) => Some(span.after(finished)),
        }
    }

    /// The moment before which something must have ended for its time to be up at `now`; `None` when it is kept
    /// for good, or for so long that nothing can be as old.
    #[must_use]
    pub fn horizon(self, now: Timestamp) -> Option<Timestamp> {
        let Self::For(span) = self else { return None };
        let kept = SignedDuration::try_from(span.0).ok()?;
        now.checked_sub(kept).ok().filter(|horizon| *horizon >= Timestamp::UNIX_EPOCH)
    }
}

impl FromStr for Keep {
    type Err = NotAKeep;

    fn from_str(text: &str) -> Result<Self, NotAKeep> {
        match text {
            "forever" => Ok(Self::Forever),
            text => text.parse().map(Self::For).map_err(|_| NotAKeep),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::For(span) => span.fmt(f),
        }
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How long the runs of each workflow are kept.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Retention {
    /// Of workflows that say nothing, and of those that are no longer among the owner's files.
    pub default: Keep,
    /// Of the workflows that say it.
    pub workflows: BTreeMap<WorkflowName, Keep>,
}

impl Retention {
    /// How long runs of this workflow are kept.
    #[must_use]
    pub fn of(&self, workflow: &WorkflowName) -> Keep {
        self.workflows.get(workflow).copied().unwrap_or(self.default)
    }

    /// The moment before which a run must have been opened for its time to be up by now; `None` when
    /// everything is kept for good.
    #[must_use]
    pub fn horizon(&self, now: Timestamp) -> Option<Timestamp> {
        let keeps = self.workflows.values().chain([&self.default]);
        keeps.filter_map(|keep| keep.horizon(now)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_retention_is_a_duration_or_for_good() {
        assert_eq!("forever".parse(), Ok(Keep::Forever));
        assert_eq!("90d".parse(), Ok(Keep::For(Span::secs(90 * 86_400))));
        for text in ["", "for ever", "90", "never"] {
            assert_eq!(text.parse::<Keep>(), Err(NotAKeep), "{text}");
        }
        assert_eq!(Keep::For(Span::secs(86_400)).to_string(), "1d");
    }

    #[test]
    fn a_workflow_that_says_nothing_follows_the_workspace() {
        let week = Keep::For(SHORTEST);
        let retention =
            Retention { default: week, workflows: BTreeMap::from([("books".into(), Keep::Forever)]) };
        assert_eq!(retention.of(&"books".into()), Keep::Forever);
        assert_eq!(retention.of(&"leads".into()), week);
        assert_eq!(Retention::default().of(&"leads".into()), Keep::Forever);
        assert_eq!(Retention::default().horizon(at(0)), None);
    }

    proptest! {
        #[test]
        fn nothing_behind_the_horizon_is_up(
            keeps in prop::collection::vec(prop::option::of(0u64..1 << 36), 1..5),
            now in 0i64..1 << 37, finished in 0i64..1 << 37,
        ) {
            let keep = |secs: &Option<u64>| secs.map_or(Keep::Forever, |secs| Keep::For(Span::secs(secs)));
            let names = (0..).map(|n| WorkflowName(format!("w{n}")));
            let retention = Retention {
                default: keep(&keeps[0]),
                workflows: names.zip(keeps[1..].iter().map(keep)).collect(),
            };
            let up = |keep: Keep| keep.until(at(finished)).is_some_and(|until| until <= at(now));
            if retention.horizon(at(now)).is_none_or(|horizon| at(finished) > horizon) {
                prop_assert!(!up(retention.default) && !retention.workflows.values().any(|keep| up(*keep)));
            }
        }
    }
}

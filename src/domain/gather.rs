//! Triggers that wait before they open a run: until it is quiet, or until enough has come.
//!
//! An input that is gathered is durable and acknowledged; it belongs to one group by its workflow,
//! trigger and key. The group's run opens when the group is due.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::duration::Span;
use crate::domain::label::Label;

/// The most inputs of one batch: a run holds them all at once, and the owner may have to look at them.
pub const MAX_BATCH: u32 = 1_000;

/// The most bytes of JSON that one group holds before it opens early, whatever its size: a run's input is
/// one row of the journal, and is held in memory while the run is in motion.
pub const MAX_GATHERED_BYTES: i64 = 4 * 1024 * 1024;

/// The longest wait: what should happen weeks later is a schedule.
pub const LONGEST_WAIT: Span = Span::secs(7 * 86_400);

/// How a trigger gathers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gather {
    /// The last input wins; its run opens once nothing more has come for a while.
    Debounce {
        /// A template: inputs with the same key take each other's place.
        key: Option<String>,
        /// How long nothing may have come.
        quiet: Span,
        /// The longest the first input waits.
        at_most: Span,
    },
    /// Inputs are collected; one run gets them all, in the order they came.
    Batch {
        /// A template: inputs with the same key are collected together.
        key: Option<String>,
        /// This many are enough.
        size: u32,
        /// The longest the first input waits.
        within: Span,
    },
}

impl Gather {
    /// The template of the key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Debounce { key, .. } | Self::Batch { key, .. } => key.as_deref(),
        }
    }

    /// When a group whose last input came at `last` opens its run if nothing more comes.
    #[must_use]
    pub fn due(&self, first: Timestamp, last: Timestamp) -> Timestamp {
        match self {
            Self::Debounce { quiet, at_most, .. } => quiet.after(last).min(at_most.after(first)),
            Self::Batch { within, .. } => within.after(first),
        }
    }

    /// Whether a group of this many inputs, with this many bytes of JSON, takes no more.
    #[must_use]
    pub fn full(&self, items: u32, bytes: i64) -> bool {
        match self {
            Self::Debounce { .. } => false,
            Self::Batch { size, .. } => items >= *size || bytes >= MAX_GATHERED_BYTES,
        }
    }

    /// The input of the run that opens for these inputs, in the order they came; nothing for none.
    #[must_use]
    pub fn input(&self, mut items: Vec<Value>) -> Option<Value> {
        match self {
            Self::Debounce { .. } => items.pop(),
            Self::Batch { .. } if items.is_empty() => None,
            Self::Batch { .. } => Some(json!({"items": items})),
        }
    }

    /// The label of that input: a batch carries everything, a debounced run only what came last.
    #[must_use]
    pub fn label(&self, items: &[Label]) -> Label {
        match self {
            Self::Debounce { .. } => items.last().copied().unwrap_or_default(),
            Self::Batch { .. } => Label::join_all(items.iter().copied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn debounce(quiet: u64, at_most: u64) -> Gather {
        Gather::Debounce { key: None, quiet: Span::secs(quiet), at_most: Span::secs(at_most) }
    }

    #[test]
    fn a_debounced_run_gets_the_last_input_and_a_batch_gets_all_in_order() {
        let items = || vec![json!({"n": 1}), json!({"n": 2})];
        assert_eq!(debounce(5, 60).input(items()), Some(json!({"n": 2})));
        let batch = Gather::Batch { key: None, size: 2, within: Span::secs(60) };
        assert_eq!(batch.input(items()), Some(json!({"items": [{"n": 1}, {"n": 2}]})));
        assert_eq!(batch.input(Vec::new()), None);
        assert_eq!(batch.label(&[Label::Owner, Label::Untrusted]), Label::Untrusted);
        assert!(batch.full(2, 10) && batch.full(1, MAX_GATHERED_BYTES) && !batch.full(1, 10));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        // The naive model looks at every second: is it quiet, or has the first waited long enough?
        #[test]
        fn a_debounced_group_opens_when_a_watcher_with_a_stopwatch_would_open_it(
            quiet in 1u64..20, at_most in 1u64..60, gaps in prop::collection::vec(0i64..30, 1..12),
        ) {
            let gather = debounce(quiet, at_most);
            let first = 1_000i64;
            let mut arrivals = vec![first];
            let mut due = gather.due(at(first), at(first));
            for gap in gaps {
                let next = arrivals[arrivals.len() - 1] + gap;
                if at(next) >= due {
                    break; // it belongs to the next group
                }
                arrivals.push(next);
                due = gather.due(at(first), at(next));
            }
            let last = arrivals[arrivals.len() - 1];
            let watched = (first..).find(|second| {
                let silent = arrivals.iter().all(|a| *a > *second || *a + quiet as i64 <= *second);
                *second >= last && (silent || *second >= first + at_most as i64)
            });
            prop_assert_eq!(watched.map(at), Some(due));
            prop_assert!(due.duration_since(at(first)) <= SignedDuration::from_secs(at_most as i64));
        }
    }
}

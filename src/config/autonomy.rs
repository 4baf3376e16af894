//! How trust is earned and lost: `autonomy` in `config/settings.yaml`, and in a workflow's own file.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::autonomy::{Demote, Hasty, Promote, Rules};
use crate::domain::duration::Span;

/// For all workflows. Not part of any version: a new word of the owner's counts at once.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Autonomy {
    /// When you are asked whether a supervised version may act without being asked first. Never, when absent:
    /// then only `steward workflows promote` does it.
    #[serde(default)]
    pub promote: Option<Promote>,
    /// When a live version is to be supervised again. Never by itself, when absent.
    #[serde(default)]
    pub demote: Option<Demote>,
    /// Approvals of high risk that are too fast to have been read.
    #[serde(default)]
    pub hasty: HastyApprovals,
}

/// For one workflow: what is absent is as in the settings.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfWorkflow {
    /// When you are asked whether a supervised version may act without being asked first.
    #[serde(default)]
    pub promote: Option<Promote>,
    /// When a live version is to be supervised again.
    #[serde(default)]
    pub demote: Option<Demote>,
    /// You alone change its stage, whatever the settings say: nothing is proposed, nothing done by itself.
    #[serde(default)]
    pub by_hand: bool,
}

/// What too fast means, and how often it has to happen.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HastyApprovals {
    /// An approval of high risk is too fast when there was less time than this to look; `5s` when absent.
    #[schemars(with = "String", extend("format" = "span"))]
    pub within: Span,
    /// So many one after the other are pointed out to you; `3` when absent.
    #[schemars(range(min = 1, max = 100))]
    pub in_a_row: u32,
}

impl Default for HastyApprovals {
    /// Nobody reads a draft, its recipient and an amount in five seconds; once may be a second look.
    fn default() -> Self {
        Self { within: Span::secs(5), in_a_row: 3 }
    }
}

impl Autonomy {
    /// The thresholds of a workflow that says this.
    #[must_use]
    pub fn rules(&self, workflow: &OfWorkflow) -> Rules {
        if workflow.by_hand {
            return Rules::default();
        }
        Rules {
            promote: workflow.promote.or(self.promote),
            demote: workflow.demote.clone().or_else(|| self.demote.clone()),
        }
    }

    /// What is too fast.
    #[must_use]
    pub fn hasty(&self) -> Hasty {
        let within_ms = i64::try_from(self.hasty.within.0.as_millis()).unwrap_or(i64::MAX);
        Hasty { within_ms, in_a_row: self.hasty.in_a_row }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn a_workflow_says_what_is_otherwise_and_by_hand_means_that_nothing_happens_by_itself() {
        let settings: Autonomy =
            read("promote: { after: 20, unchanged: 0.95 }\ndemote: { on: [failed_undo], automatic: true }\n");
        let usual = settings.rules(&OfWorkflow::default());
        assert_eq!(usual.promote, Some(Promote { after: 20, unchanged: 0.95 }));
        let stricter = settings.rules(&read("promote: { after: 100, unchanged: 1 }\n"));
        assert_eq!(stricter.promote, Some(Promote { after: 100, unchanged: 1.0 }));
        assert_eq!(stricter.demote, usual.demote);
        assert_eq!(settings.rules(&read("by_hand: true\n")), Rules::default());
        assert_eq!(settings.hasty(), Hasty { within_ms: 5_000, in_a_row: 3 });
    }
}

//! Earned autonomy: when a version has shown enough to be trusted further, and when it has lost that
//! trust. Pure. Nothing here changes a stage: it says what should be asked, or done where the owner said so.
//!
//! [`judge`] is the rule; [`own`] is Steward's workflow that asks the question and carries the answer out.

pub mod own;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::action::{self, Reach};
use crate::domain::workflow::{Stage, StepKind, Version};

/// The owner's thresholds for one workflow.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rules {
    /// When it has earned to be `live`. Never by itself, when absent.
    pub promote: Option<Promote>,
    /// When it has to go back to `supervised`. Never by itself, when absent.
    pub demote: Option<Demote>,
}

/// When a supervised version has earned to be live.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// So many approvals without a change, of each action that leaves the house.
    #[schemars(range(min = 1, max = 100_000))]
    pub after: u32,
    /// The least share, such as `0.95`, of all decisions about each of them that changed nothing.
    #[schemars(range(min = 0, max = 1))]
    pub unchanged: f64,
}

/// When a live version has to be supervised again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Demote {
    /// What brings it about, each time it happens.
    #[serde(default)]
    pub on: BTreeSet<Cause>,
    /// Besides: the least share of the latest decisions that changed nothing.
    #[serde(default)]
    pub below: Option<Below>,
    /// Do it at once and tell the owner, rather than ask him.
    #[serde(default)]
    pub automatic: bool,
}

/// A share of the latest decisions.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Below {
    /// The share, such as `0.8`.
    #[schemars(range(min = 0, max = 1))]
    pub unchanged: f64,
    /// Of so many.
    #[schemars(range(min = 1, max = 1000))]
    pub of: u32,
}

/// What shows that a live version is trusted too far.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The owner rejected an effect that policy would have allowed, shown to him as one of the sample.
    RejectedSample,
    /// What a run did could not be undone.
    FailedUndo,
}

/// Approvals of high risk that were too fast to have been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hasty {
    /// Faster than this, milliseconds.
    pub within_ms: i64,
    /// So many one after the other are pointed out.
    pub in_a_row: u32,
}

/// How the owner decided about one action of one version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Tally {
    /// Approved as they were.
    pub approved: u32,
    /// Approved with changes.
    pub edited: u32,
    /// Refused.
    pub rejected: u32,
    /// Not decided in time.
    pub expired: u32,
    /// Of the approved: too fast to have been read, and of high risk. They are no evidence.
    pub hasty: u32,
}

impl Tally {
    /// Approvals without a change that count as evidence.
    #[must_use]
    pub fn unchanged(&self) -> u32 {
        self.approved.saturating_sub(self.hasty)
    }

    /// The share of decisions that changed nothing, of those that are evidence; none without any. What
    /// expired was not decided, and counts on neither side.
    #[must_use]
    pub fn unchanged_share(&self) -> Option<f64> {
        let all = self.unchanged() + self.edited + self.rejected;
        (all > 0).then(|| f64::from(self.unchanged()) / f64::from(all))
    }
}

/// What a version has shown since it came to its stage.
#[derive(Clone, PartialEq, Debug)]
pub struct Evidence {
    /// How far it is trusted.
    pub stage: Stage,
    /// The actions by which its runs leave the house; see [`reaches_out`].
    pub reaches_out: BTreeSet<String>,
    /// How the owner decided, by action.
    pub actions: BTreeMap<String, Tally>,
    /// Samples that the owner rejected.
    pub rejected_samples: u32,
    /// Undoings that failed.
    pub failed_undos: u32,
    /// Whether the latest decisions about actions changed nothing, the newest first.
    pub latest: Vec<bool>,
}

/// A change of stage that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// The stage to go to.
    pub stage: Stage,
    /// Done at once rather than asked.
    pub automatic: bool,
    /// Tells this occasion from an earlier one about which the owner said no: it is asked about again only
    /// when there is clearly more to go by.
    pub occasion: String,
    /// Why, one sentence each.
    pub why: Vec<String>,
}

/// What is due for a version that has shown this.
#[must_use]
pub fn judge(rules: &Rules, evidence: &Evidence) -> Option<Due> {
    match evidence.stage {
        Stage::Supervised => promotion(rules.promote.as_ref()?, evidence),
        Stage::Live => demotion(rules.demote.as_ref()?, evidence),
        Stage::Retired => None,
    }
}

/// Each action that leaves the house has to earn it. A version without any has nothing to be promoted for.
fn promotion(rule: &Promote, evidence: &Evidence) -> Option<Due> {
    let none = Tally::default();
    let mut least = None;
    let mut why = Vec::new();
    for action in &evidence.reaches_out {
        let tally = evidence.actions.get(action).unwrap_or(&none);
        let (unchanged, share) = (tally.unchanged(), tally.unchanged_share()?);
        if unchanged < rule.after.max(1) || share < rule.unchanged {
            return None;
        }
        least = Some(least.map_or(unchanged, |least: u32| least.min(unchanged)));
        why.push(format!(
            "`{action}`: {unchanged} approved unchanged, {} edited, {} rejected",
            tally.edited, tally.rejected
        ));
    }
    // Twice as much evidence as at the last time is a new occasion.
    let doublings = (least? / rule.after.max(1)).max(1).ilog2();
    let threshold = format!(
        "your threshold: {} approvals without a change of each action, and {} of all decisions",
        rule.after,
        percent(rule.unchanged)
    );
    why.push(threshold);
    Some(Due { stage: Stage::Live, automatic: false, occasion: doublings.to_string(), why })
}

fn demotion(rule: &Demote, evidence: &Evidence) -> Option<Due> {
    let mut why = Vec::new();
    let on = |cause, count: u32| if rule.on.contains(&cause) { count } else { 0 };
    let samples = on(Cause::RejectedSample, evidence.rejected_samples);
    let undos = on(Cause::FailedUndo, evidence.failed_undos);
    if samples > 0 {
        why.push(format!("you rejected {samples} of the sample that you asked to see"));
    }
    if undos > 0 {
        why.push(format!("undoing failed {undos} times"));
    }
    let mut windows = 0;
    if let Some(below) = rule.below {
        let of = usize::try_from(below.of.max(1)).unwrap_or(usize::MAX);
        if let Some(latest) = evidence.latest.get(..of) {
            let unchanged = latest.iter().filter(|unchanged| **unchanged).count();
            if (unchanged as f64) < below.unchanged * of as f64 {
                why.push(format!(
                    "of the latest {of} decisions {unchanged} changed nothing; you want at least {}",
                    percent(below.unchanged)
                ));
                // As many decisions again are a new occasion.
                windows = decided(evidence) / below.of.max(1);
            }
        }
    }
    if why.is_empty() {
        return None;
    }
    let occasion = format!("{samples}.{undos}.{windows}");
    Some(Due { stage: Stage::Supervised, automatic: rule.automatic, occasion, why })
}

fn decided(evidence: &Evidence) -> u32 {
    evidence.actions.values().map(|tally| tally.approved + tally.edited + tally.rejected).sum()
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

/// The actions by which runs of a version leave the house. What only undoes is not among them: it may
/// never be needed, and would never be earned.
#[must_use]
pub fn reaches_out(version: &Version) -> BTreeSet<String> {
    let named = version.steps.iter().filter_map(|step| match &step.kind {
        StepKind::Action(action) => Some(&action.action),
        StepKind::Agent(_) | StepKind::Review(_) | StepKind::Wait(_) | StepKind::Workflow(_) => None,
    });
    // What nobody knows is taken for the worst.
    let external = |name: &&String| action::spec(name).is_none_or(|spec| spec.reach == Reach::External);
    named.filter(external).cloned().collect()
}

/// Whether approvals of high risk were too fast: the latest so many, the newest first, each with how long
/// whoever decided can have looked at it, milliseconds; `None` for a decision that was no plain approval.
#[must_use]
pub fn too_fast(rule: Hasty, latest: &[Option<i64>]) -> bool {
    let row = usize::try_from(rule.in_a_row.max(1)).unwrap_or(usize::MAX);
    latest.get(..row).is_some_and(|latest| {
        latest.iter().all(|looked| looked.is_some_and(|looked| looked < rule.within_ms))
    })
}

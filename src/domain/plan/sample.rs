//! Sampling: a share of what policy allows is shown to the owner all the same, for good.
//!
//! It is about effects that leave the house and that a paid model led to: in this run, a step that the
//! effect's parameters or key are made from, directly or through other steps, has calls that cost
//! something. What only the encoder, a canned output or the owner led to costs nothing to get wrong twice,
//! and what stays in Steward's own memory can be undone from there.

use std::collections::BTreeSet;

use crate::domain::action::{ActionSpec, Reach};
use crate::domain::ids::StepId;
use crate::domain::plan::Planner;
use crate::domain::policy::{Decision, Ruling};
use crate::domain::sampling::chosen;
use crate::domain::template;
use crate::domain::workflow::Step;

impl Planner<'_, '_> {
    /// What policy allows becomes a review when it is one of the sample; a stricter ruling stays.
    pub(super) fn sampled(&self, step: &Step, spec: &ActionSpec, mut decision: Decision) -> Decision {
        let share = self.env.version.sample.unwrap_or(0.0);
        if decision.ruling == Ruling::Allow
            && spec.reach == Reach::External
            && chosen(self.run.id, &step.id, share)
            && self.is_fed_by_paid_models(step)
        {
            let percent = (share * 1000.0).round() / 10.0;
            let reason =
                format!("you asked to see {percent} % of what paid models lead to, and this is one of them");
            decision.ruling = Ruling::Review;
            decision.reasons.insert(0, reason);
        }
        decision
    }

    fn is_fed_by_paid_models(&self, step: &Step) -> bool {
        self.all_sources(step).iter().any(|id| {
            let items = self.run.steps.iter().filter(|(other, _)| other.place().base == id.as_str());
            items.map(|(_, record)| record.cost_micros).sum::<i64>() > 0
        })
    }

    /// The steps that a step's templates and its list name.
    pub(super) fn sources(&self, step: &Step) -> Vec<StepId> {
        let mut named = BTreeSet::new();
        for text in step.templates() {
            let _ = template::paths(&text, &mut named); // what does not parse fails the step elsewhere
        }
        let place = step.id.place();
        let base = self.env.version.steps.iter().find(|other| other.id.as_str() == place.base);
        if let Some(each) = base.and_then(|base| base.each.as_ref()) {
            let _ = template::paths(&each.of.clone().into(), &mut named);
        }
        named.iter().filter_map(|path| template::step_of(path).map(StepId::from)).collect()
    }
}

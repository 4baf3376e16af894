//! An ended run goes on: which steps are done anew, and which of their effects have happened already.

use std::collections::BTreeSet;

use crate::domain::event::Event;
use crate::domain::ids::StepId;
use crate::domain::label::Label;
use crate::domain::plan::Planner;
use crate::domain::run::{IllegalEvent, Run};
use crate::domain::step::StepStatus;
use crate::domain::workflow::Version;

/// What going on with an ended run means.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Again {
    /// The steps that are done anew, items and undoings among them.
    pub steps: BTreeSet<StepId>,
    /// Those whose effects have happened: they happen again only if the owner says so.
    pub completed: BTreeSet<StepId>,
    /// Those whose effects have been undone: they happen again.
    pub undone: BTreeSet<StepId>,
}

/// What going on with `run` means: from `from` on, or from what did not succeed. `None` when there is
/// no such step.
#[must_use]
pub fn again(run: &Run, version: &Version, from: Option<&StepId>) -> Option<Again> {
    if from.is_some_and(|from| !version.steps.iter().any(|step| step.id == *from)) {
        return None;
    }
    let succeeded =
        |id: &StepId| matches!(run.status(id), StepStatus::Succeeded { .. }) && !run.record(id).compensated;
    let unfinished = version
        .steps
        .iter()
        .map(|step| &step.id)
        .filter(|id| !succeeded(id) || items(run, id).any(|item| run.record(&item).compensated));
    let begin: BTreeSet<StepId> = unfinished.chain(from).cloned().collect();
    let after = from.map(|from| version.descendants(&BTreeSet::from([from.clone()]))).unwrap_or_default();
    let mut found = Again::default();
    for id in version.descendants(&begin) {
        // Items of a list that succeeded are kept, unless the owner begins at their step or before it.
        let items = items(run, &id).filter(|item| after.contains(&id) || !succeeded(item));
        for id in std::iter::once(id.clone()).chain(items.collect::<Vec<_>>()) {
            let record = run.record(&id);
            if record.compensated {
                found.undone.insert(id.clone());
            } else if record.effect.is_some() && succeeded(&id) {
                found.completed.insert(id.clone());
            }
            found.steps.insert(id.undo());
            found.steps.insert(id);
        }
    }
    found.steps.retain(|id| !id.place().undo || run.steps.contains_key(id));
    Some(found)
}

fn items<'r>(run: &'r Run, id: &StepId) -> impl Iterator<Item = StepId> + 'r {
    let count = run.record(id).items.as_ref().map_or(0, |items| items.values.len());
    let id = id.clone();
    (0..count).map(move |index| id.item(index)).filter(|item| run.steps.contains_key(item))
}

impl Planner<'_, '_> {
    pub(super) fn reopen(
        &mut self,
        by: &str,
        from: Option<&StepId>,
        repeat: bool,
    ) -> Result<(), IllegalEvent> {
        if self.run.finished.is_none() {
            return Ok(());
        }
        let Some(again) = again(self.run, self.env.version, from) else { return Ok(()) };
        // What was undone is done again, and may have to be undone again.
        let mut fresh: BTreeSet<StepId> = again.undone.iter().map(StepId::undo).collect();
        fresh.extend(again.undone);
        if repeat {
            fresh.extend(again.completed);
        }
        let event = Event::RunReopened {
            by: by.to_owned(),
            steps: again.steps.into_iter().collect(),
            again: fresh.into_iter().collect(),
        };
        self.emit("owner", Label::Owner, event)
    }
}

//! Steps that do the same for each item of a list: at most so many at once, their results in the
//! order of the list, whatever order they end in.

use serde_json::{Value, json};

use crate::domain::event::{ErrorKind, Event, StepError};
use crate::domain::ids::StepId;
use crate::domain::label::Label;
use crate::domain::plan::Planner;
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::workflow::{Each, OnFailure, Step};

/// The longest list: each item is a step with events of its own in the run's memory.
const MAX_ITEMS: usize = 1000;

impl Planner<'_, '_> {
    /// Makes the list.
    pub(super) fn begin_each(&mut self, step: &Step, each: &Each) -> Result<(), IllegalEvent> {
        let list = Value::String(each.of.clone());
        let made = {
            let scope = self.scope(&step.id);
            scope.fill(&list).and_then(|items| Ok((items, scope.label(&list)?)))
        };
        match made {
            Ok((Value::Array(items), label)) if items.len() <= MAX_ITEMS => {
                self.emit("system", label, Event::EachBegan { step: step.id.clone(), items, label })
            }
            Ok((Value::Array(items), _)) => {
                let message = format!("its list has {} items; at most {MAX_ITEMS} fit", items.len());
                self.fail(step, ErrorKind::Invalid, message)
            }
            Ok(_) => self.fail(step, ErrorKind::Invalid, format!("`{}` is no list", each.of)),
            Err(error) => self.fail(step, ErrorKind::Invalid, error.to_string()),
        }
    }

    /// Begins, resumes and ends items until nothing more can happen without waiting.
    pub(super) fn settle_each(&mut self, step: &Step, each: &Each) -> Result<(), IllegalEvent> {
        let StepStatus::Each { count } = *self.run.status(&step.id) else { return Ok(()) };
        let limit = each.parallel.max(1) as usize;
        let mut under_way = (0..count).filter(|index| self.is_under_way(&step.id.item(*index))).count();
        for index in 0..count {
            let id = step.id.item(index);
            let takes_a_place = match self.run.status(&id) {
                StepStatus::Pending if self.has_begun(&id) => continue,
                StepStatus::Pending => !self.stops_here(step, each, count),
                StepStatus::Decided { .. } => true,
                StepStatus::Backoff { .. } | StepStatus::Waiting { .. } => {
                    self.settle_item(&id)?;
                    continue;
                }
                _ => continue,
            };
            if takes_a_place && under_way < limit {
                self.settle_item(&id)?;
                under_way += usize::from(self.is_under_way(&id) || self.has_begun(&id));
            }
        }
        self.end_each(step, each, count)
    }

    fn settle_item(&mut self, id: &StepId) -> Result<(), IllegalEvent> {
        match self.env.version.step(id) {
            Some(item) => self.settle_step(&item),
            None => Ok(()),
        }
    }

    /// An item that waits for the owner holds no place: all questions are there to be answered at once.
    fn is_under_way(&self, id: &StepId) -> bool {
        match self.run.status(id) {
            StepStatus::Pending => self.has_begun(id),
            StepStatus::Asking { .. } | StepStatus::Decided { .. } => false,
            status => !status.is_over(),
        }
    }

    fn stops_here(&self, step: &Step, each: &Each, count: usize) -> bool {
        each.on_failure == OnFailure::Stop
            && (0..count).any(|n| matches!(self.run.status(&step.id.item(n)), StepStatus::Failed { .. }))
    }

    fn end_each(&mut self, step: &Step, each: &Each, count: usize) -> Result<(), IllegalEvent> {
        let stopped = self.stops_here(step, each, count);
        let open = |status: &StepStatus| match status {
            StepStatus::Pending => !stopped,
            status => !status.is_over(),
        };
        let ids: Vec<StepId> = (0..count).map(|index| step.id.item(index)).collect();
        if ids.iter().any(|id| open(self.run.status(id)) || self.has_begun(id)) {
            return Ok(());
        }
        let (mut items, mut failed, mut declined) = (Vec::new(), Vec::new(), Vec::new());
        let mut label = Label::System;
        let mut first_error = None;
        for (index, id) in ids.iter().enumerate() {
            items.push(match self.run.status(id) {
                StepStatus::Succeeded { output, label: of_item, .. } => {
                    label = label.join(*of_item);
                    output.clone()
                }
                StepStatus::Failed { error } => {
                    failed.push(json!({"index": index, "error": error.message}));
                    first_error.get_or_insert((index, error.clone()));
                    Value::Null
                }
                StepStatus::Declined { reason } => {
                    declined.push(json!({"index": index, "reason": reason}));
                    Value::Null
                }
                _ => Value::Null,
            });
        }
        match first_error {
            Some((index, error)) if each.on_failure == OnFailure::Stop => {
                let message = format!("item {}: {}", index + 1, error.message);
                let error = StepError { message, ..error };
                self.system(Event::StepFailed { step: step.id.clone(), error })
            }
            _ => {
                let output = json!({"items": items, "failed": failed, "declined": declined});
                self.succeed(step, output, label)
            }
        }
    }
}

//! Steps that wait: for an event, for a moment, for the end of another run.

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::domain::event::{ErrorKind, Event, StepError, Topic};
use crate::domain::ids::{HappeningId, RunId, StepId};
use crate::domain::label::Label;
use crate::domain::plan::begin::Begun;
use crate::domain::plan::{ChildEnd, Planner, Task};
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::workflow::{ChildStep, Step, WaitStep};

/// The longest that an event may be about, bytes: it has to fit an index.
pub const MAX_MATCH: usize = 500;

impl Planner<'_, '_> {
    pub(super) fn begin_wait(&mut self, step: &Step, wanted: &WaitStep) -> Begun {
        let scope = self.scope(&step.id);
        let until = wanted.until.as_deref().map(|until| scope.text(until)).transpose()?;
        let matches = wanted.matches.as_deref().map(|matches| scope.text(matches)).transpose()?;
        drop(scope);
        let due_at = match until {
            None => wanted.span.map(|span| span.after(self.env.now)),
            Some(text) => match moment(&text, self.zone()) {
                Some(at) => Some(at),
                None => {
                    let message = format!("`{text}` is no date: write `2026-12-24` or `2026-12-24T09:00`");
                    return Ok(self.fail(step, ErrorKind::Invalid, message));
                }
            },
        };
        let topic = wanted.event.clone().map(|event| Topic { event, matches: matches.unwrap_or_default() });
        if let Some(topic) = topic.as_ref().filter(|topic| topic.matches.len() > MAX_MATCH) {
            let message =
                format!("what it waits for has {} bytes; at most {MAX_MATCH} fit", topic.matches.len());
            return Ok(self.fail(step, ErrorKind::Invalid, message));
        }
        if let Some(topic) = &topic {
            self.tasks.push(Task::Listen { step: step.id.clone(), topic: topic.clone() });
        }
        Ok(self.system(Event::WaitBegan { step: step.id.clone(), topic, due_at }))
    }

    /// The owner's time zone: what a date without one means.
    pub(super) fn zone(&self) -> TimeZone {
        let name = self.env.workspace.get("time_zone").and_then(Value::as_str).unwrap_or("UTC");
        TimeZone::get(name).unwrap_or(TimeZone::UTC)
    }

    /// The event came.
    pub(super) fn happened(
        &mut self,
        id: &StepId,
        happening: HappeningId,
        data: &Value,
        label: Label,
    ) -> Result<(), IllegalEvent> {
        let (Some(step), StepStatus::Waiting { topic: Some(_), .. }) =
            (self.env.version.step(id), self.run.status(id))
        else {
            return Ok(()); // it came a moment earlier, by another way
        };
        self.system(Event::WaitEnded { step: id.clone(), happening: Some(happening) })?;
        self.succeed(&step, json!({"timed_out": false, "data": data, "at": self.env.now}), label)
    }

    /// The time came, unless it is not over yet.
    pub(super) fn settle_wait(&mut self, step: &Step) -> Result<(), IllegalEvent> {
        let StepStatus::Waiting { topic, due_at: Some(due_at) } = self.run.status(&step.id).clone() else {
            return Ok(());
        };
        if due_at > self.env.now {
            return Ok(());
        }
        self.system(Event::WaitEnded { step: step.id.clone(), happening: None })?;
        self.tasks.retain(|task| !matches!(task, Task::Listen { step: id, .. } if *id == step.id));
        let output = json!({"timed_out": topic.is_some(), "data": null, "at": self.env.now});
        self.succeed(step, output, Label::System)
    }

    pub(super) fn begin_child(&mut self, step: &Step, wanted: &ChildStep) -> Begun {
        let scope = self.scope(&step.id);
        let (input, label) = (scope.fill(&wanted.with)?, scope.label(&wanted.with)?);
        drop(scope);
        let budget_micros = match (wanted.budget_micros, self.left()) {
            (Some(share), Some(left)) => Some(share.min(left)),
            (share, left) => share.or(left),
        };
        self.tasks.push(Task::Open {
            step: step.id.clone(),
            attempt: self.run.record(&step.id).attempt,
            workflow: wanted.workflow.clone(),
            input,
            label,
            budget_micros,
        });
        Ok(Ok(()))
    }

    /// What the run's model calls may still cost; nothing when there is no limit.
    pub(super) fn left(&self) -> Option<i64> {
        let spent: i64 = self.run.steps.values().map(|record| record.cost_micros).sum();
        self.run.opened.budget_micros.map(|budget| (budget - spent).max(0))
    }

    /// The other run is open, or cannot be opened.
    pub(super) fn opened(
        &mut self,
        id: &StepId,
        opened: &Result<RunId, StepError>,
    ) -> Result<(), IllegalEvent> {
        let (Some(step), StepStatus::Running) = (self.env.version.step(id), self.run.status(id)) else {
            return Ok(());
        };
        match opened {
            Ok(run) => {
                self.system(Event::ChildOpened { step: id.clone(), run: *run })?;
                self.tasks.push(Task::Attend { step: id.clone(), run: *run });
                Ok(())
            }
            Err(error) => self.failed_attempt(&step, error),
        }
    }

    /// The other run has ended.
    pub(super) fn child_ended(&mut self, id: &StepId, end: &ChildEnd) -> Result<(), IllegalEvent> {
        let (Some(step), StepStatus::Child { run }) = (self.env.version.step(id), self.run.status(id)) else {
            return Ok(());
        };
        if *run != end.run {
            return Ok(());
        }
        self.system(Event::WaitEnded { step: id.clone(), happening: None })?;
        match end.outcome.as_str() {
            "succeeded" => {
                let output = json!({"run": end.run, "output": end.output});
                self.succeed(&step, output, end.label)
            }
            "declined" => {
                let event = Event::StepDeclined { step: id.clone(), reason: end.reason.clone() };
                self.emit("system", Label::System, event)
            }
            outcome => {
                let message = format!("run {} {outcome}: {}", end.run, end.reason);
                self.fail(&step, ErrorKind::Child, message)
            }
        }
    }
}

/// A moment as people and systems write it: with an offset, or as the owner's own time; a bare date
/// means its beginning.
fn moment(text: &str, zone: TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let civil = match text.parse::<civil::DateTime>() {
        Ok(at) => at,
        Err(_) => text.parse::<civil::Date>().ok()?.to_datetime(civil::Time::midnight()),
    };
    zone.to_ambiguous_zoned(civil).compatible().ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_the_owners_own_unless_it_says_otherwise() {
        let zone = || TimeZone::get("Europe/Oslo").unwrap();
        let at = |text: &str| moment(text, zone()).map(|at| at.to_string());
        assert_eq!(at("2026-12-24").unwrap(), "2026-12-23T23:00:00Z");
        assert_eq!(at("2026-07-01T09:30").unwrap(), "2026-07-01T07:30:00Z");
        assert_eq!(at("2026-07-01T09:30:00Z").unwrap(), "2026-07-01T09:30:00Z");
        assert_eq!(at("2026-07-01T09:30:00-05:00").unwrap(), "2026-07-01T14:30:00Z");
        assert_eq!(
            at("2026-03-29T02:30").unwrap(),
            "2026-03-29T01:30:00Z",
            "a time that clocks skip comes when they have"
        );
        assert_eq!(at("soon"), None);
    }
}

//! Settling: begin, resume, skip and finish steps until nothing more can happen without waiting.

use jiff::Timestamp;

use crate::domain::duration::Span;
use crate::domain::event::{ErrorKind, Event, Outcome, Proposal};
use crate::domain::ids::StepId;
use crate::domain::plan::{Planner, Rest, Task};
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::workflow::Step;

impl Planner<'_, '_> {
    /// Does everything that can be done without waiting.
    pub(super) fn settle(&mut self) -> Result<(), IllegalEvent> {
        while self.run.finished.is_none() && self.run.parked.is_none() && !self.is_held() {
            let before = self.run.seq;
            if self.run.compensating.is_some() {
                self.compensate()?;
            } else if let Some((outcome, reason)) = self.end_in_sight() {
                self.wind_down(outcome, reason)?;
            } else {
                self.go_on()?;
            }
            if self.run.seq == before {
                break;
            }
        }
        Ok(())
    }

    /// Nothing begins while the owner holds the run, its workflow, or everything. A run that is to be
    /// cancelled need not be let go first.
    pub(super) fn is_held(&self) -> bool {
        self.env.paused || (self.run.paused.is_some() && self.run.cancelling.is_none())
    }

    fn go_on(&mut self) -> Result<(), IllegalEvent> {
        for step in &self.env.version.steps {
            self.settle_step(step)?;
        }
        if self.early_outcome().is_none()
            && self.env.version.steps.iter().all(|step| self.run.status(&step.id).is_over())
            && let Ok((output, label)) = self.output()
        {
            return self.finish(Outcome::Succeeded, "every step is done".into(), output, label);
        }
        Ok(())
    }

    pub(super) fn settle_step(&mut self, step: &Step) -> Result<(), IllegalEvent> {
        if self.deadline(step).is_some_and(|deadline| deadline <= self.env.now) {
            return self.overdue(step);
        }
        match self.run.status(&step.id) {
            StepStatus::Pending if self.is_ready(step) => self.begin(step),
            StepStatus::Backoff { until, .. } if *until <= self.env.now => self.begin_attempt(step),
            StepStatus::Decided { .. } => self.act_on(step),
            StepStatus::Held { until, proposal } if *until <= self.env.now => self.start(proposal.clone()),
            StepStatus::Waiting { .. } => self.settle_wait(step),
            StepStatus::Each { .. } => match &step.each {
                Some(each) => self.settle_each(step, each),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    pub(super) fn is_ready(&self, step: &Step) -> bool {
        step.needs.iter().all(|need| self.run.status(need).is_over())
            && !self.has_begun(&step.id)
            && (self.run.compensating.is_some() || self.early_outcome().is_none())
    }

    /// A pure step that is under way has no event yet that would say so.
    pub(super) fn has_begun(&self, id: &StepId) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::Instant(begun) if begun == id))
    }

    /// The end of a step's time, while that can still end it: what may have happened must be known
    /// first, and the owner's time is the review's own.
    fn deadline(&self, step: &Step) -> Option<Timestamp> {
        let record = self.run.steps.get(&step.id)?;
        match record.status {
            StepStatus::Running
            | StepStatus::Backoff { .. }
            | StepStatus::Waiting { .. }
            | StepStatus::Child { .. } => Some(step.deadline?.after(record.began_at?)),
            _ => None,
        }
    }

    fn overdue(&mut self, step: &Step) -> Result<(), IllegalEvent> {
        let status = self.run.status(&step.id);
        if let StepStatus::Child { run } = status {
            self.tasks.push(Task::Stop(*run));
        }
        if matches!(status, StepStatus::Waiting { .. } | StepStatus::Child { .. }) {
            self.system(Event::WaitEnded { step: step.id.clone(), happening: None })?;
        }
        let span = step.deadline.unwrap_or(Span::secs(0));
        self.fail(step, ErrorKind::Deadline, format!("it was not done within {span}"))
    }

    /// A proposal that will not be carried out gives its key back.
    pub(super) fn withdraw(&mut self, proposal: &Proposal, reason: &str) -> Result<(), IllegalEvent> {
        let (step, effect) = (proposal.step.clone(), proposal.effect);
        self.system(Event::EffectWithdrawn { step, effect, reason: reason.to_owned() })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.tasks.iter().any(|task| !matches!(task, Task::Stop(_)))
            || !self.deferred.is_empty()
            || self
                .run
                .steps
                .values()
                .any(|record| matches!(record.status, StepStatus::Running | StepStatus::Effecting { .. }))
    }

    pub(super) fn rest(&self) -> Rest {
        if let Some((outcome, _)) = &self.run.finished {
            return Rest::Over(*outcome);
        }
        if self.is_busy() && !self.unmoved {
            return Rest::Busy;
        }
        match () {
            () if self.run.parked.is_some() => Rest::Parked,
            () if self.run.paused.is_some() && self.is_held() => Rest::Paused,
            // Due as soon as it may go on.
            () if self.env.paused => Rest::Asleep { wake_at: Some(self.env.now) },
            () => Rest::Asleep { wake_at: self.due() },
        }
    }

    /// The next moment at which something is due by itself.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let waits = self.run.steps.values().filter_map(|record| match record.status {
            StepStatus::Backoff { until, .. } | StepStatus::Held { until, .. } => Some(until),
            StepStatus::Waiting { due_at, .. } => due_at,
            _ => None,
        });
        let deadlines = self.run.steps.keys().filter_map(|id| self.deadline(&*self.env.version.step(id)?));
        let whole = self.run_deadline();
        waits.chain(deadlines).chain(whole).min()
    }
}

//! Settling: begin, resume, skip and finish steps until nothing more can happen without waiting.

use crate::domain::event::{Ask, Event, Outcome, Proposal};
use crate::domain::plan::{Planner, Rest, Task};
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::workflow::Step;

impl Planner<'_, '_> {
    /// Does everything that can be done without waiting.
    pub(super) fn settle(&mut self) -> Result<(), IllegalEvent> {
        while self.run.finished.is_none() {
            let before = self.run.seq;
            if self.run.cancelling.is_some() {
                return self.cancel();
            }
            if self.finish_early()? {
                return Ok(());
            }
            for step in &self.env.version.steps {
                self.settle_step(step)?;
            }
            if self.env.version.steps.iter().all(|step| self.run.status(&step.id).is_over()) {
                let outcome =
                    self.early_outcome().unwrap_or((Outcome::Succeeded, "every step is done".into()));
                return self.finish(outcome.0, outcome.1);
            }
            if self.run.seq == before {
                return Ok(());
            }
        }
        Ok(())
    }

    fn settle_step(&mut self, step: &Step) -> Result<(), IllegalEvent> {
        match self.run.status(&step.id) {
            StepStatus::Pending if self.is_ready(step) => self.begin(step),
            StepStatus::Backoff { until, .. } if *until <= self.env.now => self.begin_attempt(step),
            StepStatus::Decided { .. } => self.act_on(step),
            _ => Ok(()),
        }
    }

    pub(super) fn is_ready(&self, step: &Step) -> bool {
        step.needs.iter().all(|need| self.run.status(need).is_over())
            && !self.tasks.iter().any(|task| matches!(task, Task::Instant(id) if *id == step.id))
            && self.early_outcome().is_none()
    }

    /// A step that failed or was declined ends the run, once nothing is under way any more.
    fn finish_early(&mut self) -> Result<bool, IllegalEvent> {
        match self.early_outcome() {
            Some((outcome, reason)) if !self.is_busy() => self.finish(outcome, reason).map(|()| true),
            _ => Ok(false),
        }
    }

    fn early_outcome(&self) -> Option<(Outcome, String)> {
        self.env.version.steps.iter().find_map(|step| match self.run.status(&step.id) {
            StepStatus::Failed { error } => Some((Outcome::Failed, format!("{}: {error}", step.title()))),
            StepStatus::Declined { reason } => {
                Some((Outcome::Declined, format!("{}: {reason}", step.title())))
            }
            _ => None,
        })
    }

    fn finish(&mut self, outcome: Outcome, reason: String) -> Result<(), IllegalEvent> {
        self.withdraw_reviews("the run ended")?;
        self.tasks.clear();
        self.system(Event::RunFinished { outcome, reason })
    }

    /// Stops as soon as no effect is in flight: what may have happened must be known first.
    fn cancel(&mut self) -> Result<(), IllegalEvent> {
        self.withdraw_reviews("the run was cancelled")?;
        for step in &self.env.version.steps {
            match self.run.status(&step.id) {
                StepStatus::Decided { ask: Ask::InDoubt, .. } => self.act_on(step)?,
                StepStatus::Decided { ask: Ask::Approval, proposal: Some(proposal), .. } => {
                    let proposal = proposal.clone();
                    self.withdraw(&proposal, "the run was cancelled")?;
                }
                _ => {}
            }
        }
        self.tasks.retain(|task| matches!(task, Task::Perform(_) | Task::Probe(_)));
        let in_flight = |status: &StepStatus| {
            matches!(status, StepStatus::Effecting { .. } | StepStatus::Asking { ask: Ask::InDoubt, .. })
        };
        if self.run.steps.values().any(|record| in_flight(&record.status)) {
            return Ok(());
        }
        let by = self.run.cancelling.clone().unwrap_or_default();
        self.system(Event::RunFinished { outcome: Outcome::Cancelled, reason: format!("cancelled by {by}") })
    }

    /// Withdraws every open question but the one whether something happened: that stays true.
    fn withdraw_reviews(&mut self, reason: &str) -> Result<(), IllegalEvent> {
        let open = self.run.steps.iter().filter_map(|(id, record)| match &record.status {
            StepStatus::Asking { ask: Ask::InDoubt, .. } => None,
            StepStatus::Asking { review, ask, proposal } => {
                Some((id.clone(), *review, *ask, proposal.clone()))
            }
            _ => None,
        });
        let open: Vec<_> = open.collect();
        for (step, review, ask, proposal) in open {
            if let (Ask::Approval, Some(proposal)) = (ask, proposal) {
                self.withdraw(&proposal, reason)?;
            }
            self.system(Event::ReviewSuperseded { step, review, reason: reason.to_owned() })?;
        }
        Ok(())
    }

    /// A proposal that will not be carried out gives its key back.
    pub(super) fn withdraw(&mut self, proposal: &Proposal, reason: &str) -> Result<(), IllegalEvent> {
        let (step, effect) = (proposal.step.clone(), proposal.effect);
        self.system(Event::EffectWithdrawn { step, effect, reason: reason.to_owned() })
    }

    fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
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
        if self.is_busy() {
            return Rest::Busy;
        }
        let due = self.run.steps.values().filter_map(|record| match record.status {
            StepStatus::Backoff { until, .. } => Some(until),
            _ => None,
        });
        Rest::Asleep { wake_at: due.min() }
    }
}

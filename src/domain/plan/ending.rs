//! How a run ends: why it must, what is waited for before, and how what it did is undone, the last
//! thing first. Undoing is steps like any other: journaled, retried, judged by policy.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::domain::action::Labels;
use crate::domain::digest::Digest;
use crate::domain::event::{Ask, Event, Outcome, Question, Verdict};
use crate::domain::ids::{ReviewId, RunId, StepId};
use crate::domain::label::Label;
use crate::domain::plan::{PARKED_CHOICES, Planner, Task, UNDO_CHOICES};
use crate::domain::risk::Risk;
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::template::TemplateError;
use crate::domain::workflow::Step;

impl Planner<'_, '_> {
    /// Why the run cannot go on to its regular end.
    pub(super) fn end_in_sight(&self) -> Option<(Outcome, String)> {
        if let Some(by) = &self.run.cancelling {
            return Some((Outcome::Cancelled, format!("cancelled by {by}")));
        }
        if self.run_deadline().is_some_and(|deadline| deadline <= self.env.now) {
            let span = self.env.version.deadline.map(|span| span.to_string()).unwrap_or_default();
            return Some((Outcome::Failed, format!("it was not done within {span}")));
        }
        self.early_outcome().or_else(|| self.without_output())
    }

    pub(super) fn run_deadline(&self) -> Option<Timestamp> {
        Some(self.env.version.deadline?.after(self.run.began_at))
    }

    /// A step that failed, or else one that was declined, ends the run.
    pub(super) fn early_outcome(&self) -> Option<(Outcome, String)> {
        let because = |step: &Step, why: &str| format!("{}: {why}", step.title());
        let mut declined = None;
        for step in &self.env.version.steps {
            match self.run.status(&step.id) {
                StepStatus::Failed { error } => {
                    return Some((Outcome::Failed, because(step, &error.message)));
                }
                StepStatus::Declined { reason } => {
                    declined.get_or_insert_with(|| (Outcome::Declined, because(step, reason)));
                }
                _ => {}
            }
        }
        declined
    }

    /// What the workflow gives, with where it came from.
    pub(super) fn output(&self) -> Result<(Option<Value>, Label), TemplateError> {
        let Some(template) = &self.env.version.output else { return Ok((None, Label::System)) };
        let scope = self.scope(&StepId::from(""));
        Ok((Some(scope.fill(template)?), scope.label(template)?))
    }

    fn without_output(&self) -> Option<(Outcome, String)> {
        let over = self.env.version.steps.iter().all(|step| self.run.status(&step.id).is_over());
        let error = over.then(|| self.output().err()).flatten()?;
        Some((Outcome::Failed, format!("its output cannot be filled in: {error}")))
    }

    /// Withdraws what waits, waits for what is in flight, then ends, undoing first what must be undone.
    pub(super) fn wind_down(&mut self, outcome: Outcome, reason: String) -> Result<(), IllegalEvent> {
        let why = match outcome {
            Outcome::Cancelled => "the run was cancelled",
            Outcome::Succeeded | Outcome::Declined | Outcome::Failed | Outcome::Parked => "the run ended",
        };
        self.withdraw_questions(why)?;
        // What a model call cost is worth knowing, but not worth waiting for once the owner said stop.
        let agents_too = outcome != Outcome::Cancelled;
        self.tasks.retain(|task| match task {
            Task::Perform(_) | Task::Probe(_) | Task::Stop(_) => true,
            // A step that says it is running is waited for: something must come of it.
            Task::Agent { .. } | Task::Read { .. } | Task::Open { .. } | Task::LookBack(_) => agents_too,
            Task::Instant(_) | Task::Listen { .. } | Task::Attend { .. } => false,
        });
        let in_flight = |status: &StepStatus| match status {
            StepStatus::Effecting { .. } | StepStatus::Asking { ask: Ask::InDoubt, .. } => true,
            StepStatus::Running => agents_too,
            _ => false,
        };
        if self.run.steps.values().any(|record| in_flight(&record.status)) {
            return Ok(());
        }
        let children = self.open_children();
        if !children.is_empty() || (undoes(outcome) && self.next_to_undo().is_some()) {
            self.tasks.extend(children.into_iter().map(Task::Stop));
            return self.system(Event::RunCompensating { outcome, reason });
        }
        self.finish(outcome, reason, None, Label::System)
    }

    pub(super) fn finish(
        &mut self,
        outcome: Outcome,
        reason: String,
        output: Option<Value>,
        label: Label,
    ) -> Result<(), IllegalEvent> {
        self.withdraw_questions("the run ended")?;
        self.tasks.retain(|task| matches!(task, Task::Stop(_)));
        self.emit("system", label, Event::RunFinished { outcome, reason, output })
    }

    /// Withdraws every open question but the one whether something happened, which stays true, and
    /// every wait.
    fn withdraw_questions(&mut self, reason: &str) -> Result<(), IllegalEvent> {
        let waiting: Vec<StepId> = self.run.steps.keys().cloned().collect();
        for id in waiting {
            match self.run.status(&id).clone() {
                StepStatus::Asking { ask: Ask::InDoubt, .. } => {}
                StepStatus::Asking { review, ask, proposal } => {
                    if let (Ask::Approval, Some(proposal)) = (ask, proposal) {
                        self.withdraw(&proposal, reason)?;
                    }
                    self.system(Event::ReviewSuperseded { step: id, review, reason: reason.to_owned() })?;
                }
                StepStatus::Decided { ask: Ask::InDoubt, .. } => {
                    if let Some(step) = self.env.version.step(&id) {
                        self.act_on(&step)?;
                    }
                }
                StepStatus::Decided { ask: Ask::Approval, proposal: Some(proposal), .. } => {
                    self.withdraw(&proposal, reason)?;
                    self.system(Event::StepDeclined { step: id, reason: reason.to_owned() })?;
                }
                StepStatus::Waiting { .. } => {
                    self.system(Event::WaitEnded { step: id.clone(), happening: None })?;
                    self.system(Event::StepSkipped { step: id, reason: reason.to_owned() })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn open_children(&self) -> Vec<RunId> {
        let open = self.run.steps.values().filter_map(|record| match record.status {
            StepStatus::Child { run } => Some(run),
            _ => None,
        });
        open.collect()
    }

    /// The step that did something last which can be undone and is not yet, nor left by the owner.
    fn next_to_undo(&self) -> Option<StepId> {
        let done = self.run.steps.iter().filter(|(id, record)| {
            let undoable = record.effect.is_some() || record.child.is_some();
            undoable
                && !record.compensated
                && matches!(record.status, StepStatus::Succeeded { .. })
                && !matches!(self.run.status(&id.undo()), StepStatus::Declined { .. })
                && self.env.version.step(&id.undo()).is_some()
        });
        done.max_by_key(|(_, record)| record.succeeded_seq).map(|(id, _)| id.clone())
    }

    pub(super) fn compensate(&mut self) -> Result<(), IllegalEvent> {
        let Some((outcome, reason)) = self.run.compensating.clone() else { return Ok(()) };
        if !self.open_children().is_empty() {
            return Ok(());
        }
        let next = if undoes(outcome) { self.next_to_undo() } else { None };
        let Some(id) = next else { return self.finish(outcome, reason, None, Label::System) };
        let Some(undo) = self.env.version.step(&id.undo()) else { return Ok(()) };
        match self.run.status(&undo.id) {
            StepStatus::Succeeded { .. } => {
                let effect = self.run.record(&id).effect;
                self.system(Event::EffectCompensated { step: id, effect })
            }
            StepStatus::Failed { error } => {
                let evidence = error.message.clone();
                self.ask_about_undo(&undo, &evidence)
            }
            _ => self.settle_step(&undo),
        }
    }

    /// An undo that failed is the owner's to deal with, never forgotten.
    fn ask_about_undo(&mut self, undo: &Step, evidence: &str) -> Result<(), IllegalEvent> {
        let title = format!("{} · {}: it failed", self.run.opened.title, undo.title());
        let question = Question {
            step: undo.id.clone(),
            review: self.next_review(&undo.id),
            ask: Ask::Undo,
            digest: Digest::of_json(&json!({"undo": undo.id, "error": evidence, "run": self.run.id,
                "nth": self.run.record(&undo.id).reviews})),
            title,
            reasons: vec![
                evidence.to_owned(),
                "`again`: try once more; `done`: you have undone it yourself; `leave`: it stays as it is"
                    .into(),
            ],
            artifacts: Vec::new(),
            action: None,
            labels: Labels::new(),
            stakes: None,
            form: Some(json!({"type": "string", "enum": UNDO_CHOICES})),
            due_at: None,
            risk: Risk::default(),
            allows_micros: None,
        };
        self.open(question)
    }

    /// The owner has said what to do about an undo that failed.
    pub(super) fn resolve_undo(&mut self, step: &Step, choice: Option<&str>) -> Result<(), IllegalEvent> {
        match choice {
            Some("again") => self.begin_attempt(step),
            Some("done") => self.answer(step, json!({"confirmed_by": "owner"})),
            _ => self.decline(step, "it stays as it is"),
        }
    }

    /// The owner has looked at a parked run.
    pub(super) fn unpark(
        &mut self,
        review: ReviewId,
        verdict: &Verdict,
        by: &str,
    ) -> Result<(), IllegalEvent> {
        let event = Event::RunUnparked { review, by: by.to_owned() };
        self.emit("owner", Label::Owner, event)?;
        let again =
            matches!(verdict, Verdict::Answered { answer } if answer.as_str() == Some(PARKED_CHOICES[0]));
        if again {
            return self.recover();
        }
        self.finish(Outcome::Parked, format!("given up by {by}"), None, Label::System)
    }
}

/// Whether what was done is undone when a run ends so.
fn undoes(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Failed | Outcome::Cancelled => true,
        Outcome::Succeeded | Outcome::Declined | Outcome::Parked => false,
    }
}

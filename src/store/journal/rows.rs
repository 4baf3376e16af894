//! From events to rows: what a commit changes in effects and reviews follows from its events alone,
//! so the tables can never tell another story than the journal.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::event::{Event, ModelCall, Question};
use crate::domain::ids::EffectId;
use crate::store::events::RUN_FINISHED;
use crate::store::journal::Commit;

/// New rows of `effects`, a column each.
#[derive(Default)]
pub(super) struct NewEffects {
    pub(super) id: Vec<Uuid>,
    pub(super) run_id: Vec<Uuid>,
    pub(super) step: Vec<String>,
    pub(super) attempt: Vec<i32>,
    pub(super) action: Vec<String>,
    pub(super) key: Vec<String>,
    pub(super) digest: Vec<Vec<u8>>,
    pub(super) request: Vec<String>,
    pub(super) labels: Vec<String>,
    pub(super) status: Vec<&'static str>,
    pub(super) at: Vec<Timestamp>,
    pub(super) started_at: Vec<Option<Timestamp>>,
    pub(super) goes_at: Vec<Option<Timestamp>>,
}

/// Changed rows of `effects`; what is absent stays as it was.
#[derive(Default)]
pub(super) struct ChangedEffects {
    pub(super) id: Vec<Uuid>,
    pub(super) run_id: Vec<Uuid>,
    pub(super) status: Vec<&'static str>,
    pub(super) digest: Vec<Option<Vec<u8>>>,
    pub(super) request: Vec<Option<String>>,
    pub(super) response: Vec<Option<String>>,
    pub(super) started_at: Vec<Option<Timestamp>>,
    pub(super) ended_at: Vec<Option<Timestamp>>,
    pub(super) goes_at: Vec<Option<Timestamp>>,
}

/// New rows of `reviews`.
#[derive(Default)]
pub(super) struct NewReviews {
    pub(super) id: Vec<Uuid>,
    pub(super) run_id: Vec<Uuid>,
    pub(super) step: Vec<String>,
    pub(super) ask: Vec<&'static str>,
    pub(super) digest: Vec<Vec<u8>>,
    pub(super) title: Vec<String>,
    pub(super) question: Vec<String>,
    pub(super) opened_at: Vec<Timestamp>,
    pub(super) due_at: Vec<Option<Timestamp>>,
}

/// Reviews whose decision is consumed, or that are withdrawn.
#[derive(Default)]
pub(super) struct ClosedReviews {
    pub(super) id: Vec<Uuid>,
    pub(super) run_id: Vec<Uuid>,
    pub(super) superseded: Vec<bool>,
    pub(super) at: Vec<Timestamp>,
}

/// Waits that begin.
#[derive(Default)]
pub(super) struct NewWaits {
    pub(super) run_id: Vec<Uuid>,
    pub(super) step: Vec<String>,
    pub(super) name: Vec<String>,
    pub(super) matches: Vec<String>,
}

/// Waits that end.
#[derive(Default)]
pub(super) struct EndedWaits {
    pub(super) run_id: Vec<Uuid>,
    pub(super) step: Vec<String>,
}

/// Events that these commits are: the ends of runs that others wait for.
#[derive(Default)]
pub(super) struct NewEvents {
    pub(super) id: Vec<Uuid>,
    pub(super) run_id: Vec<Uuid>,
    pub(super) name: Vec<String>,
    pub(super) matches: Vec<String>,
    pub(super) data: Vec<String>,
    pub(super) label: Vec<&'static str>,
}

/// Reservations of model calls that these commits journal, with what each call cost.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) id: Vec<Uuid>,
    pub(super) run_id: Vec<Uuid>,
    pub(super) cost: Vec<i64>,
    pub(super) at: Vec<Timestamp>,
}

/// Topics of the inbox that were heard.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) run_id: Vec<Uuid>,
    pub(super) topic: Vec<String>,
}

/// Every row that a batch changes besides runs and journal.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) new_effects: NewEffects,
    pub(super) changed_effects: ChangedEffects,
    pub(super) new_reviews: NewReviews,
    pub(super) closed_reviews: ClosedReviews,
    pub(super) heard: Heard,
    pub(super) new_waits: NewWaits,
    pub(super) ended_waits: EndedWaits,
    pub(super) new_events: NewEvents,
    pub(super) settled: Settled,
}

impl Rows {
    pub(super) fn of(commits: &[&Commit]) -> Self {
        let mut rows = Self::default();
        for commit in commits {
            rows.add(commit);
        }
        rows
    }

    /// Whether the batch touches nothing but runs and journal, as pure steps do.
    pub(super) fn is_empty(&self) -> bool {
        self.new_effects.id.is_empty()
            && self.changed_effects.id.is_empty()
            && self.new_reviews.id.is_empty()
            && self.closed_reviews.id.is_empty()
            && self.heard.topic.is_empty()
            && self.new_waits.step.is_empty()
            && self.ended_waits.step.is_empty()
            && self.new_events.id.is_empty()
            && self.settled.id.is_empty()
    }

    fn add(&mut self, commit: &Commit) {
        let run = commit.run.0;
        for entry in &commit.entries {
            self.add_event(run, &entry.event, entry.at);
        }
        for topic in &commit.heard {
            self.heard.run_id.push(run);
            self.heard.topic.push(topic.clone());
        }
        if let Some(happening) = &commit.publish {
            let events = &mut self.new_events;
            events.id.push(happening.id.0);
            events.run_id.push(run);
            events.name.push(happening.topic.event.clone());
            events.matches.push(happening.topic.matches.clone());
            events.data.push(happening.data.to_string());
            events.label.push(happening.label.as_str());
        }
    }

    fn add_event(&mut self, run: Uuid, event: &Event, at: Timestamp) {
        match event {
            Event::EffectProposed(proposal) => {
                let effects = &mut self.new_effects;
                effects.id.push(proposal.effect.0);
                effects.run_id.push(run);
                effects.step.push(proposal.step.0.clone());
                effects.attempt.push(proposal.attempt.cast_signed());
                effects.action.push(proposal.action.action.clone());
                effects.key.push(proposal.key.clone());
                effects.digest.push(proposal.digest.0.to_vec());
                effects.request.push(proposal.action.params.to_string());
                effects.labels.push(json!(proposal.labels).to_string());
                effects.status.push("proposed");
                effects.at.push(at);
                effects.started_at.push(None);
                effects.goes_at.push(None);
            }
            Event::EffectHeld { effect, digest, action, until, .. } => {
                if let Some(new) = self.just_proposed(*effect) {
                    self.new_effects.goes_at[new] = Some(*until);
                    return;
                }
                let change = self.change(run, *effect, "proposed");
                self.changed_effects.digest[change] = Some(digest.0.to_vec());
                self.changed_effects.request[change] = Some(action.params.to_string());
                self.changed_effects.goes_at[change] = Some(*until);
            }
            Event::EffectCalledBack { effect, .. } => {
                let change = self.change(run, *effect, "proposed");
                self.changed_effects.goes_at[change] = None;
            }
            Event::EffectStarted { effect, digest, action, again, .. } => {
                let started_at = (!again).then_some(at);
                if let Some(new) = self.just_proposed(*effect) {
                    self.new_effects.status[new] = "started";
                    self.new_effects.started_at[new] = started_at;
                    return;
                }
                let change = self.change(run, *effect, "started");
                self.changed_effects.digest[change] = Some(digest.0.to_vec());
                self.changed_effects.request[change] = Some(action.params.to_string());
                self.changed_effects.started_at[change] = started_at;
            }
            Event::EffectSucceeded { effect, response, .. } => {
                self.end(run, *effect, "succeeded", response.clone(), at)
            }
            Event::EffectFailed { effect, error, .. } => {
                self.end(run, *effect, "failed", json!({"error": error}), at)
            }
            Event::EffectUnknown { effect, evidence, .. } => {
                self.end(run, *effect, "unknown", json!({"evidence": evidence}), at);
            }
            Event::EffectWithdrawn { effect, reason, .. } => match self.just_proposed(*effect) {
                Some(new) => self.new_effects.status[new] = "withdrawn",
                None => self.end(run, *effect, "withdrawn", json!({"reason": reason}), at),
            },
            Event::ReviewOpened(question) => self.ask(run, question, at),
            Event::RunParked(parked) => self.ask(run, &parked.question, at),
            Event::RunUnparked { review, .. } => self.close_review(run, review.0, true, at),
            Event::EffectCompensated { effect: Some(effect), .. } => {
                self.change(run, *effect, "compensated");
            }
            Event::WaitBegan { step, topic: Some(topic), .. } => {
                let waits = &mut self.new_waits;
                waits.run_id.push(run);
                waits.step.push(step.0.clone());
                waits.name.push(topic.event.clone());
                waits.matches.push(topic.matches.clone());
            }
            Event::ChildOpened { step, run: child } => {
                let waits = &mut self.new_waits;
                waits.run_id.push(run);
                waits.step.push(step.0.clone());
                waits.name.push(RUN_FINISHED.to_owned());
                waits.matches.push(child.to_string());
            }
            Event::WaitEnded { step, .. } => {
                self.ended_waits.run_id.push(run);
                self.ended_waits.step.push(step.0.clone());
            }
            Event::ReviewDecided { review, .. } => self.close_review(run, review.0, false, at),
            Event::ReviewSuperseded { review, .. } => self.close_review(run, review.0, true, at),
            Event::ModelCalled {
                call: ModelCall { reservation: Some(reservation), cost_micros, .. },
                ..
            } => {
                let settled = &mut self.settled;
                settled.id.push(reservation.0);
                settled.run_id.push(run);
                settled.cost.push(*cost_micros);
                settled.at.push(at);
            }
            Event::RunOpened(_)
            | Event::StepStarted { .. }
            | Event::ModelCalled { .. }
            | Event::ToolCalled { .. }
            | Event::AttemptFailed { .. }
            | Event::StepSucceeded { .. }
            | Event::StepSkipped { .. }
            | Event::StepDeclined { .. }
            | Event::StepFailed { .. }
            | Event::EffectReused { .. }
            | Event::DraftReturned(_)
            | Event::EffectCompensated { effect: None, .. }
            | Event::EachBegan { .. }
            | Event::WaitBegan { topic: None, .. }
            | Event::RunCancelling { .. }
            | Event::RunCompensating { .. }
            | Event::RunPaused { .. }
            | Event::RunResumed { .. }
            | Event::RunReopened { .. }
            | Event::RunFinished { .. } => {}
        }
    }

    fn ask(&mut self, run: Uuid, question: &Question, at: Timestamp) {
        let reviews = &mut self.new_reviews;
        reviews.id.push(question.review.0);
        reviews.run_id.push(run);
        reviews.step.push(question.step.0.clone());
        reviews.ask.push(question.ask.as_str());
        reviews.digest.push(question.digest.0.to_vec());
        reviews.title.push(question.title.clone());
        reviews.question.push(json!(question).to_string());
        reviews.opened_at.push(at);
        reviews.due_at.push(question.due_at);
    }

    fn just_proposed(&self, effect: EffectId) -> Option<usize> {
        self.new_effects.id.iter().position(|id| *id == effect.0)
    }

    fn end(&mut self, run: Uuid, effect: EffectId, status: &'static str, response: Value, at: Timestamp) {
        let change = self.change(run, effect, status);
        self.changed_effects.response[change] = Some(response.to_string());
        self.changed_effects.ended_at[change] = Some(at);
    }

    /// The change of that effect in this batch, with its newest status; a row is changed once a statement.
    fn change(&mut self, run: Uuid, effect: EffectId, status: &'static str) -> usize {
        let effects = &mut self.changed_effects;
        if let Some(change) = effects.id.iter().position(|id| *id == effect.0) {
            effects.status[change] = status;
            return change;
        }
        effects.id.push(effect.0);
        effects.run_id.push(run);
        effects.status.push(status);
        effects.digest.push(None);
        effects.request.push(None);
        effects.response.push(None);
        effects.started_at.push(None);
        effects.ended_at.push(None);
        effects.goes_at.push(None);
        effects.id.len() - 1
    }

    fn close_review(&mut self, run: Uuid, review: Uuid, superseded: bool, at: Timestamp) {
        self.closed_reviews.id.push(review);
        self.closed_reviews.run_id.push(run);
        self.closed_reviews.superseded.push(superseded);
        self.closed_reviews.at.push(at);
    }
}

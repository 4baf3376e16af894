//! Acting on the owner's verdicts.

use serde_json::{Value, json};

use crate::domain::event::{Ask, ErrorKind, Event, Proposal, Verdict};
use crate::domain::ids::ReviewId;
use crate::domain::label::Label;
use crate::domain::plan::Planner;
use crate::domain::plan::judging::judge_edit;
use crate::domain::policy::Ruling;
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::workflow::Step;

impl Planner<'_, '_> {
    /// Takes note of a decision; a review that no longer waits takes none.
    pub(super) fn decided(
        &mut self,
        review: ReviewId,
        verdict: &Verdict,
        by: &str,
    ) -> Result<(), IllegalEvent> {
        if self.run.parked == Some(review) {
            return self.unpark(review, verdict, by);
        }
        let waiting = self.run.steps.iter().find_map(|(id, record)| match record.status {
            StepStatus::Asking { review: open, .. } if open == review => Some(id.clone()),
            _ => None,
        });
        let Some(step) = waiting else { return Ok(()) };
        let event = Event::ReviewDecided { step, review, verdict: verdict.clone(), by: by.to_owned() };
        self.emit("owner", Label::Owner, event)
    }

    /// Does what was decided.
    pub(super) fn act_on(&mut self, step: &Step) -> Result<(), IllegalEvent> {
        let StepStatus::Decided { ask, verdict, proposal } = self.run.status(&step.id).clone() else {
            return Ok(());
        };
        match (ask, verdict, proposal) {
            (_, Verdict::Expired, proposal) => {
                self.give_back(ask, proposal.as_deref(), "nobody decided in time")?;
                self.fail(step, ErrorKind::Expired, "nobody decided in time, and a time-out never means yes")
            }
            (Ask::Approval, Verdict::Approved, Some(proposal)) => self.start(proposal),
            (Ask::Approval, Verdict::Edited { params }, Some(proposal)) => {
                self.start_edited(step, *proposal, params)
            }
            (Ask::Question, Verdict::Rejected { reason }, _) => {
                self.answer(step, json!({"decision": "rejected", "reason": reason}))
            }
            (Ask::Question, Verdict::Approved, _) => self.answer(step, json!({"decision": "approved"})),
            (Ask::Question, Verdict::Answered { answer }, _) => {
                self.answer(step, json!({"decision": "answered", "answer": answer}))
            }
            (Ask::Answer | Ask::Budget, Verdict::Answered { answer }, _) => self.answer(step, answer),
            // What was allowed counts from here on: the models are asked anew.
            (Ask::Budget, Verdict::Approved, _) => self.begin_attempt(step),
            (Ask::InDoubt, Verdict::Answered { answer }, Some(proposal)) => {
                self.resolve_doubt(step, proposal, answer.as_str())
            }
            (Ask::Undo, Verdict::Answered { answer }, _) => self.resolve_undo(step, answer.as_str()),
            (ask, Verdict::Rejected { reason }, proposal) => {
                self.give_back(ask, proposal.as_deref(), "the owner said no")?;
                self.decline(step, &reason)
            }
            (ask, verdict, _) => {
                let message =
                    format!("`{}` is no answer to a review of kind {}", verdict.status(), ask.as_str());
                self.fail(step, ErrorKind::Invalid, message)
            }
        }
    }

    /// What is in doubt keeps its key: it may have happened.
    fn give_back(&mut self, ask: Ask, proposal: Option<&Proposal>, reason: &str) -> Result<(), IllegalEvent> {
        match (ask, proposal) {
            (Ask::Approval, Some(proposal)) => self.withdraw(proposal, reason),
            (
                Ask::Approval
                | Ask::Answer
                | Ask::Question
                | Ask::InDoubt
                | Ask::Undo
                | Ask::Parked
                | Ask::Budget,
                _,
            ) => Ok(()),
        }
    }

    pub(super) fn answer(&mut self, step: &Step, output: Value) -> Result<(), IllegalEvent> {
        let event = Event::StepSucceeded {
            step: step.id.clone(),
            attempt: self.run.record(&step.id).attempt,
            output,
            label: Label::Owner,
            confidence: Some(1.0),
        };
        self.emit("owner", Label::Owner, event)
    }

    pub(super) fn decline(&mut self, step: &Step, reason: &str) -> Result<(), IllegalEvent> {
        let reason = if reason.is_empty() { "the owner said no" } else { reason };
        let event = Event::StepDeclined { step: step.id.clone(), reason: reason.to_owned() };
        self.emit("owner", Label::Owner, event)
    }

    /// An edit is a new digest and passes policy again: the owner's word stands in for a review, never for a denial.
    fn start_edited(
        &mut self,
        step: &Step,
        mut proposal: Proposal,
        params: Value,
    ) -> Result<(), IllegalEvent> {
        let facts = self.facts_again(&proposal);
        let (edited, decision) = judge_edit(self.env.policy, &proposal, params, &facts);
        if decision.ruling == Ruling::Deny {
            self.withdraw(&proposal, "policy denies the edit")?;
            return self.fail(step, ErrorKind::Denied, decision.reasons.join("; "));
        }
        proposal.digest = edited.digest();
        proposal.action = edited;
        self.start(Box::new(proposal))
    }

    fn resolve_doubt(
        &mut self,
        step: &Step,
        proposal: Box<Proposal>,
        choice: Option<&str>,
    ) -> Result<(), IllegalEvent> {
        match choice {
            Some("happened") => {
                let response = json!({"confirmed_by": "owner"});
                let event = Event::EffectSucceeded {
                    step: step.id.clone(),
                    effect: proposal.effect,
                    response: response.clone(),
                };
                self.emit("owner", Label::Owner, event)?;
                self.succeed(step, response, Label::Owner)
            }
            Some("again") if self.run.cancelling.is_none() => {
                self.emit(
                    "owner",
                    Label::Owner,
                    Event::EffectStarted {
                        step: step.id.clone(),
                        effect: proposal.effect,
                        digest: proposal.digest,
                        action: proposal.action.clone(),
                        again: true,
                    },
                )?;
                self.tasks.push(super::Task::Perform(proposal));
                Ok(())
            }
            _ => self.decline(step, "given up: it may or may not have happened"),
        }
    }
}

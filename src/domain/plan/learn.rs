//! What each stimulus means for the step it is about.

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::action::Repeat;
use crate::domain::event::{ErrorKind, Event, ModelCall, Proposal, StepError, ToolCall};
use crate::domain::ids::StepId;
use crate::domain::label::Label;
use crate::domain::plan::{Answer, EffectResult, Planner, Stimulus, Task};
use crate::domain::run::IllegalEvent;
use crate::domain::step::StepStatus;
use crate::domain::workflow::{Step, StepKind};

impl Planner<'_, '_> {
    pub(super) fn learn(&mut self, stimulus: &Stimulus) -> Result<(), IllegalEvent> {
        match stimulus {
            Stimulus::Reopen { by, from, repeat } => return self.reopen(by, from.as_ref(), *repeat),
            _ if self.run.finished.is_some() => return Ok(()), // what comes after the end changes nothing
            _ => {}
        }
        match stimulus {
            Stimulus::Tick | Stimulus::Quiet(_) | Stimulus::Reopen { .. } => Ok(()),
            Stimulus::Recovered => self.recover(),
            Stimulus::Instant(step) => self.instant(step),
            Stimulus::Tried(step, call) => self.tried(step, call),
            Stimulus::LookedUp(step, call) => self.looked_up(step, call),
            Stimulus::Answered(step, call, answer) => self.answered(step, call.as_ref(), answer),
            Stimulus::Read(step, result) => self.read(step, result),
            Stimulus::LookedBack(step, attempt, history) => self.looked_back(step, *attempt, history),
            Stimulus::Effect(step, result) => self.effect(step, result, false),
            Stimulus::Probed(step, result) => self.effect(step, result, true),
            Stimulus::Decided { review, verdict, by } => self.decided(*review, verdict, by),
            Stimulus::Cancel { by } if self.run.cancelling.is_none() && self.run.compensating.is_none() => {
                if let Some(review) = self.run.parked {
                    self.emit("owner", Label::Owner, Event::RunUnparked { review, by: by.clone() })?;
                }
                self.emit("owner", Label::Owner, Event::RunCancelling { by: by.clone() })
            }
            Stimulus::Pause { by } if self.run.paused.is_none() => {
                self.emit("owner", Label::Owner, Event::RunPaused { by: by.clone() })
            }
            Stimulus::Resume { by } if self.run.paused.is_some() => {
                self.emit("owner", Label::Owner, Event::RunResumed { by: by.clone() })?;
                // It was loaded for this: whatever was under way when it was held is not any more.
                match self.unmoved {
                    true => self.recover(),
                    false => Ok(()),
                }
            }
            Stimulus::Cancel { .. } | Stimulus::Pause { .. } | Stimulus::Resume { .. } => Ok(()),
            Stimulus::Happened { step, happening, data, label } => {
                self.happened(step, *happening, data, *label)
            }
            Stimulus::Opened(step, opened) => self.opened(step, opened),
            Stimulus::ChildEnded(step, end) => self.child_ended(step, end),
        }
    }

    /// After a crash: agents and reads begin a new attempt; effects go the way their connector declares.
    pub(super) fn recover(&mut self) -> Result<(), IllegalEvent> {
        if self.is_held() || self.run.parked.is_some() {
            self.unmoved = true; // once it is let go it is loaded anew
            return Ok(());
        }
        self.unmoved = false;
        let begun: Vec<StepId> = self.run.steps.keys().cloned().collect();
        for id in begun {
            let Some(step) = self.env.version.step(&id) else { continue };
            match self.run.status(&step.id).clone() {
                StepStatus::Running => self.begin_attempt(&step)?,
                StepStatus::Waiting { topic: Some(topic), .. } => {
                    self.tasks.push(Task::Listen { step: id, topic })
                }
                StepStatus::Child { run } => {
                    if self.run.compensating.is_some() {
                        self.tasks.push(Task::Stop(run));
                    }
                    self.tasks.push(Task::Attend { step: id, run });
                }
                StepStatus::Effecting { proposal } => match (self.env.repeat)(&proposal.action) {
                    Repeat::Natural | Repeat::Token => self.perform_again(proposal)?,
                    Repeat::Probe => self.tasks.push(Task::Probe(proposal)),
                    Repeat::None => {
                        let evidence = "Steward stopped between calling the connector and hearing its answer";
                        self.doubt(&step.id, &proposal, evidence)?;
                    }
                },
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn perform_again(&mut self, proposal: Box<Proposal>) -> Result<(), IllegalEvent> {
        let event = Event::EffectStarted {
            step: proposal.step.clone(),
            effect: proposal.effect,
            digest: proposal.digest,
            action: proposal.action.clone(),
            again: true,
        };
        self.system(event)?;
        self.tasks.push(Task::Perform(proposal));
        Ok(())
    }

    fn tried(&mut self, step: &StepId, call: &ModelCall) -> Result<(), IllegalEvent> {
        if *self.run.status(step) != StepStatus::Running {
            return Ok(()); // cancelled or timed out meanwhile
        }
        let attempt = self.run.record(step).attempt;
        let event = Event::ModelCalled { step: step.clone(), attempt, call: call.clone() };
        self.system(event)
    }

    fn looked_up(&mut self, id: &StepId, call: &ToolCall) -> Result<(), IllegalEvent> {
        let (Some(step), StepStatus::Running) = (self.env.version.step(id), self.run.status(id)) else {
            return Ok(());
        };
        let attempt = self.run.record(id).attempt;
        let event = Event::ToolCalled { step: id.clone(), attempt, call: call.clone() };
        self.emit(actor(&step), call.label, event)
    }

    fn answered(
        &mut self,
        id: &StepId,
        call: Option<&ModelCall>,
        answer: &Answer,
    ) -> Result<(), IllegalEvent> {
        if let Some(call) = call {
            self.tried(id, call)?;
        }
        let (Some(step), StepStatus::Running) = (self.env.version.step(id), self.run.status(id)) else {
            return Ok(());
        };
        let step = &*step;
        match answer {
            Answer::Output { output, label, confidence } => {
                let event = Event::StepSucceeded {
                    step: id.clone(),
                    attempt: self.run.record(id).attempt,
                    output: output.clone(),
                    label: *label,
                    confidence: *confidence,
                };
                self.emit(actor(step), *label, event)
            }
            Answer::Owner { reasons, draft } => self.ask_for_answer(step, reasons, draft.as_deref()),
            Answer::Short(shortage) => self.ask_for_money(step, shortage),
            Answer::Failed(error) => self.failed_attempt(step, error),
        }
    }

    fn read(&mut self, id: &StepId, result: &Result<(Value, Label), StepError>) -> Result<(), IllegalEvent> {
        let (Some(step), StepStatus::Running) = (self.env.version.step(id), self.run.status(id)) else {
            return Ok(());
        };
        match result {
            Ok((output, label)) => self.succeed(&step, output.clone(), *label),
            Err(error) => self.failed_attempt(&step, error),
        }
    }

    fn effect(&mut self, id: &StepId, result: &EffectResult, probed: bool) -> Result<(), IllegalEvent> {
        let StepStatus::Effecting { proposal } = self.run.status(id).clone() else { return Ok(()) };
        let Some(step) = self.env.version.step(id) else { return Ok(()) };
        let step = &*step;
        let effect = proposal.effect;
        let connector = format!("connector:{}", proposal.action.action);
        match result {
            EffectResult::Succeeded(response) => {
                let label = Self::response_label(&proposal);
                let event = Event::EffectSucceeded { step: id.clone(), effect, response: response.clone() };
                self.emit(connector, label, event)?;
                self.succeed(step, response.clone(), label)
            }
            EffectResult::Failed(error) => {
                let event = Event::EffectFailed { step: id.clone(), effect, error: error.clone() };
                self.emit(connector, Label::System, event)?;
                self.failed_attempt(step, error)
            }
            // Repeating is beginning again: not while the owner holds everything.
            EffectResult::Unknown(_) | EffectResult::Absent if self.is_held() => {
                let (id, result) = (id.clone(), result.clone());
                self.deferred.push(if probed {
                    Stimulus::Probed(id, result)
                } else {
                    Stimulus::Effect(id, result)
                });
                Ok(())
            }
            EffectResult::Unknown(evidence) => match (self.env.repeat)(&proposal.action) {
                // Harmless to repeat, but not for ever: what stays unknown is the owner's to look at.
                Repeat::Natural | Repeat::Token if self.may_repeat(step) => self.perform_again(proposal),
                Repeat::Probe if !probed => {
                    self.tasks.push(Task::Probe(proposal));
                    Ok(())
                }
                Repeat::Natural | Repeat::Token | Repeat::Probe | Repeat::None => {
                    self.doubt(id, &proposal, evidence)
                }
            },
            EffectResult::Absent if self.may_repeat(step) => self.perform_again(proposal),
            EffectResult::Absent => {
                self.doubt(id, &proposal, "it was looked up again and again, and never there")
            }
        }
    }

    fn may_repeat(&self, step: &Step) -> bool {
        self.run.record(&step.id).repeats + 1 < step.retry.attempts
    }

    pub(super) fn succeed(&mut self, step: &Step, output: Value, label: Label) -> Result<(), IllegalEvent> {
        let attempt = self.run.record(&step.id).attempt.max(1);
        let event = Event::StepSucceeded { step: step.id.clone(), attempt, output, label, confidence: None };
        self.emit("system", label, event)
    }

    /// A failed attempt is tried again as its kind and the step's `retry` allow, otherwise the step fails.
    pub(super) fn failed_attempt(&mut self, step: &Step, error: &StepError) -> Result<(), IllegalEvent> {
        let record = self.run.record(&step.id);
        let failures = record.failures + 1;
        let delay = match error.kind.retryable() {
            true => step.retry.delay(failures, error.retry_after, self.env.jitter),
            false => None,
        };
        match delay {
            Some(delay) => self.back_off(step, error.clone(), delay.after(self.env.now)),
            None => self.system(Event::StepFailed { step: step.id.clone(), error: error.clone() }),
        }
    }

    pub(super) fn back_off(
        &mut self,
        step: &Step,
        error: StepError,
        retry_at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let attempt = self.run.record(&step.id).attempt;
        self.system(Event::AttemptFailed { step: step.id.clone(), attempt, error, retry_at })
    }

    pub(super) fn fail(
        &mut self,
        step: &Step,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Result<(), IllegalEvent> {
        let error = StepError::new(kind, message);
        self.system(Event::StepFailed { step: step.id.clone(), error })
    }
}

/// Who speaks when a step gives its output.
fn actor(step: &Step) -> String {
    match &step.kind {
        StepKind::Agent(agent) => format!("agent:{}", agent.agent),
        _ => "system".to_owned(),
    }
}

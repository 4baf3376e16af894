//! What happens next: [`advance`] takes a run and what has just been learnt, and gives the events
//! to commit and the tasks to begin once they are durable. Pure: the same inputs give the same
//! transition, here, in recovery and in a replay.
//!
//! - [`advance`] applies each [`Stimulus`], then settles: begins, resumes, skips, finishes steps
//!   until nothing more can happen without waiting;
//! - [`begin`] starts steps and proposes actions; [`decide`] acts on the owner's verdicts.

mod begin;
pub mod decide;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::action::{Action, Repeat};
use crate::domain::event::{Ask, ErrorKind, Event, ModelCall, Outcome, Proposal, StepError, Verdict};
use crate::domain::ids::{EffectId, ReviewId, RunId, StepId};
use crate::domain::label::Label;
use crate::domain::policy::Policy;
use crate::domain::run::{IllegalEvent, Run, RunStatus};
use crate::domain::step::StepStatus;
use crate::domain::workflow::{Stage, Step, Version};

/// What planning rests on besides the run itself.
pub struct Env<'a> {
    /// The definition the run is pinned to.
    pub version: &'a Version,
    /// How far that version is trusted.
    pub stage: Stage,
    /// The owner's rules.
    pub policy: &'a Policy,
    /// What templates may know of the workspace.
    pub workspace: &'a Value,
    /// What happens when an action is carried out twice, as its connector declares.
    pub repeat: &'a (dyn Fn(&Action) -> Repeat + Send + Sync),
    /// Keys this transition wanted that another effect already holds.
    pub taken: &'a BTreeMap<EffectKey, Existing>,
    /// The present moment.
    pub now: Timestamp,
    /// A random number in 0..=1 that spreads retries.
    pub jitter: f64,
}

/// What makes an effect unique: its action and its key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EffectKey {
    /// The action's name.
    pub action: String,
    /// The deduplication key.
    pub key: String,
}

/// The effect that already holds a key.
#[derive(Clone, PartialEq, Debug)]
pub struct Existing {
    /// Which effect.
    pub effect: EffectId,
    /// Of which run.
    pub run: RunId,
    /// What the connector answered, when it has succeeded.
    pub response: Option<Value>,
}

/// Something a run learns.
#[derive(Clone, PartialEq, Debug)]
pub enum Stimulus {
    /// It was opened, or the time for something has come.
    Tick,
    /// It was loaded from the journal: whatever was under way is not any more.
    Recovered,
    /// The step before it is durable: the turn of a pure step.
    Instant(StepId),
    /// A model was tried, and another one will be.
    Tried(StepId, ModelCall),
    /// An agent is done.
    Answered(StepId, Option<ModelCall>, Answer),
    /// A read action is done.
    Read(StepId, Result<(Value, Label), StepError>),
    /// An effect is done, or looked up.
    Effect(StepId, EffectResult),
    /// The owner, or a deadline, decided.
    Decided {
        /// Which review.
        review: ReviewId,
        /// How.
        verdict: Verdict,
        /// Who.
        by: String,
    },
    /// Somebody wants the run to stop.
    Cancel {
        /// Who.
        by: String,
    },
}

/// How an agent ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// With an output, valid under its schema.
    Output {
        /// The output.
        output: Value,
        /// Where it came from.
        label: Label,
        /// How sure its maker is.
        confidence: Option<f64>,
    },
    /// No model could answer: the owner is the last one.
    Owner {
        /// Why none could, one sentence each.
        reasons: Vec<String>,
    },
    /// Not at all, for now or for good.
    Failed(StepError),
}

/// How an effect ended.
#[derive(Clone, PartialEq, Debug)]
pub enum EffectResult {
    /// It happened.
    Succeeded(Value),
    /// It did not happen.
    Failed(StepError),
    /// Nobody can tell.
    Unknown(String),
    /// A look-up shows that it did not happen: it may be done now.
    Absent,
}

/// Work to begin once the transition is durable.
#[derive(Clone, PartialEq, Debug)]
pub enum Task {
    /// Carry out a pure step.
    Instant(StepId),
    /// Ask an agent.
    Agent {
        /// The step.
        step: StepId,
        /// What it is given.
        with: Value,
        /// Where that came from.
        label: Label,
    },
    /// Read from memory.
    Read {
        /// The step.
        step: StepId,
        /// What to read.
        action: Action,
        /// Where its parameters came from.
        label: Label,
    },
    /// Carry an effect out.
    Perform(Box<Proposal>),
    /// Look up whether an effect happened.
    Probe(Box<Proposal>),
}

/// What a run does while nothing is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Something is under way.
    Busy,
    /// It sleeps until then, or until a decision.
    Asleep {
        /// The next moment at which something is due.
        wake_at: Option<Timestamp>,
    },
    /// It has ended.
    Over(Outcome),
}

impl Rest {
    /// The status of the run's row.
    #[must_use]
    pub fn status(self) -> RunStatus {
        match self {
            Self::Busy => RunStatus::Running,
            Self::Asleep { .. } => RunStatus::Waiting,
            Self::Over(outcome) => RunStatus::Over(outcome),
        }
    }
}

/// The next step of a run's life: events to commit, then tasks to begin.
#[derive(Clone, PartialEq, Debug)]
pub struct Transition {
    /// What to commit, in order.
    pub entries: Vec<Entry>,
    /// What to begin after that.
    pub tasks: Vec<Task>,
    /// What the run does then.
    pub rest: Rest,
}

/// An event with who caused it and where its content came from.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// What happened.
    pub event: Event,
    /// `owner`, `system`, `agent:NAME`, `connector:ACTION`.
    pub actor: String,
    /// The label of its content.
    pub label: Label,
}

/// Advances `run` by what was learnt. On an error the run is unusable: load it anew.
///
/// # Errors
/// When an event cannot follow: a fault in Steward, never in the input.
pub fn advance(run: &mut Run, stimuli: &[Stimulus], env: &Env<'_>) -> Result<Transition, IllegalEvent> {
    let mut planner = Planner { run, env, entries: Vec::new(), tasks: Vec::new() };
    for stimulus in stimuli {
        planner.learn(stimulus)?;
    }
    planner.settle()?;
    let rest = planner.rest();
    Ok(Transition { entries: planner.entries, tasks: planner.tasks, rest })
}

struct Planner<'a, 'e> {
    run: &'a mut Run,
    env: &'a Env<'e>,
    entries: Vec<Entry>,
    tasks: Vec<Task>,
}

impl Planner<'_, '_> {
    fn emit(&mut self, actor: impl Into<String>, label: Label, event: Event) -> Result<(), IllegalEvent> {
        self.run.apply(&event)?;
        self.entries.push(Entry { event, actor: actor.into(), label });
        Ok(())
    }

    fn system(&mut self, event: Event) -> Result<(), IllegalEvent> {
        self.emit("system", Label::System, event)
    }

    fn learn(&mut self, stimulus: &Stimulus) -> Result<(), IllegalEvent> {
        if self.run.finished.is_some() {
            return Ok(()); // what comes after the end changes nothing
        }
        match stimulus {
            Stimulus::Tick => Ok(()),
            Stimulus::Recovered => self.recover(),
            Stimulus::Instant(step) => self.instant(step),
            Stimulus::Tried(step, call) => self.tried(step, call),
            Stimulus::Answered(step, call, answer) => self.answered(step, call.as_ref(), answer),
            Stimulus::Read(step, result) => self.read(step, result),
            Stimulus::Effect(step, result) => self.effect(step, result),
            Stimulus::Decided { review, verdict, by } => self.decided(*review, verdict, by),
            Stimulus::Cancel { by } if self.run.cancelling.is_none() => {
                self.emit("owner", Label::Owner, Event::RunCancelling { by: by.clone() })
            }
            Stimulus::Cancel { .. } => Ok(()),
        }
    }

    /// After a crash: agents and reads begin a new attempt; effects go the way their connector declares.
    fn recover(&mut self) -> Result<(), IllegalEvent> {
        for step in &self.env.version.steps {
            match self.run.status(&step.id).clone() {
                StepStatus::Running => self.begin_attempt(step)?,
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

    fn perform_again(&mut self, proposal: Box<Proposal>) -> Result<(), IllegalEvent> {
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
        match answer {
            Answer::Output { output, label, confidence } => {
                let event = Event::StepSucceeded {
                    step: id.clone(),
                    attempt: self.run.record(id).attempt,
                    output: output.clone(),
                    label: *label,
                    confidence: *confidence,
                };
                self.emit(self.actor(step), *label, event)
            }
            Answer::Owner { reasons } => self.ask_for_answer(step, reasons),
            Answer::Failed(error) => self.failed_attempt(step, error),
        }
    }

    fn read(&mut self, id: &StepId, result: &Result<(Value, Label), StepError>) -> Result<(), IllegalEvent> {
        let (Some(step), StepStatus::Running) = (self.env.version.step(id), self.run.status(id)) else {
            return Ok(());
        };
        match result {
            Ok((output, label)) => self.succeed(step, output.clone(), *label),
            Err(error) => self.failed_attempt(step, error),
        }
    }

    fn effect(&mut self, id: &StepId, result: &EffectResult) -> Result<(), IllegalEvent> {
        let StepStatus::Effecting { proposal } = self.run.status(id).clone() else { return Ok(()) };
        let Some(step) = self.env.version.step(id) else { return Ok(()) };
        let effect = proposal.effect;
        let connector = format!("connector:{}", proposal.action.action);
        match result {
            EffectResult::Succeeded(response) => {
                let label = self.response_label(&proposal);
                let event = Event::EffectSucceeded { step: id.clone(), effect, response: response.clone() };
                self.emit(connector, label, event)?;
                self.succeed(step, response.clone(), label)
            }
            EffectResult::Failed(error) => {
                let event = Event::EffectFailed { step: id.clone(), effect, error: error.clone() };
                self.emit(connector, Label::System, event)?;
                self.failed_attempt(step, error)
            }
            EffectResult::Unknown(evidence) => match (self.env.repeat)(&proposal.action) {
                // Harmless to repeat, but not for ever: what stays unknown is the owner's to look at.
                Repeat::Natural | Repeat::Token if self.run.record(id).repeats + 1 < step.retry.attempts => {
                    self.perform_again(proposal)
                }
                Repeat::Natural | Repeat::Token | Repeat::Probe | Repeat::None => {
                    self.doubt(id, &proposal, evidence)
                }
            },
            EffectResult::Absent => self.perform_again(proposal),
        }
    }

    fn succeed(&mut self, step: &Step, output: Value, label: Label) -> Result<(), IllegalEvent> {
        let attempt = self.run.record(&step.id).attempt.max(1);
        let event = Event::StepSucceeded { step: step.id.clone(), attempt, output, label, confidence: None };
        self.emit("system", label, event)
    }

    /// A failed attempt is tried again as its kind and the step's `retry` allow, otherwise the step fails.
    fn failed_attempt(&mut self, step: &Step, error: &StepError) -> Result<(), IllegalEvent> {
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

    fn back_off(&mut self, step: &Step, error: StepError, retry_at: Timestamp) -> Result<(), IllegalEvent> {
        let attempt = self.run.record(&step.id).attempt;
        self.system(Event::AttemptFailed { step: step.id.clone(), attempt, error, retry_at })
    }

    fn fail(&mut self, step: &Step, kind: ErrorKind, message: impl Into<String>) -> Result<(), IllegalEvent> {
        let error = StepError::new(kind, message);
        self.system(Event::StepFailed { step: step.id.clone(), error })
    }

    /// Does everything that can be done without waiting.
    fn settle(&mut self) -> Result<(), IllegalEvent> {
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

    fn is_ready(&self, step: &Step) -> bool {
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
        self.tasks.retain(|task| matches!(task, Task::Perform(_) | Task::Probe(_)));
        let in_flight = |status: &StepStatus| matches!(status, StepStatus::Effecting { .. });
        if self.run.steps.values().any(|record| in_flight(&record.status)) {
            return Ok(());
        }
        let by = self.run.cancelling.clone().unwrap_or_default();
        self.system(Event::RunFinished { outcome: Outcome::Cancelled, reason: format!("cancelled by {by}") })
    }

    /// Withdraws every open question.
    fn withdraw_reviews(&mut self, reason: &str) -> Result<(), IllegalEvent> {
        let open = self.run.steps.iter().filter_map(|(id, record)| match &record.status {
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
    fn withdraw(&mut self, proposal: &Proposal, reason: &str) -> Result<(), IllegalEvent> {
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

    fn rest(&self) -> Rest {
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

    fn actor(&self, step: &Step) -> String {
        match &step.kind {
            crate::domain::workflow::StepKind::Agent(agent) => format!("agent:{}", agent.agent),
            _ => "system".to_owned(),
        }
    }
}

/// What the owner may answer to "did this happen?".
pub const IN_DOUBT_CHOICES: [&str; 3] = ["happened", "again", "give_up"];

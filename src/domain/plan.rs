//! What happens next: [`advance`] takes a run and what has just been learnt, and gives the events
//! to commit and the tasks to begin once they are durable. Pure: the same inputs give the same
//! transition, here, in recovery and in a replay.
//!
//! - [`advance`] applies each [`Stimulus`], then settles: begins, resumes, skips, finishes steps
//!   until nothing more can happen without waiting;
//! - [`learn`] says what each stimulus means; [`settle`] what follows from it;
//! - [`begin`] starts steps and proposes actions; [`decide`] acts on the owner's verdicts.

mod begin;
pub mod decide;
mod learn;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::action::{Action, Repeat};
use crate::domain::digest::Digest;
use crate::domain::event::{Event, ModelCall, Outcome, Proposal, StepError, Verdict};
use crate::domain::ids::{EffectId, ReviewId, RunId, StepId};
use crate::domain::label::Label;
use crate::domain::policy::Policy;
use crate::domain::run::{IllegalEvent, Run, RunStatus};
use crate::domain::workflow::{Stage, Version};

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
    /// What it does, exactly.
    pub digest: Digest,
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
}

/// What the owner may answer to "did this happen?".
pub const IN_DOUBT_CHOICES: [&str; 3] = ["happened", "again", "give_up"];

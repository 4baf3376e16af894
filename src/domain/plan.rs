//! What happens next: [`advance`] takes a run and what has just been learnt, and gives the events
//! to commit and the tasks to begin once they are durable. Pure: the same inputs give the same
//! transition, here, in recovery and in a replay.
//!
//! - [`advance`] applies each [`Stimulus`], then settles: begins, resumes, skips, finishes steps
//!   until nothing more can happen without waiting;
//! - [`learn`] says what each stimulus means; [`settle`] what follows from it;
//! - [`begin`] starts steps and proposes actions; [`decide`] acts on the owner's verdicts;
//! - [`judging`] gathers what policy's ruling rests on;
//! - [`asking`] asks about agents' steps, [`sample`] shows the owner a share of what is allowed, [`money`] asks whether something may cost more;
//! - [`lists`] works through lists, [`waits`] waits for events, moments and other runs;
//! - [`ending`] brings a run to its end and undoes what it did; [`again`] lets an ended run go on.

pub mod again;
mod asking;
mod begin;
pub mod decide;
mod ending;
pub mod judging;
mod learn;
mod lists;
mod money;
mod sample;
mod settle;
#[cfg(test)]
mod tests;
pub mod waits;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::action::{Action, Repeat};
use crate::domain::budget::Shortage;
use crate::domain::digest::Digest;
use crate::domain::event::{Event, ModelCall, Outcome, Proposal, StepError, ToolCall, Topic, Verdict};
use crate::domain::ids::{EffectId, HappeningId, ReviewId, RunId, StepId, WorkflowName};
use crate::domain::label::Label;
use crate::domain::policy::Policy;
use crate::domain::policy::facts::History;
use crate::domain::policy::target::Target;
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
    /// Nothing may begin: the owner holds the workflow, or everything.
    pub paused: bool,
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
    /// An agent has looked something up.
    LookedUp(StepId, ToolCall),
    /// An agent is done.
    Answered(StepId, Option<ModelCall>, Answer),
    /// A read action is done.
    Read(StepId, Result<(Value, Label), StepError>),
    /// What was done before is known, for this attempt of a step that is to propose.
    LookedBack(StepId, u32, Box<Result<History, StepError>>),
    /// An effect is done.
    Effect(StepId, EffectResult),
    /// An effect was looked up.
    Probed(StepId, EffectResult),
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
    /// The owner holds the run.
    Pause {
        /// Who.
        by: String,
    },
    /// The owner lets the run go on.
    Resume {
        /// Who.
        by: String,
    },
    /// The owner wants an ended run to go on.
    Reopen {
        /// Who.
        by: String,
        /// From this step; from where it failed when absent.
        from: Option<StepId>,
        /// Completed effects of these steps happen a second time.
        repeat: bool,
    },
    /// An event that a step waits for.
    Happened {
        /// The step.
        step: StepId,
        /// Which event.
        happening: HappeningId,
        /// What it brought.
        data: Value,
        /// Where that came from.
        label: Label,
    },
    /// There was no such event yet.
    Quiet(StepId),
    /// The run that a step waits for is open, or cannot be opened.
    Opened(StepId, Result<RunId, StepError>),
    /// The run that a step waits for has ended.
    ChildEnded(StepId, ChildEnd),
}

/// How a run ended that another one waits for.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct ChildEnd {
    /// Which run.
    pub run: RunId,
    /// Its status.
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// What it gives.
    pub output: Value,
    /// Where that came from.
    pub label: Label,
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
        /// A draft that nobody could go over, and where it came from.
        draft: Option<Box<(Value, Label)>>,
    },
    /// A model could have been asked, but a budget does not hold enough: the owner may allow more.
    Short(Shortage),
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
    /// Look what was done before with those whom an action would reach: policy asks.
    LookBack(Box<Lookup>),
    /// Carry an effect out.
    Perform(Box<Proposal>),
    /// Look up whether an effect happened.
    Probe(Box<Proposal>),
    /// Look whether the event has come already: it may have been faster than the wait.
    Listen {
        /// The step.
        step: StepId,
        /// What it waits for.
        topic: Topic,
    },
    /// Open a run of another workflow.
    Open {
        /// The step.
        step: StepId,
        /// Its attempt: the key of that run follows from it.
        attempt: u32,
        /// The workflow.
        workflow: WorkflowName,
        /// That run's input.
        input: Value,
        /// Where that came from.
        label: Label,
        /// The most that its model calls may cost.
        budget_micros: Option<i64>,
    },
    /// Look whether the other run has ended already.
    Attend {
        /// The step.
        step: StepId,
        /// That run.
        run: RunId,
    },
    /// Ask the other run to stop.
    Stop(RunId),
}

/// A question to the past: whom a step is about to reach, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// The step.
    pub step: StepId,
    /// Its attempt.
    pub attempt: u32,
    /// The action.
    pub action: String,
    /// The workflow.
    pub workflow: WorkflowName,
    /// Whom it would reach.
    pub targets: Vec<Target>,
}

/// What a run does while nothing is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Something is under way.
    Busy,
    /// It sleeps until then, or until a decision or an event.
    Asleep {
        /// The next moment at which something is due.
        wake_at: Option<Timestamp>,
    },
    /// The owner holds it.
    Paused,
    /// Steward cannot go on with it; the owner is asked.
    Parked,
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
            Self::Paused => RunStatus::Paused,
            Self::Parked => RunStatus::Parked,
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
    /// While something is under way: the next moment at which something else is due.
    pub due: Option<Timestamp>,
    /// What cannot be acted on while the owner holds the run: to be learnt again later.
    pub deferred: Vec<Stimulus>,
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
    let mut planner =
        Planner { run, env, entries: Vec::new(), tasks: Vec::new(), deferred: Vec::new(), unmoved: false };
    for stimulus in stimuli {
        planner.learn(stimulus)?;
    }
    planner.settle()?;
    let (rest, due) = (planner.rest(), planner.due());
    Ok(Transition { entries: planner.entries, tasks: planner.tasks, rest, due, deferred: planner.deferred })
}

struct Planner<'a, 'e> {
    run: &'a mut Run,
    env: &'a Env<'e>,
    entries: Vec<Entry>,
    tasks: Vec<Task>,
    deferred: Vec<Stimulus>,
    /// The run was just loaded and is held: what its steps say is under way is not.
    unmoved: bool,
}

impl Planner<'_, '_> {
    fn emit(&mut self, actor: impl Into<String>, label: Label, event: Event) -> Result<(), IllegalEvent> {
        self.run.apply(&event, self.env.now)?;
        self.entries.push(Entry { event, actor: actor.into(), label });
        Ok(())
    }

    fn system(&mut self, event: Event) -> Result<(), IllegalEvent> {
        self.emit("system", Label::System, event)
    }
}

/// What the owner may answer to "did this happen?".
pub const IN_DOUBT_CHOICES: [&str; 3] = ["happened", "again", "give_up"];

/// What the owner may answer when undoing failed.
pub const UNDO_CHOICES: [&str; 3] = ["again", "done", "leave"];

/// What the owner may answer when Steward cannot go on with a run.
pub const PARKED_CHOICES: [&str; 2] = ["again", "give_up"];

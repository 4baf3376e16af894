//! A run is the fold of its journal. The same [`Run::apply`] serves live and in recovery:
//! there is no second code path that could disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::domain::event::{Ask, ErrorKind, Event, Opened, Outcome, Returned, Verdict};
use crate::domain::ids::{CallId, EffectId, HappeningId, ReviewId, RunId, StepId};
use crate::domain::label::Label;
use crate::domain::step::StepStatus;
use crate::domain::template::step_of;

/// One execution of one version, as far as its journal tells.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Run {
    /// Which run.
    pub id: RunId,
    /// What its trigger brought, and the version it is pinned to.
    pub opened: Opened,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The number of the last event applied; the first is 1.
    pub seq: i64,
    /// Every step that has begun.
    pub steps: BTreeMap<StepId, StepRecord>,
    /// Who asked for it to stop, if somebody did.
    pub cancelling: Option<String>,
    /// How it will end and why, while what it did is being undone.
    pub compensating: Option<(Outcome, String)>,
    /// Who holds it, if somebody does.
    pub paused: Option<String>,
    /// The review that asks what to do with it, when Steward cannot go on.
    pub parked: Option<ReviewId>,
    /// Events from outside that have been waited for already: none of them serves two waits in a row.
    pub heard: BTreeSet<HappeningId>,
    /// What the owner allowed it to cost beyond all limits, millionths of the currency.
    pub allowed_micros: i64,
    /// When it was opened or last reopened: its deadline counts from here.
    pub began_at: Timestamp,
    /// How it ended and why, once it has.
    pub finished: Option<(Outcome, String)>,
}

/// What is known of one step.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StepRecord {
    /// Where it stands.
    #[serde(flatten)]
    pub status: StepStatus,
    /// The attempt under way or the last one; 0 before the first.
    pub attempt: u32,
    /// How many attempts failed.
    pub failures: u32,
    /// How many attempts found their key taken.
    pub waits: u32,
    /// How many reviews it opened.
    pub reviews: u32,
    /// How often its effect was repeated.
    pub repeats: u32,
    /// What its model calls cost, millionths of the currency.
    pub cost_micros: i64,
    /// Its call of a model that went into a batch, until the journal tells how that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batched: Option<CallId>,
    /// What the owner was last asked to allow beyond all limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_micros: Option<i64>,
    /// When its first attempt began: its deadline counts from here.
    pub began_at: Option<Timestamp>,
    /// The effect that it started itself; none when another run's result was used.
    pub effect: Option<EffectId>,
    /// The run that it opened.
    pub child: Option<RunId>,
    /// When its effect was last started.
    pub started_at: Option<Timestamp>,
    /// The number of the event that gave its output: what was done last is undone first.
    pub succeeded_seq: Option<i64>,
    /// The items of its list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Items>,
    /// How often the owner let its effect happen anew: part of its key.
    pub generation: u32,
    /// Whether what it did has been undone.
    pub compensated: bool,
    /// Drafts that the owner gave back, from the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<Round>,
}

/// A draft that the owner gave back, and with which words.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Round {
    /// What the agent had answered.
    pub draft: Value,
    /// Where that came from.
    pub label: Label,
    /// What the owner said to it.
    pub words: String,
}

/// A list whose items are steps of their own.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Items {
    /// What each of them is about.
    pub values: Arc<Vec<Value>>,
    /// Where the list came from.
    pub label: Label,
}

impl StepRecord {
    const NEW: Self = Self {
        status: StepStatus::Pending,
        attempt: 0,
        failures: 0,
        waits: 0,
        reviews: 0,
        repeats: 0,
        cost_micros: 0,
        batched: None,
        asked_micros: None,
        began_at: None,
        effect: None,
        child: None,
        started_at: None,
        succeeded_seq: None,
        items: None,
        generation: 0,
        compensated: false,
        rounds: Vec::new(),
    };

    /// To be done anew. Attempts and reviews go on counting: their ids follow from the count.
    fn reset(&mut self, fresh_key: bool) {
        *self = Self {
            attempt: self.attempt,
            reviews: self.reviews,
            cost_micros: self.cost_micros,
            generation: self.generation + u32::from(fresh_key),
            ..Self::NEW
        };
    }
}

/// An event that cannot follow what came before it: a fault in Steward or in the journal.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("event {seq} of run {run} cannot be: {event} while {state}")]
pub struct IllegalEvent {
    /// The run.
    pub run: RunId,
    /// The number the event would have had.
    pub seq: i64,
    /// The event's kind.
    pub event: String,
    /// The state it met.
    pub state: String,
}

impl Run {
    /// A run from its first event.
    #[must_use]
    pub fn open(id: RunId, opened: Opened, at: Timestamp) -> Self {
        Self {
            id,
            opened,
            opened_at: at,
            seq: 1,
            steps: BTreeMap::new(),
            cancelling: None,
            compensating: None,
            paused: None,
            parked: None,
            heard: BTreeSet::new(),
            allowed_micros: 0,
            began_at: at,
            finished: None,
        }
    }

    /// Folds a whole journal.
    ///
    /// # Errors
    /// When it does not begin with `run.opened` or an event cannot follow the ones before.
    pub fn fold(
        id: RunId,
        journal: impl IntoIterator<Item = (Event, Timestamp)>,
    ) -> Result<Self, IllegalEvent> {
        let mut journal = journal.into_iter();
        let mut run = match journal.next() {
            Some((Event::RunOpened(opened), at)) => Self::open(id, opened, at),
            first => {
                let event =
                    first.map_or_else(|| "the end of the journal".to_owned(), |(event, _)| kind(&event));
                return Err(IllegalEvent { run: id, seq: 1, event, state: "not opened".into() });
            }
        };
        for (event, at) in journal {
            run.apply(&event, at)?;
        }
        Ok(run)
    }

    /// Applies the next event, which happened at `at`.
    ///
    /// # Errors
    /// When it cannot happen now; the run must then be loaded anew.
    pub fn apply(&mut self, event: &Event, at: Timestamp) -> Result<(), IllegalEvent> {
        match (event, &self.finished) {
            (Event::RunReopened { .. }, None) => return Err(self.illegal(event, "not finished")),
            (Event::RunReopened { .. }, Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err(self.illegal(event, "finished")),
        }
        match event {
            Event::RunOpened(_) => return Err(self.illegal(event, "open already")),
            Event::RunCancelling { by } => self.cancelling = Some(by.clone()),
            Event::RunCompensating { outcome, reason } => {
                self.compensating = Some((*outcome, reason.clone()));
            }
            Event::RunPaused { by } => self.paused = Some(by.clone()),
            Event::RunResumed { .. } => self.paused = None,
            Event::RunReopened { steps, again, .. } => self.reopen(steps, again, at),
            Event::DraftReturned(returned) => self.give_back(event, returned)?,
            Event::RunParked(parked) => self.parked = Some(parked.question.review),
            Event::RunUnparked { .. } => self.parked = None,
            Event::RunFinished { outcome, reason, .. } => self.finished = Some((*outcome, reason.clone())),
            step_event => self.apply_to_step(step_event, at)?,
        }
        self.seq += 1;
        Ok(())
    }

    fn reopen(&mut self, steps: &[StepId], again: &[StepId], at: Timestamp) {
        for id in steps {
            self.steps.entry(id.clone()).or_insert(StepRecord::NEW).reset(again.contains(id));
        }
        self.cancelling = None;
        self.compensating = None;
        self.paused = None;
        self.parked = None;
        self.finished = None;
        self.began_at = at;
    }

    /// The agent's step keeps its draft with the owner's words to it; all that was made from it is done anew.
    fn give_back(&mut self, event: &Event, returned: &Returned) -> Result<(), IllegalEvent> {
        let StepStatus::Succeeded { output, label, .. } = self.status(&returned.step).clone() else {
            return Err(self.illegal(event, "there is no draft to give back"));
        };
        if !matches!(self.status(&returned.proposes), StepStatus::Decided { ask: Ask::Approval, .. }) {
            return Err(self.illegal(event, "the owner was not asked about it"));
        }
        let anew = [&returned.step, &returned.proposes];
        for id in anew.into_iter().chain(&returned.anew) {
            let record = self.steps.entry(id.clone()).or_insert(StepRecord::NEW);
            let rounds = std::mem::take(&mut record.rounds);
            record.reset(false);
            record.rounds = rounds;
        }
        if let Some(record) = self.steps.get_mut(&returned.step) {
            record.rounds.push(Round { draft: output, label, words: returned.words.clone() });
        }
        Ok(())
    }

    fn apply_to_step(&mut self, event: &Event, at: Timestamp) -> Result<(), IllegalEvent> {
        let Some(id) = event.step() else { return Err(self.illegal(event, "no step is named")) };
        let seq = self.seq + 1;
        let record = self.steps.entry(id.clone()).or_insert(StepRecord::NEW);
        if let Event::StepStarted { attempt, .. } = event
            && *attempt != record.attempt + 1
        {
            let state = format!("attempt {} was the last", record.attempt);
            return Err(self.illegal(event, &state));
        }
        // Only a question about money carries an amount, and only an approval allows it.
        if let Event::ReviewDecided { verdict: Verdict::Approved, .. } = event {
            self.allowed_micros += record.asked_micros.take().unwrap_or(0);
        }
        match std::mem::replace(&mut record.status, StepStatus::Pending).next(event) {
            Ok(status) => record.status = status,
            Err(status) => {
                let state = format!("step `{id}` is {}", status.name());
                record.status = status;
                return Err(self.illegal(event, &state));
            }
        }
        match event {
            Event::StepStarted { attempt, .. } => {
                record.attempt = *attempt;
                record.began_at.get_or_insert(at);
            }
            Event::StepSucceeded { .. } => record.succeeded_seq = Some(seq),
            Event::EffectCompensated { .. } => record.compensated = true,
            Event::EachBegan { items, label, .. } => {
                record.items = Some(Items { values: Arc::new(items.clone()), label: *label });
            }
            Event::WaitEnded { happening: Some(happening), .. } => {
                self.heard.insert(*happening);
            }
            Event::AttemptFailed { error, .. } if error.kind == ErrorKind::KeyTaken => record.waits += 1,
            Event::AttemptFailed { .. } => record.failures += 1,
            Event::ReviewOpened(question) => {
                record.reviews += 1;
                record.asked_micros = question.allows_micros;
            }
            Event::EffectReused { effect, of_run, .. } if *of_run == self.id => record.effect = Some(*effect),
            Event::ChildOpened { run, .. } => record.child = Some(*run),
            Event::EffectStarted { again, effect, .. } => {
                record.effect = Some(*effect);
                record.repeats += u32::from(*again);
                record.started_at = Some(at);
            }
            Event::WaitBegan { topic: Some(topic), .. } => record.batched = topic.call(),
            Event::ModelCalled { call, .. } => {
                record.cost_micros += call.cost_micros;
                if call.batch {
                    record.batched = None;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn illegal(&self, event: &Event, state: &str) -> IllegalEvent {
        IllegalEvent { run: self.id, seq: self.seq + 1, event: kind(event), state: state.to_owned() }
    }

    /// The step's record; a fresh one if it has not begun.
    #[must_use]
    pub fn record(&self, step: &StepId) -> &StepRecord {
        self.steps.get(step).unwrap_or(const { &StepRecord::NEW })
    }

    /// Where the step stands.
    #[must_use]
    pub fn status(&self, step: &StepId) -> &StepStatus {
        &self.record(step).status
    }

    /// What templates of this run may name, besides `workspace`: `input`, `run`, `steps`.
    #[must_use]
    pub fn context(&self, workspace: &Value) -> Value {
        let mut steps = Map::new();
        for (id, record) in &self.steps {
            if let StepStatus::Succeeded { output, confidence, .. } = &record.status
                && !id.0.contains('/')
            {
                steps.insert(id.0.clone(), json!({"output": output, "confidence": confidence}));
            }
        }
        json!({
            "input": self.opened.input,
            "workspace": workspace,
            "run": {"id": self.id, "title": self.opened.title, "opened_at": self.opened_at},
            "steps": steps,
        })
    }

    /// What the templates of one step may name: [`Run::context`], for an item also `item` and `index`, for
    /// an undoing also the `output` of what it undoes.
    #[must_use]
    pub fn context_of(&self, step: &StepId, workspace: &Value) -> Value {
        let mut context = self.context(workspace);
        let place = step.place();
        if let (Some(index), Some(items)) = (place.item, &self.record(&place.base.into()).items) {
            context["item"] = items.values.get(index).cloned().unwrap_or_default();
            context["index"] = json!(index);
        }
        if place.undo
            && let StepStatus::Succeeded { output, .. } = self.status(&step.undone())
        {
            context["output"] = output.clone();
        }
        context
    }

    /// The label of the value at a path in a template of one step.
    #[must_use]
    pub fn label_in(&self, step: &StepId, path: &str) -> Label {
        let place = step.place();
        match path.split('.').next() {
            // Elsewhere these are names of a template's own, whose sources it names as well.
            Some("item") => match (place.item, &self.record(&place.base.into()).items) {
                (Some(_), Some(items)) => items.label,
                _ => Label::Owner,
            },
            Some("index") => Label::System,
            Some("output") => match self.status(&step.undone()) {
                StepStatus::Succeeded { label, .. } if place.undo => *label,
                _ => Label::Owner,
            },
            _ => self.label_of(path),
        }
    }

    /// The label of the value at a template's path.
    #[must_use]
    pub fn label_of(&self, path: &str) -> Label {
        match path.split('.').next() {
            Some("workspace") => Label::Owner,
            Some("run") if path != "run.title" && path != "run" => Label::System,
            Some("steps") => match step_of(path) {
                Some(step) => match self.status(&StepId(step.to_owned())) {
                    StepStatus::Succeeded { label, .. } => *label,
                    _ => Label::System,
                },
                None => Label::Untrusted,
            },
            _ => self.opened.label,
        }
    }
}

fn kind(event: &Event) -> String {
    serde_json::to_value(event)
        .ok()
        .and_then(|v| Some(v.get("kind")?.as_str()?.to_owned()))
        .unwrap_or_default()
}

impl RunStatus {
    /// The name used in tables and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Parked => "parked",
            Self::Over(Outcome::Succeeded) => "succeeded",
            Self::Over(Outcome::Declined) => "declined",
            Self::Over(Outcome::Failed) => "failed",
            Self::Over(Outcome::Cancelled) => "cancelled",
            Self::Over(Outcome::Parked) => "parked",
        }
    }
}

/// A run's status as its row shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunStatus {
    /// A node has it in motion, or is about to.
    Running,
    /// There is no room for it yet.
    Queued,
    /// It sleeps until a decision, an event or a moment.
    Waiting,
    /// The owner holds it.
    Paused,
    /// Steward cannot go on with it; the owner is asked.
    Parked,
    /// It has ended.
    Over(Outcome),
}

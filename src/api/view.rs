//! A run as people look at it: what the version says, what the journal tells of it, and what it
//! waits for. Pure; the same for the API, the command line and every later screen.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::digest::Digest;
use crate::domain::event::{Event, ModelCall, ToolCall};
use crate::domain::ids::{EffectId, ReviewId, RunId, StepId, WorkflowName};
use crate::domain::label::Label;
use crate::domain::run::{Run, StepRecord};
use crate::domain::step::StepStatus;
use crate::domain::workflow::{Step, StepKind, Version};
use crate::store::StoreError;
use crate::store::effects::EffectRow;
use crate::store::journal::read::JournalEntry;
use crate::store::reviews::ReviewRow;
use crate::store::runs::RunRow;
use crate::store::workflows::VersionRow;

/// One run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The digest of the version it is pinned to.
    pub version: Digest,
    /// That version's number.
    pub number: i32,
    /// How far that version is trusted.
    pub stage: String,
    /// `queued`, `running`, `waiting`, `succeeded`, `declined`, `failed`, `cancelled`, `parked`.
    pub status: String,
    /// Why it ended so, once it has.
    pub reason: Option<String>,
    /// Who asked for it to stop, if somebody did.
    pub cancelling: Option<String>,
    /// For the owner to recognise it by.
    pub title: String,
    /// The door it came through.
    pub trigger: String,
    /// Where its input came from.
    pub label: Label,
    /// Its input.
    pub input: Value,
    /// The number of its last journal entry.
    pub seq: i64,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What its model calls cost, millionths of `currency`.
    pub cost_micros: i64,
    /// The currency in which money is counted.
    pub currency: String,
    /// Its steps, in the order of the workflow.
    pub steps: Vec<StepView>,
    /// What it proposed or did, in order.
    pub effects: Vec<Value>,
    /// The reviews that are open.
    pub reviews: Vec<Value>,
    /// What it waits for; empty once it has ended.
    pub waits_for: Vec<Wait>,
}

/// One step of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepView {
    /// Its id.
    pub id: StepId,
    /// What the owner calls it.
    pub name: String,
    /// What it does: `agent NAME`, an action's name, or `review`.
    pub does: String,
    /// Where it stands.
    pub status: String,
    /// The attempt under way or the last one; 0 before the first.
    pub attempt: u32,
    /// How many attempts failed.
    pub failures: u32,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// What its model calls cost, millionths of the currency.
    pub cost_micros: i64,
    /// The models that were tried, in order.
    pub calls: Vec<ModelCall>,
    /// What its agent looked up, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lookups: Vec<ToolCall>,
    /// Why it stands where it stands: skipped, declined, failed, to be tried again, in doubt.
    pub why: Option<String>,
    /// The last decision on it: how, and by whom.
    pub decided: Option<String>,
    /// Its output.
    pub output: Option<Value>,
    /// How sure the output's maker was.
    pub confidence: Option<f64>,
}

/// Something a run waits for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum Wait {
    /// The owner.
    Decision {
        /// The step that waits.
        step: StepId,
        /// The review to decide.
        review: ReviewId,
        /// What is asked: `approval`, `answer`, `question`, `in_doubt`.
        ask: String,
        /// One line.
        title: String,
        /// When the question expires.
        due_at: Option<Timestamp>,
    },
    /// A moment.
    Retry {
        /// The step that waits.
        step: StepId,
        /// When the next attempt begins.
        at: Timestamp,
        /// Why the last one failed.
        why: String,
    },
    /// Its turn: others go before it, or its concurrency key has all its runs under way.
    Turn {
        /// How many of its key may be under way; any number when absent.
        limit: Option<u32>,
    },
    /// An event from outside.
    Event {
        /// The step that waits.
        step: StepId,
        /// The event's name.
        event: String,
        /// What it must be about.
        #[serde(rename = "match")]
        matches: String,
        /// How long it is waited for.
        until: Option<Timestamp>,
    },
    /// A moment that the workflow names.
    Moment {
        /// The step that waits.
        step: StepId,
        /// When it goes on.
        at: Option<Timestamp>,
    },
    /// The end of another run.
    Run {
        /// The step that waits.
        step: StepId,
        /// That run.
        run: RunId,
    },
    /// The moment at which an effect goes out; until then it can be called back.
    Dispatch {
        /// The step.
        step: StepId,
        /// Which effect.
        effect: EffectId,
        /// When.
        at: Timestamp,
    },
    /// The owner, who holds it.
    Resume {
        /// Who holds it.
        by: String,
    },
    /// Work that is under way.
    Work {
        /// The step.
        step: StepId,
        /// What it does.
        does: String,
    },
}

/// What the journal tells of a step beyond its record.
#[derive(Clone, Default)]
struct Told {
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    calls: Vec<ModelCall>,
    lookups: Vec<ToolCall>,
    decided: Option<String>,
}

/// Puts a run together from its rows and its whole journal.
///
/// # Errors
/// [`StoreError::Corrupt`] when the journal cannot be read or folded.
pub fn view(
    row: &RunRow,
    version: &VersionRow,
    entries: &[JournalEntry],
    effects: &[EffectRow],
    reviews: &[ReviewRow],
    currency: &str,
) -> Result<RunView, StoreError> {
    let events = entries.iter().map(event).collect::<Result<Vec<_>, _>>()?;
    let told = tell(&events);
    let run = Run::fold(row.id, events)
        .map_err(|illegal| StoreError::corrupt(format!("run {}", row.id), illegal))?;
    let ids = ids(&run, &version.version);
    let steps = ids.iter().filter_map(|id| version.version.step(id));
    let steps: Vec<_> = steps.collect();
    let waits_for = match run.finished {
        Some(_) => Vec::new(),
        None if row.status == "queued" => {
            let limited = version.version.flow.concurrency.as_ref();
            vec![Wait::Turn { limit: limited.map(|limited| limited.limit) }]
        }
        None => {
            let parked = reviews.iter().filter(|row| Some(row.id) == run.parked).map(decision);
            let held = run.paused.iter().map(|by| Wait::Resume { by: by.clone() });
            parked.chain(held).chain(steps.iter().filter_map(|step| wait(step, &run, reviews))).collect()
        }
    };
    let steps = steps.iter().map(|step| step_view(step, run.record(&step.id), told.get(&step.id))).collect();
    Ok(RunView {
        id: row.id,
        workflow: row.workflow.clone(),
        version: row.version,
        number: version.number,
        stage: version.stage.as_str().to_owned(),
        status: row.status.clone(),
        reason: run.finished.map(|(_, reason)| reason),
        cancelling: run.cancelling,
        title: row.title.clone(),
        trigger: row.trigger.clone(),
        label: run.opened.label,
        input: run.opened.input,
        seq: run.seq,
        opened_at: row.opened_at,
        finished_at: row.finished_at,
        cost_micros: run.steps.values().map(|record| record.cost_micros).sum(),
        currency: currency.to_owned(),
        steps,
        effects: effects.iter().map(|effect| json!(effect)).collect(),
        reviews: reviews.iter().map(|review| json!(review)).collect(),
        waits_for,
    })
}

/// The steps of the file, each with the items of its list and the undoings that have begun behind it.
fn ids(run: &Run, version: &Version) -> Vec<StepId> {
    let mut ids = Vec::new();
    for step in &version.steps {
        let count = run.record(&step.id).items.as_ref().map_or(0, |items| items.values.len());
        let items = (0..count).map(|index| step.id.item(index));
        for id in std::iter::once(step.id.clone()).chain(items) {
            let undo = Some(id.undo()).filter(|undo| run.steps.contains_key(undo));
            ids.push(id);
            ids.extend(undo);
        }
    }
    ids
}

fn decision(row: &ReviewRow) -> Wait {
    Wait::Decision {
        step: row.step.clone(),
        review: row.id,
        ask: row.ask.clone(),
        title: row.title.clone(),
        due_at: row.due_at,
    }
}

fn event(entry: &JournalEntry) -> Result<(Event, Timestamp), StoreError> {
    serde_json::from_value(json!({"kind": entry.kind, "data": entry.data}))
        .map(|event| (event, entry.at))
        .map_err(|error| StoreError::corrupt(format!("entry {} of the journal", entry.seq), error))
}

fn tell(events: &[(Event, Timestamp)]) -> BTreeMap<StepId, Told> {
    let mut all: BTreeMap<StepId, Told> = BTreeMap::new();
    for (event, at) in events {
        let Some(step) = event.step() else { continue };
        let told = all.entry(step.clone()).or_default();
        told.started_at.get_or_insert(*at);
        match event {
            Event::ModelCalled { call, .. } => told.calls.push(call.clone()),
            Event::ToolCalled { call, .. } => told.lookups.push(call.clone()),
            Event::ReviewDecided { verdict, by, .. } => {
                told.decided = Some(format!("{} by {by}", verdict.as_str()));
            }
            Event::StepSucceeded { .. }
            | Event::StepSkipped { .. }
            | Event::StepDeclined { .. }
            | Event::StepFailed { .. } => told.ended_at = Some(*at),
            _ => {}
        }
    }
    all
}

fn step_view(step: &Step, record: &StepRecord, told: Option<&Told>) -> StepView {
    let Told { started_at, ended_at, calls, lookups, decided } = told.cloned().unwrap_or_default();
    let (output, confidence) = match &record.status {
        StepStatus::Succeeded { output, confidence, .. } => (Some(output.clone()), *confidence),
        _ => (None, None),
    };
    StepView {
        id: step.id.clone(),
        name: step.title().to_owned(),
        does: does(step),
        status: record.status.name().to_owned(),
        attempt: record.attempt,
        failures: record.failures,
        started_at,
        ended_at,
        cost_micros: record.cost_micros,
        calls,
        lookups,
        why: why(&record.status),
        decided,
        output,
        confidence,
    }
}

fn does(step: &Step) -> String {
    match &step.kind {
        StepKind::Agent(wanted) => format!("agent {}", wanted.agent),
        StepKind::Action(wanted) => wanted.action.clone(),
        StepKind::Review(_) => "review".to_owned(),
        StepKind::Wait(wait) => match &wait.event {
            Some(event) => format!("wait for {event}"),
            None => "wait".to_owned(),
        },
        StepKind::Workflow(child) => format!("workflow {}", child.workflow),
    }
}

fn why(status: &StepStatus) -> Option<String> {
    match status {
        StepStatus::Skipped { reason } | StepStatus::Declined { reason } => Some(reason.clone()),
        StepStatus::Failed { error } | StepStatus::Backoff { error, .. } => Some(error.message.clone()),
        StepStatus::InDoubt { evidence, .. } => Some(evidence.clone()),
        StepStatus::Pending
        | StepStatus::Running
        | StepStatus::Proposed { .. }
        | StepStatus::Asking { .. }
        | StepStatus::Decided { .. }
        | StepStatus::Held { .. }
        | StepStatus::Effecting { .. }
        | StepStatus::Undone { .. }
        | StepStatus::Each { .. }
        | StepStatus::Waiting { .. }
        | StepStatus::Child { .. }
        | StepStatus::Effected { .. }
        | StepStatus::Succeeded { .. } => None,
    }
}

fn wait(step: &Step, run: &Run, reviews: &[ReviewRow]) -> Option<Wait> {
    let id = step.id.clone();
    match run.status(&step.id) {
        StepStatus::Asking { review, ask, .. } => {
            let row = reviews.iter().find(|row| row.id == *review);
            Some(Wait::Decision {
                step: id,
                review: *review,
                ask: ask.as_str().to_owned(),
                title: row.map_or_else(|| step.title().to_owned(), |row| row.title.clone()),
                due_at: row.and_then(|row| row.due_at),
            })
        }
        StepStatus::Backoff { until, error, .. } => {
            Some(Wait::Retry { step: id, at: *until, why: error.message.clone() })
        }
        StepStatus::Waiting { topic: Some(topic), due_at } => Some(Wait::Event {
            step: id,
            event: topic.event.clone(),
            matches: topic.matches.clone(),
            until: *due_at,
        }),
        StepStatus::Waiting { topic: None, due_at } => Some(Wait::Moment { step: id, at: *due_at }),
        StepStatus::Held { proposal, until } => {
            Some(Wait::Dispatch { step: id, effect: proposal.effect, at: *until })
        }
        StepStatus::Child { run } => Some(Wait::Run { step: id, run: *run }),
        StepStatus::Running
        | StepStatus::Each { .. }
        | StepStatus::Proposed { .. }
        | StepStatus::Decided { .. }
        | StepStatus::Effecting { .. }
        | StepStatus::InDoubt { .. }
        | StepStatus::Undone { .. }
        | StepStatus::Effected { .. } => Some(Wait::Work { step: id, does: does(step) }),
        StepStatus::Pending
        | StepStatus::Succeeded { .. }
        | StepStatus::Skipped { .. }
        | StepStatus::Declined { .. }
        | StepStatus::Failed { .. } => None,
    }
}

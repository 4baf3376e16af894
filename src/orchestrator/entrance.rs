//! How a run comes in: at once, by whoever claims it, or by its turn; and everything that is written when
//! it does.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::domain::admission::{Flow, Lane};
use crate::domain::digest::Digest;
use crate::domain::event::{Event, Opened as Input};
use crate::domain::ids::{NodeId, RunId};
use crate::domain::label::Label;
use crate::domain::plan::Entry;
use crate::domain::run::Run;
use crate::domain::template::Scope;
use crate::orchestrator::door::{OpenError, Origin, Request};
use crate::orchestrator::engine::Engine;
use crate::orchestrator::flow::Seats;
use crate::store::journal::read::Loaded;
use crate::store::journal::seal::{genesis, seal};
use crate::store::journal::{Open, Queued};
use crate::store::workflows::VersionRow;

/// The longest concurrency key that is kept as it is, bytes: longer than an email address can be.
const MAX_FLOW_KEY: usize = 320;

/// The longest title that is kept, characters: it has to fit one line of a list.
const MAX_TITLE: usize = 200;

/// How a run comes in.
pub(super) enum Entrance {
    /// This node begins with it at once.
    Begins(NodeId, Seats),
    /// Whoever claims it first begins with it.
    Due,
    /// It waits for its turn.
    Waits(Place),
}

/// A place in the queue; counted out again when no new run takes it.
pub(super) struct Place {
    pub(super) engine: Arc<Engine>,
    pub(super) lane: Lane,
    pub(super) kept: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            self.engine.gate.leave(&self.lane);
        }
    }
}

/// Everything about a run that is to be opened.
pub(super) fn prepare(
    engine: &Engine,
    row: &VersionRow,
    run: RunId,
    request: Request,
    origin: Origin,
    entrance: &Entrance,
) -> Result<(Open, Loaded), OpenError> {
    let title = title(engine, &row.version.title, &request.input, run);
    let key = request.key.unwrap_or_else(|| run.to_string());
    let input = Input {
        workflow: request.workflow.clone(),
        version: row.digest,
        title: title.clone(),
        input: request.input,
        label: request.label,
        trigger: request.trigger.to_owned(),
        verified: request.verified,
        parent: origin.parent,
        rerun: origin.rerun,
        budget_micros: origin.budget_micros,
    };
    let at = engine.now();
    let entry = Entry {
        event: Event::RunOpened(input.clone()),
        actor: format!("trigger:{}", request.trigger),
        label: request.label,
    };
    let Some(entry) = seal(genesis(run), 0, at, vec![entry]).pop() else {
        return Err(OpenError::Stopping);
    };
    let head = entry.hash;
    let (node, queued) = match entrance {
        Entrance::Begins(node, _) => (Some(*node), None),
        Entrance::Due => (None, None),
        Entrance::Waits(place) => (None, Some(place)),
    };
    let flow = &row.version.flow;
    let queued = queued.map(|place| Queued {
        key: place.lane.key.clone(),
        slots: flow.concurrency.as_ref().map(|limited| limited.limit),
        priority: flow.priority,
        ageing: engine.gate.limits().ageing,
    });
    let open = Open {
        run,
        workflow: request.workflow,
        version: row.digest,
        title,
        trigger: request.trigger.to_owned(),
        key,
        node,
        queued,
        entry,
    };
    Ok((open, Loaded { run: Run::open(run, input, at), head }))
}

/// What a run shares a limit and its turns with.
pub(super) fn lane(engine: &Engine, flow: &Flow, request: &Request, run: RunId) -> Lane {
    let key = flow.concurrency.as_ref().and_then(|limited| limited.key.as_deref());
    let key = key.map(|template| flow_key(engine, template, &request.input, run)).unwrap_or_default();
    Lane { workflow: request.workflow.clone(), key }
}

/// The value of a concurrency key. One that cannot be filled in must not keep a lead out: such runs
/// share the empty key. A long one is kept as its digest, for an index takes no long texts.
pub(super) fn flow_key(engine: &Engine, template: &str, input: &Value, run: RunId) -> String {
    let context = json!({"input": input, "workspace": engine.workspace});
    match Scope::new(&context, |_| Label::Untrusted).text(template) {
        Ok(key) if key.len() > MAX_FLOW_KEY => Digest::of_bytes(key.as_bytes()).to_string(),
        Ok(key) => key.replace('\0', ""),
        Err(error) => {
            tracing::warn!(%run, %error, "the run's concurrency key cannot be filled in");
            String::new()
        }
    }
}

/// A title that cannot be filled in must not keep a lead out: the run is then called by its id.
pub(super) fn title(engine: &Engine, template: &str, input: &Value, run: RunId) -> String {
    let context = json!({"input": input, "workspace": engine.workspace, "run": {"id": run}});
    let title = match Scope::new(&context, |_| Label::Untrusted).text(template) {
        Ok(title) => title,
        Err(error) => {
            tracing::warn!(%run, %error, "the run's title cannot be filled in");
            format!("run {run}")
        }
    };
    title.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_TITLE).collect()
}

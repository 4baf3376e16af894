//! The work of steps that wait: look whether what they wait for has come already, open the run they
//! wait for, and ask it to stop.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::domain::event::{ErrorKind, Parent, StepError, Topic};
use crate::domain::ids::{HappeningId, RunId, StepId, WorkflowName};
use crate::domain::label::Label;
use crate::domain::plan::Stimulus;
use crate::orchestrator::door::{self, OpenError, Origin, Request};
use crate::orchestrator::engine::Engine;
use crate::store::StoreError;

/// The pause before a database that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Looks whether an event came before the wait for it was durable.
pub(super) async fn listen(
    engine: Arc<Engine>,
    step: StepId,
    topic: Topic,
    since: Timestamp,
    heard: Vec<HappeningId>,
) -> Stimulus {
    let since = since.saturating_sub(SLACK).unwrap_or(since);
    let found = until_answered(|| engine.store.event_since(&topic, since, &heard)).await;
    match found {
        Ok(Some(found)) => {
            Stimulus::Happened { step, happening: found.id, data: found.data, label: found.label }
        }
        Ok(None) => Stimulus::Quiet(step),
        Err(error) => {
            tracing::error!(%step, %error, "an event cannot be read; the step waits on");
            Stimulus::Quiet(step)
        }
    }
}

/// Looks whether a run has ended already.
pub(super) async fn attend(engine: Arc<Engine>, step: StepId, run: RunId) -> Stimulus {
    match until_answered(|| engine.store.child_end(run)).await {
        Ok(Some(end)) => Stimulus::ChildEnded(step, end),
        Ok(None) => Stimulus::Quiet(step),
        Err(error) => {
            tracing::error!(%step, %run, %error, "the end of a run cannot be read; the step waits on");
            Stimulus::Quiet(step)
        }
    }
}

/// How much older than its run an event may be: the run's age comes from the node's reading of the
/// database's clock, the event's from that clock itself.
const SLACK: SignedDuration = SignedDuration::from_secs(5);

/// A run to open for a step.
pub(super) struct Child {
    pub(super) parent: Parent,
    pub(super) attempt: u32,
    pub(super) workflow: WorkflowName,
    pub(super) input: Value,
    pub(super) label: Label,
    pub(super) budget_micros: Option<i64>,
}

/// Opens a run for a step. Its key follows from the step's attempt: opened twice it is one run.
pub(super) async fn open(engine: Arc<Engine>, child: Child) -> Stimulus {
    let Child { parent, attempt, workflow, input, label, budget_micros } = child;
    let step = parent.step.clone();
    let key = Some(format!("run:{}/{step}/{attempt}", parent.run));
    let request = Request { workflow, input, label, trigger: "run", key, verified: None };
    let origin = Origin { parent: Some(parent), rerun: None, budget_micros };
    let opened = door::open_child(&engine, request, origin).await;
    Stimulus::Opened(step, opened.map_err(|error| StepError::new(kind(&error), error.to_string())))
}

fn kind(error: &OpenError) -> ErrorKind {
    match error {
        OpenError::UnknownWorkflow { .. } | OpenError::Retired(_) | OpenError::BadInput { .. } => {
            ErrorKind::Invalid
        }
        OpenError::Stopping | OpenError::Full { .. } => ErrorKind::Unavailable,
        OpenError::Store(error) if error.retryable() => ErrorKind::Unavailable,
        OpenError::Store(_) => ErrorKind::Internal,
    }
}

/// Asks a run to stop that nobody waits for any more.
pub(super) async fn stop(engine: Arc<Engine>, run: RunId, by: RunId) {
    let by = format!("run {by}");
    match until_answered(|| engine.store.request_cancel(run, &by)).await {
        Ok(_) => engine.wake(run),
        Err(error) => tracing::error!(%run, %error, "a run cannot be asked to stop"),
    }
}

/// A database that does not answer for a while is no answer.
async fn until_answered<T, F: Future<Output = Result<T, StoreError>>>(
    ask: impl Fn() -> F,
) -> Result<T, StoreError> {
    loop {
        match ask().await {
            Err(error) if error.retryable() => tokio::time::sleep(ASK_AGAIN).await,
            answered => return answered,
        }
    }
}

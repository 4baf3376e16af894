//! What the owner does to runs: stop, hold, let go, go on, do anew, one by one or many at once.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::api::extract::{self, Query, id};
use crate::api::hooks::answer;
use crate::api::problem::{Kind, Problem};
use crate::api::runs::key;
use crate::domain::ids::{RunId, StepId, WorkflowName};
use crate::orchestrator::control::{self, Control, ControlError};
use crate::store::pauses::Scope;
use crate::store::runs::{After, RunFilter};

/// The most runs that one request is about: they are told one after the other while it waits.
const MAX_BULK: usize = 1000;

/// The body of `POST /api/v1/runs/{id}/retry`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    /// From this step; from where it failed when absent.
    from: Option<StepId>,
    /// Let completed effects happen again.
    repeat: bool,
    /// Only say what would happen.
    dry_run: bool,
}

/// The query of `POST /api/v1/runs/{id}/cancel`, `pause` and `resume`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// Only say what would happen.
    dry_run: bool,
}

/// `POST /api/v1/runs/{id}/cancel`: 202, it stops as soon as no effect is in flight, and undoes what it did.
pub(super) async fn cancel(
    state: State<ApiState>,
    caller: Extension<Caller>,
    run: Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Problem> {
    one(state, caller, run, Control::Cancel, wanted.dry_run, "cancelling").await
}

/// `POST /api/v1/runs/{id}/pause`: 202, nothing begins in it any more.
pub(super) async fn pause(
    state: State<ApiState>,
    caller: Extension<Caller>,
    run: Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Problem> {
    one(state, caller, run, Control::Pause, wanted.dry_run, "pausing").await
}

/// `POST /api/v1/runs/{id}/resume`: 202, it goes on.
pub(super) async fn resume(
    state: State<ApiState>,
    caller: Extension<Caller>,
    run: Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Problem> {
    one(state, caller, run, Control::Resume, wanted.dry_run, "resuming").await
}

/// `POST /api/v1/runs/{id}/retry`: 202, an ended run goes on.
pub(super) async fn retry(
    state: State<ApiState>,
    caller: Extension<Caller>,
    run: Path<String>,
    extract::Json(wanted): extract::Json<Retry>,
) -> Result<Response, Problem> {
    let Retry { from, repeat, dry_run } = wanted;
    one(state, caller, run, Control::Retry { from, repeat }, dry_run, "retrying").await
}

async fn one(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(run): Path<String>,
    wanted: Control,
    dry_run: bool,
    status: &str,
) -> Result<Response, Problem> {
    let run = id(&run, Kind::UnknownRun)?;
    let engine = state.door.engine();
    if dry_run {
        let outlook = control::outlook(engine, run, &wanted).await?;
        return Ok(Json(json!({"run": run, "dry_run": true, "outlook": outlook})).into_response());
    }
    control::control(engine, run, &wanted, &caller.by()).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"run": run, "status": status}))).into_response())
}

/// The body of `POST /api/v1/runs/{id}/rerun`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Anew {
    /// The edited input; the same one when absent.
    input: Option<Value>,
    /// Let completed effects happen again.
    repeat: bool,
    /// Only say what would happen.
    dry_run: bool,
}

/// `POST /api/v1/runs/{id}/rerun`: 201, a new run with the same input or an edited one.
pub(super) async fn rerun(
    State(state): State<ApiState>,
    Path(run): Path<String>,
    headers: HeaderMap,
    extract::Json(wanted): extract::Json<Anew>,
) -> Result<Response, Problem> {
    let run = id(&run, Kind::UnknownRun)?;
    if wanted.dry_run {
        let outlook = control::rerun_outlook(state.door.engine(), run, wanted.repeat).await?;
        return Ok(Json(json!({"run": run, "dry_run": true, "outlook": outlook})).into_response());
    }
    let opened = control::rerun(&state.door, run, wanted.input, wanted.repeat, key(&headers)?).await?;
    Ok(answer(opened))
}

/// The body of `POST /api/v1/runs/bulk`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bulk {
    /// `cancel`, `pause`, `resume` or `retry`.
    #[serde(rename = "do")]
    wanted: Verb,
    /// Only runs of this status.
    status: Option<String>,
    /// Only runs of this workflow.
    workflow: Option<String>,
    /// Only runs opened before this moment.
    opened_before: Option<Timestamp>,
    /// Let completed effects happen again.
    #[serde(default)]
    repeat: bool,
    /// Only say which runs these are, and what would happen.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Cancel,
    Pause,
    Resume,
    Retry,
}

/// `POST /api/v1/runs/bulk`: the same for every run that the filter finds, at most 1000, the newest first.
pub(super) async fn bulk(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    extract::Json(wanted): extract::Json<Bulk>,
) -> Result<Json<Value>, Problem> {
    if wanted.status.is_none() && wanted.workflow.is_none() && wanted.opened_before.is_none() {
        let detail = "name a `status`, a `workflow` or `opened_before`: not every run there ever was";
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    let control = match wanted.wanted {
        Verb::Cancel => Control::Cancel,
        Verb::Pause => Control::Pause,
        Verb::Resume => Control::Resume,
        Verb::Retry => Control::Retry { from: None, repeat: wanted.repeat },
    };
    let filter = RunFilter { status: wanted.status, workflow: wanted.workflow };
    let after = wanted.opened_before.map(|opened_at| After { opened_at, id: RunId(uuid::Uuid::nil()) });
    let rows = state.store().runs(&filter, after, MAX_BULK as i64 + 1).await?;
    let more = rows.len() > MAX_BULK;
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    for row in rows.into_iter().take(MAX_BULK) {
        let engine = state.door.engine();
        let outcome = match wanted.dry_run {
            true => control::outlook(engine, row.id, &control)
                .await
                .map(|outlook| json!({"run": row.id, "outlook": outlook})),
            false => control::control(engine, row.id, &control, &caller.by())
                .await
                .map(|()| json!({"run": row.id})),
        };
        match outcome {
            Ok(told) => done.push(told),
            Err(ControlError::Store(error)) => return Err(error.into()),
            Err(error) => refused.push(json!({"run": row.id, "why": error.to_string()})),
        }
    }
    Ok(Json(json!({"dry_run": wanted.dry_run, "done": done, "refused": refused, "more": more})))
}

/// The body of `POST /api/v1/pause` and `POST /api/v1/resume`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scoped {
    /// This workflow; everything when absent.
    #[serde(default)]
    workflow: Option<WorkflowName>,
}

/// `POST /api/v1/pause`: nothing begins any more, in one workflow or anywhere.
pub(super) async fn pause_all(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    extract::Json(scoped): extract::Json<Scoped>,
) -> Result<Json<Value>, Problem> {
    hold(&state, scoped, true, &caller).await
}

/// `POST /api/v1/resume`: what was held goes on.
pub(super) async fn resume_all(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    extract::Json(scoped): extract::Json<Scoped>,
) -> Result<Json<Value>, Problem> {
    hold(&state, scoped, false, &caller).await
}

async fn hold(state: &ApiState, scoped: Scoped, hold: bool, caller: &Caller) -> Result<Json<Value>, Problem> {
    let engine = state.door.engine();
    let scope = match scoped.workflow {
        Some(workflow) if engine.current(&workflow).is_none() => {
            let detail = format!("there is no workflow `{workflow}`");
            return Err(Problem::new(Kind::UnknownWorkflow, detail).with("known", engine.workflows()));
        }
        Some(workflow) => Scope::Workflow(workflow),
        None => Scope::All,
    };
    control::hold(engine, &scope, hold, &caller.by()).await?;
    pauses(State(state.clone())).await
}

/// `GET /api/v1/pauses`: what is held.
pub(super) async fn pauses(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({"pauses": state.store().pause_rows().await?})))
}

//! Workflows: their versions, how far each is trusted, and what it has shown.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::api::extract;
use crate::api::problem::{Kind, Problem};
use crate::domain::digest::Digest;
use crate::domain::ids::WorkflowName;
use crate::domain::workflow::Stage;
use crate::store::decisions::ActionCount;
use crate::store::stages::{Restage, StageRow};

/// Changes of stage that are shown with a workflow, the latest: more than a person reads.
const CHANGES: i64 = 50;

/// `GET /api/v1/workflows`: each with the version that new runs get.
pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let engine = state.door.engine();
    let current = engine.workflows().into_iter().filter_map(|name| engine.current(&name));
    let digests: Vec<Digest> = current.map(|row| row.digest).collect();
    let stages = state.store().stages_of(&digests).await?;
    let counts = counts(&state, &digests).await?;
    let mut shown: Vec<Value> = Vec::new();
    for digest in &digests {
        let Some(row) = stages.iter().find(|row| row.digest == *digest) else { continue };
        shown.push(version(row, true, &counts));
    }
    Ok(Json(json!({"workflows": shown})))
}

/// `GET /api/v1/workflows/{name}`: its versions, the newest first, and who changed their stages.
pub(super) async fn show(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let name = WorkflowName(name);
    let versions = state.store().versions_of(&name).await?;
    if versions.is_empty() {
        return Err(unknown(&state, &name));
    }
    let current = state.door.engine().current(&name).map(|row| row.digest);
    let digests: Vec<Digest> = versions.iter().map(|row| row.digest).collect();
    let counts = counts(&state, &digests).await?;
    let rules = state.definitions.autonomy(&name);
    let shown: Vec<Value> =
        versions.iter().map(|row| version(row, current == Some(row.digest), &counts)).collect();
    Ok(Json(json!({
        "workflow": name,
        "versions": shown,
        "changes": state.store().stage_changes(&name, CHANGES).await?,
        "promote": rules.promote,
        "demote": rules.demote,
    })))
}

async fn counts(state: &ApiState, versions: &[Digest]) -> Result<Vec<ActionCount>, Problem> {
    let hasty = state.definitions.settings.autonomy.hasty();
    Ok(state.store().action_counts(versions, hasty).await?)
}

fn version(row: &StageRow, current: bool, counts: &[ActionCount]) -> Value {
    let of: Vec<&ActionCount> = counts.iter().filter(|count| count.version == row.digest).collect();
    let mut shown = json!(row);
    shown["current"] = json!(current);
    shown["actions"] = json!(of);
    shown
}

fn unknown(state: &ApiState, name: &WorkflowName) -> Problem {
    let problem = Problem::new(Kind::UnknownWorkflow, format!("there is no workflow `{name}`"));
    problem.with("known", state.door.engine().workflows())
}

/// The body of `POST /api/v1/workflows/{name}/promote` and `demote`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// The version's number; the one that new runs get when absent.
    version: Option<i32>,
    /// Why, for the log.
    reason: String,
}

/// `POST /api/v1/workflows/{name}/promote`: policy alone decides from now on.
pub(super) async fn promote(
    state: State<ApiState>,
    caller: Extension<Caller>,
    name: Path<String>,
    body: extract::Json<Wanted>,
) -> Result<Json<Value>, Problem> {
    change(state, caller, name, body, Stage::Live).await
}

/// `POST /api/v1/workflows/{name}/demote`: every effect that leaves the house is reviewed from now on.
pub(super) async fn demote(
    state: State<ApiState>,
    caller: Extension<Caller>,
    name: Path<String>,
    body: extract::Json<Wanted>,
) -> Result<Json<Value>, Problem> {
    change(state, caller, name, body, Stage::Supervised).await
}

async fn change(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    extract::Json(wanted): extract::Json<Wanted>,
    stage: Stage,
) -> Result<Json<Value>, Problem> {
    let (name, engine) = (WorkflowName(name), state.door.engine());
    if !engine.workflows().contains(&name) {
        return Err(unknown(&state, &name));
    }
    let digest = match wanted.version {
        None => engine.current(&name).map(|row| row.digest),
        Some(number) => state.store().numbered_version(&name, number).await?.map(|row| row.digest),
    };
    let none = || {
        let number = wanted.version.unwrap_or_default();
        Problem::new(Kind::UnknownWorkflow, format!("`{name}` has no version {number}"))
    };
    let version = digest.ok_or_else(none)?;
    let by = caller.by();
    let change = Restage { version, was: None, stage, by: &by, reason: &wanted.reason, effect: None };
    let restaged = engine.restage(&change).await?.ok_or_else(none)?;
    let (number, changed) = (restaged.number, restaged.changed);
    tracing::info!(workflow = %name, version = number, stage = stage.as_str(), changed, by,
        "the stage of a version was changed by hand");
    Ok(Json(json!({
        "workflow": name, "number": number, "digest": version, "was": restaged.was, "stage": stage,
        "changed": changed,
    })))
}

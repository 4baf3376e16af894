//! Runs: open, list, look at, stop.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::api::extract::{self, Query, header, id};
use crate::api::hooks::{IDEMPOTENCY_KEY, answer};
use crate::api::page::{self, Place};
use crate::api::problem::{Kind, Problem};
use crate::api::view::{self, RunView};
use crate::domain::digest::Digest;
use crate::domain::ids::{RunId, WorkflowName};
use crate::domain::label::Label;
use crate::orchestrator::door::{OpenError, Request};
use crate::store::journal::Opened;
use crate::store::runs::{After, RunFilter};

/// What a list of runs may be narrowed to.
const STATUSES: [&str; 9] =
    ["queued", "running", "waiting", "paused", "succeeded", "declined", "failed", "cancelled", "parked"];

/// The longest idempotency key, characters; as for webhooks.
const MAX_KEY: usize = crate::triggers::webhook::MAX_KEY;

/// Open reviews shown with a run: one per step at most, and workflows have fewer steps.
const MAX_REVIEWS: i64 = 100;

/// The body of `POST /api/v1/runs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    workflow: WorkflowName,
    input: Value,
    /// Where the input came from; untrusted when absent. Who vouches for it says `owner`.
    #[serde(default = "untrusted")]
    label: Label,
}

fn untrusted() -> Label {
    Label::Untrusted
}

/// `POST /api/v1/runs`: 201 for a new run, 200 for the one that the same `Idempotency-Key` opened,
/// 429 when the queue is full.
pub(super) async fn open(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    extract::Json(wanted): extract::Json<Wanted>,
) -> Result<Response, Problem> {
    let key = key(&headers)?;
    let given = Digest::of_json(&wanted.input);
    let Wanted { workflow, input, label } = wanted;
    let request = Request { workflow, input, label, trigger: caller.channel, key, verified: None };
    let opened = state.door.open(request).await.map_err(|error| unopened(&state, error))?;
    if let Opened::Existing(run) = opened {
        same_input(&state, run, given).await?;
    }
    Ok(answer(opened))
}

/// Keys of the API never meet those that senders of mail and webhooks choose.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    match header(headers, IDEMPOTENCY_KEY.as_str())? {
        None => Ok(None),
        Some(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(format!("api:{key}"))),
        Some(_) => {
            Err(Problem::new(Kind::BadRequest, format!("an Idempotency-Key has 1 to {MAX_KEY} characters")))
        }
    }
}

fn unopened(state: &ApiState, error: OpenError) -> Problem {
    let unknown = matches!(error, OpenError::UnknownWorkflow { .. });
    let problem = Problem::from(error);
    if unknown { problem.with("known", state.door.engine().workflows()) } else { problem }
}

/// The same key for another input is a mistake of the caller that silence would hide.
async fn same_input(state: &ApiState, run: RunId, given: Digest) -> Result<(), Problem> {
    let first = state.store().journal(run, 0, 1).await?.pop();
    let before = first.and_then(|entry| entry.data?.get("input").map(Digest::of_json));
    match before {
        Some(before) if before != given => {
            let detail = format!("run {run} was opened under this key with another input");
            Err(Problem::new(Kind::KeyReused, detail).with("run", run))
        }
        _ => Ok(()),
    }
}

/// The query of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    status: Option<String>,
    workflow: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/runs`: the newest first.
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<Listed>,
) -> Result<Json<Value>, Problem> {
    if query.status.as_deref().is_some_and(|status| !STATUSES.contains(&status)) {
        return Err(Problem::new(Kind::BadRequest, format!("`status` is one of {}", STATUSES.join(", "))));
    }
    let size = page::size(query.limit)?;
    let after = query.cursor.as_deref().map(Place::parse).transpose()?;
    let after = after.map(|place| After { opened_at: place.at, id: RunId(place.id) });
    let filter = RunFilter { status: query.status, workflow: query.workflow };
    let mut rows = state.store().runs(&filter, after, size as i64 + 1).await?;
    let next = page::cut(&mut rows, size, |row| Place { at: row.opened_at, id: row.id.0 });
    Ok(Json(json!({"runs": rows, "next": next})))
}

/// `GET /api/v1/runs/{id}`: the run, its steps, effects, open reviews, cost, and what it waits for.
pub(super) async fn show(
    State(state): State<ApiState>,
    Path(run): Path<String>,
) -> Result<Json<RunView>, Problem> {
    let run = id(&run, Kind::UnknownRun)?;
    let store = state.store();
    let row = store.run_row(run).await?.ok_or_else(|| unknown(run))?;
    let version = state.door.engine().version(row.version).await?;
    let effects = store.effects(run).await?;
    let reviews = store.reviews("open", Some(run), None, MAX_REVIEWS).await?;
    // Last, so that no review or effect is shown that the steps do not know of.
    let entries = store.journal(run, 0, i64::MAX).await?;
    let currency = &state.definitions.settings.workspace.currency;
    Ok(Json(view::view(&row, &version, &entries, &effects, &reviews, currency)?))
}

fn unknown(run: RunId) -> Problem {
    Problem::new(Kind::UnknownRun, format!("there is no run {run}"))
}

/// The query of a journal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Behind {
    /// Only entries behind this number.
    after: Option<i64>,
    limit: Option<u32>,
}

/// `GET /api/v1/runs/{id}/journal`: its entries in order; `next` is the `after` of the next page.
pub(super) async fn journal(
    State(state): State<ApiState>,
    Path(run): Path<String>,
    Query(query): Query<Behind>,
) -> Result<Json<Value>, Problem> {
    let run = id(&run, Kind::UnknownRun)?;
    let size = page::size(query.limit)?;
    let after = query.after.unwrap_or(0);
    let mut entries = state.store().journal(run, after, size as i64 + 1).await?;
    if entries.is_empty() && state.store().run_row(run).await?.is_none() {
        return Err(unknown(run));
    }
    let more = entries.len() > size;
    entries.truncate(size);
    let next = entries.last().filter(|_| more).map(|entry| entry.seq);
    Ok(Json(json!({"entries": entries, "next": next})))
}

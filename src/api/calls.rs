//! What was said to models: of a run, word for word, and behind an effect.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::extract::{Query, id};
use crate::api::page;
use crate::api::problem::{Kind, Problem};
use crate::domain::ids::{CallId, EffectId, RunId, StepId};
use crate::domain::lineage;
use crate::domain::workflow::StepKind;
use crate::store::calls::{Body, CallRow};

/// Calls told of one run in a trace: a run's budget is used up long before.
const MOST_CALLS: i64 = 1_000;

/// The query of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Behind {
    /// Only calls behind this one.
    after: Option<CallId>,
    limit: Option<u32>,
}

/// `GET /api/v1/runs/{id}/calls`: its calls in order, without bodies; `next` is the `after` of the next page.
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(run): Path<String>,
    Query(query): Query<Behind>,
) -> Result<Json<Value>, Problem> {
    let run: RunId = id(&run, Kind::UnknownRun)?;
    let size = page::size(query.limit)?;
    let mut calls = state.store().calls(run, query.after, size as i64 + 1).await?;
    if calls.is_empty() && state.store().run_row(run).await?.is_none() {
        return Err(Problem::new(Kind::UnknownRun, format!("there is no run {run}")));
    }
    let more = calls.len() > size;
    calls.truncate(size);
    let next = calls.last().filter(|_| more).map(|call| call.id);
    Ok(Json(json!({"calls": calls, "next": next})))
}

/// `GET /api/v1/calls/{id}`: one call with its bodies, as texts, for they are told to the letter.
pub(super) async fn show(
    State(state): State<ApiState>,
    Path(call): Path<String>,
) -> Result<Json<Value>, Problem> {
    let call: CallId = id(&call, Kind::UnknownCall)?;
    let found = state.store().call(call).await?.ok_or_else(|| {
        let detail =
            format!("there is no call {call}, or it is no longer kept (`calls` in config/settings.yaml)");
        Problem::new(Kind::UnknownCall, detail)
    })?;
    let (request, response) = (body(found.request.as_ref())?, body(found.response.as_ref())?);
    let mut shown = serde_json::to_value(&found.row).map_err(Problem::internal)?;
    shown["request"] = request;
    shown["response"] = response;
    Ok(Json(shown))
}

fn body(body: Option<&Body>) -> Result<Value, Problem> {
    let Some(body) = body else { return Ok(Value::Null) };
    let text = String::from_utf8_lossy(&body.unpack()?).into_owned();
    Ok(json!({"text": text, "bytes": body.bytes, "clipped": body.clipped}))
}

/// `GET /api/v1/effects/{id}/trace`: an effect, the step and version it comes from, the agents whose outputs
/// went into it, and their calls.
pub(super) async fn trace(
    State(state): State<ApiState>,
    Path(effect): Path<String>,
) -> Result<Json<Value>, Problem> {
    let effect: EffectId = id(&effect, Kind::UnknownEffect)?;
    let unknown = || Problem::new(Kind::UnknownEffect, format!("there is no effect {effect}"));
    let store = state.store();
    let found = store.effect(effect).await?.ok_or_else(unknown)?;
    let run = store.run_row(found.run).await?.ok_or_else(unknown)?;
    let row = state.door.engine().version(run.version).await?;
    let version = &row.version;
    let calls = store.calls(run.id, None, MOST_CALLS).await?;
    let base = |step: &StepId| step.place().base.to_owned();
    let agents = lineage::behind(version, &found.step).into_iter().filter_map(|(step, direct)| {
        let named = version.step(&step)?;
        let StepKind::Agent(asked) = &named.kind else { return None };
        let agent = version.agents.get(&asked.agent)?;
        let of_step: Vec<&CallRow> = calls.iter().filter(|call| base(&call.step) == step.0).collect();
        Some(json!({"step": step, "named_by_effect": direct, "agent": agent.agent, "digest": agent.digest(),
            "calls": of_step}))
    });
    let agents: Vec<Value> = agents.collect();
    Ok(Json(json!({
        "effect": found,
        "run": {"id": run.id, "workflow": run.workflow, "status": run.status, "trigger": run.trigger,
            "opened_at": run.opened_at},
        "step": found.step,
        "version": run.version,
        "agents": agents,
    })))
}

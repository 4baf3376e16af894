//! The audit trail: whether every invariant still holds.

use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::config::secret::Secret;
use crate::config::workspace::Definitions;
use crate::store::StoreError;
use crate::store::audit::{Audit, Canary, Checked, NOT_CLAIMED, Observed, PATIENCE, Report};

/// The answer that tells of its progress: a line `{"progress": …}` after each page, the report last.
pub const LINES: &str = "application/x-ndjson";

/// Lines of progress that wait for a slow reader; it misses those beyond.
const LINES_WAITING: usize = 8;

/// `GET /api/v1/audit/verify`: checks every invariant on every run.
pub(super) async fn verify(State(state): State<ApiState>, headers: HeaderMap) -> Result<Response, Problem> {
    if headers.get(ACCEPT).is_none_or(|accept| accept != LINES) {
        return Ok(Json(shown(&check(&state, &|_| {}).await?)).into_response());
    }
    let total = state.store().run_estimate().await?;
    let (lines, waiting) = mpsc::channel::<Bytes>(LINES_WAITING);
    tokio::spawn(async move {
        let progress = |checked: &Checked| {
            let _ = lines.try_send(line(&json!({"progress": {"runs": checked.runs, "of": total}})));
        };
        let last = tokio::select! {
            checked = check(&state, &progress) => checked,
            () = lines.closed() => return, // nobody waits for the answer any more
        };
        let last = match last {
            Ok(report) => shown(&report),
            Err(error) => {
                tracing::error!(%error, "the audit broke off");
                json!({"error": error.to_string()})
            }
        };
        let _ = lines.send(line(&last)).await;
    });
    let lines = stream::unfold(waiting, |mut waiting| async {
        let line = waiting.recv().await?;
        Some((Ok::<_, Infallible>(line), waiting))
    });
    Ok(([(CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response())
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

async fn check(state: &ApiState, progress: &(dyn Fn(&Checked) + Send + Sync)) -> Result<Report, StoreError> {
    let engine = state.door.engine();
    let secrets = secrets(&state.definitions, state.email_secret.as_deref());
    let audit = Audit {
        repeat: &|action| engine.connectors.repeat(action),
        secrets: &secrets,
        logs: &[],
        observed: &Observed::default(),
        patience: PATIENCE,
        progress,
    };
    state.store().audit(&audit).await
}

fn shown(report: &Report) -> Value {
    json!({
        "runs": report.checked.runs,
        "verified": report.checked.runs.saturating_sub(report.runs_violated),
        "broken": report.violated,
        "violations": report.violations,
        "checked": report.checked,
        "not_claimed": NOT_CLAIMED,
    })
}

/// Every secret that the owner's files name and the environment holds.
fn secrets(definitions: &Definitions, email_hook: Option<&Secret>) -> Vec<Canary> {
    let canary = |(name, secret): (String, Secret)| Canary { name, value: secret.expose().to_owned() };
    let hook = email_hook.map(|secret| ("the key of /hooks/email".to_owned(), secret.clone()));
    definitions.secrets().into_iter().chain(hook).map(canary).collect()
}

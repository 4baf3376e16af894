//! The audit trail: whether every hash chain still holds.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::store::runs::{After, RunFilter};

/// Runs asked for at a time: their ids are held, never their journals together.
const PAGE: i64 = 500;

/// Broken chains that are listed; all of them are counted.
const LISTED: usize = 100;

/// `GET /api/v1/audit/verify`: checks the chain of every run, the newest first.
pub(super) async fn verify(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let store = state.store();
    let (mut runs, mut count, mut broken) = (0u64, 0u64, Vec::new());
    let mut after = None;
    loop {
        let page = store.runs(&RunFilter::default(), after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(After { opened_at: last.opened_at, id: last.id });
        for row in &page {
            runs += 1;
            let Some(found) = store.verify_run(row.id).await? else { continue };
            count += 1;
            if broken.len() < LISTED {
                broken.push(found);
            }
        }
    }
    Ok(Json(json!({"runs": runs, "verified": runs - count, "broken": count, "breaks": broken})))
}

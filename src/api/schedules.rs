//! Schedules, and what triggers have gathered: what will open a run by itself.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::problem::Problem;

/// Groups of gathered inputs that are listed, those due first: as many as a person reads.
const GROUPS: i64 = 100;

/// `GET /api/v1/schedules`: every schedule with its next and last time, and the groups that wait.
pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let schedules = state.store().schedules().await?;
    let gathered = state.store().groups(GROUPS).await?;
    Ok(Json(json!({"schedules": schedules, "gathered": gathered})))
}

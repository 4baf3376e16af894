//! Whether the process lives, and whether it can work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::problem::{Kind, Problem};

/// How long the database may take to say that it is there.
const PING: Duration = Duration::from_secs(1);

/// `GET /livez`: the process answers. It asks nobody else: a database that is away is no reason to
/// restart Steward.
pub(super) async fn livez() -> Json<Value> {
    Json(json!({"status": "live"}))
}

/// `GET /readyz`: the database answers too.
pub(super) async fn readyz(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    match tokio::time::timeout(PING, state.store().ping()).await {
        Ok(Ok(())) => Ok(Json(json!({"status": "ready"}))),
        Ok(Err(_)) | Err(_) => Err(Problem::new(Kind::Unavailable, "the database does not answer")),
    }
}

//! Models and who serves them: what they cost, whether they can be asked, and whether they answer.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::extract::Query;
use crate::api::problem::{Kind, Problem};
use crate::models::survey::Survey;

/// The query of `POST /api/v1/models/test`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// This model alone.
    model: Option<String>,
}

/// `GET /api/v1/models`: providers with their breakers and limits, models with their prices.
pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<Survey>, Problem> {
    Ok(Json(state.door.engine().models.survey().await?))
}

/// `POST /api/v1/models/test?model=NAME`: asks each model, or the one named, for one token.
pub(super) async fn test(
    State(state): State<ApiState>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Problem> {
    let tested = state.door.engine().models.test(wanted.model.as_deref()).await;
    match wanted.model {
        Some(model) if tested.is_empty() => {
            let detail = format!("config/models.yaml has no model `{model}`");
            Err(Problem::new(Kind::UnknownModel, detail))
        }
        _ => Ok(Json(json!({"tested": tested}))),
    }
}

/// `POST /api/v1/models/providers/{name}/reset`: lets it be asked again at once.
pub(super) async fn reset(
    State(state): State<ApiState>,
    Path(provider): Path<String>,
) -> Result<Json<Value>, Problem> {
    match state.door.engine().models.reset(&provider).await? {
        Some(was_paused) => Ok(Json(json!({"provider": provider, "was_paused": was_paused}))),
        None => {
            let detail = format!("config/models.yaml has no provider `{provider}`");
            Err(Problem::new(Kind::UnknownProvider, detail))
        }
    }
}

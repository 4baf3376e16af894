//! Notices: what the owner should know, acknowledged once.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::auth::Caller;
use crate::api::extract::{Query, id};
use crate::api::page;
use crate::api::problem::{Kind, Problem};
use crate::domain::ids::NoticeId;

/// The query of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    /// Also those that are acknowledged or over.
    all: Option<bool>,
    limit: Option<u32>,
}

/// `GET /api/v1/notices`: those that stand, or with `all=true` every one, the newest first.
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<Listed>,
) -> Result<Json<Value>, Problem> {
    let size = page::size(query.limit)?;
    let notices = state.store().notices(!query.all.unwrap_or(false), size as i64).await?;
    Ok(Json(json!({"notices": notices})))
}

/// `POST /api/v1/notices/{id}/acknowledge`.
pub(super) async fn acknowledge(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(notice): Path<String>,
) -> Result<Json<Value>, Problem> {
    let notice: NoticeId = id(&notice, Kind::UnknownNotice)?;
    let store = state.store();
    let acknowledged = store.acknowledge(notice, &caller.by()).await?;
    let unknown = || Problem::new(Kind::UnknownNotice, format!("there is no notice {notice}"));
    let row = store.one_notice(notice).await?.ok_or_else(unknown)?;
    match acknowledged {
        true => Ok(Json(json!(row))),
        false => {
            let by = row.acknowledged_by.clone().unwrap_or_default();
            Err(Problem::new(Kind::NoticeOver, format!("this notice was acknowledged already, by {by}"))
                .with("by", by)
                .with("at", row.acknowledged_at))
        }
    }
}

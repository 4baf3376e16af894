//! Events from outside that runs wait for.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::ApiState;
use crate::api::extract;
use crate::api::problem::{Kind, Problem};
use crate::api::runs::key;
use crate::domain::event::Topic;
use crate::domain::ids::HappeningId;
use crate::domain::label::Label;
use crate::domain::plan::waits::MAX_MATCH;
use crate::models::schema;
use crate::store::events::{Happening, RUN_FINISHED};

/// The longest name of an event, bytes.
const MAX_NAME: usize = 100;

/// The body of `POST /api/v1/events`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    /// Its name, such as `contract.signed`.
    event: String,
    /// What it is about: what a step's `match` gives.
    #[serde(rename = "match")]
    matches: String,
    /// What it brings.
    #[serde(default)]
    data: Value,
    /// Where that came from; untrusted when absent. Who vouches for it says `owner`.
    #[serde(default = "untrusted")]
    label: Label,
}

fn untrusted() -> Label {
    Label::Untrusted
}

/// `POST /api/v1/events`: 202, with the runs that waited for it. The same `Idempotency-Key` again is the
/// same event.
pub(super) async fn publish(
    State(state): State<ApiState>,
    headers: HeaderMap,
    extract::Json(event): extract::Json<Event>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Event { event, matches, data, label } = event;
    let bad = |detail: String| Err(Problem::new(Kind::BadRequest, detail));
    if event.is_empty() || event.len() > MAX_NAME {
        return bad(format!("`event` has 1 to {MAX_NAME} bytes"));
    }
    if let Some(own) = [RUN_FINISHED, Topic::CALL_ANSWERED].into_iter().find(|own| *own == event) {
        return bad(format!("`{own}` is Steward's own: nobody else brings it"));
    }
    if matches.len() > MAX_MATCH {
        return bad(format!("`match` has at most {MAX_MATCH} bytes"));
    }
    if let Err(why) = schema::storable(&json!([event, matches, data])) {
        return bad(why);
    }
    let happening = Happening {
        id: HappeningId(Uuid::now_v7()),
        topic: Topic { event, matches },
        data,
        label,
        key: key(&headers)?,
    };
    let told = state.store().publish(&happening).await?;
    told.runs.iter().for_each(|run| state.door.wake(*run));
    Ok((StatusCode::ACCEPTED, Json(json!({"event": told.id, "runs": told.runs}))))
}

//! Memory: documents in, citations out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::ApiState;
use crate::api::extract::{self, Query};
use crate::api::problem::{Kind, Problem};
use crate::domain::label::Label;
use crate::memory::filling;
use crate::memory::ingest::{self, Added, LARGEST};
use crate::memory::search::{self, Found, MOST_HITS};

/// The largest document, with room for JSON to write its quotes and line ends as two characters.
const MAX_DOCUMENT: usize = 2 * LARGEST;

/// The body of `POST /api/v1/memory`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// Its name, such as `prices/hosting.md`.
    path: String,
    /// Its text, as it is.
    text: String,
    /// Where it came from; the owner's word when absent.
    #[serde(default)]
    label: Label,
}

/// `POST /api/v1/memory`: 201 for a new version, 200 when it was there exactly so.
pub(super) async fn add(
    State(state): State<ApiState>,
    extract::Json(document): extract::Json<Document, MAX_DOCUMENT>,
) -> Result<(StatusCode, Json<Added>), Problem> {
    let embedder = state.door.engine().embedder.as_ref();
    let Document { path, text, label } = document;
    let added = ingest::add(state.store(), embedder, &path, text.as_bytes(), label).await?;
    let status = if added.unchanged { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(added)))
}

/// `GET /api/v1/memory`: what is in it, by path, and the spaces its meaning is searched in.
pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let documents = ingest::list(state.store()).await?;
    Ok(Json(json!({"documents": documents, "spaces": filling::standings(state.store()).await?})))
}

/// The query of a search.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    /// The question, in any words.
    q: String,
    limit: Option<u32>,
    /// Only documents whose path begins so.
    prefix: Option<String>,
}

/// `GET /api/v1/memory/search`: the passages that answer, best first, and `words_only`, why meaning could not
/// be looked for, if so.
pub(super) async fn search(
    State(state): State<ApiState>,
    Query(wanted): Query<Search>,
) -> Result<Json<Found>, Problem> {
    let mut query = search::Query::new(wanted.q);
    query.limit = match wanted.limit {
        Some(limit @ 1..=MOST_HITS) => limit,
        Some(_) => return Err(Problem::new(Kind::BadRequest, format!("`limit` is 1 to {MOST_HITS}"))),
        None => query.limit,
    };
    query.prefix = wanted.prefix;
    Ok(Json(search::search(state.store(), state.door.engine().embedder.as_ref(), &query).await?))
}

//! Asking memory: [`search`] for Steward itself, [`search_action`] as the read action
//! `memory.search` of steps and agents.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::event::{ErrorKind, StepError};
use crate::domain::label::Label;
use crate::memory::chunk::shortened;
use crate::memory::{Embedder, embed};
use crate::store::memory::{self as stored, Probe};
use crate::store::{Store, StoreError};

pub use crate::store::memory::Hit;

/// The longest question, in characters; what follows is not read. A long email says what it is about
/// before that, and the encoder has stopped reading long since.
pub const LONGEST_QUERY: usize = 2_000;

/// The most hits one question gives.
pub const MOST_HITS: u32 = 20;

/// Hits when nobody says how many.
const USUAL_HITS: u32 = 5;

/// A question to memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// In any words; a whole sentence or email is fine.
    pub text: String,
    /// At most so many hits, between 1 and [`MOST_HITS`]; other numbers are brought into that range.
    pub limit: u32,
    /// Only documents at least as trusted.
    pub ceiling: Option<Label>,
    /// Only documents whose path begins so.
    pub prefix: Option<String>,
}

impl Query {
    /// A question to all documents.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), limit: USUAL_HITS, ceiling: None, prefix: None }
    }
}

/// Why memory did not answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The encoder failed.
    #[error("the question could not be embedded: {0}")]
    Embed(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The hits, best first. A blank question has none.
///
/// # Errors
/// See [`SearchError`].
pub async fn search(store: &Store, embedder: &dyn Embedder, query: &Query) -> Result<Vec<Hit>, SearchError> {
    // A zero byte is no word, and PostgreSQL takes none.
    let text = shortened(&query.text, LONGEST_QUERY).replace('\0', " ");
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let space = stored::known_space(store, &embedder.space()).await?;
    let vector = match space.filter(|space| space.active) {
        Some(space) => {
            let mut vectors = embed(embedder, vec![text.clone()]).await.map_err(SearchError::Embed)?;
            vectors.pop().map(|vector| (space, vector))
        }
        // Nothing is comparable with this encoder's vectors: words still are.
        None => None,
    };
    let probe = Probe {
        text: &text,
        vector,
        ceiling: query.ceiling,
        prefix: query.prefix.as_deref(),
        limit: query.limit.clamp(1, MOST_HITS).into(),
    };
    Ok(stored::search(store, &probe).await?)
}

/// The parameters of `memory.search`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    query: String,
    #[serde(default = "usual_hits")]
    limit: u32,
}

fn usual_hits() -> u32 {
    USUAL_HITS
}

/// The read action `memory.search`: `query` (text), `limit` (1 to [`MOST_HITS`], 5 if not given) to
/// `{hits: [{document, path, version, title, heading, place, text, score}]}`, with the join of the
/// hits' labels. The question's own label is not in it: which documents answer depends on the question,
/// so the caller joins that label too.
///
/// # Errors
/// `invalid` for parameters that do not fit; `unavailable` or `internal` when memory cannot answer.
pub async fn search_action(
    store: &Store,
    embedder: &dyn Embedder,
    params: &Value,
) -> Result<(Value, Label), StepError> {
    let Params { query, limit } = Params::deserialize(params)
        .map_err(|error| StepError::new(ErrorKind::Invalid, format!("memory.search: {error}")))?;
    if !(1..=MOST_HITS).contains(&limit) {
        let message = format!("memory.search: limit is {limit}, but must be from 1 to {MOST_HITS}");
        return Err(StepError::new(ErrorKind::Invalid, message));
    }
    let hits = search(store, embedder, &Query { limit, ..Query::new(query) }).await.map_err(|error| {
        let kind = match &error {
            SearchError::Embed(_) => ErrorKind::Unavailable,
            SearchError::Store(store) if store.retryable() => ErrorKind::Unavailable,
            SearchError::Store(_) => ErrorKind::Internal,
        };
        StepError::new(kind, format!("memory.search: {error}"))
    })?;
    let label = Label::join_all(hits.iter().map(|hit| hit.label));
    let hits: Vec<Value> = hits.into_iter().map(cited).collect();
    Ok((json!({ "hits": hits }), label))
}

fn cited(hit: Hit) -> Value {
    json!({
        "document": hit.document,
        "path": hit.path,
        "version": hit.version,
        "title": hit.title,
        "heading": hit.heading,
        "place": hit.place,
        "text": hit.text,
        "score": hit.score,
    })
}

//! Asking memory: [`search`] for Steward itself, [`search_action`] as the read action
//! `memory.search` of steps and agents.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::event::{ErrorKind, StepError};
use crate::domain::label::Label;
use crate::memory::chunk::shortened;
use crate::memory::embedders::{Embedder, embed};
use crate::store::memory::{self as stored, Probe, Space, spaces};
use crate::store::{Store, StoreError};

pub use crate::store::memory::Hit;

/// The longest question, in characters; what follows is not read. A long email says what it is about
/// before that, and the encoder has stopped reading long since.
pub const LONGEST_QUERY: usize = 2_000;

/// The most hits one question gives.
pub const MOST_HITS: u32 = 20;

/// Hits when nobody says how many.
const USUAL_HITS: u32 = 5;

/// How long the question's vector is waited for: somebody waits for the answer, and words have one, too.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the question is asked anew because another space has become the active one meanwhile: that is
/// once in months.
const ROUNDS: usize = 3;

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

/// What a question found.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Found {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// Why words alone decided, when they did: what has the same meaning in other words was not looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words_only: Option<String>,
}

/// The hits, best first. A blank question has none. When the question cannot be embedded, words alone
/// decide, and the answer says so.
///
/// # Errors
/// When the database fails.
pub async fn search(store: &Store, embedder: &dyn Embedder, query: &Query) -> Result<Found, StoreError> {
    // A zero byte is no word, and PostgreSQL takes none.
    let text = shortened(&query.text, LONGEST_QUERY).replace('\0', " ");
    if text.trim().is_empty() {
        return Ok(Found::default());
    }
    let mut found = Found::default();
    let mut active = spaces::active(store).await?;
    for _ in 0..ROUNDS {
        found = search_in(store, embedder, active.as_ref(), &text, query).await?;
        // The vectors of a space are complete as long as it answers; what has ceased to may be on its way out.
        let now = spaces::active(store).await?;
        let id = |space: &Option<Space>| space.as_ref().map(|space| space.id);
        if id(&now) == id(&active) {
            break;
        }
        active = now;
    }
    Ok(found)
}

async fn search_in(
    store: &Store,
    embedder: &dyn Embedder,
    space: Option<&Space>,
    text: &str,
    query: &Query,
) -> Result<Found, StoreError> {
    let (vector, words_only) = match space {
        Some(space) => match question(embedder, space, text).await {
            Ok(vector) => (vector.map(|vector| (space, vector)), None),
            Err(why) => {
                tracing::warn!(why, "memory was searched by words alone");
                (None, Some(why))
            }
        },
        None => (None, Some("nothing has been embedded yet".to_owned())),
    };
    let probe = Probe {
        text,
        vector,
        ceiling: query.ceiling,
        prefix: query.prefix.as_deref(),
        limit: query.limit.clamp(1, MOST_HITS).into(),
    };
    Ok(Found { hits: stored::search(store, &probe).await?, words_only })
}

async fn question(embedder: &dyn Embedder, space: &Space, text: &str) -> Result<Option<Vec<f32>>, String> {
    let dimensions = usize::try_from(space.dimensions).ok();
    let mut vectors = embed(embedder, &space.model, dimensions, vec![text.to_owned()], PATIENCE).await?;
    Ok(vectors.pop())
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
/// `{hits: [{document, path, version, title, heading, place, text, score}], words_only}`, with the join of the
/// hits' labels; `words_only` is whether meaning could not be looked for. The question's own label is not in it: which documents answer depends on the question,
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
    let found = search(store, embedder, &Query { limit, ..Query::new(query) }).await.map_err(|error| {
        let kind = if error.retryable() { ErrorKind::Unavailable } else { ErrorKind::Internal };
        StepError::new(kind, format!("memory.search: {error}"))
    })?;
    let Found { hits, words_only } = found;
    let label = Label::join_all(hits.iter().map(|hit| hit.label));
    let hits: Vec<Value> = hits.into_iter().map(cited).collect();
    // Not why: what a provider says about itself is nothing for a prompt.
    Ok((json!({ "hits": hits, "words_only": words_only.is_some() }), label))
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

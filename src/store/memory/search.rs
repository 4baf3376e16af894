//! The hybrid search, in one statement: two rankings of the current chunks, by word and by meaning,
//! fused by reciprocal rank (Cormack, Clarke and Büttcher, SIGIR 2009).
//!
//! By word, any word of the question may match, so that a whole sentence can be asked; a rare word
//! counts more than a frequent one, a heading more than the text, and what matches the question in
//! full (quotes and minus signs understood) comes first. By meaning, the nearest vectors of one
//! space, down to a floor below which the encoder only guesses.

use pgvector::Vector;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::ids::DocumentId;
use crate::domain::label::Label;
use crate::store::memory::{READ_WAIT, Space, in_time, label_of, spaces};
use crate::store::{Store, StoreError};

/// How much each ranking gives to the fusion: far more than anybody reads, so that a chunk that is good
/// but not best in both can still win.
const POOL: usize = 60;

/// The constant of reciprocal rank fusion, as published: it keeps the first of one ranking from
/// outweighing agreement of both.
const K: usize = 60;

/// A question of this many different words is a text; its first ones say what it is about.
const MOST_WORDS: usize = 64;

/// Cosine similarity below which the built-in encoder's neighbours have nothing to do with the question. Other
/// models' vectors are closer together as a rule: for them it only keeps out what is farthest.
const FLOOR: f64 = 0.2;

/// What to look for, and where.
#[derive(Clone, Debug)]
pub struct Probe<'a> {
    /// The question in words.
    pub text: &'a str,
    /// The question as a vector, and the space it is in; without it, words alone decide.
    pub vector: Option<(&'a Space, Vec<f32>)>,
    /// Only documents at least as trusted.
    pub ceiling: Option<Label>,
    /// Only documents whose path begins so.
    pub prefix: Option<&'a str>,
    /// At most so many hits.
    pub limit: i64,
}

/// One chunk found, and where exactly it stands.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Hit {
    /// The document's version, by id.
    pub document: DocumentId,
    /// The document's name in memory.
    pub path: String,
    /// Which version.
    pub version: i32,
    /// The document's title.
    pub title: String,
    /// The headings the chunk stands under.
    pub heading: String,
    /// The how-manieth chunk of the document it is, counted from 0.
    pub place: i32,
    /// The chunk itself.
    pub text: String,
    /// Where it came from.
    pub label: Label,
    /// The fused score; says which hit is better, not how good one is.
    pub score: f64,
    /// Its rank by word, counted from 1, if it was among the best.
    pub word_rank: Option<i64>,
    /// Its rank by meaning, counted from 1, if it was among the best.
    pub meaning_rank: Option<i64>,
    /// Cosine similarity to the question, if it was among the best by meaning.
    pub similarity: Option<f64>,
}

/// The best hits, best first; of equal scores, the match by word first (a reader can see it, where the
/// encoder guesses), then by path and place.
///
/// # Errors
/// When the database fails.
pub async fn search(store: &Store, probe: &Probe<'_>) -> Result<Vec<Hit>, StoreError> {
    // No space has the number 0: without a vector, the ranking by meaning is empty.
    let (id, dimensions, vector) = match &probe.vector {
        Some((space, vector)) => (space.id, space.dimensions, Some(Vector::from(vector.clone()))),
        None => (0, 1, None),
    };
    let labels: Option<Vec<&str>> = probe.ceiling.map(|ceiling| {
        let all = [Label::Owner, Label::System, Label::Model, Label::Untrusted];
        all.into_iter().filter(|label| *label <= ceiling).map(Label::as_str).collect()
    });
    in_time(READ_WAIT, async {
        let mut client = store.client().await?;
        let tx = client.transaction().await?;
        // The index goes on looking when a filter drops what it found; and compiling the statement would
        // take longer than running it.
        tx.batch_execute(&format!(
            "set local hnsw.iterative_scan = strict_order; set local hnsw.ef_search = {}; set local jit = off",
            POOL * 2
        ))
        .await?;
        let statement = tx.prepare_cached(&statement(id, dimensions)).await?;
        let rows =
            tx.query(&statement, &[&probe.text, &vector, &labels, &probe.prefix, &probe.limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(Hit {
                    document: DocumentId(row.get::<_, Uuid>("document")),
                    path: row.get("path"),
                    version: row.get("version"),
                    title: row.get("title"),
                    heading: row.get("heading"),
                    place: row.get("place"),
                    text: row.get("text"),
                    label: label_of(row.get("label"))?,
                    score: row.get("score"),
                    word_rank: row.get("word_rank"),
                    meaning_rank: row.get("meaning_rank"),
                    similarity: row.get("similarity"),
                })
            })
            .collect()
    })
    .await
}

/// The statement names its space in full, because only then can PostgreSQL choose that space's own index.
fn statement(id: i32, dimensions: i32) -> String {
    let indexed = spaces::indexed(dimensions);
    format!(
        r"
with scope as not materialized (
    select id, path from documents
    where superseded_at is null
      and ($3::text[] is null or label = any ($3))
      and ($4::text is null or starts_with(path, $4))
), words as materialized (
    select (quote_word.quoted)::tsquery as word
    from unnest(to_tsvector('english', loosened($1))) as lexemes,
         lateral (select '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''' as quoted) as quote_word
    order by positions[1], lexeme
    limit {MOST_WORDS}
), matches as materialized (
    select c.document, c.place, scope.path, words.word,
           ts_rank('{{0.5, 0.5, 0.5, 1}}', c.tsv, words.word) as weight,
           c.tsv @@ websearch_to_tsquery('english', loosened($1)) as whole
    from words join chunks c on c.tsv @@ words.word join scope on scope.id = c.document
), weighed as (
    select document, place, path, whole,
           weight * ln(1 + count(*) over () / count(*) over (partition by word)::double precision) as score
    from matches
), by_word as (
    select document, place,
           row_number() over (
               order by bool_or(whole) desc, round(sum(score)::numeric, 6) desc, path, place) as rank
    from weighed
    group by document, place, path
    order by rank
    limit {POOL}
), nearest as materialized (
    select e.document, e.place, scope.path, 1 - (e.embedding::vector({dimensions}) <=> $2::vector) as similarity
    from embeddings e join scope on scope.id = e.document
    where e.space_id = {id}
    order by e.embedding::{indexed} <=> $2::vector::{indexed}
    limit {POOL}
), by_meaning as (
    select document, place, similarity, row_number() over (order by similarity desc, path, place) as rank
    from nearest
    where similarity >= {FLOOR}
)
select document, d.path, d.version, d.title, c.heading, place, c.text, d.label,
       (coalesce(1.0 / ({K} + w.rank), 0) + coalesce(1.0 / ({K} + m.rank), 0))::double precision as score,
       w.rank as word_rank, m.rank as meaning_rank, m.similarity
from by_word w
full join by_meaning m using (document, place)
join chunks c using (document, place)
join documents d on d.id = document
order by score desc, w.rank nulls last, d.path, place
limit $5"
    )
}

//! Documents with their chunks and vectors, and [`mod@search`], which finds them again.
//!
//! - [`put`] stores a version, [`supersede`] ends one, [`current`] and [`list`] read;
//! - [`spaces`] are where vectors can be compared, [`cache`] keeps those that were paid for.
//!
//! All writers of one path stand in line behind an advisory lock, taken before anything is read, so
//! versions have no gap and the same bytes never become two versions.

pub mod cache;
mod search;
pub mod spaces;

use std::time::Duration;

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use pgvector::Vector;
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::digest::Digest;
use crate::domain::ids::DocumentId;
use crate::domain::label::Label;
use crate::store::{Store, StoreError};

pub use search::{Hit, Probe, search};
pub use spaces::Space;

/// The largest document makes about 7,500 chunks, each an insertion into an HNSW graph: seconds on an
/// idle machine, and ten times that on a busy one.
const WRITE_WAIT: Duration = Duration::from_secs(180);

/// Reads touch indexes alone; a longer silence means that the database is not there.
const READ_WAIT: Duration = Duration::from_secs(15);

/// Chunks in one statement: about half a megabyte of vectors.
const BATCH: usize = 256;

/// The first key of the advisory locks of this file; the second is the path's hash. Only Steward uses it.
const PATH_LOCK: i32 = 0x6d65_6d6f;

/// A version about to be stored.
#[derive(Clone, Debug)]
pub struct NewDocument {
    /// Its name in memory.
    pub path: String,
    /// For people.
    pub title: String,
    /// Of the exact bytes.
    pub digest: Digest,
    /// Where it came from.
    pub label: Label,
    /// Its pieces in the order of the text.
    pub chunks: Vec<NewChunk>,
}

/// A piece of a version about to be stored.
#[derive(Clone, Debug)]
pub struct NewChunk {
    /// The headings it stands under.
    pub heading: String,
    /// The text.
    pub text: String,
    /// Its place in the space it is stored with; `None` when no model could say it.
    pub embedding: Option<Vec<f32>>,
}

/// One version of a document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Document {
    /// The version's id.
    pub document: DocumentId,
    /// Its name in memory.
    pub path: String,
    /// Counted from 1 for each path.
    pub version: i32,
    /// For people.
    pub title: String,
    /// Of the exact bytes.
    pub digest: Digest,
    /// Where it came from.
    pub label: Label,
    /// How many pieces it was cut into.
    pub chunks: i64,
    /// When it was stored.
    pub added_at: Timestamp,
}

/// Stores a version of a document with its vectors in `space` and supersedes the one before; `None` when the
/// current version already has this digest and label, and nothing was changed. Vectors of a space that has
/// ceased to be the active one are left out: whoever fills the next one makes them.
///
/// # Errors
/// When the database fails.
pub async fn put(
    store: &Store,
    space: Option<&Space>,
    new: &NewDocument,
) -> Result<Option<Document>, StoreError> {
    in_time(WRITE_WAIT, async {
        let mut client = store.client().await?;
        let tx = client.transaction().await?;
        line_up(&tx, &new.path).await?;
        if find(&tx, &new.path).await?.is_some_and(|now| now.digest == new.digest && now.label == new.label) {
            return Ok(None);
        }
        // Until this is over no other space becomes the active one.
        let active = spaces::hold(&tx).await?;
        let space = space.map(|space| space.id).filter(|space| Some(*space) == active);
        end_current(&tx, &new.path).await?;
        let id = Uuid::now_v7();
        tx.execute(
            "insert into documents (id, path, version, title, digest, label, added_at)
             select $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5, statement_timestamp()
             from documents where path = $2",
            &[&id, &new.path, &new.title, &new.digest.0.as_slice(), &new.label.as_str()],
        )
        .await?;
        put_chunks(&tx, space, id, &new.chunks).await?;
        let stored = find(&tx, &new.path).await?;
        tx.commit().await?;
        Ok(stored)
    })
    .await
}

async fn put_chunks(
    tx: &Transaction<'_>,
    space: Option<i32>,
    document: Uuid,
    chunks: &[NewChunk],
) -> Result<(), StoreError> {
    let insert = tx
        .prepare_cached(
            "with stored as (
                 insert into chunks (document, place, heading, text)
                 select $1, * from unnest($3::integer[], $4::text[], $5::text[])
             )
             insert into embeddings (space_id, document, place, embedding)
             select $2::integer, $1, made.*
             from unnest($3::integer[], $6::vector[]) as made (place, embedding)
             where $2::integer is not null and made.embedding is not null",
        )
        .await?;
    for (batch, first) in chunks.chunks(BATCH).zip((0..).step_by(BATCH)) {
        let places: Vec<i32> = (first..).take(batch.len()).collect();
        let headings: Vec<&str> = batch.iter().map(|chunk| chunk.heading.as_str()).collect();
        let texts: Vec<&str> = batch.iter().map(|chunk| chunk.text.as_str()).collect();
        let vectors: Vec<Option<Vector>> =
            batch.iter().map(|chunk| chunk.embedding.clone().map(Vector::from)).collect();
        tx.execute(&insert, &[&document, &space, &places, &headings, &texts, &vectors]).await?;
    }
    Ok(())
}

/// Takes the current version of `path` out of the search; it stays on record. `false` when there is none.
///
/// # Errors
/// When the database fails.
pub async fn supersede(store: &Store, path: &str) -> Result<bool, StoreError> {
    in_time(WRITE_WAIT, async {
        let mut client = store.client().await?;
        let tx = client.transaction().await?;
        line_up(&tx, path).await?;
        let ended = end_current(&tx, path).await?;
        tx.commit().await?;
        Ok(ended)
    })
    .await
}

/// The current version of `path`.
///
/// # Errors
/// When the database fails.
pub async fn current(store: &Store, path: &str) -> Result<Option<Document>, StoreError> {
    in_time(READ_WAIT, async {
        let mut client = store.client().await?;
        let tx = client.transaction().await?;
        find(&tx, path).await
    })
    .await
}

/// The current versions of all documents, by path.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store) -> Result<Vec<Document>, StoreError> {
    in_time(READ_WAIT, async {
        let client = store.client().await?;
        let sql = format!("{DOCUMENT} where d.superseded_at is null order by d.path");
        client.query(&sql, &[]).await?.iter().map(document_of).collect()
    })
    .await
}

const DOCUMENT: &str = "select d.id, d.path, d.version, d.title, d.digest, d.label, d.added_at,
    (select count(*) from chunks c where c.document = d.id) as chunks from documents d";

async fn line_up(tx: &Transaction<'_>, path: &str) -> Result<(), StoreError> {
    tx.execute("select pg_advisory_xact_lock($1, hashtext($2))", &[&PATH_LOCK, &path]).await?;
    Ok(())
}

async fn find(tx: &Transaction<'_>, path: &str) -> Result<Option<Document>, StoreError> {
    let sql = format!("{DOCUMENT} where d.path = $1 and d.superseded_at is null");
    tx.query_opt(&sql, &[&path]).await?.as_ref().map(document_of).transpose()
}

async fn end_current(tx: &Transaction<'_>, path: &str) -> Result<bool, StoreError> {
    let ended = tx
        .query_opt(
            "update documents set superseded_at = statement_timestamp()
             where path = $1 and superseded_at is null returning id",
            &[&path],
        )
        .await?;
    let Some(row) = ended else { return Ok(false) };
    let id: Uuid = row.get("id");
    tx.execute("delete from embeddings where document = $1", &[&id]).await?;
    Ok(true)
}

fn document_of(row: &Row) -> Result<Document, StoreError> {
    let id: Uuid = row.get("id");
    let digest: &[u8] = row.get("digest");
    let digest = digest
        .try_into()
        .map_err(|_| StoreError::corrupt(format!("document {id}"), "its digest is not 32 bytes long"))?;
    Ok(Document {
        document: DocumentId(id),
        path: row.get("path"),
        version: row.get("version"),
        title: row.get("title"),
        digest: Digest(digest),
        label: label_of(row.get("label"))?,
        chunks: row.get("chunks"),
        added_at: row.get("added_at"),
    })
}

fn label_of(name: &str) -> Result<Label, StoreError> {
    [Label::Owner, Label::System, Label::Model, Label::Untrusted]
        .into_iter()
        .find(|label| label.as_str() == name)
        .ok_or_else(|| StoreError::corrupt("a document's label", format!("{name:?} is none")))
}

async fn in_time<T>(
    wait: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = || StoreError::Unavailable(format!("no answer within {} s", wait.as_secs()));
    tokio::time::timeout(wait, work).await.map_err(|_| late())?
}

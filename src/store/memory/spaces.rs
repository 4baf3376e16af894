//! Embedding spaces: what is active answers, what is wanted is to answer. While the two differ, the wanted one
//! is filled; then [`switch`] makes it the active one, and [`drop_others`] clears the old one away.
//!
//! Who changes which space is active, and who stores vectors in the active one, take an advisory lock, the
//! former alone, the latter together: a document never goes into a space that has just ceased to answer.

use deadpool_postgres::Transaction;
use pgvector::Vector;
use serde::Serialize;
use tokio_postgres::{Client, NoTls, Row};
use uuid::Uuid;

use crate::store::memory::{READ_WAIT, WRITE_WAIT, in_time};
use crate::store::{Store, StoreError};

/// The advisory lock under which spaces are registered and switched.
const SPACE_LOCK: i64 = 0x6d65_6d6f_7370;

/// The advisory lock of the session that fills a space, alone in the whole database.
const TURN_LOCK: i64 = 0x6d65_6d6f_7475;

/// The most coordinates that an HNSW index takes of `vector` (pgvector's limit).
const MOST_OF_VECTOR: i32 = 2_000;

/// The most coordinates that an HNSW index takes at all, of `halfvec` (pgvector's limit).
pub const MOST_DIMENSIONS: usize = 4_000;

/// Vectors of a space that is dropped, deleted in one statement: some tens of milliseconds.
const DROPPED: i64 = 1_000;

/// A registered embedding space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Space {
    /// Its number in the database.
    pub id: i32,
    /// Its name: the exact model.
    pub model: String,
    /// How many coordinates its vectors have.
    pub dimensions: i32,
    /// Whether searches are asked in it.
    pub active: bool,
    /// Whether searches are to be asked in it.
    pub wanted: bool,
}

/// A space and how far it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Standing {
    /// Its name: the exact model.
    pub space: String,
    /// How many coordinates its vectors have.
    pub dimensions: i32,
    /// Whether searches are asked in it.
    pub active: bool,
    /// Whether searches are to be asked in it.
    pub wanted: bool,
    /// Passages of current documents that have no vector in it.
    pub missing: i64,
}

/// A chunk of a current document that has no vector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// Which chunk.
    pub place: Place,
    /// The headings it stands under.
    pub heading: String,
    /// Its text.
    pub text: String,
}

/// Where a chunk stands; in the order in which a space is filled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The document's version.
    pub document: Uuid,
    /// The how-manieth chunk, counted from 0.
    pub place: i32,
}

/// How the index of a space sees its vectors: beyond 2,000 coordinates with half the precision, which changes
/// an order only among equals.
pub(super) fn indexed(dimensions: i32) -> String {
    let kind = if dimensions <= MOST_OF_VECTOR { "vector" } else { "halfvec" };
    format!("{kind}({dimensions})")
}

/// The space called `model`, registered with its own HNSW index if it is new. The first space ever
/// becomes the active one.
///
/// # Errors
/// [`StoreError::Corrupt`] when the space is known with other dimensions; else when the database fails.
pub async fn space(store: &Store, model: &str, dimensions: usize) -> Result<Space, StoreError> {
    let space = match one(store, "model = $1", &[&model]).await? {
        Some(space) => space,
        None => in_time(WRITE_WAIT, register(store, model, dimensions, false)).await?,
    };
    same_size(space, dimensions)
}

/// As [`space`], and from now on it is the wanted one.
///
/// # Errors
/// As for [`space`].
pub async fn want(store: &Store, model: &str, dimensions: usize) -> Result<Space, StoreError> {
    let space = match one(store, "model = $1 and wanted", &[&model]).await? {
        Some(space) => space,
        None => in_time(WRITE_WAIT, register(store, model, dimensions, true)).await?,
    };
    same_size(space, dimensions)
}

fn same_size(space: Space, dimensions: usize) -> Result<Space, StoreError> {
    if usize::try_from(space.dimensions) == Ok(dimensions) {
        return Ok(space);
    }
    let why = format!("it has {} dimensions, not {dimensions}", space.dimensions);
    Err(StoreError::corrupt(format!("the embedding space {:?}", space.model), why))
}

/// The space called `model`, if it is registered.
///
/// # Errors
/// When the database fails.
pub async fn known(store: &Store, model: &str) -> Result<Option<Space>, StoreError> {
    one(store, "model = $1", &[&model]).await
}

/// The space that answers; none before anything was embedded.
///
/// # Errors
/// When the database fails.
pub async fn active(store: &Store) -> Result<Option<Space>, StoreError> {
    one(store, "active", &[]).await
}

/// The space that is to answer.
///
/// # Errors
/// When the database fails.
pub async fn wanted(store: &Store) -> Result<Option<Space>, StoreError> {
    one(store, "wanted", &[]).await
}

/// All spaces but those that are being cleared away, the active one first.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store) -> Result<Vec<Standing>, StoreError> {
    in_time(READ_WAIT, async {
        let client = store.client().await?;
        let missing = MISSING.replace("$1", "s.id");
        let sql = format!(
            "select model, dimensions, active, wanted, (select count(*) from ({missing}) as m) as missing
             from embedding_spaces s where active or wanted order by active desc, id"
        );
        let rows = client.query(&client.prepare_cached(&sql).await?, &[]).await?;
        let standing = |row: &Row| Standing {
            space: row.get("model"),
            dimensions: row.get("dimensions"),
            active: row.get("active"),
            wanted: row.get("wanted"),
            missing: row.get("missing"),
        };
        Ok(rows.iter().map(standing).collect())
    })
    .await
}

async fn one(
    store: &Store,
    which: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Option<Space>, StoreError> {
    in_time(READ_WAIT, async {
        let client = store.client().await?;
        let statement = client.prepare_cached(&format!("{SPACE} where {which}")).await?;
        Ok(client.query_opt(&statement, params).await?.as_ref().map(space_of))
    })
    .await
}

async fn register(store: &Store, model: &str, dimensions: usize, want: bool) -> Result<Space, StoreError> {
    let dimensions = i32::try_from(dimensions).unwrap_or(i32::MAX);
    let mut client = store.client().await?;
    let tx = client.transaction().await?;
    tx.execute("select pg_advisory_xact_lock($1)", &[&SPACE_LOCK]).await?;
    // Somebody may have registered it while we stood in line. Its row and index must not be made again then:
    // whoever writes vectors holds locks on both, in the other order.
    let known = tx.query_opt(&format!("{SPACE} where model = $1"), &[&model]).await?;
    let mut space = match known {
        Some(row) => space_of(&row),
        None => add(&tx, model, dimensions).await?,
    };
    if want && !space.wanted {
        let sql = "update embedding_spaces set wanted = (id = $1) where wanted or id = $1";
        tx.execute(sql, &[&space.id]).await?;
        space.wanted = true;
    }
    tx.commit().await?;
    Ok(space)
}

async fn add(tx: &Transaction<'_>, model: &str, dimensions: i32) -> Result<Space, StoreError> {
    let row = tx
        .query_one(
            "insert into embedding_spaces (model, dimensions, active, wanted)
             values ($1, $2, not exists (select from embedding_spaces where active),
                 not exists (select from embedding_spaces where active or wanted))
             returning id, model, dimensions, active, wanted",
            &[&model, &dimensions],
        )
        .await?;
    let space = space_of(&row);
    let (id, indexed) = (space.id, indexed(dimensions));
    let kind = indexed.split('(').next().unwrap_or_default();
    tx.batch_execute(&format!(
        "create index embeddings_space_{id} on embeddings
         using hnsw ((embedding::{indexed}) {kind}_cosine_ops) where space_id = {id}"
    ))
    .await?;
    Ok(space)
}

/// The active space, which stays so as long as the transaction lasts.
pub(super) async fn hold(tx: &Transaction<'_>) -> Result<Option<i32>, StoreError> {
    tx.execute("select pg_advisory_xact_lock_shared($1)", &[&SPACE_LOCK]).await?;
    let active = tx.query_opt("select id from embedding_spaces where active", &[]).await?;
    Ok(active.map(|row| row.get("id")))
}

/// The right to fill spaces: one in the whole database. It goes with its connection, and so with the process.
pub struct Turn {
    client: Client,
}

impl Turn {
    /// Takes the turn; `None` while somebody else has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(store: &Store) -> Result<Option<Self>, StoreError> {
        in_time(READ_WAIT, async {
            let (client, connection) = store.config().connect(NoTls).await?;
            tokio::spawn(connection); // ends with its client
            let taken: bool =
                client.query_one("select pg_try_advisory_lock($1)", &[&TURN_LOCK]).await?.get(0);
            Ok(taken.then_some(Self { client }))
        })
        .await
    }

    /// Whether it is still ours: the connection may have been lost.
    #[must_use]
    pub fn lasts(&self) -> bool {
        !self.client.is_closed()
    }
}

/// Whether the space answers, has every vector, and no other space is left.
///
/// # Errors
/// When the database fails.
pub async fn settled(store: &Store, space: &Space) -> Result<bool, StoreError> {
    in_time(READ_WAIT, async {
        let client = store.client().await?;
        let sql = format!(
            "select exists (select from embedding_spaces where id = $1 and active)
                 and not exists (select from embedding_spaces where id <> $1)
                 and not exists ({MISSING})"
        );
        Ok(client.query_one(&client.prepare_cached(&sql).await?, &[&space.id]).await?.get(0))
    })
    .await
}

/// At most `limit` chunks behind `after` that have no vector in the space; none when it is not wanted any more.
///
/// # Errors
/// When the database fails.
pub async fn missing(
    store: &Store,
    space: &Space,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<Missing>, StoreError> {
    let (document, place) = after.map(|after| (after.document, after.place)).unzip();
    in_time(READ_WAIT, async {
        let client = store.client().await?;
        let sql = format!(
            "{MISSING} and exists (select from embedding_spaces where id = $1 and wanted)
                and ($2::uuid is null or (c.document, c.place) > ($2, $3::integer))
             order by c.document, c.place limit $4"
        );
        let statement = client.prepare_cached(&sql).await?;
        let rows = client.query(&statement, &[&space.id, &document, &place, &limit]).await?;
        let missing = |row: &Row| Missing {
            place: Place { document: row.get("document"), place: row.get("place") },
            heading: row.get("heading"),
            text: row.get("text"),
        };
        Ok(rows.iter().map(missing).collect())
    })
    .await
}

/// Stores vectors of chunks; those of documents that were superseded meanwhile, and those that are there
/// already, are left out.
///
/// # Errors
/// When the database fails.
pub async fn fill(store: &Store, space: &Space, made: Vec<(Place, Vec<f32>)>) -> Result<(), StoreError> {
    let documents: Vec<Uuid> = made.iter().map(|(place, _)| place.document).collect();
    let places: Vec<i32> = made.iter().map(|(place, _)| place.place).collect();
    let vectors: Vec<Vector> = made.into_iter().map(|(_, vector)| vector.into()).collect();
    in_time(WRITE_WAIT, async {
        let client = store.client().await?;
        let sql = "with living as (
                       select id from documents where id = any ($2) and superseded_at is null
                       order by id for share
                   )
                   insert into embeddings (space_id, document, place, embedding)
                   select $1, made.document, made.place, made.embedding
                   from unnest($2::uuid[], $3::integer[], $4::vector[]) as made (document, place, embedding)
                   join living on living.id = made.document
                   on conflict on constraint embeddings_pk do nothing";
        let statement = client.prepare_cached(sql).await?;
        client.execute(&statement, &[&space.id, &documents, &places, &vectors]).await?;
        Ok(())
    })
    .await
}

/// Makes the space the active one if it is wanted and has every vector; gives whether it is active now.
///
/// # Errors
/// When the database fails.
pub async fn switch(store: &Store, space: &Space) -> Result<bool, StoreError> {
    in_time(WRITE_WAIT, async {
        let mut client = store.client().await?;
        let tx = client.transaction().await?;
        // Whoever is storing a document finishes first: the statement then sees its chunks.
        tx.execute("select pg_advisory_xact_lock($1)", &[&SPACE_LOCK]).await?;
        let sql = format!(
            "update embedding_spaces set active = (id = $1)
             where (active or id = $1)
                 and exists (select from embedding_spaces where id = $1 and wanted)
                 and not exists ({MISSING})"
        );
        let switched = tx.execute(&sql, &[&space.id]).await? > 0;
        tx.commit().await?;
        Ok(switched)
    })
    .await
}

/// Clears every space away that neither answers nor is to, with its index and vectors. One that is cut short
/// is finished by the next.
///
/// # Errors
/// When the database fails.
pub async fn drop_others(store: &Store) -> Result<(), StoreError> {
    for id in in_time(WRITE_WAIT, condemned(store)).await? {
        // Without waiting for the searches under way, or letting new ones wait.
        let drop_index = format!("drop index concurrently if exists embeddings_space_{id}");
        let client = store.client().await?;
        in_time(WRITE_WAIT, async { Ok(client.batch_execute(&drop_index).await?) }).await?;
        let sql = "delete from embeddings where (document, place, space_id) in (
                       select document, place, space_id from embeddings where space_id = $1 limit $2)";
        while in_time(WRITE_WAIT, async { Ok(client.execute(sql, &[&id, &DROPPED]).await?) }).await? > 0 {}
        client.execute("delete from embedding_spaces where id = $1", &[&id]).await?;
    }
    Ok(())
}

/// The spaces to be cleared away. They lose their names, so that whoever wants one of them again begins anew.
async fn condemned(store: &Store) -> Result<Vec<i32>, StoreError> {
    let mut client = store.client().await?;
    let tx = client.transaction().await?;
    tx.execute("select pg_advisory_xact_lock($1)", &[&SPACE_LOCK]).await?;
    let sql =
        "update embedding_spaces set model = 'dropped ' || id where not active and not wanted returning id";
    let condemned = tx.query(sql, &[]).await?.iter().map(|row| row.get("id")).collect();
    tx.commit().await?;
    Ok(condemned)
}

const SPACE: &str = "select id, model, dimensions, active, wanted from embedding_spaces";

/// Chunks of current documents without a vector in the space `$1`.
const MISSING: &str = "select c.document, c.place, c.heading, c.text
    from documents d join chunks c on c.document = d.id
    where d.superseded_at is null and not exists (
        select from embeddings e where e.space_id = $1 and e.document = c.document and e.place = c.place)";

fn space_of(row: &Row) -> Space {
    Space {
        id: row.get("id"),
        model: row.get("model"),
        dimensions: row.get("dimensions"),
        active: row.get("active"),
        wanted: row.get("wanted"),
    }
}

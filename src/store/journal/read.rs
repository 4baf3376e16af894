//! Reading the journal: load a run by folding it, list its entries, verify its chain.

use deadpool_postgres::Object;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::domain::digest::Digest;
use crate::domain::event::Event;
use crate::domain::ids::{NodeId, RunId};
use crate::domain::label::Label;
use crate::domain::run::Run;
use crate::store::journal::seal::{genesis, link};
use crate::store::runs::{INBOX, Inbox, TAKE_RUN};
use crate::store::{Store, StoreError};

/// A run with what its owner needs to go on with it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The fold of its journal.
    pub run: Run,
    /// The hash of its last entry.
    pub head: Digest,
}

/// One entry as it stands in the database.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct JournalEntry {
    /// Its number.
    pub seq: i64,
    /// The event's kind.
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: String,
    /// Where its content came from.
    pub label: String,
    /// Its content; absent once erased.
    pub data: Option<Value>,
    /// The digest of the content.
    pub data_digest: Digest,
    /// The hash that chains it.
    pub hash: Digest,
}

/// The digest of content that is there follows from it; only where it was erased is it kept.
pub(crate) const COLUMNS: &str = "seq, kind, at, actor, label, data,
    coalesce(data_digest, sha256(convert_to(data::text, 'UTF8'))) as data_digest, hash";

/// What a fold needs of a run's entries.
pub(crate) const STORY: &str = "select seq, kind, at, data, hash from journal where run_id = $1 order by seq";

/// What is wrong with a chain.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Broken {
    /// The run.
    pub run: RunId,
    /// The first entry that does not fit.
    pub seq: i64,
    /// What does not fit.
    pub why: String,
    /// Whether what does not fit is the number alone.
    #[serde(skip)]
    pub is_gap: bool,
}

impl Store {
    /// Folds a run's journal; `None` when there is no such run.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the journal cannot be read or folded.
    pub async fn load_run(&self, run: RunId) -> Result<Option<Loaded>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(STORY).await?;
        folded(run, &client.query(&statement, &[&run.0]).await?)
    }

    /// A run and what it was told, in one round trip; `None` when there is no such run.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the journal cannot be read or folded.
    pub async fn read_run(&self, run: RunId) -> Result<Option<(Loaded, Inbox)>, StoreError> {
        let client = self.keyed().await?;
        read_behind(&client, run, std::future::ready(Ok(()))).await?.1
    }

    /// Takes a run that is due, and reads it as [`Store::read_run`] does, in one round trip; `None` when it is
    /// not due, held, or another node's.
    ///
    /// # Errors
    /// As [`Store::read_run`]; the run may have been taken then.
    pub async fn take_run(&self, node: NodeId, run: RunId) -> Result<Option<(Loaded, Inbox)>, StoreError> {
        let client = self.keyed().await?;
        let take = client.prepare_cached(TAKE_RUN).await?;
        let ids: [&(dyn ToSql + Sync); 2] = [&node.0, &run.0];
        let (taken, read) = read_behind(&client, run, client.execute(&take, &ids)).await?;
        if taken == 0 { Ok(None) } else { read }
    }

    /// The number and hash of a run's last entry.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn head(&self, run: RunId) -> Result<Option<(i64, Digest)>, StoreError> {
        let client = self.client().await?;
        let statement = "select seq, hash from journal where run_id = $1 order by seq desc limit 1";
        let row = client.query_opt(statement, &[&run.0]).await?;
        row.map(|row| Ok((row.get(0), digest(&row, 1)?))).transpose()
    }

    /// At most `limit` entries of a run behind number `after`, in order.
    ///
    /// # Errors
    /// When the database does not answer or a row cannot be read.
    pub async fn journal(&self, run: RunId, after: i64, limit: i64) -> Result<Vec<JournalEntry>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(&format!(
                "select {COLUMNS} from journal where run_id = $1 and seq > $2 order by seq limit $3"
            ))
            .await?;
        client.query(&statement, &[&run.0, &after, &limit]).await?.iter().map(entry).collect()
    }

    /// Checks the hash chain of one run: every link, every content that is still there, no gap.
    ///
    /// # Errors
    /// When the journal cannot be read. A broken chain is no error but a finding.
    pub async fn verify_run(&self, run: RunId) -> Result<Option<Broken>, StoreError> {
        let entries = self.journal(run, 0, i64::MAX).await?;
        Ok(check_chain(run, &entries).err())
    }
}

/// Sends what reads a run right behind the statement `first`, so that all of it is one round trip; what is
/// read is read after `first` is done. If that took the run, nobody else can have written it since.
pub(crate) async fn read_behind<T>(
    client: &Object,
    run: RunId,
    first: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<(T, Result<Option<(Loaded, Inbox)>, StoreError>), StoreError> {
    let (story, inbox) = (client.prepare_cached(STORY).await?, client.prepare_cached(INBOX).await?);
    let id: [&(dyn ToSql + Sync); 1] = [&run.0];
    // Statements of one connection go out in the order in which they are polled first.
    let (first, rows, told) = tokio::try_join!(first, client.query(&story, &id), client.query(&inbox, &id))?;
    let read = folded(run, &rows).map(|loaded| loaded.map(|loaded| (loaded, Inbox::of(&told))));
    Ok((first, read))
}

/// The fold of `STORY`.
pub(crate) fn folded(run: RunId, rows: &[Row]) -> Result<Option<Loaded>, StoreError> {
    let Some(last) = rows.last() else { return Ok(None) };
    let corrupt = |seq: i64, why: String| StoreError::corrupt(format!("entry {seq} of run {run}"), why);
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        let (kind, data): (&str, Option<Value>) = (row.get(1), row.get(3));
        let event: Event = serde_json::from_value(json!({"kind": kind, "data": data}))
            .map_err(|error| corrupt(row.get(0), error.to_string()))?;
        events.push((event, row.get(2)));
    }
    let folded = Run::fold(run, events).map_err(|illegal| corrupt(illegal.seq, illegal.to_string()))?;
    Ok(Some(Loaded { run: folded, head: digest(last, 4)? }))
}

/// Holds the entries of one run, in order, against the chain.
///
/// # Errors
/// The first entry that does not fit.
pub(crate) fn check_chain(run: RunId, entries: &[JournalEntry]) -> Result<(), Broken> {
    let mut previous = genesis(run);
    for (expected, entry) in (1..).zip(entries) {
        let broken = |why: &str| Broken { run, seq: entry.seq, why: why.to_owned(), is_gap: false };
        if entry.seq != expected {
            return Err(Broken { is_gap: true, ..broken("a number is missing before it") });
        }
        if entry.data.as_ref().is_some_and(|data| Digest::of_json(data) != entry.data_digest) {
            return Err(broken("its content is not what was sealed"));
        }
        let label: Label =
            serde_json::from_value(json!(entry.label)).map_err(|_| broken("its label is unknown"))?;
        let hash = link(previous, entry.seq, &entry.kind, entry.at, &entry.actor, label, entry.data_digest);
        if hash != entry.hash {
            return Err(broken("its hash does not follow from the entry before it"));
        }
        previous = hash;
    }
    Ok(())
}

/// A row of `seq, kind, at, actor, label, data, data_digest, hash`.
pub(crate) fn entry(row: &Row) -> Result<JournalEntry, StoreError> {
    Ok(JournalEntry {
        seq: row.get(0),
        kind: row.get(1),
        at: row.get(2),
        actor: row.get(3),
        label: row.get(4),
        data: row.get(5),
        data_digest: digest(row, 6)?,
        hash: digest(row, 7)?,
    })
}

/// A digest column.
pub(crate) fn digest(row: &Row, column: usize) -> Result<Digest, StoreError> {
    let bytes: &[u8] = row.get(column);
    let bytes =
        bytes.try_into().map_err(|_| StoreError::corrupt("a digest", format!("{} bytes", bytes.len())))?;
    Ok(Digest(bytes))
}

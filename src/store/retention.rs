//! Retention: removes finished runs whose time is up, with all that hangs on them, and leaves a
//! tombstone for each. What may go, and that nothing else does, stands in `remove_runs` (V6).
//!
//! A pass walks over the runs by age, a slice at a time; where it has come to is in the database, so
//! a pass that was interrupted goes on, on whichever node. A walk needs no index of its own: an index
//! by end would be written for every run, and be read once an hour.

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::digest::Digest;
use crate::domain::ids::{RunId, WorkflowName};
use crate::domain::retention::Retention;
use crate::store::journal::read::digest;
use crate::store::partitions::first_id;
use crate::store::{Store, StoreError};

/// Runs looked at in one step of a pass: a few milliseconds of reading.
const SLICE: i64 = 2_000;

/// Runs removed in one transaction, some ten thousand rows: it holds their locks for tens of milliseconds.
const BATCH: usize = 500;

/// How long after the last pass began, or was last heard of, the next may begin.
pub const EVERY: SignedDuration = SignedDuration::from_hours(1);

/// What stays of a run that retention removed.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Tombstone {
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The version it was pinned to.
    pub version: Digest,
    /// How it ended.
    pub status: String,
    /// How many journal entries it had.
    pub entries: i64,
    /// The hash of the last one: an export from before can be held against it.
    pub head: Digest,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// When it was removed.
    pub removed_at: Timestamp,
}

/// A step of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Swept {
    /// Runs that were removed.
    pub removed: usize,
    /// Runs whose time is up but that have to stay for now.
    pub stayed: usize,
    /// The pass is at its end.
    pub done: bool,
}

impl Store {
    /// The database's present moment: for what must not follow a node's clock that may be wrong.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn database_time(&self) -> Result<Timestamp, StoreError> {
        Ok(self.client().await?.query_one("select now()", &[]).await?.get(0))
    }

    /// Takes the next pass, or goes on with one whose node has been silent; false when it is not time
    /// yet, or somebody else does it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_sweep(&self, now: Timestamp) -> Result<bool, StoreError> {
        let before = now.saturating_sub(EVERY).unwrap_or(Timestamp::MIN);
        let statement = "update sweeps set claimed_at = $1 where task = 'retention' and claimed_at <= $2";
        Ok(self.client().await?.execute(statement, &[&now, &before]).await? == 1)
    }

    /// Goes a step further: looks at the next slice of runs and removes those whose time is up at `now`.
    /// Each batch of removals is a transaction; interrupted anywhere, the next step looks at the slice again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sweep(&self, retention: &Retention, now: Timestamp) -> Result<Swept, StoreError> {
        let Some(horizon) = retention.horizon(now) else { return self.rest_sweep(None, now).await };
        let client = self.client().await?;
        let slice = client
            .prepare_cached(
                "select r.id, r.workflow, r.finished_at
                 from sweeps s cross join lateral (
                     select id, workflow, finished_at from runs
                     where id > coalesce(s.behind, '00000000-0000-0000-0000-000000000000') and id < $1
                     order by id limit $2) r
                 where s.task = 'retention' order by r.id",
            )
            .await?;
        // A run is opened before it ends; the ids of that last moment belong to it too.
        let end = first_id(horizon.saturating_add(SignedDuration::from_millis(1)).unwrap_or(horizon));
        let runs = client.query(&slice, &[&end, &SLICE]).await?;
        let mut up: Vec<(Uuid, Timestamp)> = Vec::new();
        for row in &runs {
            let (workflow, finished): (String, Option<Timestamp>) = (row.get(1), row.get(2));
            let until = finished.and_then(|finished| retention.of(&WorkflowName(workflow)).until(finished));
            up.extend(until.filter(|until| *until <= now).map(|until| (row.get(0), until)));
        }
        drop(client); // between transactions the connection is anybody's
        let mut removed = 0;
        for batch in up.chunks(BATCH) {
            removed += self.remove_runs(batch, now).await?;
        }
        let last = runs.last().filter(|_| runs.len() as i64 == SLICE).map(|row| row.get(0));
        let step = self.rest_sweep(last, now).await?;
        Ok(Swept { removed, stayed: up.len() - removed, done: step.done })
    }

    /// Keeps where the pass has come to; without a place it is over, and the next begins with the oldest.
    async fn rest_sweep(&self, behind: Option<Uuid>, now: Timestamp) -> Result<Swept, StoreError> {
        let statement = "update sweeps set behind = $1, claimed_at = $2 where task = 'retention'";
        self.client().await?.execute(statement, &[&behind, &now]).await?;
        Ok(Swept { removed: 0, stayed: 0, done: behind.is_none() })
    }

    async fn remove_runs(&self, runs: &[(Uuid, Timestamp)], now: Timestamp) -> Result<usize, StoreError> {
        let (ids, until): (Vec<Uuid>, Vec<Timestamp>) = runs.iter().copied().unzip();
        let client = self.client().await?;
        let statement = client.prepare_cached("select remove_runs($1, $2, $3)").await?;
        Ok(client.query(&statement, &[&ids, &until, &now]).await?.len())
    }

    /// What stays of a run that was removed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tombstone(&self, run: RunId) -> Result<Option<Tombstone>, StoreError> {
        let client = self.client().await?;
        let statement = format!("select {TOMBSTONE} from removed_runs where run_id = $1");
        client.query_opt(&statement, &[&run.0]).await?.as_ref().map(tombstone).transpose()
    }

    /// Tombstones in the order of the runs' ids, at most `limit` behind `after`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tombstones(&self, after: Option<RunId>, limit: i64) -> Result<Vec<Tombstone>, StoreError> {
        let client = self.client().await?;
        let statement = format!(
            "select {TOMBSTONE} from removed_runs where $1::uuid is null or run_id > $1
             order by run_id limit $2"
        );
        client.query(&statement, &[&after.map(|run| run.0), &limit]).await?.iter().map(tombstone).collect()
    }
}

const TOMBSTONE: &str =
    "run_id, workflow, version, status, entries, head, opened_at, finished_at, removed_at";

fn tombstone(row: &Row) -> Result<Tombstone, StoreError> {
    Ok(Tombstone {
        run: RunId(row.get(0)),
        workflow: WorkflowName(row.get(1)),
        version: digest(row, 2)?,
        status: row.get(3),
        entries: row.get(4),
        head: digest(row, 5)?,
        opened_at: row.get(6),
        finished_at: row.get(7),
        removed_at: row.get(8),
    })
}

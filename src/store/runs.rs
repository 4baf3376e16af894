//! Runs: claims, adoption, lists, and what a run is told through its inbox.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::digest::Digest;
use crate::domain::ids::{NodeId, RunId, WorkflowName};
use crate::store::journal::read::digest;
use crate::store::{Store, StoreError};

/// A run as its row shows it.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The version's digest.
    pub version: Digest,
    /// `running`, `waiting`, `succeeded`, `declined`, `failed`, `cancelled`, `parked`.
    pub status: String,
    /// The number of its last journal entry.
    pub seq: i64,
    /// For the owner to recognise it by.
    pub title: String,
    /// The door it came through.
    pub trigger: String,
    /// The key that opens it only once.
    pub idempotency_key: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it is due to go on by itself.
    pub wake_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, workflow, version, status, seq, title, trigger, idempotency_key, opened_at, \
                       finished_at, wake_at";

/// What a run was told while it may not have listened.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// How many signals there have been, these included.
    pub signals: i32,
    /// Topics with their content, the oldest first.
    pub messages: Vec<(String, Value)>,
}

/// Where a page of a list begins: behind this run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct After {
    /// When that run was opened.
    pub opened_at: Timestamp,
    /// That run.
    pub id: RunId,
}

/// What a list of runs is narrowed to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunFilter {
    /// Only this status.
    pub status: Option<String>,
    /// Only this workflow.
    pub workflow: Option<String>,
}

impl Store {
    /// Takes up to `limit` sleeping runs that are due; each is given to one node only.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_due(&self, node: NodeId, limit: i64) -> Result<Vec<RunId>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "update runs set node = $1, wake_at = null
                 where id in (select id from runs where wake_at <= now() and node is null and finished_at is null
                              order by wake_at for update skip locked limit $2)
                 returning id",
            )
            .await?;
        let rows = client.query(&statement, &[&node.0, &limit]).await?;
        Ok(rows.iter().map(|row| RunId(row.get(0))).collect())
    }

    /// Gives a run back that its node cannot go on with right now; due again at `wake_at`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release(&self, node: NodeId, run: RunId, wake_at: Timestamp) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "update runs set node = null, wake_at = $3 where id = $1 and node = $2";
        client.execute(statement, &[&run.0, &node.0, &wake_at]).await?;
        Ok(())
    }

    /// The runs that name a node as their owner.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn runs_of(&self, node: NodeId) -> Result<Vec<RunId>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached("select id from runs where node = $1").await?;
        Ok(client.query(&statement, &[&node.0]).await?.iter().map(|row| RunId(row.get(0))).collect())
    }

    /// Withdraws the open questions of a run that ended without being able to: it was parked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn withdraw_all(&self, run: RunId) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "
            with proposals as (update effects set status = 'withdrawn', ended_at = now()
                               where run_id = $1 and status = 'proposed')
            update reviews set status = 'superseded', decided_at = now() where run_id = $1 and status = 'open'";
        client.execute(statement, &[&run.0]).await?;
        Ok(())
    }

    /// Counts one more crash of a run's actor; gives the count.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_crash(&self, run: RunId) -> Result<i16, StoreError> {
        let client = self.client().await?;
        let statement = "update runs set crashes = crashes + 1 where id = $1 returning crashes";
        Ok(client.query_one(statement, &[&run.0]).await?.get(0))
    }

    /// What a run has been told and has not heard yet.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn inbox(&self, run: RunId) -> Result<Inbox, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select r.signals, i.topic, i.data from runs r left join inbox i on i.run_id = r.id
                 where r.id = $1 order by i.at",
            )
            .await?;
        let mut inbox = Inbox::default();
        for row in client.query(&statement, &[&run.0]).await? {
            inbox.signals = row.get(0);
            if let (Some(topic), Some(data)) = (row.get(1), row.get(2)) {
                inbox.messages.push((topic, data));
            }
        }
        Ok(inbox)
    }

    /// Asks a run to stop. Gives false when it has ended already or does not exist.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn request_cancel(&self, run: RunId, by: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "
            with told as (
                update runs set signals = signals + 1, wake_at = case when node is null then now() else wake_at end
                where id = $1 and finished_at is null
                returning id),
            kept as (
                insert into inbox (run_id, topic, data)
                select id, 'cancel', jsonb_build_object('by', $2::text) from told
                on conflict on constraint inbox_pk do nothing)
            select id from told";
        Ok(client.query_opt(statement, &[&run.0, &by]).await?.is_some())
    }

    /// One run's row.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn run_row(&self, run: RunId) -> Result<Option<RunRow>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(&format!("select {COLUMNS} from runs where id = $1")).await?;
        client.query_opt(&statement, &[&run.0]).await?.as_ref().map(run_row).transpose()
    }

    /// Runs, the newest first, at most `limit` behind `after`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<After>,
        limit: i64,
    ) -> Result<Vec<RunRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(&format!(
                "select {COLUMNS} from runs
                 where ($1::text is null or status = $1) and ($2::text is null or workflow = $2)
                   and ($3::timestamptz is null or (opened_at, id) < ($3, $4::uuid))
                 order by opened_at desc, id desc limit $5"
            ))
            .await?;
        let (at, id) = (after.map(|a| a.opened_at), after.map(|a| a.id.0));
        let rows = client.query(&statement, &[&filter.status, &filter.workflow, &at, &id, &limit]).await?;
        rows.iter().map(run_row).collect()
    }

    /// How many runs there are of each status.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn runs_by_status(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let client = self.client().await?;
        let rows =
            client.query("select status, count(*) from runs group by status order by status", &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

/// Nodes: the lease that lets a process act for the runs it owns. The database's clock alone counts.
impl Store {
    /// Announces a node. `alone` says that no other process can be using this database
    /// (its workspace is locked), so every other node is gone and its runs are free at once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn register_node(&self, node: NodeId, lease_secs: f64, alone: bool) -> Result<(), StoreError> {
        let client = self.client().await?;
        if alone {
            client.execute("update nodes set lease_until = '-infinity'", &[]).await?;
        }
        let statement = "insert into nodes (id, lease_until) values ($1, now() + make_interval(secs => $2))";
        client.execute(statement, &[&node.0, &lease_secs]).await?;
        Ok(())
    }

    /// Prolongs the lease; false when it is gone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn renew_node(&self, node: NodeId, lease_secs: f64) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "update nodes set lease_until = now() + make_interval(secs => $2) where id = $1";
        Ok(client.execute(statement, &[&node.0, &lease_secs]).await? == 1)
    }

    /// Frees the runs of nodes whose lease is over; gives how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn free_runs_of_lost_nodes(&self) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let statement = "select id from nodes where lease_until < now()
            union select distinct node from runs
            where node is not null and not exists (select from nodes n where n.id = runs.node)";
        let lost = client.query(statement, &[]).await?;
        let mut freed = 0;
        for row in lost {
            let node: Uuid = row.get(0);
            let statement =
                "update runs set node = null, wake_at = now() where node = $1 and finished_at is null";
            freed += client.execute(statement, &[&node]).await?;
            client.execute("delete from nodes where id = $1 and lease_until < now()", &[&node]).await?;
        }
        Ok(freed)
    }

    /// Ends the lease in good order: what the node still owns is free at once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn retire_node(&self, node: NodeId) -> Result<(), StoreError> {
        let client = self.client().await?;
        client.execute("update nodes set lease_until = '-infinity' where id = $1", &[&node.0]).await?;
        drop(client);
        self.free_runs_of_lost_nodes().await?;
        Ok(())
    }
}

fn run_row(row: &Row) -> Result<RunRow, StoreError> {
    Ok(RunRow {
        id: RunId(row.get(0)),
        workflow: WorkflowName(row.get(1)),
        version: digest(row, 2)?,
        status: row.get(3),
        seq: row.get(4),
        title: row.get(5),
        trigger: row.get(6),
        idempotency_key: row.get(7),
        opened_at: row.get(8),
        finished_at: row.get(9),
        wake_at: row.get(10),
    })
}

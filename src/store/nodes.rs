//! Nodes: the lease that lets a process act for the runs it owns. The database's clock alone counts.
//!
//! A take-over is one statement: it deletes the rows of nodes whose lease is over and frees their runs.
//! A node that renews at the same moment wins, and keeps everything, or finds its row gone, and has lost
//! everything; there is nothing in between.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::ids::{NodeId, RunId};
use crate::store::{Store, StoreError};

/// Frees the runs of the nodes in `lost`, and of owners that are no nodes at all: a claim or an opened
/// run that landed just after its node was lost. The owners are found by jumping from one to the next
/// in `runs_node`, not by reading the index: runs in motion are many, nodes are few.
const FREE: &str = "
    owners as (
        (select node from runs where node is not null order by node limit 1)
        union all
        select (select r.node from runs r where r.node > o.node order by r.node limit 1)
        from owners o where o.node is not null),
    gone as (
        select id from lost
        union
        select node from owners where node is not null and not exists (select from nodes where id = node))
    update runs r set node = null, wake_at = now() from gone where r.node = gone.id and r.finished_at is null";

impl Store {
    /// Announces a node; gives the database's time. `alone` says that no other process can be using
    /// this database (its workspace is locked), so that every other node is gone and its runs are free.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn register_node(
        &self,
        node: NodeId,
        lease: Duration,
        alone: bool,
    ) -> Result<Timestamp, StoreError> {
        let client = self.client().await?;
        if alone {
            client.execute("update nodes set lease_until = '-infinity'", &[]).await?;
        }
        let statement = "insert into nodes (id, lease_until) values ($1, now() + make_interval(secs => $2))
                         returning clock_timestamp()";
        Ok(client.query_one(statement, &[&node.0, &lease.as_secs_f64()]).await?.get(0))
    }

    /// Prolongs the lease; gives the database's time, or nothing when the lease is gone for good.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn renew_node(&self, node: NodeId, lease: Duration) -> Result<Option<Timestamp>, StoreError> {
        let client = self.client().await?;
        let statement = "update nodes set lease_until = now() + make_interval(secs => $2) where id = $1
                         returning clock_timestamp()";
        let renewed = client.query_opt(statement, &[&node.0, &lease.as_secs_f64()]).await?;
        Ok(renewed.map(|row| row.get(0)))
    }

    /// Ends the leases that are over and frees the runs of lost nodes; gives how many runs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn free_runs_of_lost_nodes(&self) -> Result<u64, StoreError> {
        let lost = "with recursive lost as (delete from nodes where lease_until < now() returning id),";
        Ok(self.client().await?.execute(&format!("{lost}{FREE}"), &[]).await?)
    }

    /// Ends a lease in good order: what the node still owns is free at once. Gives how many runs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn retire_node(&self, node: NodeId) -> Result<u64, StoreError> {
        let lost = "with recursive lost as (delete from nodes where id = $1 returning id),";
        Ok(self.client().await?.execute(&format!("{lost}{FREE}"), &[&node.0]).await?)
    }

    /// Gives runs back that their node will not go on with; they are due at once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release_all(&self, node: NodeId, runs: &[RunId]) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "update runs set node = null, wake_at = now()
                         where id = any($2) and (node = $1) is true and finished_at is null";
        let runs: Vec<Uuid> = runs.iter().map(|run| run.0).collect();
        client.execute(statement, &[&node.0, &runs]).await?;
        Ok(())
    }

    /// How long from now until the next sleeping run is due, if one is within `horizon`. What is due
    /// already is not counted: it is claimed, or waits for something else than time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next_due(&self, horizon: Duration) -> Result<Option<Duration>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select extract(epoch from min(wake_at) - clock_timestamp())::float8 from runs
                 where wake_at > now() and wake_at <= now() + make_interval(secs => $1) and node is null",
            )
            .await?;
        let seconds: Option<f64> = client.query_one(&statement, &[&horizon.as_secs_f64()]).await?.get(0);
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }
}

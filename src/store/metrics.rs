//! What is counted for people and for a monitoring system.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use crate::store::{Store, StoreError};

/// The reviews of one workflow.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ReviewMetrics {
    /// The workflow.
    pub workflow: String,
    /// Open now.
    pub open: i64,
    /// How long the oldest of them has been open, seconds.
    pub oldest_open_seconds: Option<f64>,
    /// Approved as they were.
    pub approved: i64,
    /// Approved with changes.
    pub edited: i64,
    /// Refused.
    pub rejected: i64,
    /// Answered.
    pub answered: i64,
    /// Not decided in time.
    pub expired: i64,
    /// Approvals of high risk that were too fast to have been read.
    pub hasty: i64,
    /// Of what was decided, half took at most so long, seconds.
    pub median_seconds: Option<f64>,
    /// Nine in ten took at most so long, seconds.
    pub p90_seconds: Option<f64>,
    /// How long all of them took together, seconds.
    pub total_seconds: f64,
    /// The share of approvals asked for that were given without a change.
    pub unchanged_ratio: Option<f64>,
    /// The share that nobody decided in time.
    pub expired_ratio: Option<f64>,
}

/// What was ever decided about the reviews of one workflow. It never falls.
#[derive(Clone, PartialEq, Debug)]
pub struct DecisionTotals {
    /// The workflow.
    pub workflow: String,
    /// Approved as they were.
    pub approved: i64,
    /// Approved with changes.
    pub edited: i64,
    /// Refused.
    pub rejected: i64,
    /// Answered.
    pub answered: i64,
    /// Not decided in time.
    pub expired: i64,
    /// Approvals of high risk that were too fast to have been read.
    pub hasty: i64,
    /// How long all but the expired took together, seconds.
    pub seconds: f64,
}

/// Counts of everything there is. Counting takes the longer the more there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Runs by status.
    pub runs: BTreeMap<String, i64>,
    /// Effects by status.
    pub effects: BTreeMap<String, i64>,
}

const REVIEWS: &str = "
    with timed as (
        select *, extract(epoch from decided_at - opened_at)::float8 as took from decisions
        where decided_at >= coalesce($1::timestamptz, '-infinity')),
    decided as (
        select workflow, count(*) filter (where outcome = 'approved') as approved,
            count(*) filter (where outcome = 'edited') as edited,
            count(*) filter (where outcome = 'rejected') as rejected,
            count(*) filter (where outcome = 'answered') as answered,
            count(*) filter (where outcome = 'expired') as expired,
            count(*) filter (where outcome = 'approved' and risk = 'high' and looked_ms < $2) as hasty,
            percentile_cont(0.5) within group (order by took) filter (where outcome <> 'expired') as median,
            percentile_cont(0.9) within group (order by took) filter (where outcome <> 'expired') as p90,
            coalesce(sum(took) filter (where outcome <> 'expired'), 0)::float8 as total,
            count(*) filter (where ask = 'approval' and outcome = 'approved')::float8
                / nullif(count(*) filter (where ask = 'approval' and outcome <> 'expired'), 0) as unchanged,
            count(*) filter (where outcome = 'expired')::float8 / count(*) as expired_ratio
        from timed group by workflow),
    open as (
        select u.workflow, count(*) as open, extract(epoch from now() - min(r.opened_at))::float8 as oldest
        from reviews r join runs u on u.id = r.run_id where r.status = 'open' group by u.workflow)
    select workflow, coalesce(open, 0), oldest, coalesce(approved, 0), coalesce(edited, 0),
        coalesce(rejected, 0), coalesce(answered, 0), coalesce(expired, 0), coalesce(hasty, 0), median, p90,
        coalesce(total, 0), unchanged, expired_ratio
    from decided full join open using (workflow) order by workflow";

impl Store {
    /// The reviews of each workflow: those open now, and those decided since `since`, or ever. An approval of
    /// high risk is too fast below `hasty_ms` milliseconds.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn review_metrics(
        &self,
        since: Option<Timestamp>,
        hasty_ms: i64,
    ) -> Result<Vec<ReviewMetrics>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(REVIEWS).await?;
        let metrics = |row: &Row| ReviewMetrics {
            workflow: row.get(0),
            open: row.get(1),
            oldest_open_seconds: row.get(2),
            approved: row.get(3),
            edited: row.get(4),
            rejected: row.get(5),
            answered: row.get(6),
            expired: row.get(7),
            hasty: row.get(8),
            median_seconds: row.get(9),
            p90_seconds: row.get(10),
            total_seconds: row.get(11),
            unchanged_ratio: row.get(12),
            expired_ratio: row.get(13),
        };
        Ok(client.query(&statement, &[&since, &hasty_ms]).await?.iter().map(metrics).collect())
    }

    /// What was ever decided, by workflow; a row for each, however much there was.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn decision_totals(&self) -> Result<Vec<DecisionTotals>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select workflow, approved, edited, rejected, answered, expired, hasty, seconds
                 from decision_totals order by workflow",
            )
            .await?;
        let totals = |row: &Row| DecisionTotals {
            workflow: row.get(0),
            approved: row.get(1),
            edited: row.get(2),
            rejected: row.get(3),
            answered: row.get(4),
            expired: row.get(5),
            hasty: row.get(6),
            seconds: row.get(7),
        };
        Ok(client.query(&statement, &[]).await?.iter().map(totals).collect())
    }

    /// How many runs and effects there are, by status.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn totals(&self) -> Result<Totals, StoreError> {
        let client = self.client().await?;
        let by_status = |rows: Vec<Row>| rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let runs = client.query("select status, count(*) from runs group by status", &[]).await?;
        let effects = client.query("select status, count(*) from effects group by status", &[]).await?;
        Ok(Totals { runs: by_status(runs), effects: by_status(effects) })
    }
}

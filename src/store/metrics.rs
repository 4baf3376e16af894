//! What is counted for people and for a monitoring system.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use crate::store::{Store, StoreError};

/// How reviews of one workflow ended.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Decided {
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
    pub total_seconds: f64,
}

impl Decided {
    /// How many there were, but for those that nobody decided.
    #[must_use]
    pub fn in_time(&self) -> i64 {
        self.approved + self.edited + self.rejected + self.answered
    }

    fn read(row: &Row, first: usize) -> Self {
        Self {
            approved: row.get(first),
            edited: row.get(first + 1),
            rejected: row.get(first + 2),
            answered: row.get(first + 3),
            expired: row.get(first + 4),
            hasty: row.get(first + 5),
            total_seconds: row.get(first + 6),
        }
    }
}

/// The reviews of one workflow.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ReviewMetrics {
    /// The workflow.
    pub workflow: String,
    /// Open now.
    pub open: i64,
    /// How long the oldest of them has been open, seconds.
    pub oldest_open_seconds: Option<f64>,
    /// Those that were decided.
    #[serde(flatten)]
    pub decided: Decided,
    /// Of what was decided, half took at most so long, seconds.
    pub median_seconds: Option<f64>,
    /// Nine in ten took at most so long, seconds.
    pub p90_seconds: Option<f64>,
    /// The share of approvals asked for that were given without a change.
    pub unchanged_ratio: Option<f64>,
    /// The share that nobody decided in time.
    pub expired_ratio: Option<f64>,
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
        coalesce(rejected, 0), coalesce(answered, 0), coalesce(expired, 0), coalesce(hasty, 0),
        coalesce(total, 0), median, p90, unchanged, expired_ratio
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
            decided: Decided::read(row, 3),
            median_seconds: row.get(10),
            p90_seconds: row.get(11),
            unchanged_ratio: row.get(12),
            expired_ratio: row.get(13),
        };
        Ok(client.query(&statement, &[&since, &hasty_ms]).await?.iter().map(metrics).collect())
    }

    /// What was ever decided, by workflow: a row for each, however much there was, whose numbers never fall.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn decision_totals(&self) -> Result<BTreeMap<String, Decided>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select workflow, approved, edited, rejected, answered, expired, hasty, seconds
                 from decision_totals",
            )
            .await?;
        let totals = |row: &Row| (row.get(0), Decided::read(row, 1));
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

//! What the daily digest asks the database: what waits, what went out, what was opened. Numbers are exact;
//! of the things themselves there are as many as somebody reads.

use jiff::Timestamp;
use serde_json::Value;
use uuid::{NoContext, Uuid};

use crate::domain::event::Question;
use crate::domain::ids::{ReviewId, RunId};
use crate::domain::risk::RiskClass;
use crate::store::notices::{NoticeRow, notice_row};
use crate::store::{Store, StoreError};

/// A question that waits.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct WaitingRow {
    /// The review.
    pub review: ReviewId,
    /// One line.
    pub title: String,
    /// How much hangs on it.
    pub risk: RiskClass,
    /// Since when it waits.
    pub opened_at: Timestamp,
    /// When it expires.
    pub due_at: Option<Timestamp>,
}

/// An effect that happened.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct DoneRow {
    /// The run it belongs to.
    pub run: RunId,
    /// That run's title.
    pub title: String,
    /// The action, such as `email.send`.
    pub action: String,
    /// Its parameters.
    pub params: Value,
    /// When it was done.
    pub ended_at: Timestamp,
}

/// Something counted by name.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Count {
    /// What is counted.
    pub name: String,
    /// How many.
    pub number: i64,
}

impl Store {
    /// The open reviews that wait longest, at most `limit`, those of the highest risk first, and how many
    /// there are in all.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn digest_waiting(&self, limit: i64) -> Result<(Vec<WaitingRow>, i64), StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select id, title, question, opened_at, due_at, count(*) over () from reviews where status = 'open'
                 order by array_position(array['high', 'medium', 'low'], coalesce(question -> 'risk' ->> 'class', 'medium')),
                          opened_at, id limit $1",
            )
            .await?;
        let rows = client.query(&statement, &[&limit]).await?;
        let total = rows.first().map_or(0, |row| row.get(5));
        let waiting = rows.iter().map(|row| WaitingRow {
            review: ReviewId(row.get(0)),
            title: row.get(1),
            // One question that cannot be read must not hide the others.
            risk: serde_json::from_value(row.get(2)).map_or(RiskClass::default(), |it: Question| it.class()),
            opened_at: row.get(3),
            due_at: row.get(4),
        });
        Ok((waiting.collect(), total))
    }

    /// Effects of these actions that happened from `from` on and before `to`: the first `limit` of them, and
    /// how many there are in all by action.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn digest_done(
        &self,
        actions: &[&str],
        (from, to): (Timestamp, Timestamp),
        limit: i64,
    ) -> Result<(Vec<DoneRow>, Vec<Count>), StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select e.run_id, r.title, e.action, e.request, e.ended_at
                 from effects e join runs r on r.id = e.run_id
                 where e.status = 'succeeded' and e.action = any ($1) and e.ended_at >= $2 and e.ended_at < $3
                 order by e.ended_at, e.id limit $4",
            )
            .await?;
        let rows = client.query(&statement, &[&actions, &from, &to, &limit]).await?;
        let done = rows.iter().map(|row| DoneRow {
            run: RunId(row.get(0)),
            title: row.get(1),
            action: row.get(2),
            params: row.get(3),
            ended_at: row.get(4),
        });
        let statement = client
            .prepare_cached(
                "select action, count(*) from effects
                 where status = 'succeeded' and action = any ($1) and ended_at >= $2 and ended_at < $3
                 group by action order by 2 desc, 1",
            )
            .await?;
        let counts = client.query(&statement, &[&actions, &from, &to]).await?;
        let count = |row: &tokio_postgres::Row| Count { name: row.get(0), number: row.get(1) };
        Ok((done.collect(), counts.iter().map(count).collect()))
    }

    /// How many runs were opened from `from` on and before `to`, by what became of them so far.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn digest_runs(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Count>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select status, count(*) from runs where id >= $1 and id < $2 group by status order by 2 desc, 1",
            )
            .await?;
        let rows = client.query(&statement, &[&first_at(from), &first_at(to)]).await?;
        Ok(rows.iter().map(|row| Count { name: row.get(0), number: row.get(1) }).collect())
    }

    /// Notices that stand, and those of any severity that happened since `from`, the gravest first, at most
    /// `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn digest_notices(&self, from: Timestamp, limit: i64) -> Result<Vec<NoticeRow>, StoreError> {
        let client = self.client().await?;
        let columns = crate::store::notices::COLUMNS;
        let statement = client
            .prepare_cached(&format!(
                "select {columns} from notices
                 where (acknowledged_at is null and over_at is null) or last_at >= $1
                 order by array_position(array['critical', 'warning', 'info'], severity), last_at desc, id desc
                 limit $2"
            ))
            .await?;
        Ok(client.query(&statement, &[&from, &limit]).await?.iter().map(notice_row).collect())
    }
}

/// The least id that a run opened at this moment can have: ids carry the time.
fn first_at(at: Timestamp) -> Uuid {
    let seconds = u64::try_from(at.as_second()).unwrap_or(0);
    let nanoseconds = u32::try_from(at.subsec_nanosecond()).unwrap_or(0);
    let drawn = Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanoseconds));
    // The first 48 bits are the milliseconds, the rest is drawn.
    Uuid::from_u128(drawn.as_u128() >> 80 << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_of_a_moment_is_not_behind_any_that_is_drawn_then() {
        let at: Timestamp = "2026-03-02T10:00:00.123Z".parse().unwrap();
        let (seconds, nanos) = (at.as_second().unsigned_abs(), 123_000_000);
        let drawn = |nanos| Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos));
        assert!(first_at(at) <= drawn(nanos));
        assert!(first_at(at) > drawn(122_999_999));
    }
}

//! Breakers: providers of models that nobody calls for a while. The database's clock alone counts; what
//! comes out is how long something still lasts.

use std::time::Duration;

use jiff::Timestamp;

use crate::store::{Store, StoreError};

/// A provider that was or is in trouble.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BreakerRow {
    /// As named in `config/models.yaml`.
    pub provider: String,
    /// What happened.
    pub why: String,
    /// Whether only the owner can mend it.
    pub lasting: bool,
    /// Since when.
    pub opened_at: Timestamp,
    /// How long nobody calls from now on; nothing once a probe may be made.
    pub left: Duration,
    /// When it was over.
    pub closed_at: Option<Timestamp>,
    /// When the owner was told of it; nothing once he was told that it is over.
    pub told_at: Option<Timestamp>,
}

impl Store {
    /// All of them, open or closed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select provider, why, lasting, opened_at,
                    greatest(extract(epoch from until - clock_timestamp()), 0)::float8, closed_at, told_at
                 from breakers order by provider",
            )
            .await?;
        let rows = client.query(&statement, &[]).await?;
        let read = |row: &tokio_postgres::Row| BreakerRow {
            provider: row.get(0),
            why: row.get(1),
            lasting: row.get(2),
            opened_at: row.get(3),
            left: Duration::try_from_secs_f64(row.get(4)).unwrap_or_default(),
            closed_at: row.get(5),
            told_at: row.get(6),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Nobody calls `provider` for as long as `left`. Trouble that goes on keeps its beginning, and that the
    /// owner was told of it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_breaker(
        &self,
        provider: &str,
        why: &str,
        lasting: bool,
        left: Duration,
    ) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "insert into breakers as b (provider, why, lasting, until)
                 values ($1, $2, $3, now() + make_interval(secs => $4))
                 on conflict on constraint breakers_pk do update set
                    why = excluded.why, until = excluded.until, closed_at = null,
                    lasting = excluded.lasting or (b.lasting and b.closed_at is null),
                    opened_at = case when b.closed_at is null then b.opened_at else excluded.opened_at end,
                    told_at = case when b.closed_at is null then b.told_at end",
            )
            .await?;
        client.execute(&statement, &[&provider, &why, &lasting, &left.as_secs_f64()]).await?;
        Ok(())
    }

    /// Those that the owner was not told of, and those of which he was told and that are over.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn breakers_to_tell(&self) -> Result<Vec<BreakerRow>, StoreError> {
        let mut rows = self.breakers().await?;
        rows.retain(|row| row.closed_at.is_some() == row.told_at.is_some());
        Ok(rows)
    }

    /// The owner was told of this: that it is so, or that it is over. False when it has changed meanwhile.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn breaker_told(&self, row: &BreakerRow) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "update breakers set told_at = case when $2 then null else now() end
                         where provider = $1 and (closed_at is not null) = $2";
        let statement = client.prepare_cached(statement).await?;
        Ok(client.execute(&statement, &[&row.provider, &row.closed_at.is_some()]).await? == 1)
    }

    /// The trouble of `provider` is over; false when there was none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn close_breaker(&self, provider: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "update breakers set closed_at = now() where provider = $1 and closed_at is null";
        let statement = client.prepare_cached(statement).await?;
        Ok(client.execute(&statement, &[&provider]).await? == 1)
    }
}

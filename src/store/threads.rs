//! The mails of a thread, as the journal and the effects tell them: no second copy that could differ, or
//! outlive an erasure.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// Runs of one thread that are looked at, the newest ones: a conversation has fewer.
const MAX_RUNS: i64 = 100;

/// One mail.
#[derive(Clone, PartialEq, Debug)]
pub struct Mail {
    /// When it came or went.
    pub at: Timestamp,
    /// Whether it was sent from here.
    pub sent: bool,
    /// Its fields: an email as triggers give it, or the parameters of the action that sent it.
    pub fields: Value,
}

impl Store {
    /// The newest mails of a thread, at most `limit`, the oldest of them first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn thread(&self, thread: &str, limit: u32) -> Result<Vec<Mail>, StoreError> {
        let client = self.client().await?;
        let sql = "
            select run_id from journal
            where kind = 'run.opened' and data -> 'input' ->> 'thread' is not null
              and data -> 'input' ->> 'thread' = $1
            order by run_id desc limit $2";
        let statement = client.prepare_cached(sql).await?;
        let rows = client.query(&statement, &[&thread, &MAX_RUNS]).await?;
        let runs: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "
            select at, false, (data -> 'input')::jsonb from journal
            where run_id = any($1) and kind = 'run.opened' and data -> 'input' ->> 'thread' = $2
            union all
            select at, false, (data -> 'output' -> 'data')::jsonb from journal
            where run_id = any($1) and kind = 'step.succeeded' and data -> 'output' -> 'data' ->> 'thread' = $2
            union all
            select coalesce(ended_at, proposed_at), true, request from effects
            where run_id = any($1) and action = 'email.send' and status = 'succeeded'
            order by 1 desc limit $3";
        let statement = client.prepare_cached(sql).await?;
        let rows = client.query(&statement, &[&runs, &thread, &i64::from(limit)]).await?;
        let mail = |row: &tokio_postgres::Row| -> Result<Mail, StoreError> {
            Ok(Mail { at: row.try_get(0)?, sent: row.try_get(1)?, fields: row.try_get(2)? })
        };
        rows.iter().rev().map(mail).collect()
    }
}

//! The mails of a thread, as the journal and the effects tell them: no second copy that could differ, or
//! outlive an erasure.

use deadpool_postgres::Object;
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

/// The runs of a thread, the newest first.
const RUNS: &str = "
    select run_id from journal
    where kind = 'run.opened' and data -> 'input' ->> 'thread' is not null
      and data -> 'input' ->> 'thread' = $1
    order by run_id desc limit $2";

/// What opened these runs, what they heard and what they sent.
const MAILS: &str = "
    select at, false as sent, (data -> 'input')::jsonb as fields from journal
    where run_id = any($1) and kind = 'run.opened' and data -> 'input' ->> 'thread' = $2
    union all
    select at, false, (data -> 'output' -> 'data')::jsonb from journal
    where run_id = any($1) and kind = 'step.succeeded' and data -> 'output' -> 'data' ->> 'thread' = $2
    union all
    select coalesce(ended_at, proposed_at), true, request from effects
    where run_id = any($1) and action = 'email.send' and status = 'succeeded'";

impl Store {
    /// The newest mails of a thread, at most `limit`, the oldest of them first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn thread(&self, thread: &str, limit: u32) -> Result<Vec<Mail>, StoreError> {
        let client = self.client().await?;
        let runs = runs(&client, thread).await?;
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let statement = client.prepare_cached(&format!("{MAILS} order by 1 desc limit $3")).await?;
        let rows = client.query(&statement, &[&runs, &thread, &i64::from(limit)]).await?;
        let mail = |row: &tokio_postgres::Row| -> Result<Mail, StoreError> {
            Ok(Mail { at: row.try_get(0)?, sent: row.try_get(1)?, fields: row.try_get(2)? })
        };
        rows.iter().rev().map(mail).collect()
    }

    /// How many mails a thread has; of more than `most` it is not told how many more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn thread_length(&self, thread: &str, most: u32) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let runs = runs(&client, thread).await?;
        if runs.is_empty() {
            return Ok(0);
        }
        let statement = format!("select count(*) from (select from ({MAILS}) as mails limit $3) as counted");
        let statement = client.prepare_cached(&statement).await?;
        Ok(client.query_one(&statement, &[&runs, &thread, &i64::from(most)]).await?.get(0))
    }
}

async fn runs(client: &Object, thread: &str) -> Result<Vec<Uuid>, StoreError> {
    let statement = client.prepare_cached(RUNS).await?;
    let rows = client.query(&statement, &[&thread, &MAX_RUNS]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

//! What is known of somebody whom an effect would reach: records under their name, and what was sent to
//! them before.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::ids::RunId;
use crate::store::records::Record;
use crate::store::{Store, StoreError};

/// Records that are looked at: whoever has more is known well.
const RECORDS: i64 = 5;

/// What was sent to somebody.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Sent {
    /// How many mails reached them, as far as is known.
    pub mails: i64,
    /// When the last one did.
    pub last_at: Option<Timestamp>,
    /// What it was about.
    pub last_subject: Option<String>,
    /// The run that sent it.
    pub last_run: Option<RunId>,
}

impl Store {
    /// The mails that were sent to this address alone, whatever its case.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sent_to(&self, address: &str) -> Result<Sent, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "with sent as (
                    select run_id, ended_at, request ->> 'subject' as subject from effects
                    where action = 'email.send' and lower(request ->> 'to') = lower($1) and status = 'succeeded')
                 select (select count(*) from sent), s.ended_at, s.subject, s.run_id
                 from (select 1) as one left join lateral
                    (select * from sent order by ended_at desc limit 1) as s on true",
            )
            .await?;
        let row = client.query_one(&statement, &[&address]).await?;
        Ok(Sent {
            mails: row.get(0),
            last_at: row.get(1),
            last_subject: row.get(2),
            last_run: row.get::<_, Option<uuid::Uuid>>(3).map(RunId),
        })
    }

    /// The records of any kind under this key, the last changed first.
    ///
    /// # Errors
    /// When the database does not answer or a record cannot be read.
    pub async fn records_under(&self, key: &str) -> Result<Vec<Record>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select kind, key, version, data, label, updated_at from records
                 where key = $1 order by updated_at desc limit $2",
            )
            .await?;
        client.query(&statement, &[&key, &RECORDS]).await?.iter().map(crate::store::records::record).collect()
    }
}

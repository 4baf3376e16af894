//! What was proposed, as the journal tells: for trying a changed policy on it.

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::digest::Digest;
use crate::domain::event::Proposal;
use crate::domain::ids::{RunId, WorkflowName};
use crate::store::journal::read::digest;
use crate::store::{Store, StoreError};

/// A proposal of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Proposed {
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The version it is pinned to.
    pub version: Digest,
    /// What opened it.
    pub trigger: String,
    /// When it was proposed.
    pub at: Timestamp,
    /// What was proposed, and what policy said.
    pub proposal: Proposal,
}

impl Store {
    /// The last proposals, those of the newest runs first; at most `limit`. What was erased is passed over.
    ///
    /// # Errors
    /// When the database does not answer or an entry cannot be read.
    pub async fn last_proposals(&self, limit: i64) -> Result<Vec<Proposed>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select j.run_id, r.workflow, r.version, r.trigger, j.at, j.data
                 from (select run_id, seq, at, data from journal
                       where kind = 'effect.proposed' and data is not null
                       order by run_id desc, seq desc limit $1) as j
                 join runs r on r.id = j.run_id
                 order by j.run_id desc, j.seq desc",
            )
            .await?;
        let rows = client.query(&statement, &[&limit]).await?;
        rows.iter()
            .map(|row| {
                let run = RunId(row.get(0));
                let data: Value = row.get(5);
                let proposal = serde_json::from_value(data)
                    .map_err(|error| StoreError::corrupt(format!("a proposal of run {run}"), error))?;
                Ok(Proposed {
                    run,
                    workflow: WorkflowName(row.get(1)),
                    version: digest(row, 2)?,
                    trigger: row.get(3),
                    at: row.get(4),
                    proposal,
                })
            })
            .collect()
    }
}

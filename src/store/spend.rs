//! What is set aside for model calls, and what was spent.
//!
//! - [`writer`] is the connection of the ledger: it reserves, ends, rolls up, expires;
//! - [`report`] is what the owner sees;
//! - here: what retention leaves behind, and the shares of limits that were passed.
//!
//! `spend` has a row per account, `spend_entries` one per call. A reservation is one statement over all
//! rows that pay, locked in the order of their keys. What ends a call touches its own entry alone, so that
//! the commit of a run never waits for a budget; [`writer::Writer::roll_up`] brings `spend` up to date soon
//! after. Until then the reservation still counts: never too little is taken for spent.

pub mod report;
mod statements;
pub mod writer;

use jiff::Timestamp;

use crate::store::{Store, StoreError};

/// Entries of removed runs that are cleared away in one statement.
const ARCHIVED: i64 = 1_000;

impl Store {
    /// Clears entries of runs that retention removed, and those of no run that ended before `before`; their
    /// sums stay in `spend`, but for the runs' own accounts. Gives whether there may be more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn archive_spend(&self, before: Option<Timestamp>) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let archived: i64 = client.query_one(statements::ARCHIVE, &[&ARCHIVED, &before]).await?.get(0);
        client.execute(statements::FORGET_RUNS, &[]).await?;
        Ok(archived >= ARCHIVED)
    }
}

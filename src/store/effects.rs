//! Effects: who holds a key, and what a run has done.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;

use crate::domain::digest::Digest;
use crate::domain::ids::{EffectId, RunId, StepId};
use crate::domain::plan::{EffectKey, Existing};
use crate::store::journal::read::digest;
use crate::store::{Store, StoreError};

/// An effect as its row shows it.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct EffectRow {
    /// Its id.
    pub id: EffectId,
    /// The run that proposed it.
    pub run: RunId,
    /// The step that proposed it.
    pub step: StepId,
    /// What kind of action.
    pub action: String,
    /// The key under which it happens at most once.
    pub dedupe_key: String,
    /// The digest of the action that was started, or proposed.
    pub digest: Digest,
    /// The action's parameters.
    pub request: Value,
    /// `proposed`, `started`, `succeeded`, `failed`, `unknown`, `withdrawn`, `compensated`.
    pub status: String,
    /// What the connector answered.
    pub response: Option<Value>,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// When it goes out by itself, if it may happen and waits; or when it was to.
    pub goes_at: Option<Timestamp>,
    /// When it was first started.
    pub started_at: Option<Timestamp>,
    /// When its outcome was known.
    pub ended_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, run_id, step, action, dedupe_key, digest, request, status, response, proposed_at,
    started_at, ended_at, goes_at";

impl Store {
    /// The effect that holds a key, if one does.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn key_holder(&self, key: &EffectKey) -> Result<Option<Existing>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select id, run_id, digest, case when status = 'succeeded' then coalesce(response, 'null'::jsonb) end
                 from effects where action = $1 and dedupe_key = $2 and holds",
            )
            .await?;
        let row = client.query_opt(&statement, &[&key.action, &key.key]).await?;
        row.map(|row| {
            Ok(Existing {
                effect: EffectId(row.get(0)),
                run: RunId(row.get(1)),
                digest: digest(&row, 2)?,
                response: row.get(3),
            })
        })
        .transpose()
    }

    /// The effects of one run, in the order they were proposed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn effects(&self, run: RunId) -> Result<Vec<EffectRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(&format!(
                "select {COLUMNS} from effects where run_id = $1 order by proposed_at, id"
            ))
            .await?;
        client.query(&statement, &[&run.0]).await?.iter().map(effect_row).collect()
    }

    /// One effect.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn effect(&self, effect: EffectId) -> Result<Option<EffectRow>, StoreError> {
        let client = self.client().await?;
        let sql = format!("select {COLUMNS} from effects where id = $1");
        let statement = client.prepare_cached(&sql).await?;
        client.query_opt(&statement, &[&effect.0]).await?.as_ref().map(effect_row).transpose()
    }

    /// What was begun last, whatever run it belongs to, the newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn recent_effects(&self, limit: i64) -> Result<Vec<EffectRow>, StoreError> {
        let client = self.client().await?;
        let sql = format!(
            "select {COLUMNS} from effects where started_at is not null order by started_at desc limit $1"
        );
        let statement = client.prepare_cached(&sql).await?;
        client.query(&statement, &[&limit]).await?.iter().map(effect_row).collect()
    }

    /// When an effect was first started: its repetitions carry the same date.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn effect_started_at(&self, effect: EffectId) -> Result<Option<Timestamp>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached("select started_at from effects where id = $1").await?;
        Ok(client.query_opt(&statement, &[&effect.0]).await?.and_then(|row| row.get(0)))
    }
}

fn effect_row(row: &Row) -> Result<EffectRow, StoreError> {
    Ok(EffectRow {
        id: EffectId(row.get(0)),
        run: RunId(row.get(1)),
        step: StepId(row.get(2)),
        action: row.get(3),
        dedupe_key: row.get(4),
        digest: digest(row, 5)?,
        request: row.get(6),
        status: row.get(7),
        response: row.get(8),
        proposed_at: row.get(9),
        started_at: row.get(10),
        ended_at: row.get(11),
        goes_at: row.get(12),
    })
}

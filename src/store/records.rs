//! Records: versioned values by kind and key. A new version supersedes, nothing is overwritten.

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::ids::EffectId;
use crate::domain::label::Label;
use crate::store::{Store, StoreError};

/// The longest kind and key, in bytes: both are parts of one index entry, which a page must hold.
const MAX_KIND: usize = 100;
const MAX_KEY: usize = 500;

/// The largest value, in bytes of JSON: a record is a fact about somebody, not a file.
const MAX_DATA: usize = 256 * 1024;

/// The most records that one [`Store::records_list`] gives: the caller asks on from the last key.
const MAX_LIST: i64 = 500;

/// The current version of a record.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// What kind of thing it is about, such as `lead`.
    pub kind: String,
    /// Which one of its kind.
    pub key: String,
    /// Counts from 1.
    pub version: i64,
    /// The value.
    pub data: Value,
    /// Where the value came from.
    pub label: Label,
    /// When this version was written.
    pub updated_at: jiff::Timestamp,
}

/// A new version to write.
#[derive(Clone, Copy, Debug)]
pub struct NewVersion<'a> {
    /// The effect that writes it: the same effect writes once.
    pub effect: Option<EffectId>,
    /// The record's kind, at most 100 bytes.
    pub kind: &'a str,
    /// The record's key, at most 500 bytes.
    pub key: &'a str,
    /// The value, at most 256 KiB of JSON.
    pub data: &'a Value,
    /// Where the value came from.
    pub label: Label,
    /// The version that must be the current one; 0 if there must be none yet; `None` for any.
    pub if_version: Option<i64>,
}

/// A version that is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Put {
    /// Its number.
    pub version: i64,
    /// Whether the same effect had written it before.
    pub again: bool,
}

/// Why a version is not written.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Somebody else wrote first.
    #[error("the record is at version {found}, not at the version that was expected")]
    Conflict {
        /// The current version; 0 if there is none.
        found: i64,
    },
    /// The kind, key or value cannot be kept.
    #[error("{0}")]
    Invalid(String),
    /// The connection was lost while the statement was under way: it may be written.
    #[error("the database went away before it said whether the record is written: {0}")]
    InDoubt(StoreError),
    /// It is not written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes both tables or neither. The guard stands in the upsert, so that of two writers with the same
/// expectation one gets no row; an effect that is there already keeps the rest from doing anything.
const PUT: &str = "
    with before as (
        select version from record_versions where effect = $1::uuid
    ), written as (
        insert into records as r (kind, key, version, data, label)
        select $2::text, $3::text, 1, $4::jsonb, $5::text
        where not exists (select from before)
            and (coalesce($6::bigint, 0) = 0 or exists (select from records where kind = $2 and key = $3))
        on conflict on constraint records_pk do update
            set version = r.version + 1, data = excluded.data, label = excluded.label, updated_at = now()
            where $6 is null or r.version = $6
        returning version
    ), kept as (
        insert into record_versions (kind, key, version, data, label, effect)
        select $2, $3, version, $4, $5, $1 from written
        returning version
    )
    select version, true as again from before
    union all
    select version, false from kept";

impl Store {
    /// Writes a new version of a record. The same effect again gives its own version back.
    ///
    /// # Errors
    /// See [`PutError`].
    pub async fn records_put(&self, new: NewVersion<'_>) -> Result<Put, PutError> {
        check(&new).map_err(PutError::Invalid)?;
        let client = self.client().await?;
        let statement = client.prepare_cached(PUT).await.map_err(StoreError::from)?;
        let effect = new.effect.map(|effect| effect.0);
        let label = new.label.as_str();
        let params: [&(dyn ToSql + Sync); 6] =
            [&effect, &new.kind, &new.key, new.data, &label, &new.if_version];
        match client.query_opt(&statement, &params).await {
            Ok(Some(row)) => Ok(Put { version: row.get("version"), again: row.get("again") }),
            Ok(None) => {
                let found = self.records_get(new.kind, new.key).await?;
                Err(PutError::Conflict { found: found.map_or(0, |record| record.version) })
            }
            Err(error) if error.as_db_error().is_none() => Err(PutError::InDoubt(error.into())),
            Err(error) => match (StoreError::from(error), effect) {
                // the same effect, twice at the same moment: the other one was faster
                (StoreError::Constraint { constraint }, Some(effect))
                    if constraint == "record_versions_effect" =>
                {
                    self.written_by(effect).await
                }
                (error, _) => Err(error.into()),
            },
        }
    }

    async fn written_by(&self, effect: Uuid) -> Result<Put, PutError> {
        let client = self.client().await?;
        let sql = "select version from record_versions where effect = $1";
        let row = client.query_one(sql, &[&effect]).await.map_err(StoreError::from)?;
        Ok(Put { version: row.get(0), again: true })
    }

    /// The current version of a record, if there is one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn records_get(&self, kind: &str, key: &str) -> Result<Option<Record>, StoreError> {
        let client = self.client().await?;
        let sql =
            "select kind, key, version, data, label, updated_at from records where kind = $1 and key = $2";
        let statement = client.prepare_cached(sql).await?;
        client.query_opt(&statement, &[&kind, &key]).await?.as_ref().map(record).transpose()
    }

    /// What a record held in one of its versions, and where that came from.
    ///
    /// # Errors
    /// When the database does not answer or the row cannot be read.
    pub async fn records_version(
        &self,
        kind: &str,
        key: &str,
        version: i64,
    ) -> Result<Option<Record>, StoreError> {
        let client = self.client().await?;
        let sql = "select kind, key, version, data, label, at as updated_at from record_versions
                   where kind = $1 and key = $2 and version = $3";
        let statement = client.prepare_cached(sql).await?;
        client.query_opt(&statement, &[&kind, &key, &version]).await?.as_ref().map(record).transpose()
    }

    /// Records of a kind in the order of their keys, from the one after `after` on; at most `limit`, and
    /// never more than 500.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn records_list(
        &self,
        kind: &str,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Vec<Record>, StoreError> {
        let client = self.client().await?;
        let sql = "
            select kind, key, version, data, label, updated_at from records
            where kind = $1 and key > $2 order by key limit $3";
        let statement = client.prepare_cached(sql).await?;
        let limit = i64::from(limit).min(MAX_LIST);
        let rows = client.query(&statement, &[&kind, &after.unwrap_or_default(), &limit]).await?;
        rows.iter().map(record).collect()
    }
}

/// What the tables would refuse less clearly.
fn check(new: &NewVersion<'_>) -> Result<(), String> {
    for (name, text, most) in [("kind", new.kind, MAX_KIND), ("key", new.key, MAX_KEY)] {
        if text.is_empty() {
            return Err(format!("a record needs a {name}"));
        }
        if text.len() > most {
            return Err(format!("a record's {name} has at most {most} bytes, this one has {}", text.len()));
        }
        if text.contains('\0') {
            return Err(format!("a record's {name} cannot hold a NUL character"));
        }
    }
    if new.if_version.is_some_and(|version| version < 0) {
        return Err("a record's version counts from 1; 0 stands for none".into());
    }
    let size = new.data.to_string().len();
    if size > MAX_DATA {
        return Err(format!("a record holds at most {MAX_DATA} bytes of JSON, this one has {size}"));
    }
    match holds_nul(new.data) {
        true => Err("a record cannot hold a NUL character".into()),
        false => Ok(()),
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

pub(super) fn record(row: &Row) -> Result<Record, StoreError> {
    let (kind, key): (String, String) = (row.get("kind"), row.get("key"));
    let label: &str = row.get("label");
    let label = serde_json::from_value(label.into())
        .map_err(|error| StoreError::corrupt(format!("the label of record {kind}/{key}"), error))?;
    Ok(Record {
        kind,
        key,
        version: row.get("version"),
        data: row.get("data"),
        label,
        updated_at: row.get("updated_at"),
    })
}

//! `records.put`: a new version of a record in Steward's own memory; `records.revert`: what it held
//! before; and [`records_get`], which reads one and is no effect.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::connectors::params::{Params, invalid};
use crate::connectors::{Call, Connector};
use crate::domain::action::{Action, Repeat};
use crate::domain::event::{ErrorKind, StepError};
use crate::domain::label::Label;
use crate::domain::plan::EffectResult;
use crate::store::records::{NewVersion, Put, PutError, Record};
use crate::store::{Store, StoreError};

/// How long one statement may take, waiting for a connection and for other writers of the same record
/// included: far more than either needs, so that only a database in trouble is given up on.
const STATEMENT_WAIT: Duration = Duration::from_secs(20);

/// Writes records.
#[derive(Clone)]
pub struct Records {
    store: Store,
}

impl Records {
    /// Writes into `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// What it writes into.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    async fn put(&self, call: &Call) -> EffectResult {
        let (name, new) = match new_version(call) {
            Ok(new) => (format!("{}/{}", new.kind, new.key), new),
            Err(error) => return EffectResult::Failed(error),
        };
        self.write(&name, new).await
    }

    /// Reverting is writing anew what was there before: history only grows. Where nothing was, nothing
    /// (`null`) is written. What somebody has changed since is not touched.
    async fn revert(&self, call: &Call) -> EffectResult {
        let params = match Reverted::of(call) {
            Ok(params) => params,
            Err(error) => return EffectResult::Failed(error),
        };
        let read = timeout(STATEMENT_WAIT, self.versions(&params)).await;
        let (current, written, before) = match read {
            Ok(Ok(versions)) => versions,
            Ok(Err(error)) => return EffectResult::Failed(StepError::new(kind(&error), error.to_string())),
            Err(_) => {
                let error = StepError::new(ErrorKind::Timeout, "the database did not answer in time");
                return EffectResult::Failed(error);
            }
        };
        let Reverted { kind: of, key, version } = params;
        let name = format!("{of}/{key}");
        let (Some(current), Some(written)) = (current, written) else {
            return EffectResult::Failed(invalid(format!("record {name} has no version {version}")));
        };
        let undone_already = before.as_ref().map_or(&Value::Null, |before| &before.data);
        if current.data != written.data && current.data != *undone_already {
            let message = format!("record {name} has been changed since version {version}");
            return EffectResult::Failed(StepError::new(ErrorKind::Refused, message));
        }
        let new = NewVersion {
            effect: Some(call.effect),
            kind: of,
            key,
            data: undone_already,
            label: before.as_ref().map_or(Label::System, |before| before.label),
            if_version: Some(current.version),
        };
        self.write(&name, new).await
    }

    /// The current version, the one to take back, and the one before that.
    async fn versions(
        &self,
        of: &Reverted<'_>,
    ) -> Result<(Option<Record>, Option<Record>, Option<Record>), StoreError> {
        let current = self.store.records_get(of.kind, of.key).await?;
        let written = self.store.records_version(of.kind, of.key, of.version).await?;
        let before = self.store.records_version(of.kind, of.key, of.version - 1).await?;
        Ok((current, written, before))
    }

    async fn write(&self, name: &str, new: NewVersion<'_>) -> EffectResult {
        let failed = |kind, error: &dyn std::fmt::Display| {
            EffectResult::Failed(StepError::new(kind, format!("record {name}: {error}")))
        };
        match timeout(STATEMENT_WAIT, self.store.records_put(new)).await {
            Ok(Ok(Put { version, again: _ })) => {
                EffectResult::Succeeded(json!({"kind": new.kind, "key": new.key, "version": version}))
            }
            Ok(Err(error @ PutError::Conflict { .. })) => failed(ErrorKind::Conflict, &error),
            Ok(Err(error @ PutError::Invalid(_))) => failed(ErrorKind::Invalid, &error),
            Ok(Err(PutError::Store(error))) => failed(kind(&error), &error),
            // Unknown, so that it is repeated as the same effect, which is written once.
            Ok(Err(error @ PutError::InDoubt(_))) => EffectResult::Unknown(error.to_string()),
            Err(_) => EffectResult::Unknown(format!("the database did not answer within {STATEMENT_WAIT:?}")),
        }
    }
}

/// Reads one record: `{found, kind, key, version, data}`, with version 0 and no data when there is none.
///
/// # Errors
/// When a parameter does not fit or the database does not answer.
pub async fn records_get(store: &Store, action: &Action) -> Result<(Value, Label), StepError> {
    let params = Params::of(action)?;
    let (kind_, key) = (params.need("kind")?, params.need("key")?);
    if kind_.contains('\0') || key.contains('\0') {
        return Err(invalid("a record's kind and key cannot hold a NUL character"));
    }
    let late = || StepError::new(ErrorKind::Timeout, "the database did not answer in time");
    let found = timeout(STATEMENT_WAIT, store.records_get(kind_, key)).await.map_err(|_| late())?;
    let found = found.map_err(|error| StepError::new(kind(&error), error.to_string()))?;
    let (version, data, label) = match &found {
        Some(record) => (record.version, &record.data, record.label),
        None => (0, &Value::Null, Label::Owner),
    };
    let output =
        json!({"found": !data.is_null(), "kind": kind_, "key": key, "version": version, "data": data});
    Ok((output, label))
}

struct Reverted<'a> {
    kind: &'a str,
    key: &'a str,
    version: i64,
}

impl<'a> Reverted<'a> {
    fn of(call: &'a Call) -> Result<Self, StepError> {
        let params = Params::of(&call.action)?;
        let version = params.value("version").and_then(Value::as_i64).filter(|version| *version >= 1);
        let version = version.ok_or_else(|| invalid("`version` is a whole number from 1 on"))?;
        Ok(Self { kind: params.need("kind")?, key: params.need("key")?, version })
    }
}

fn new_version(call: &Call) -> Result<NewVersion<'_>, StepError> {
    let params = Params::of(&call.action)?;
    let whole = || invalid("`if_version` is not a whole number");
    Ok(NewVersion {
        effect: Some(call.effect),
        kind: params.need("kind")?,
        key: params.need("key")?,
        data: call.action.params.get("data").unwrap_or(&Value::Null),
        label: call.label,
        if_version: params.value("if_version").map(|v| v.as_i64().ok_or_else(whole)).transpose()?,
    })
}

fn kind(error: &StoreError) -> ErrorKind {
    match error.retryable() {
        true => ErrorKind::Unavailable,
        false => ErrorKind::Internal,
    }
}

impl Connector for Records {
    fn actions(&self) -> &'static [&'static str] {
        &["records.put", "records.revert"]
    }

    fn repeat(&self, _: &Action) -> Repeat {
        Repeat::Natural
    }

    fn perform<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult> {
        match call.action.action.as_str() {
            "records.revert" => Box::pin(self.revert(call)),
            _ => Box::pin(self.put(call)),
        }
    }

    /// Writing it again is looking it up: the same effect finds its version.
    fn probe<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult> {
        self.perform(call)
    }
}

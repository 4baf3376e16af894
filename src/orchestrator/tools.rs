//! What agents' tools look into: memory, records, threads, allowed web hosts, the clock.
//!
//! That nothing here writes is structure. The store is one on whose connections PostgreSQL itself refuses to
//! write, the way into the web is a [`Getter`], which can send nothing but an address, and no connector is
//! in reach.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::connectors::http::Getter;
use crate::connectors::records::records_get;
use crate::domain::action::Action;
use crate::domain::event::{ErrorKind, StepError};
use crate::domain::label::Label;
use crate::domain::tool::{Tool, calc, date};
use crate::memory::{Embedder, search};
use crate::models::tools::Tools;
use crate::orchestrator::engine::Clock;
use crate::orchestrator::failpoint;
use crate::store::threads::Mail;
use crate::store::{Store, StoreError};

/// Records listed when the model does not say how many.
const USUAL_RECORDS: u32 = 20;

/// Mails of a thread that are shown, the newest.
const MAILS: u32 = 20;

/// The fields of a mail that are shown; attachments are not kept.
const SHOWN: [&str; 7] = ["message_id", "from", "to", "cc", "subject", "date", "body"];

/// Looks things up for agents.
pub(super) struct Reading {
    store: Store,
    embedder: Arc<dyn Embedder>,
    web: Getter,
    clock: Clock,
    zone: TimeZone,
}

impl Reading {
    /// Over the same database as `store`, for reading alone.
    ///
    /// # Errors
    /// When the pool cannot be built.
    pub(super) fn new(
        store: &Store,
        embedder: Arc<dyn Embedder>,
        web: Getter,
        clock: Clock,
        zone: &str,
    ) -> Result<Self, StoreError> {
        let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC); // checked with the settings
        Ok(Self { store: store.read_only()?, embedder, web, clock, zone })
    }

    async fn read(&self, tool: Tool, arguments: &Value) -> Result<(Value, Label), StepError> {
        let text = |name: &str| arguments[name].as_str();
        let invalid = |why: String| StepError::new(ErrorKind::Invalid, why);
        match tool {
            Tool::MemorySearch => search::search_action(&self.store, self.embedder.as_ref(), arguments).await,
            Tool::RecordsGet => {
                let action = Action { action: tool.name().to_owned(), params: arguments.clone() };
                records_get(&self.store, &action).await
            }
            Tool::RecordsList => self.records(arguments).await,
            Tool::ThreadGet => self.thread(text("thread").unwrap_or_default()).await,
            Tool::HttpGet => {
                self.web.get(text("url").unwrap_or_default()).await.map(|page| (page, Label::Untrusted))
            }
            Tool::Calc => {
                let round = arguments["round"].as_u64().and_then(|places| u8::try_from(places).ok());
                let value = calc::calc(text("expression").unwrap_or_default(), round).map_err(invalid)?;
                Ok((json!({"value": value}), Label::System))
            }
            Tool::Date => {
                let asked = date::Asked {
                    of: text("of"),
                    plus: text("plus"),
                    until: text("until"),
                    zone: text("zone"),
                };
                let answer = date::date(asked, (self.clock)(), &self.zone).map_err(invalid)?;
                Ok((answer, Label::System))
            }
        }
    }

    async fn records(&self, arguments: &Value) -> Result<(Value, Label), StepError> {
        let (kind, after) = (clean(&arguments["kind"])?.unwrap_or_default(), clean(&arguments["after"])?);
        let limit = arguments["limit"].as_u64().and_then(|limit| u32::try_from(limit).ok());
        let limit = limit.unwrap_or(USUAL_RECORDS);
        let mut found = self.store.records_list(kind, limit + 1, after).await.map_err(failed)?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| more).map(|record| record.key.clone());
        let label = Label::join_all(found.iter().map(|record| record.label));
        let shown = found.iter().filter(|record| !record.data.is_null());
        let shown: Vec<Value> = shown
            .map(|record| json!({"key": record.key, "version": record.version, "data": record.data}))
            .collect();
        Ok((json!({"kind": kind, "records": shown, "next": next}), label))
    }

    async fn thread(&self, thread: &str) -> Result<(Value, Label), StepError> {
        if thread.contains('\0') {
            return Err(StepError::new(ErrorKind::Invalid, "a thread's name cannot hold a NUL character"));
        }
        let mails = self.store.thread(thread, MAILS).await.map_err(failed)?;
        // What was sent from here answers what came from outside, and quotes it.
        let label = if mails.is_empty() { Label::System } else { Label::Untrusted };
        let mails: Vec<Value> = mails.iter().map(shown).collect();
        Ok((json!({"thread": thread, "mails": mails}), label))
    }
}

impl Tools for Reading {
    fn look_up<'a>(
        &'a self,
        tool: Tool,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<(Value, Label), StepError>> {
        Box::pin(async move {
            let found = self.read(tool, arguments).await;
            failpoint::hit(failpoint::TOOL_ANSWERED);
            found
        })
    }
}

fn shown(mail: &Mail) -> Value {
    let fields = SHOWN.iter().filter_map(|name| Some(((*name).to_owned(), mail.fields.get(*name)?.clone())));
    let mut shown: serde_json::Map<String, Value> = fields.collect();
    shown.insert("at".into(), json!(mail.at));
    shown.insert("direction".into(), json!(if mail.sent { "sent" } else { "received" }));
    Value::Object(shown)
}

/// A text that the database takes.
fn clean(value: &Value) -> Result<Option<&str>, StepError> {
    match value.as_str() {
        Some(text) if text.contains('\0') => {
            Err(StepError::new(ErrorKind::Invalid, "a record's kind and key cannot hold a NUL character"))
        }
        text => Ok(text),
    }
}

fn failed(error: StoreError) -> StepError {
    let kind = if error.retryable() { ErrorKind::Unavailable } else { ErrorKind::Internal };
    StepError::new(kind, error.to_string())
}

//! Events from outside that runs wait for. First write wins, and neither side can miss the other: an
//! event is durable before [`Store::tell`] looks who waits, a wait is durable before
//! [`Store::event_since`] looks what has come. An event that nobody was told of, because its bearer died
//! in between, is told by the clock.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::event::Topic;
use crate::domain::ids::{HappeningId, RunId};
use crate::domain::label::Label;
use crate::store::{Store, StoreError};

/// The event that a run has ended; it is about the run's id. Steward's own: nobody else may bring it.
pub const RUN_FINISHED: &str = "run.finished";

/// How many untold events the clock tells at once.
const BATCH: i64 = 100;

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub struct Happening {
    /// Which one.
    pub id: HappeningId,
    /// What it is called and what it is about.
    pub topic: Topic,
    /// What it brought.
    pub data: Value,
    /// Where that came from.
    pub label: Label,
    /// The same key again is the same event.
    pub key: Option<String>,
}

/// What became of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The event, or the one that had its key already.
    pub id: HappeningId,
    /// The runs that waited for it.
    pub runs: Vec<RunId>,
}

impl Store {
    /// Keeps an event and tells the runs that wait for it.
    ///
    /// # Errors
    /// When the database does not answer; an event that was kept is told later then.
    pub async fn publish(&self, happening: &Happening) -> Result<Told, StoreError> {
        let client = self.client().await?;
        let keep = client
            .prepare_cached(
                "insert into events (id, name, match, data, label, key) values ($1, $2, $3, $4, $5, $6)
                 on conflict on constraint events_key do nothing",
            )
            .await?;
        let kept = client
            .execute(
                &keep,
                &[
                    &happening.id.0,
                    &happening.topic.event,
                    &happening.topic.matches,
                    &happening.data,
                    &happening.label.as_str(),
                    &happening.key,
                ],
            )
            .await?;
        let id = match kept {
            0 => client.query_one("select id from events where key = $1", &[&happening.key]).await?.get(0),
            _ => happening.id.0,
        };
        drop(client);
        self.tell(HappeningId(id)).await
    }

    /// Tells the runs that wait for an event, once; gives those that were told.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tell(&self, id: HappeningId) -> Result<Told, StoreError> {
        let client = self.client().await?;
        // The inbox keeps the first message of a topic: of two events the first one counts.
        let statement = client
            .prepare_cached(
                "with event as (
                     select * from events where id = $1 and told_at is null for update),
                 waiting as (
                     select w.run_id, w.step, e.id, e.data, e.label
                     from event e join waits w on w.name = e.name and w.match = e.match),
                 woken as (
                     update runs r
                     set signals = r.signals + 1, wake_at = case when r.node is null then now() else r.wake_at end
                     where r.id in (select run_id from waiting) and r.finished_at is null
                     returning r.id),
                 told as (
                     insert into inbox (run_id, topic, data)
                     select run_id, 'event:' || step, jsonb_build_object('id', id, 'data', data, 'label', label)
                     from waiting where run_id in (select id from woken)
                     on conflict on constraint inbox_pk do nothing),
                 done as (
                     update events e set told_at = now(), told = array(select id from woken)
                     from event where e.id = event.id)
                 select id from woken
                 union all
                 select unnest(told) from events where id = $1 and told_at is not null",
            )
            .await?;
        let rows = client.query(&statement, &[&id.0]).await?;
        Ok(Told { id, runs: rows.iter().map(|row| RunId(row.get(0))).collect() })
    }

    /// Tells what nobody was told of yet; gives the runs that were told.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tell_untold(&self) -> Result<Vec<RunId>, StoreError> {
        let client = self.client().await?;
        let statement =
            client.prepare_cached("select id from events where told_at is null order by at limit $1").await?;
        let untold = client.query(&statement, &[&BATCH]).await?;
        drop(client);
        let mut runs = Vec::new();
        for row in untold {
            runs.extend(self.tell(HappeningId(row.get(0))).await?.runs);
        }
        Ok(runs)
    }

    /// The first event of a topic that came since `since` and is none of `heard`.
    ///
    /// # Errors
    /// When the database does not answer or the row cannot be read.
    pub async fn event_since(
        &self,
        topic: &Topic,
        since: Timestamp,
        heard: &[HappeningId],
    ) -> Result<Option<Happening>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select id, data, label from events
                 where name = $1 and match = $2 and at >= $3 and not (id = any($4)) order by at, id limit 1",
            )
            .await?;
        let heard: Vec<Uuid> = heard.iter().map(|id| id.0).collect();
        let row = client.query_opt(&statement, &[&topic.event, &topic.matches, &since, &heard]).await?;
        row.map(|row| {
            let label: &str = row.get(2);
            Ok(Happening {
                id: HappeningId(row.get(0)),
                topic: topic.clone(),
                data: row.get(1),
                label: serde_json::from_value(json!(label))
                    .map_err(|error| StoreError::corrupt("the label of an event", error))?,
                key: None,
            })
        })
        .transpose()
    }
}

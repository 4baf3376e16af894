//! Inputs that triggers gather before a run opens, in groups.
//!
//! Adding locks the group's row before anything else, as closing does: an input joins an open group, or
//! begins the next one, and what is in a closed group never changes.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::domain::gather::Gather;
use crate::domain::ids::{RunId, WorkflowName};
use crate::domain::label::Label;
use crate::store::{Store, StoreError};

/// How long the key of an input that has opened its run is kept: the same delivery again within this time
/// counts once. Mail servers give up after five days, webhook senders after three.
const KEEP_KEYS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Keys forgotten at a time, so that no statement takes long.
const FORGET: i64 = 1_000;

/// Groups taken at a time, so that their inputs fit into memory.
const TAKE: i64 = 16;

/// An input to gather.
#[derive(Clone, PartialEq, Debug)]
pub struct NewItem<'a> {
    /// The workflow whose run it is for.
    pub workflow: &'a WorkflowName,
    /// The trigger it came through, such as `webhook:orders`.
    pub trigger: &'a str,
    /// What the trigger's template makes of it: inputs with the same key belong together.
    pub key: &'a str,
    /// How the trigger gathers.
    pub gather: &'a Gather,
    /// The delivery's own key: the same again counts once.
    pub item_key: &'a str,
    /// The input.
    pub input: &'a Value,
    /// Where it came from.
    pub label: Label,
    /// The present moment.
    pub at: Timestamp,
}

/// What became of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joined {
    /// It is in a group that opens its run at this moment, or earlier.
    New {
        /// The group.
        group: Uuid,
        /// When.
        due_at: Timestamp,
        /// Whether the group takes no more, and is due now.
        full: bool,
    },
    /// The same delivery is in a group already; nothing was added.
    Again(Option<Timestamp>),
    /// The same delivery has its run already.
    Opened(RunId),
}

/// A group whose run is to be opened.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// Its id: the run's key is made from it.
    pub id: Uuid,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The trigger.
    pub trigger: String,
    /// A [`Gather`] as JSON.
    pub spec: Value,
    /// The inputs with their labels, in the order they came.
    pub items: Vec<(Label, Value)>,
}

/// A group as people look at it.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct GroupRow {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The trigger.
    pub trigger: String,
    /// What its inputs have in common.
    pub key: String,
    /// How many inputs have come.
    pub items: i32,
    /// When the first came.
    pub first_at: Timestamp,
    /// When its run opens.
    pub due_at: Timestamp,
    /// Why it could not be opened so far.
    pub problem: Option<String>,
}

impl Store {
    /// Adds an input to the open group of its key, or begins one. Gives back once it is durable.
    ///
    /// # Errors
    /// When the database does not answer; nothing was added then.
    pub async fn gather(&self, item: &NewItem<'_>) -> Result<Joined, StoreError> {
        if let Some(known) = self.gathered_before(item).await? {
            return Ok(known);
        }
        match self.join(item).await {
            // The same delivery came twice at the same moment, and the other was first.
            Err(StoreError::Constraint { constraint }) if constraint == "gathered_items_pk" => {
                let known = self.gathered_before(item).await?;
                known.ok_or(StoreError::Constraint { constraint })
            }
            joined => joined,
        }
    }

    async fn gathered_before(&self, item: &NewItem<'_>) -> Result<Option<Joined>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select coalesce(i.run_id, r.id), g.due_at
                 from (select $1::text as workflow, $2::text as key) k
                 left join gathered_items i on i.workflow = k.workflow and i.item_key = k.key
                 left join gathered g on g.id = i.group_id
                 left join runs r on r.workflow = k.workflow and r.idempotency_key = k.key
                 where i.item_key is not null or r.id is not null",
            )
            .await?;
        let found = client.query_opt(&statement, &[&item.workflow.as_str(), &item.item_key]).await?;
        Ok(found.map(|row| match row.get::<_, Option<Uuid>>(0) {
            Some(run) => Joined::Opened(RunId(run)),
            None => Joined::Again(row.get(1)),
        }))
    }

    async fn join(&self, item: &NewItem<'_>) -> Result<Joined, StoreError> {
        let spec =
            serde_json::to_value(item.gather).map_err(|error| StoreError::corrupt("a trigger", error))?;
        let bytes = i64::try_from(item.input.to_string().len()).unwrap_or(i64::MAX);
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        // The row's lock is held to the end: two inputs never get the same place. A group that is closed
        // meanwhile is no longer the one in the index, and a new one begins.
        let statement = transaction
            .prepare_cached(
                "insert into gathered as g
                     (id, workflow, trigger, key, spec, first_at, last_at, due_at, items, bytes)
                 values ($1, $2, $3, $4, $5, $6, $6, $6, 1, $7)
                 on conflict (workflow, trigger, key) where closed_at is null do update set
                     spec = excluded.spec, last_at = greatest(g.last_at, excluded.last_at),
                     items = g.items + 1, bytes = g.bytes + excluded.bytes
                 returning id, first_at, last_at, items, bytes",
            )
            .await?;
        let row = transaction
            .query_one(
                &statement,
                &[
                    &Uuid::now_v7(),
                    &item.workflow.as_str(),
                    &item.trigger,
                    &item.key,
                    &spec,
                    &item.at,
                    &bytes,
                ],
            )
            .await?;
        let (group, nth): (Uuid, i32) = (row.get(0), row.get(3));
        let full = item.gather.full(u32::try_from(nth).unwrap_or(u32::MAX), row.get(4));
        let due_at = if full { item.at } else { item.gather.due(row.get(1), row.get(2)) };
        let last_wins = matches!(item.gather, Gather::Debounce { .. });
        let statement = transaction
            .prepare_cached(
                "with due as (
                     update gathered set due_at = $2, closed_at = case when $3 then $4::timestamptz end where id = $1),
                 past as (
                     update gathered_items set input = null where $5 and group_id = $1 and input is not null)
                 insert into gathered_items (workflow, item_key, group_id, nth, at, label, input)
                 values ($6, $7, $1, $8, $4, $9, $10)",
            )
            .await?;
        transaction
            .execute(
                &statement,
                &[
                    &group,
                    &due_at,
                    &full,
                    &item.at,
                    &last_wins,
                    &item.workflow.as_str(),
                    &item.item_key,
                    &nth,
                    &item.label.as_str(),
                    item.input,
                ],
            )
            .await?;
        transaction.commit().await?;
        Ok(Joined::New { group, due_at, full })
    }

    /// Closes the groups that are due, the earliest first, at most sixteen: nothing joins them any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn close_due_groups(&self, now: Timestamp) -> Result<Vec<Uuid>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "update gathered set closed_at = coalesce(closed_at, $1)
                 where id in (select id from gathered where due_at <= $1
                              order by due_at limit $2 for update skip locked)
                 returning id",
            )
            .await?;
        Ok(client.query(&statement, &[&now, &TAKE]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// A closed group with its inputs; nothing when its run has been opened already.
    ///
    /// # Errors
    /// When the database does not answer or a row cannot be read.
    pub async fn closed_group(&self, id: Uuid) -> Result<Option<Group>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select workflow, trigger, spec from gathered where id = $1 and closed_at is not null",
            )
            .await?;
        let Some(row) = client.query_opt(&statement, &[&id]).await? else { return Ok(None) };
        let (workflow, trigger, spec) = (WorkflowName(row.get(0)), row.get(1), row.get(2));
        let statement = client
            .prepare_cached(
                "select label, input from gathered_items
                 where group_id = $1 and run_id is null and input is not null order by nth",
            )
            .await?;
        let mut items = Vec::new();
        for row in client.query(&statement, &[&id]).await? {
            let label = serde_json::from_value(Value::String(row.get(0)))
                .map_err(|error| StoreError::corrupt(format!("group {id}"), error))?;
            items.push((label, row.get(1)));
        }
        Ok(Some(Group { id, workflow, trigger, spec, items }))
    }

    /// Lets a group go whose run is durable. The keys of its inputs stay a while.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn settle_group(&self, id: Uuid, run: RunId) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "with gone as (delete from gathered where id = $1)
                 update gathered_items set run_id = $2, input = null where group_id = $1 and run_id is null",
            )
            .await?;
        client.execute(&statement, &[&id, &run.0]).await?;
        Ok(())
    }

    /// Puts a group off whose run cannot be opened; false when the reason is known already.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn defer_group(&self, id: Uuid, until: Timestamp, problem: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "
            with before as (select id, problem from gathered where id = $1 for update)
            update gathered g set due_at = $2, problem = $3 from before b where g.id = b.id
            returning b.problem is distinct from $3";
        Ok(client.query_opt(statement, &[&id, &until, &problem]).await?.is_some_and(|row| row.get(0)))
    }

    /// The groups that wait, those due first; at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn groups(&self, limit: i64) -> Result<Vec<GroupRow>, StoreError> {
        let statement = "select workflow, trigger, key, items, first_at, due_at, problem
            from gathered order by due_at limit $1";
        let rows = self.client().await?.query(statement, &[&limit]).await?;
        let row = |row: &tokio_postgres::Row| GroupRow {
            workflow: WorkflowName(row.get(0)),
            trigger: row.get(1),
            key: row.get(2),
            items: row.get(3),
            first_at: row.get(4),
            due_at: row.get(5),
            problem: row.get(6),
        };
        Ok(rows.iter().map(row).collect())
    }

    /// Forgets the keys of inputs that opened their runs long ago, a thousand at a time; gives how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_gathered(&self, now: Timestamp) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let before = now.checked_sub(KEEP_KEYS).unwrap_or(Timestamp::MIN);
        let statement = "delete from gathered_items where ctid in (
            select ctid from gathered_items where run_id is not null and at < $1 limit $2)";
        Ok(client.execute(statement, &[&before, &FORGET]).await?)
    }
}

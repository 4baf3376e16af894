//! Runs: claims, adoption, lists, and what a run is told through its inbox.

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::digest::Digest;
use crate::domain::ids::{EffectId, NodeId, RunId, StepId, WorkflowName};
use crate::domain::plan::ChildEnd;
use crate::store::journal::read::digest;
use crate::store::{Store, StoreError};

/// A run as its row shows it.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The version's digest.
    pub version: Digest,
    /// `queued`, `running`, `waiting`, `succeeded`, `declined`, `failed`, `cancelled`, `parked`.
    pub status: String,
    /// The number of its last journal entry.
    pub seq: i64,
    /// For the owner to recognise it by.
    pub title: String,
    /// The door it came through.
    pub trigger: String,
    /// The key that opens it only once; its id when it came without one.
    pub idempotency_key: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it is due to go on by itself.
    pub wake_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, workflow, version, status, seq, title, trigger, \
                       coalesce(idempotency_key, id::text), opened_at, finished_at, wake_at";

/// Steps from workflow to workflow through the index, and takes the first few due runs of each.
const CLAIM_IN_TURNS: &str = "
    with recursive names as (
        (select workflow from runs where wake_at is not null order by workflow limit 1)
        union all
        select (select r.workflow from runs r where r.wake_at is not null and r.workflow > n.workflow
                order by r.workflow limit 1)
        from names n where n.workflow is not null
    ),
    due as (
        select d.id, n.workflow, row_number() over (partition by n.workflow order by d.wake_at, d.id) as turn,
            n.workflow <= $3 as had_its_turn
        from names n cross join lateral (
            select r.id, r.wake_at from runs r
            where r.workflow = n.workflow and r.wake_at <= now() and r.node is null and r.finished_at is null
                and not exists (select from pauses p where p.scope in ('all', 'workflow:' || n.workflow))
            order by r.wake_at limit $2) as d
        order by turn, had_its_turn, n.workflow limit $2
    ),
    free as (
        select id from runs where id in (select id from due) and wake_at <= now() and node is null
        for update skip locked
    )
    update runs r set node = $1, wake_at = null
    from due d where r.id = d.id and r.id in (select id from free)
    returning r.id, d.workflow, d.turn, d.had_its_turn";

/// How the topics begin under which a run is told to call an effect back.
pub const CALL_BACK: &str = "call_back:";

/// What a run was told while it may not have listened.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// How many signals there have been, these included.
    pub signals: i32,
    /// Topics with their content, the oldest first.
    pub messages: Vec<(String, Value)>,
}

impl Inbox {
    /// Of the rows of `INBOX`.
    pub(super) fn of(rows: &[Row]) -> Self {
        let message = |row: &Row| Some((row.get::<_, Option<String>>(1)?, row.get::<_, Option<Value>>(2)?));
        let signals = rows.first().map_or(0, |row| row.get(0));
        Self { signals, messages: rows.iter().filter_map(message).collect() }
    }
}

pub(super) const INBOX: &str = "
    select r.signals, i.topic, i.data from runs r left join inbox i on i.run_id = r.id
    where r.id = $1 order by i.at";

/// Takes one run, if it is due. This is not flushed: nothing depends on whose the run is until its node writes
/// more of it, which flushes this along.
pub(super) const TAKE_RUN: &str = "
    update runs r set node = $1, wake_at = null
    where r.id = $2 and r.wake_at <= now() and r.node is null and r.finished_at is null
        and not exists (select from pauses p where p.scope in ('all', 'workflow:' || r.workflow))
        and exists (select from nodes where id = $1)
        and set_config('synchronous_commit', 'off', true) is not null";

/// Where a page of a list begins: behind this run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct After {
    /// When that run was opened.
    pub opened_at: Timestamp,
    /// That run.
    pub id: RunId,
}

/// What a list of runs is narrowed to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunFilter {
    /// Only this status.
    pub status: Option<String>,
    /// Only this workflow.
    pub workflow: Option<String>,
}

impl Store {
    /// Takes up to `limit` sleeping runs that are due; each is given to one node only. A node that has
    /// lost its lease gets none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_due(&self, node: NodeId, limit: i64) -> Result<Vec<RunId>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "update runs set node = $1, wake_at = null
                 where id in (select id from runs where wake_at <= now() and node is null and finished_at is null
                                and not exists (select from pauses p
                                                where p.scope in ('all', 'workflow:' || runs.workflow))
                              order by wake_at for update skip locked limit $2)
                   and exists (select from nodes where id = $1)
                 returning id",
            )
            .await?;
        let rows = client.query(&statement, &[&node.0, &limit]).await?;
        Ok(rows.iter().map(|row| RunId(row.get(0))).collect())
    }

    /// As [`Store::claim_due`], for a node with little room: each workflow in turn, beginning behind
    /// `after`, so that a flood of one that is due leaves room to the others. Gives the workflow of the
    /// last one taken.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_due_in_turns(
        &self,
        node: NodeId,
        limit: i64,
        after: &str,
    ) -> Result<(Vec<RunId>, Option<String>), StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(CLAIM_IN_TURNS).await?;
        let rows = client.query(&statement, &[&node.0, &limit, &after]).await?;
        let last = rows.iter().map(|row| (row.get::<_, i64>(2), row.get::<_, bool>(3), row.get(1))).max();
        Ok((rows.iter().map(|row| RunId(row.get(0))).collect(), last.map(|(_, _, workflow)| workflow)))
    }

    /// Gives a run back that its node cannot go on with right now; due again at `wake_at`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release(&self, node: NodeId, run: RunId, wake_at: Timestamp) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "update runs set node = null, wake_at = $3 where id = $1 and node = $2";
        client.execute(statement, &[&run.0, &node.0, &wake_at]).await?;
        Ok(())
    }

    /// The runs that name a node as their owner, and whether their inbox holds something.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn runs_of(&self, node: NodeId) -> Result<Vec<(RunId, bool)>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select r.id, exists (select from inbox i where i.run_id = r.id) from runs r where r.node = $1",
            )
            .await?;
        let owned = client.query(&statement, &[&node.0]).await?;
        Ok(owned.iter().map(|row| (RunId(row.get(0)), row.get(1))).collect())
    }

    /// Withdraws the open questions of a run that ended without being able to: it was parked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn withdraw_all(&self, run: RunId) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "
            with proposals as (update effects set status = 'withdrawn', ended_at = now()
                               where run_id = $1 and status = 'proposed')
            update reviews set status = 'superseded', decided_at = now() where run_id = $1 and status = 'open'";
        client.execute(statement, &[&run.0]).await?;
        Ok(())
    }

    /// Counts one more crash of a run's actor; gives the count, or nothing when the run is another
    /// node's now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_crash(&self, node: NodeId, run: RunId) -> Result<Option<i16>, StoreError> {
        let client = self.client().await?;
        let statement = "update runs set crashes = crashes + 1 where id = $1 and node = $2 returning crashes";
        Ok(client.query_opt(statement, &[&run.0, &node.0]).await?.map(|row| row.get(0)))
    }

    /// Lets a run that was parked try anew.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_crashes(&self, run: RunId) -> Result<(), StoreError> {
        self.client().await?.execute("update runs set crashes = 0 where id = $1", &[&run.0]).await?;
        Ok(())
    }

    /// Gives up a run that is parked already: its review is open.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release_parked(&self, node: NodeId, run: RunId) -> Result<(), StoreError> {
        let statement =
            "update runs set node = null, wake_at = null, status = 'parked' where id = $1 and node = $2";
        self.client().await?.execute(statement, &[&run.0, &node.0]).await?;
        Ok(())
    }

    /// How a run ended that another one waits for; `None` while it has not.
    ///
    /// # Errors
    /// When the database does not answer or its last entry cannot be read.
    pub async fn child_end(&self, run: RunId) -> Result<Option<ChildEnd>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select r.status, j.data, j.label from runs r join journal j on j.run_id = r.id and j.seq = r.seq
                 where r.id = $1 and r.finished_at is not null",
            )
            .await?;
        let Some(row) = client.query_opt(&statement, &[&run.0]).await? else { return Ok(None) };
        let (data, label): (Option<Value>, &str) = (row.get(1), row.get(2));
        let data = data.unwrap_or_default();
        Ok(Some(ChildEnd {
            run,
            outcome: row.get(0),
            reason: data["reason"].as_str().unwrap_or_default().to_owned(),
            output: data.get("output").cloned().unwrap_or_default(),
            label: serde_json::from_value(json!(label))
                .map_err(|error| StoreError::corrupt(format!("the last entry of run {run}"), error))?,
        }))
    }

    /// About how many runs there are, as PostgreSQL last counted: for progress, not for decisions.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn run_estimate(&self) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let statement = "select greatest(reltuples, 0)::int8 from pg_class where oid = 'runs'::regclass";
        Ok(client.query_one(statement, &[]).await?.get(0))
    }

    /// What a run has been told and has not heard yet.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn inbox(&self, run: RunId) -> Result<Inbox, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(INBOX).await?;
        Ok(Inbox::of(&client.query(&statement, &[&run.0]).await?))
    }

    /// Asks a run to stop. One that is queued leaves the queue: it has nothing to wait for any more, and
    /// gives its place on as if it were a slot. Gives false when it has ended already or does not exist.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn request_cancel(&self, run: RunId, by: &str) -> Result<bool, StoreError> {
        self.tell_run(run, "cancel", &json!({"by": by}), true).await
    }

    /// Asks a run not to let a held effect go out. Gives false when the run has ended or does not exist.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn request_call_back(
        &self,
        run: RunId,
        effect: EffectId,
        by: &str,
    ) -> Result<bool, StoreError> {
        self.tell_run(run, &format!("{CALL_BACK}{effect}"), &json!({"by": by}), false).await
    }

    /// Holds a run, or lets it go on. Gives false when it has ended or does not exist.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn request_hold(&self, run: RunId, hold: bool, by: &str) -> Result<bool, StoreError> {
        // A topic of its own for each word: two of them in a row must both be heard, in their order.
        self.tell_run(run, &format!("hold:{}", Uuid::now_v7()), &json!({"by": by, "hold": hold}), false).await
    }

    /// Tells a run that has not ended. Of two messages on one topic that it has not heard, the first counts.
    /// One that is queued hears it at once if it `leaves` the queue for it, or else when its turn comes.
    async fn tell_run(
        &self,
        run: RunId,
        topic: &str,
        data: &Value,
        leaves: bool,
    ) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "
            with told as (
                update runs
                set signals = signals + 1,
                    wake_at = case when node is null and (status <> 'queued' or $4) then now() else wake_at end,
                    status = case when status = 'queued' and $4 then 'running' else status end
                where id = $1 and finished_at is null
                returning id),
            gone as (
                delete from queue q using told t where q.run_id = t.id and $4
                returning q.run_id, q.workflow, q.flow_key, q.slots),
            given_on as (
                insert into slots (run_id, workflow, flow_key, freed)
                select run_id, workflow, flow_key, true from gone where slots is not null
                on conflict on constraint slots_pk do update set freed = true),
            kept as (
                insert into inbox (run_id, topic, data) select id, $2, $3 from told
                on conflict on constraint inbox_pk do nothing)
            select id from told";
        Ok(client.query_opt(statement, &[&run.0, &topic, data, &leaves]).await?.is_some())
    }

    /// Lets an ended run go on, from a step or from where it failed. Gives false when it has not ended or
    /// does not exist.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn request_reopen(
        &self,
        run: RunId,
        from: Option<&StepId>,
        repeat: bool,
        by: &str,
    ) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let statement = "
            with told as (
                update runs
                set signals = signals + 1, wake_at = now(), finished_at = null, status = 'waiting', crashes = 0
                where id = $1 and finished_at is not null
                returning id),
            kept as (
                insert into inbox (run_id, topic, data) select id, 'reopen', $2 from told
                on conflict on constraint inbox_pk do update set data = excluded.data, at = now())
            select id from told";
        let data = json!({"by": by, "from": from, "repeat": repeat});
        Ok(client.query_opt(statement, &[&run.0, &data]).await?.is_some())
    }

    /// One run's row.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn run_row(&self, run: RunId) -> Result<Option<RunRow>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(&format!("select {COLUMNS} from runs where id = $1")).await?;
        client.query_opt(&statement, &[&run.0]).await?.as_ref().map(run_row).transpose()
    }

    /// Runs that are not over, the newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn runs_in_motion(&self, limit: i64) -> Result<Vec<RunRow>, StoreError> {
        let client = self.client().await?;
        // Each status by itself, so that the index has the newest of them at hand.
        let sql = format!(
            "select {COLUMNS} from runs where id in (
                select r.id from unnest(array['queued', 'running', 'waiting', 'paused', 'parked']) as s (status)
                cross join lateral (
                    select id from runs where status = s.status and status <> 'succeeded' and finished_at is null
                    order by id desc limit $1) as r)
             order by id desc limit $1"
        );
        let statement = client.prepare_cached(&sql).await?;
        client.query(&statement, &[&limit]).await?.iter().map(run_row).collect()
    }

    /// Runs, the newest first, at most `limit` behind `after`. An id carries the time its run was opened at,
    /// so the primary key has them in that order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<After>,
        limit: i64,
    ) -> Result<Vec<RunRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(&format!(
                "select {COLUMNS} from runs
                 where ($1::text is null or status = $1) and ($2::text is null or workflow = $2)
                   and ($3::uuid is null or id < $3)
                 order by id desc limit $4"
            ))
            .await?;
        let after = after.map(|after| after.id.0);
        let rows = client.query(&statement, &[&filter.status, &filter.workflow, &after, &limit]).await?;
        rows.iter().map(run_row).collect()
    }
}

fn run_row(row: &Row) -> Result<RunRow, StoreError> {
    Ok(RunRow {
        id: RunId(row.get(0)),
        workflow: WorkflowName(row.get(1)),
        version: digest(row, 2)?,
        status: row.get(3),
        seq: row.get(4),
        title: row.get(5),
        trigger: row.get(6),
        idempotency_key: row.get(7),
        opened_at: row.get(8),
        finished_at: row.get(9),
        wake_at: row.get(10),
    })
}

//! The statements of the group commit. Each batch is one statement; the narrow one, for batches of
//! pure steps, leaves the arms out that such a batch has no rows for.
//!
//! `(… in (select …)) is true` keeps PostgreSQL from turning the test into a join: it cannot know how
//! long the arrays are, takes them for ten rows, and would join by nested loops, which is quadratic in
//! the batch. As a hashed subplan the test is linear. `(r.node = $1) is true` keeps it from starting
//! with all runs of the node instead of with the runs of the batch.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Statement};
use uuid::Uuid;

use crate::domain::event::Event;
use crate::domain::ids::{NodeId, RunId};
use crate::domain::plan::{EffectKey, Rest};
use crate::store::StoreError;
use crate::store::journal::rows::Rows;
use crate::store::journal::{Commit, CommitError, Open, Opened, Sealed};

const ACCEPT: &str = "
    with t as (
        select * from unnest($2::uuid[], $3::int8[], $4::int8[], $5::text[], $6::timestamptz[], $7::bool[],
            $8::timestamptz[], $9::int4[])
            as t (run_id, expected, seq, status, wake_at, release, finished_at, signals)
    ),
    accepted as (
        update runs r
        set seq = t.seq,
            status = t.status,
            node = case when t.release then null else r.node end,
            wake_at = case
                when t.finished_at is null and t.release and r.signals > t.signals then now()
                else t.wake_at end,
            finished_at = t.finished_at
        from t
        where r.id = t.run_id and (r.node = $1) is true and r.seq = t.expected
        returning r.id
    ),
    appended as (
        insert into journal (run_id, seq, kind, at, actor, label, data, data_digest, hash)
        select e.run_id, e.seq, e.kind, e.at, e.actor, e.label, e.data::jsonb, e.data_digest, e.hash
        from unnest($10::uuid[], $11::int8[], $12::text[], $13::timestamptz[], $14::text[], $15::text[],
            $16::text[], $17::bytea[], $18::bytea[])
            as e (run_id, seq, kind, at, actor, label, data, data_digest, hash)
        where (e.run_id in (select id from accepted)) is true
    )";

const WIDE_ARMS: &str = ",
    proposed as (
        insert into effects (id, run_id, step, attempt, action, dedupe_key, digest, request, labels, status,
            proposed_at, started_at)
        select e.id, e.run_id, e.step, e.attempt, e.action, e.key, e.digest, e.request::jsonb, e.labels::jsonb,
            e.status, e.at, e.started_at
        from unnest($19::uuid[], $20::uuid[], $21::text[], $22::int4[], $23::text[], $24::text[], $25::bytea[],
            $26::text[], $27::text[], $28::text[], $29::timestamptz[], $30::timestamptz[])
            as e (id, run_id, step, attempt, action, key, digest, request, labels, status, at, started_at)
        where (e.run_id in (select id from accepted)) is true
    ),
    changed as (
        update effects f
        set status = e.status,
            digest = coalesce(e.digest, f.digest),
            request = coalesce(e.request::jsonb, f.request),
            response = coalesce(e.response::jsonb, f.response),
            started_at = coalesce(f.started_at, e.started_at),
            ended_at = coalesce(e.ended_at, f.ended_at)
        from unnest($31::uuid[], $32::uuid[], $33::text[], $34::bytea[], $35::text[], $36::text[],
            $37::timestamptz[], $38::timestamptz[])
            as e (id, run_id, status, digest, request, response, started_at, ended_at)
        where f.id = e.id and (e.run_id in (select id from accepted)) is true
    ),
    asked as (
        insert into reviews (id, run_id, step, ask, digest, title, question, opened_at, due_at)
        select q.id, q.run_id, q.step, q.ask, q.digest, q.title, q.question::jsonb, q.opened_at, q.due_at
        from unnest($39::uuid[], $40::uuid[], $41::text[], $42::text[], $43::bytea[], $44::text[], $45::text[],
            $46::timestamptz[], $47::timestamptz[])
            as q (id, run_id, step, ask, digest, title, question, opened_at, due_at)
        where (q.run_id in (select id from accepted)) is true
    ),
    closed as (
        update reviews v
        set status = case when q.superseded and v.status = 'open' then 'superseded' else v.status end,
            decided_at = coalesce(v.decided_at, q.at),
            consumed_at = coalesce(v.consumed_at, q.at)
        from unnest($48::uuid[], $49::uuid[], $50::bool[], $51::timestamptz[]) as q (id, run_id, superseded, at)
        where v.id = q.id and (q.run_id in (select id from accepted)) is true
    ),
    heard as (
        delete from inbox i
        using unnest($52::uuid[], $53::text[]) as h (run_id, topic)
        where (h.run_id in (select id from accepted)) is true and i.run_id = h.run_id and i.topic = h.topic
    )";

const OPEN: &str = "
    with t as (
        select * from unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::timestamptz[], $6::text[],
            $7::text[], $8::text[], $9::timestamptz[])
            as t (id, workflow, version, node, wake_at, title, trigger, key, at)
    ),
    opened as (
        insert into runs (id, workflow, version, status, seq, node, wake_at, title, trigger, idempotency_key, opened_at)
        select id, workflow, version, 'running', 1, node, wake_at, title, trigger, key, at from t
        on conflict on constraint runs_idempotency_key do nothing
        returning id
    ),
    appended as (
        insert into journal (run_id, seq, kind, at, actor, label, data, data_digest, hash)
        select e.run_id, e.seq, e.kind, e.at, e.actor, e.label, e.data::jsonb, e.data_digest, e.hash
        from unnest($10::uuid[], $11::int8[], $12::text[], $13::timestamptz[], $14::text[], $15::text[],
            $16::text[], $17::bytea[], $18::bytea[])
            as e (run_id, seq, kind, at, actor, label, data, data_digest, hash)
        where (e.run_id in (select id from opened)) is true
    )
    select id from opened";

/// These statements reach every row by its key. Told so, PostgreSQL plans them once and for all: left
/// to its estimates it plans for the empty tables of the first day, and reads the whole of `runs`
/// for every batch once they are not empty any more.
const PLANNING: &str = "
    set plan_cache_mode = force_generic_plan;
    set enable_seqscan = off;
    set enable_bitmapscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off;";

/// One connection that writes batches.
pub struct Writer {
    client: Client,
    narrow: Statement,
    wide: Statement,
    open: Statement,
    existing: Statement,
    landed: Statement,
}

/// Where a run stands, for a commit whose answer was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Landed {
    /// It is in the journal.
    Yes,
    /// It is not, and may still be written.
    No,
    /// It is not, and somebody else owns the run.
    Never,
}

impl Writer {
    /// Connects and prepares.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn connect(config: &Config) -> Result<Self, StoreError> {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "the journal's connection ended");
            }
        });
        client.batch_execute(PLANNING).await?;
        let narrow = client.prepare(&format!("{ACCEPT} select id from accepted")).await?;
        let wide = client.prepare(&format!("{ACCEPT}{WIDE_ARMS} select id from accepted")).await?;
        let open = client.prepare(OPEN).await?;
        let existing =
            client.prepare("select id from runs where workflow = $1 and idempotency_key = $2").await?;
        let landed = client
            .prepare(
                "select r.seq, r.node, j.hash from runs r
                 left join journal j on j.run_id = r.id and j.seq = $2 where r.id = $1",
            )
            .await?;
        Ok(Self { client, narrow, wide, open, existing, landed })
    }

    /// Whether the connection is lost.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Writes a batch of commits of one node in one statement; gives the runs that were accepted.
    ///
    /// # Errors
    /// When the statement fails: then none of them landed, or, if the connection broke, nobody knows.
    pub async fn write(&self, node: NodeId, commits: &[&Commit]) -> Result<Vec<RunId>, StoreError> {
        let runs = RunRows::of(commits);
        let entries = EntryRows::of(commits.iter().flat_map(|c| c.entries.iter().map(|e| (c.run, e))));
        let rows = Rows::of(commits);
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&node.0];
        runs.push(&mut params);
        entries.push(&mut params);
        if rows.is_empty() {
            return self.accepted(&self.narrow, &params).await;
        }
        push_rows(&rows, &mut params);
        self.accepted(&self.wide, &params).await
    }

    async fn accepted(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<RunId>, StoreError> {
        let rows = self.client.query(statement, params).await?;
        Ok(rows.iter().map(|row| RunId(row.get(0))).collect())
    }

    /// Opens a batch of runs in one statement.
    ///
    /// # Errors
    /// As [`Writer::write`]; repeating it is harmless.
    pub async fn open(&self, opens: &[&Open]) -> Result<Vec<Opened>, StoreError> {
        let id: Vec<Uuid> = opens.iter().map(|o| o.run.0).collect();
        let workflow: Vec<&str> = opens.iter().map(|o| o.workflow.as_str()).collect();
        let version: Vec<&[u8]> = opens.iter().map(|o| &o.version.0[..]).collect();
        let node: Vec<Option<Uuid>> = opens.iter().map(|o| o.node.map(|n| n.0)).collect();
        let at: Vec<Timestamp> = opens.iter().map(|o| o.entry.at).collect();
        let wake_at: Vec<Option<Timestamp>> =
            opens.iter().map(|o| o.node.is_none().then_some(o.entry.at)).collect();
        let title: Vec<&str> = opens.iter().map(|o| o.title.as_str()).collect();
        let trigger: Vec<&str> = opens.iter().map(|o| o.trigger.as_str()).collect();
        let key: Vec<&str> = opens.iter().map(|o| o.key.as_str()).collect();
        let entries = EntryRows::of(opens.iter().map(|o| (o.run, &o.entry)));
        let mut params: Vec<&(dyn ToSql + Sync)> =
            vec![&id, &workflow, &version, &node, &wake_at, &title, &trigger, &key, &at];
        entries.push(&mut params);
        let new = self.accepted(&self.open, &params).await?;
        let mut opened = Vec::with_capacity(opens.len());
        for open in opens {
            opened.push(if new.contains(&open.run) {
                Opened::New(open.run)
            } else {
                self.existing(open).await?
            });
        }
        Ok(opened)
    }

    /// A run that had the key already; it is our own when an earlier answer was lost.
    async fn existing(&self, open: &Open) -> Result<Opened, StoreError> {
        let row = self.client.query_one(&self.existing, &[&open.workflow.as_str(), &open.key]).await?;
        let run = RunId(row.get(0));
        Ok(if run == open.run { Opened::New(run) } else { Opened::Existing(run) })
    }

    /// Whether a commit whose answer was lost is in the journal.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn landed(&self, commit: &Commit) -> Result<Landed, StoreError> {
        let Some(last) = commit.entries.last() else { return Ok(Landed::No) };
        let Some(row) = self.client.query_opt(&self.landed, &[&commit.run.0, &last.seq]).await? else {
            return Ok(Landed::Never);
        };
        let (seq, node, hash): (i64, Option<Uuid>, Option<Vec<u8>>) = (row.get(0), row.get(1), row.get(2));
        Ok(match hash {
            Some(hash) if hash == last.hash.0 => Landed::Yes,
            Some(_) => Landed::Never,
            None if seq == commit.expected_seq && node == Some(commit.node.0) => Landed::No,
            None => Landed::Never,
        })
    }
}

/// What a refused single commit means.
#[must_use]
pub fn refused(commit: &Commit, error: StoreError) -> CommitError {
    let proposal = commit.entries.iter().find_map(|entry| match &entry.event {
        Event::EffectProposed(proposal) => Some(proposal),
        _ => None,
    });
    match (error.constraint(), proposal) {
        (Some("effects_dedupe_key"), Some(proposal)) => CommitError::KeyTaken(EffectKey {
            action: proposal.action.action.clone(),
            key: proposal.key.clone(),
        }),
        _ => CommitError::Store(error),
    }
}

struct RunRows {
    id: Vec<Uuid>,
    expected: Vec<i64>,
    seq: Vec<i64>,
    status: Vec<&'static str>,
    wake_at: Vec<Option<Timestamp>>,
    release: Vec<bool>,
    finished_at: Vec<Option<Timestamp>>,
    signals: Vec<i32>,
}

impl RunRows {
    fn of(commits: &[&Commit]) -> Self {
        let wake_at = |c: &&Commit| match c.rest {
            Rest::Asleep { wake_at } if !c.nap => wake_at,
            _ => None,
        };
        Self {
            id: commits.iter().map(|c| c.run.0).collect(),
            expected: commits.iter().map(|c| c.expected_seq).collect(),
            seq: commits.iter().map(|c| c.expected_seq + c.entries.len() as i64).collect(),
            status: commits.iter().map(|c| c.rest.status().as_str()).collect(),
            wake_at: commits.iter().map(wake_at).collect(),
            release: commits.iter().map(|c| c.rest != Rest::Busy && !c.nap).collect(),
            finished_at: commits.iter().map(|c| matches!(c.rest, Rest::Over(_)).then_some(c.at)).collect(),
            signals: commits.iter().map(|c| c.signals).collect(),
        }
    }

    fn push<'a>(&'a self, params: &mut Vec<&'a (dyn ToSql + Sync)>) {
        params.extend::<[&(dyn ToSql + Sync); 8]>([
            &self.id,
            &self.expected,
            &self.seq,
            &self.status,
            &self.wake_at,
            &self.release,
            &self.finished_at,
            &self.signals,
        ]);
    }
}

struct EntryRows<'e> {
    run_id: Vec<Uuid>,
    seq: Vec<i64>,
    kind: Vec<&'e str>,
    at: Vec<Timestamp>,
    actor: Vec<&'e str>,
    label: Vec<&'static str>,
    data: Vec<&'e str>,
    digest: Vec<&'e [u8]>,
    hash: Vec<&'e [u8]>,
}

impl<'e> EntryRows<'e> {
    fn of(entries: impl Iterator<Item = (RunId, &'e Sealed)>) -> Self {
        let mut rows = Self {
            run_id: Vec::new(),
            seq: Vec::new(),
            kind: Vec::new(),
            at: Vec::new(),
            actor: Vec::new(),
            label: Vec::new(),
            data: Vec::new(),
            digest: Vec::new(),
            hash: Vec::new(),
        };
        for (run, entry) in entries {
            rows.run_id.push(run.0);
            rows.seq.push(entry.seq);
            rows.kind.push(&entry.kind);
            rows.at.push(entry.at);
            rows.actor.push(&entry.actor);
            rows.label.push(entry.label.as_str());
            rows.data.push(&entry.data);
            rows.digest.push(&entry.data_digest.0);
            rows.hash.push(&entry.hash.0);
        }
        rows
    }

    fn push<'a>(&'a self, params: &mut Vec<&'a (dyn ToSql + Sync)>) {
        params.extend::<[&(dyn ToSql + Sync); 9]>([
            &self.run_id,
            &self.seq,
            &self.kind,
            &self.at,
            &self.actor,
            &self.label,
            &self.data,
            &self.digest,
            &self.hash,
        ]);
    }
}

fn push_rows<'a>(rows: &'a Rows, params: &mut Vec<&'a (dyn ToSql + Sync)>) {
    let new = &rows.new_effects;
    params.extend::<[&(dyn ToSql + Sync); 12]>([
        &new.id,
        &new.run_id,
        &new.step,
        &new.attempt,
        &new.action,
        &new.key,
        &new.digest,
        &new.request,
        &new.labels,
        &new.status,
        &new.at,
        &new.started_at,
    ]);
    let changed = &rows.changed_effects;
    params.extend::<[&(dyn ToSql + Sync); 8]>([
        &changed.id,
        &changed.run_id,
        &changed.status,
        &changed.digest,
        &changed.request,
        &changed.response,
        &changed.started_at,
        &changed.ended_at,
    ]);
    let asked = &rows.new_reviews;
    params.extend::<[&(dyn ToSql + Sync); 9]>([
        &asked.id,
        &asked.run_id,
        &asked.step,
        &asked.ask,
        &asked.digest,
        &asked.title,
        &asked.question,
        &asked.opened_at,
        &asked.due_at,
    ]);
    let closed = &rows.closed_reviews;
    params.extend::<[&(dyn ToSql + Sync); 4]>([&closed.id, &closed.run_id, &closed.superseded, &closed.at]);
    params.extend::<[&(dyn ToSql + Sync); 2]>([&rows.heard.run_id, &rows.heard.topic]);
}

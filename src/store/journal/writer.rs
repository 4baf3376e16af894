//! One connection that writes batches: gathers the columns of a batch and sends them as one of the
//! statements.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Statement};
use uuid::Uuid;

use crate::domain::event::Event;
use crate::domain::ids::{NodeId, RunId};
use crate::domain::plan::{EffectKey, Rest};
use crate::store::StoreError;
use crate::store::journal::queue::{FREED_ARM, QUEUED_ARM, QueueRows, freed};
use crate::store::journal::rows::Rows;
use crate::store::journal::statements::{ACCEPT, OPEN, PLANNING, SINGLE, SINGLE_KEPT, WIDE_ARMS};
use crate::store::journal::{Commit, CommitError, Open, Opened, Sealed};

/// One connection that writes batches.
pub struct Writer {
    client: Client,
    single: Statement,
    single_kept: Statement,
    narrow: Statement,
    wide: Statement,
    wide_freeing: Statement,
    open: Statement,
    open_keyless: Statement,
    open_queued: Statement,
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
        let single = client.prepare(SINGLE).await?;
        let single_kept = client.prepare(SINGLE_KEPT).await?;
        let narrow = client.prepare(&format!("{ACCEPT} select id from accepted")).await?;
        let wide = client.prepare(&format!("{ACCEPT}{WIDE_ARMS} select id from accepted")).await?;
        let wide_freeing =
            client.prepare(&format!("{ACCEPT}{WIDE_ARMS}{FREED_ARM} select id from accepted")).await?;
        let open = client.prepare(&format!("{OPEN} select id from opened")).await?;
        let open_queued = client.prepare(&format!("{OPEN}{QUEUED_ARM} select id from opened")).await?;
        let keyless = OPEN.replace("on conflict do nothing", "");
        let open_keyless = client.prepare(&format!("{keyless} select id from opened")).await?;
        let existing = client
            .prepare(
                "select id from runs where workflow = $1 and idempotency_key = $2
                 union all select id from runs where id = $3 limit 1",
            )
            .await?;
        let landed = client
            .prepare(
                "select r.seq, r.node, j.hash from runs r
                 left join journal j on j.run_id = r.id and j.seq = $2 where r.id = $1",
            )
            .await?;
        Ok(Self {
            client,
            single,
            single_kept,
            narrow,
            wide,
            wide_freeing,
            open,
            open_queued,
            open_keyless,
            existing,
            landed,
        })
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
        let freed = freed(commits);
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&node.0];
        if rows.is_empty()
            && freed.is_empty()
            && let (Some(run), Some(entry)) = (runs.only(), entries.only())
        {
            let kept = runs.keeps == [true];
            params.extend(if kept { &run[..2] } else { &run[..] });
            params.extend(entry);
            return self.accepted(if kept { &self.single_kept } else { &self.single }, &params).await;
        }
        runs.push(&mut params);
        entries.push(&mut params);
        params.push(&runs.keeps);
        if rows.is_empty() && freed.is_empty() {
            return self.accepted(&self.narrow, &params).await;
        }
        push_rows(&rows, &mut params);
        if freed.is_empty() {
            return self.accepted(&self.wide, &params).await;
        }
        params.push(&freed);
        self.accepted(&self.wide_freeing, &params).await
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
        // Without an owner and a turn to wait for, it is due at once: no run is without a way on.
        let lost = |o: &&Open| o.node.is_none() && o.queued.is_none();
        let wake_at: Vec<Option<Timestamp>> = opens.iter().map(|o| lost(o).then_some(o.entry.at)).collect();
        let title: Vec<&str> = opens.iter().map(|o| o.title.as_str()).collect();
        let trigger: Vec<&str> = opens.iter().map(|o| o.trigger.as_str()).collect();
        let key: Vec<&str> = opens.iter().map(|o| o.key.as_str()).collect();
        let entries = EntryRows::of(opens.iter().map(|o| (o.run, &o.entry)));
        let mut params: Vec<&(dyn ToSql + Sync)> =
            vec![&id, &workflow, &version, &node, &wake_at, &title, &trigger, &key, &at];
        entries.push(&mut params);
        // Without a key nothing can be in the way but an earlier try whose answer was lost; looking out for
        // that beforehand would cost each row a record in the log.
        let keyless = opens.iter().all(|open| open.key == open.run.to_string());
        let queued = QueueRows::of(opens);
        let (first, careful) = match queued.is_empty() {
            true => (if keyless { &self.open_keyless } else { &self.open }, &self.open),
            false => (&self.open_queued, &self.open_queued),
        };
        if !queued.is_empty() {
            queued.push(&mut params);
        }
        let new = match self.accepted(first, &params).await {
            Err(error) if error.constraint() == Some("runs_pk") => self.accepted(careful, &params).await?,
            opened => opened?,
        };
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
        let row =
            self.client.query_one(&self.existing, &[&open.workflow.as_str(), &open.key, &open.run.0]).await?;
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
            None if seq <= commit.expected_seq && node == Some(commit.node.0) => Landed::No,
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
        // Another node was faster with the same number.
        (Some(constraint), _) if is_journal_key(constraint) => CommitError::Fenced,
        (Some("effects_dedupe_key"), Some(proposal)) => CommitError::KeyTaken(EffectKey {
            action: proposal.action.action.clone(),
            key: proposal.key.clone(),
        }),
        _ => CommitError::Store(error),
    }
}

/// Each partition of the journal has the key under a name of its own.
fn is_journal_key(constraint: &str) -> bool {
    constraint.starts_with("journal_") && (constraint.ends_with("_pk") || constraint.ends_with("_pkey"))
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
    keeps: Vec<bool>,
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
            keeps: commits.iter().map(|c| c.keeps_row()).collect(),
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

    /// The columns of the one row, if there is just one.
    fn only(&self) -> Option<[&(dyn ToSql + Sync); 8]> {
        let [id] = &self.id[..] else { return None };
        Some([
            id,
            self.expected.first()?,
            self.seq.first()?,
            self.status.first()?,
            self.wake_at.first()?,
            self.release.first()?,
            self.finished_at.first()?,
            self.signals.first()?,
        ])
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

    /// The columns of the one row, if there is just one; without the run, which the transition names.
    fn only(&self) -> Option<[&(dyn ToSql + Sync); 7]> {
        let [seq] = &self.seq[..] else { return None };
        Some([
            seq,
            self.kind.first()?,
            self.at.first()?,
            self.actor.first()?,
            self.label.first()?,
            self.data.first()?,
            self.hash.first()?,
        ])
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
    let waits = &rows.new_waits;
    params.extend::<[&(dyn ToSql + Sync); 4]>([&waits.run_id, &waits.step, &waits.name, &waits.matches]);
    params.extend::<[&(dyn ToSql + Sync); 2]>([&rows.ended_waits.run_id, &rows.ended_waits.step]);
    let events = &rows.new_events;
    params.extend::<[&(dyn ToSql + Sync); 6]>([
        &events.id,
        &events.run_id,
        &events.name,
        &events.matches,
        &events.data,
        &events.label,
    ]);
    let settled = &rows.settled;
    params.extend::<[&(dyn ToSql + Sync); 4]>([&settled.id, &settled.run_id, &settled.cost, &settled.at]);
    params.extend::<[&(dyn ToSql + Sync); 2]>([&new.goes_at, &changed.goes_at]);
}

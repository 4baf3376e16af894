//! Reading runs for the checker: rows, journal, effects, reviews and inbox of one moment.

use std::collections::HashMap;

use serde_json::Value;
use tokio_postgres::{IsolationLevel, Row, Transaction};
use uuid::Uuid;

use crate::domain::digest::Digest;
use crate::domain::ids::{EffectId, NodeId, ReviewId, RunId, StepId};
use crate::store::audit::waits;
use crate::store::journal::read::{COLUMNS, JournalEntry, digest, entry};
use crate::store::{Store, StoreError};

/// Runs in a page, at most.
const PAGE: i64 = 500;

/// Journal entries in a page, at most, unless one run alone has more: they are held in memory.
const PAGE_ENTRIES: i64 = 20_000;

/// Everything stored of one run.
pub(super) struct Facts {
    pub(super) id: RunId,
    pub(super) status: String,
    pub(super) seq: i64,
    pub(super) node: Option<NodeId>,
    /// Whether the node that owns it holds a lease.
    pub(super) alive: bool,
    /// Whether a moment is named at which it goes on.
    pub(super) due: bool,
    pub(super) finished: bool,
    pub(super) title: String,
    pub(super) key: String,
    /// What will wake it, by the names of [`waits::WAKE_SOURCES`].
    pub(super) wake_sources: Vec<String>,
    /// The version it is pinned to.
    pub(super) version: Option<Digest>,
    /// The steps that are registered as waiting for an event or another run.
    pub(super) waits: Vec<StepId>,
    /// Whether it stands in the queue.
    pub(super) queued: bool,
    /// Whether it holds a slot of its concurrency key.
    pub(super) holds_slot: bool,
    pub(super) inbox: Vec<(String, Value)>,
    pub(super) entries: Vec<JournalEntry>,
    /// Why a row of it could not be read.
    pub(super) unreadable: Option<String>,
    pub(super) effects: Vec<EffectFacts>,
    pub(super) reviews: Vec<ReviewFacts>,
}

/// A row of `effects`.
pub(super) struct EffectFacts {
    pub(super) id: EffectId,
    pub(super) step: StepId,
    pub(super) attempt: i32,
    pub(super) action: String,
    pub(super) key: String,
    pub(super) digest: Option<Digest>,
    pub(super) request: Value,
    pub(super) status: String,
    pub(super) response: Option<Value>,
    /// Whether a moment is named at which it goes out.
    pub(super) goes: bool,
}

/// A row of `reviews`.
pub(super) struct ReviewFacts {
    pub(super) id: ReviewId,
    pub(super) step: StepId,
    pub(super) ask: String,
    pub(super) digest: Option<Digest>,
    pub(super) status: String,
    pub(super) question: Value,
    pub(super) verdict: Option<Value>,
    pub(super) consumed: bool,
}

impl Store {
    /// The next runs behind `after`, by their ids.
    pub(super) async fn audit_page(&self, after: RunId) -> Result<Vec<Facts>, StoreError> {
        self.audit_runs("r.id > $1 order by r.id limit $2", after, PAGE).await
    }

    /// One run.
    pub(super) async fn audit_run(&self, run: RunId) -> Result<Option<Facts>, StoreError> {
        Ok(self.audit_runs("r.id = $1 limit $2", run, 1).await?.pop())
    }

    async fn audit_runs(&self, which: &str, run: RunId, limit: i64) -> Result<Vec<Facts>, StoreError> {
        let mut client = self.client().await?;
        let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        let snapshot = snapshot.read_only(true).start().await?;
        let sources = waits::WAKE_SOURCES
            .iter()
            .map(|(name, holds)| format!("case when {holds} then '{name}' end"))
            .collect::<Vec<_>>()
            .join(", ");
        let statement = format!(
            "select r.id, r.status, r.seq, r.node, coalesce(n.lease_until > now(), false), r.wake_at is not null,
                 r.finished_at is not null, r.title, coalesce(r.idempotency_key, r.id::text), array_remove(array[{sources}], null),
                 r.version, array(select w.step from waits w where w.run_id = r.id),
                 exists (select from queue q where q.run_id = r.id),
                 exists (select from slots s where s.run_id = r.id and not s.freed)
             from runs r left join nodes n on n.id = r.node where {which}"
        );
        let rows = snapshot.query(&statement, &[&run.0, &limit]).await?;
        let mut runs: Vec<Facts> = rows.iter().map(run_row).collect();
        runs.truncate(fitting(&runs));
        load(&snapshot, &mut runs).await?;
        snapshot.commit().await?;
        Ok(runs)
    }
}

/// How many runs fit into a page by their journals.
fn fitting(runs: &[Facts]) -> usize {
    let mut entries = 0i64;
    let fit = runs.iter().take_while(|run| {
        entries = entries.saturating_add(run.seq);
        entries <= PAGE_ENTRIES
    });
    fit.count().max(1)
}

async fn load(snapshot: &Transaction<'_>, runs: &mut [Facts]) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = runs.iter().map(|run| run.id.0).collect();
    let places: HashMap<Uuid, usize> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let statement =
        format!("select {COLUMNS}, run_id from journal where run_id = any($1) order by run_id, seq");
    for row in snapshot.query(&statement, &[&ids]).await? {
        let Some(run) = places.get(&row.get(8)).and_then(|place| runs.get_mut(*place)) else { continue };
        match entry(&row) {
            Ok(entry) => run.entries.push(entry),
            Err(error) => run.unreadable = Some(format!("entry {}: {error}", row.get::<_, i64>(0))),
        }
    }
    let statement = "select id, step, attempt, action, dedupe_key, digest, request, status, response, run_id, goes_at is not null
         from effects where run_id = any($1)";
    for row in snapshot.query(statement, &[&ids]).await? {
        let Some(run) = places.get(&row.get(9)).and_then(|place| runs.get_mut(*place)) else { continue };
        run.effects.push(effect_row(&row));
    }
    let statement = "select id, step, ask, digest, status, question, verdict, consumed_at is not null, run_id
         from reviews where run_id = any($1)";
    for row in snapshot.query(statement, &[&ids]).await? {
        let Some(run) = places.get(&row.get(8)).and_then(|place| runs.get_mut(*place)) else { continue };
        run.reviews.push(review_row(&row));
    }
    for row in snapshot.query("select topic, data, run_id from inbox where run_id = any($1)", &[&ids]).await?
    {
        let Some(run) = places.get(&row.get(2)).and_then(|place| runs.get_mut(*place)) else { continue };
        run.inbox.push((row.get(0), row.get(1)));
    }
    Ok(())
}

fn run_row(row: &Row) -> Facts {
    Facts {
        id: RunId(row.get(0)),
        status: row.get(1),
        seq: row.get(2),
        node: row.get::<_, Option<Uuid>>(3).map(NodeId),
        alive: row.get(4),
        due: row.get(5),
        finished: row.get(6),
        title: row.get(7),
        key: row.get(8),
        wake_sources: row.get(9),
        version: digest(row, 10).ok(),
        waits: row.get::<_, Vec<String>>(11).into_iter().map(StepId).collect(),
        queued: row.get(12),
        holds_slot: row.get(13),
        inbox: Vec::new(),
        entries: Vec::new(),
        unreadable: None,
        effects: Vec::new(),
        reviews: Vec::new(),
    }
}

fn effect_row(row: &Row) -> EffectFacts {
    EffectFacts {
        id: EffectId(row.get(0)),
        step: StepId(row.get(1)),
        attempt: row.get(2),
        action: row.get(3),
        key: row.get(4),
        digest: digest(row, 5).ok(),
        request: row.get(6),
        status: row.get(7),
        response: row.get(8),
        goes: row.get(10),
    }
}

fn review_row(row: &Row) -> ReviewFacts {
    ReviewFacts {
        id: ReviewId(row.get(0)),
        step: StepId(row.get(1)),
        ask: row.get(2),
        digest: digest(row, 3).ok(),
        status: row.get(4),
        question: row.get(5),
        verdict: row.get(6),
        consumed: row.get(7),
    }
}

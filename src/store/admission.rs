//! The queue and the slots: who waits for a turn, who begins, which slots are taken.
//!
//! One admission at a time in the whole database, behind an advisory lock: so a limit holds however
//! many nodes there are, and nobody else need lock a key. Others only ever add a row of their own (a
//! run is queued) or mark one (a run ended, its slot is free): the hot path never waits for an admission.
//!
//! An admission takes freed slots away and wakes one run for each; looks at a bounded number of
//! candidates, however long the queue; lets [`admission::choose`] decide; begins the chosen; and sets
//! aside who was met before a full key, until a slot of that key is given back.
//!
//! Lock order: the advisory lock → `slots` → `queue` → `runs` (`skip locked`: it waits for none).

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::admission::{self, Candidate, Choice, Lane, Priority, Turns};
use crate::domain::ids::{NodeId, RunId, WorkflowName};
use crate::store::{Store, StoreError};

/// The longest waiting runs of each workflow that one admission looks at.
const LOOK: i64 = 64;

/// The keys of each workflow that one admission looks at, behind the one served last and from the start.
const KEYS: i32 = 32;

/// The runs of each of those keys.
const PER_KEY: i64 = 4;

/// The most slots that one admission takes away, and runs of one full key that it sets aside: a few
/// milliseconds' work. What is left is the next one's.
const SWEEP: i64 = 1024;

/// How many queued runs a key must have for a count of its own to be worth knowing.
const BUSY_KEY: i64 = 16;

/// The settings of one admission, then its lock. A node that stalls in the middle is cut off, so that
/// the others go on; the planner is kept to the indexes, whatever it believes of tables that
/// were empty a moment ago.
const BEGIN: &str = "
    set local lock_timeout = '3s';
    set local idle_in_transaction_session_timeout = '3s';
    set local enable_seqscan = off;
    set local enable_bitmapscan = off;
    set local enable_hashjoin = off;
    set local enable_mergejoin = off;
    set local jit = off;
    select pg_advisory_xact_lock(7166486110216486723);";

const REAP: &str = "
    with reaped as (
        delete from slots where run_id in (
            select run_id from slots where freed limit $1 for update skip locked)
        returning workflow, flow_key
    ),
    lanes as (select workflow, flow_key, count(*) as freed from reaped group by workflow, flow_key)
    update queue q set ready = true
    from lanes l cross join lateral (
        select b.run_id from queue b
        where not b.ready and b.workflow = l.workflow and b.flow_key = l.flow_key
        order by b.rank, b.run_id limit l.freed) as woken
    where q.run_id = woken.run_id";

/// Steps from workflow to workflow and from key to key through the indexes, never over rows in between.
const LOOK_UP: &str = "
    with recursive names as (
        (select workflow from queue where ready order by workflow limit 1)
        union all
        select (select q.workflow from queue q where q.ready and q.workflow > n.workflow order by q.workflow limit 1)
        from names n where n.workflow is not null
    ),
    begins as (
        select n.workflow, c.start from names n join unnest($1::text[], $2::text[]) as c (name, start)
            on c.name = n.workflow
        union all
        select n.workflow, '' from names n where n.workflow is not null
    ),
    ring as (
        select b.workflow, k.flow_key, 1 as nth from begins b cross join lateral (
            select q.flow_key from queue q where q.ready and q.workflow = b.workflow and q.flow_key >= b.start
            order by q.flow_key limit 1) as k
        union all
        select r.workflow, k.flow_key, r.nth + 1 from ring r cross join lateral (
            select q.flow_key from queue q where q.ready and q.workflow = r.workflow and q.flow_key > r.flow_key
            order by q.flow_key limit 1) as k
        where r.nth < $3
    ),
    looked as (
        select h.* from (select distinct workflow, flow_key from ring) as k cross join lateral (
            select q.run_id, q.workflow, q.flow_key, q.slots, q.priority, q.rank from queue q
            where q.ready and q.workflow = k.workflow and q.flow_key = k.flow_key
            order by q.rank, q.run_id limit $4) as h
        union
        select o.* from names n cross join lateral (
            select q.run_id, q.workflow, q.flow_key, q.slots, q.priority, q.rank from queue q
            where q.ready and q.workflow = n.workflow order by q.rank, q.run_id limit $5) as o
    )
    select run_id, workflow, flow_key, slots, priority, rank from looked";

const HELD: &str = "
    select (select count(*) from slots s where s.workflow = l.workflow and s.flow_key = l.flow_key)
    from unnest($1::text[], $2::text[]) with ordinality as l (workflow, flow_key, nth) order by nth";

const BEGIN_RUNS: &str = "
    with here as (
        select id from runs where id = any($2) and status = 'queued' and node is null
        for update skip locked
    ),
    begun as (
        update runs r set status = 'running', node = $1, wake_at = null
        from here where r.id = here.id
        returning r.id
    ),
    gone as (
        delete from queue q using begun b where q.run_id = b.id
        returning q.run_id, q.workflow, q.flow_key, q.slots
    ),
    held as (
        insert into slots (run_id, workflow, flow_key)
        select run_id, workflow, flow_key from gone where slots is not null
        on conflict on constraint slots_pk do update set freed = false
    )
    select id from begun";

const SET_ASIDE: &str = "
    update queue q set ready = false
    from unnest($1::text[], $2::text[], $3::int8[]) as l (workflow, flow_key, held)
    cross join lateral (
        select b.run_id from queue b
        where b.ready and b.workflow = l.workflow and b.flow_key = l.flow_key and b.slots <= l.held
        order by b.rank, b.run_id limit $4) as full_key
    where q.run_id = full_key.run_id";

/// What an admission did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Admitted {
    /// The runs that this node has to move now, in the order of their turns.
    pub runs: Vec<(RunId, Lane)>,
    /// Whether somebody is left who lacks nothing but room.
    pub crowded: bool,
    /// Whether another admission would find more to do.
    pub more: bool,
}

/// How many runs are queued.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// All of them.
    pub total: usize,
    /// Of each workflow.
    pub workflows: BTreeMap<WorkflowName, usize>,
    /// Of each key that has many.
    pub lanes: BTreeMap<Lane, usize>,
}

impl Store {
    /// Begins up to `room` queued runs for a node, whose turn it is by `turns`; each begins on one node
    /// only, and no key has more runs under way than its limit.
    ///
    /// # Errors
    /// When the database does not answer, or another admission takes too long; nothing has begun then.
    pub async fn admit(&self, node: NodeId, room: usize, turns: &mut Turns) -> Result<Admitted, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        tx.batch_execute(BEGIN).await?;
        let reap = tx.prepare_cached(REAP).await?;
        let woken = tx.execute(&reap, &[&SWEEP]).await?;

        let (workflows, starts): (Vec<&str>, Vec<String>) =
            turns.keys().map(|(workflow, key)| (workflow.as_str(), format!("{key}\u{1}"))).unzip();
        let look = tx.prepare_cached(LOOK_UP).await?;
        let rows = tx.query(&look, &[&workflows, &starts, &KEYS, &PER_KEY, &LOOK]).await?;
        let candidates = rows.iter().map(candidate).collect::<Result<Vec<_>, _>>()?;
        let held = held(&tx, &candidates).await?;
        let lanes: BTreeMap<RunId, Lane> = candidates.iter().map(|c| (c.run, c.lane.clone())).collect();
        let mut turns_then = turns.clone();
        let Choice { admit, full, crowded } = admission::choose(&mut turns_then, candidates, held, room);

        let ids: Vec<Uuid> = admit.iter().map(|run| run.0).collect();
        let mut begun = Vec::new();
        if !ids.is_empty() {
            let statement = tx.prepare_cached(BEGIN_RUNS).await?;
            begun =
                tx.query(&statement, &[&node.0, &ids]).await?.iter().map(|row| RunId(row.get(0))).collect();
        }
        let mut aside = 0;
        if !full.is_empty() {
            let workflow: Vec<&str> = full.keys().map(|lane| lane.workflow.as_str()).collect();
            let key: Vec<&str> = full.keys().map(|lane| lane.key.as_str()).collect();
            let held: Vec<i64> = full.values().copied().map(i64::from).collect();
            let statement = tx.prepare_cached(SET_ASIDE).await?;
            aside = tx.execute(&statement, &[&workflow, &key, &held, &SWEEP]).await?;
        }
        tx.commit().await?;
        *turns = turns_then;
        let begun_here =
            |run: RunId| begun.contains(&run).then(|| Some((run, lanes.get(&run)?.clone()))).flatten();
        let runs: Vec<(RunId, Lane)> = admit.into_iter().filter_map(begun_here).collect();
        // Whoever could not be taken for a reason that will pass by itself must not keep us busy until then.
        let progress = !runs.is_empty() || aside > 0 || woken > 0;
        let unseen = crowded || aside > 0 || rows.len() as i64 >= LOOK || woken as i64 >= SWEEP;
        let more = progress && unseen;
        Ok(Admitted { runs, crowded, more })
    }

    /// How many runs are queued.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "select workflow, flow_key, count(*) from queue
                 group by grouping sets ((workflow), (workflow, flow_key))
                 having grouping(flow_key) = 1 or count(*) >= $1",
            )
            .await?;
        let mut backlog = Backlog::default();
        for row in client.query(&statement, &[&BUSY_KEY]).await? {
            let workflow = WorkflowName(row.get(0));
            let count = usize::try_from(row.get::<_, i64>(2)).unwrap_or(usize::MAX);
            match row.get::<_, Option<String>>(1) {
                Some(key) => {
                    backlog.lanes.insert(Lane { workflow, key }, count);
                }
                None => {
                    backlog.total += count;
                    backlog.workflows.insert(workflow, count);
                }
            }
        }
        Ok(backlog)
    }

    /// The run that a key opened already.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn run_of_key(&self, workflow: &WorkflowName, key: &str) -> Result<Option<RunId>, StoreError> {
        let client = self.client().await?;
        let statement =
            client.prepare_cached("select id from runs where workflow = $1 and idempotency_key = $2").await?;
        let row = client.query_opt(&statement, &[&workflow.as_str(), &key]).await?;
        Ok(row.map(|row| RunId(row.get(0))))
    }
}

fn candidate(row: &Row) -> Result<Candidate, StoreError> {
    let level: i16 = row.get(4);
    let priority = u8::try_from(level).ok().and_then(Priority::of_level);
    Ok(Candidate {
        run: RunId(row.get(0)),
        lane: lane(row),
        slots: row.get::<_, Option<i32>>(3).and_then(|slots| u32::try_from(slots).ok()),
        priority: priority.ok_or_else(|| StoreError::corrupt("a priority", level))?,
        rank: row.get(5),
    })
}

/// How many slots are taken of each lane that has a limit.
async fn held(tx: &Transaction<'_>, candidates: &[Candidate]) -> Result<BTreeMap<Lane, u32>, StoreError> {
    let limited = candidates.iter().filter(|candidate| candidate.slots.is_some());
    let lanes: BTreeSet<&Lane> = limited.map(|candidate| &candidate.lane).collect();
    if lanes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let workflow: Vec<&str> = lanes.iter().map(|lane| lane.workflow.as_str()).collect();
    let key: Vec<&str> = lanes.iter().map(|lane| lane.key.as_str()).collect();
    let statement = tx.prepare_cached(HELD).await?;
    let rows = tx.query(&statement, &[&workflow, &key]).await?;
    let count = |row: &Row| u32::try_from(row.get::<_, i64>(0)).unwrap_or(u32::MAX);
    Ok(lanes.into_iter().cloned().zip(rows.iter().map(count)).collect())
}

fn lane(row: &Row) -> Lane {
    Lane { workflow: WorkflowName(row.get(1)), key: row.get(2) }
}

//! Long life: the journal is kept by month, what is past its time goes and leaves a trace, and nothing
//! that dies lies about for longer the longer a database lives.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use steward::domain::digest::Digest;
use steward::domain::duration::Span;
use steward::domain::ids::RunId;
use steward::domain::retention::{Keep, Retention};
use steward::domain::workflow::{Step, StepKind, Version};
use steward::store::Store;
use steward::store::journal::Opened;
use steward::store::partitions::{self, Month};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::support::database;
use crate::support::rig::{Rig, call_out, ten_steps};

/// A database with a version in it, and the means to put runs of any age there.
pub(super) struct Past {
    pub(super) store: Store,
    pub(super) client: Client,
    pub(super) version: Digest,
    pub(super) now: Timestamp,
}

impl Past {
    pub(super) async fn new() -> Self {
        Self::of(Vec::new()).await
    }

    /// With a version that has these steps.
    pub(super) async fn of(steps: Vec<Step>) -> Self {
        let store = database().await;
        let (client, connection) = store.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let version = Version {
            workflow: "test".into(),
            title: "A test".into(),
            input: json!(true),
            steps,
            agents: BTreeMap::new(),
            deadline: None,
            output: None,
            flow: Default::default(),
            sample: None,
            budget: Default::default(),
            trust: Default::default(),
        };
        let version = store.keep_version(&version).await.unwrap().digest;
        let now = store.database_time().await.unwrap();
        Self { store, client, version, now }
    }

    pub(super) fn ago(&self, days: i64) -> Timestamp {
        self.now - SignedDuration::from_hours(24 * days)
    }

    /// A run with three journal entries, opened so many days ago and, perhaps, ended.
    pub(super) async fn run(&self, workflow: &str, status: &str, opened: i64, ended: Option<i64>) -> RunId {
        let run = RunId(id_at(self.ago(opened)));
        let statement =
            "insert into runs (id, workflow, version, status, seq, title, trigger, idempotency_key,
                             opened_at, finished_at)
                         values ($1, $2, $3, $4, 3, 'a run', 'api', $1::uuid::text, $5, $6)";
        let ended = ended.map(|days| self.ago(days));
        self.client
            .execute(
                statement,
                &[&run.0, &workflow, &&self.version.0[..], &status, &self.ago(opened), &ended],
            )
            .await
            .unwrap();
        self.append(run).await;
        run
    }

    pub(super) async fn append(&self, run: RunId) {
        let statement = "insert into journal (run_id, seq, kind, at, actor, label, data, data_digest, hash)
                         select $1, n, 'step.started', now(), 'system', 'system', '{}', sha256('d'), sha256(int4send(n))
                         from generate_series(1, 3) n";
        self.client.execute(statement, &[&run.0]).await.unwrap();
    }

    /// Finished runs of 30 days ago, ended at once, as one statement makes them.
    pub(super) async fn many(&self, count: i32) {
        let ids: Vec<Uuid> = (0..count).map(|_| id_at(self.ago(30))).collect();
        let statement = "
            with made as (
                insert into runs (id, workflow, version, status, seq, title, trigger, idempotency_key, opened_at,
                    finished_at)
                select id, 'test', $2, 'succeeded', 1, 'a run', 'api', id::text, $3, $3 from unnest($1::uuid[]) id
                returning id)
            insert into journal (run_id, seq, kind, at, actor, label, data_digest, hash)
            select id, 1, 'run.finished', $3, 'system', 'system', sha256('d'), sha256('h') from made";
        self.client.execute(statement, &[&ids, &&self.version.0[..], &self.ago(30)]).await.unwrap();
    }

    pub(super) async fn effect(&self, run: RunId, action: &str, key: &str) {
        let statement = "insert into effects (id, run_id, step, attempt, action, dedupe_key, digest, request, labels,
                             status, proposed_at)
                         values (gen_random_uuid(), $1, 'pay', 1, $2, $3, '\\x00', '{}', '{}', 'succeeded', now())";
        self.client.execute(statement, &[&run.0, &action, &key]).await.unwrap();
    }

    pub(super) async fn review(&self, run: RunId, status: &str) {
        let statement =
            "insert into reviews (id, run_id, step, ask, digest, title, question, status, opened_at, decided_at)
             values (gen_random_uuid(), $1, 'ask', 'question', '\\x00', 't', '{}', $2, now(),
                     case when $2 <> 'open' then now() end)";
        self.client.execute(statement, &[&run.0, &status]).await.unwrap();
    }

    /// A whole pass; how many went and how many had to stay.
    pub(super) async fn sweep(&self, retention: &Retention) -> (usize, usize) {
        sweep(&self.store, retention, self.now).await
    }

    pub(super) async fn left(&self) -> BTreeSet<RunId> {
        let rows = self.client.query("select id from runs", &[]).await.unwrap();
        rows.iter().map(|row| RunId(row.get(0))).collect()
    }

    pub(super) async fn count(&self, of: &str) -> i64 {
        let statement = format!("select count(*) from {of}");
        self.client.query_one(&statement, &[]).await.unwrap().get(0)
    }

    pub(super) async fn refused(&self, statement: &str) -> String {
        match self.client.batch_execute(statement).await {
            Ok(()) => panic!("`{statement}` was allowed"),
            Err(error) => error.as_db_error().unwrap().constraint().unwrap_or_default().to_owned(),
        }
    }
}

async fn sweep(store: &Store, retention: &Retention, now: Timestamp) -> (usize, usize) {
    let (mut removed, mut stayed) = (0, 0);
    loop {
        let swept = store.sweep(retention, now).await.unwrap();
        removed += swept.removed;
        stayed += swept.stayed;
        if swept.done {
            return (removed, stayed);
        }
    }
}

fn id_at(at: Timestamp) -> Uuid {
    let rest: [u8; 10] = Uuid::new_v4().as_bytes()[6..].try_into().unwrap();
    uuid::Builder::from_unix_timestamp_millis(at.as_millisecond() as u64, &rest).into_uuid()
}

fn days(days: u64) -> Keep {
    Keep::For(Span::secs(days * 86_400))
}

fn all(keep: Keep) -> Retention {
    Retention { default: keep, workflows: BTreeMap::new() }
}

#[tokio::test]
async fn the_journal_has_its_months_ahead_of_time_and_a_run_lies_in_the_one_it_was_opened_in() {
    let past = Past::new().await;
    let months = partitions::months(&past.client).await.unwrap();
    let this = Month::of(past.now);
    for month in [this, this.next(), this.next().next(), this.next().next().next()] {
        assert!(months.contains(&month), "{month:?} is not among {months:?}");
    }
    let where_is = "select distinct tableoid::regclass::text from journal where run_id = $1";
    for (ago, partition) in
        [(0, this.partition()), (-32, Month::of(past.ago(-32)).partition()), (5_000, "journal_rest".into())]
    {
        let run = past.run("test", "running", ago, None).await;
        let found: String = past.client.query_one(where_is, &[&run.0]).await.unwrap().get(0);
        assert_eq!(found, partition);
        assert_eq!(past.store.journal(run, 0, 10).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn looking_after_the_months_twice_or_from_two_nodes_makes_each_once() {
    let past = Past::new().await;
    let later = past.ago(-300);
    let config = past.store.config();
    let (one, two) =
        tokio::join!(partitions::look_after(config, later), partitions::look_after(config, later));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.0.len() + two.0.len(), 4, "{one:?} {two:?}");
    let again = partitions::look_after(config, later).await.unwrap();
    assert_eq!(again.0, []);
    assert!(partitions::months(&past.client).await.unwrap().contains(&Month::of(later)));
}

#[tokio::test]
async fn a_month_that_lies_in_the_default_partition_stays_there_and_the_others_are_made() {
    let past = Past::new().await;
    let later = past.ago(-400);
    let stray = past.run("test", "running", -400, None).await;
    let (made, _) = partitions::look_after(past.store.config(), later).await.unwrap();
    assert_eq!(made.len(), 3);
    assert!(!made.contains(&Month::of(later)));
    assert_eq!(past.store.journal(stray, 0, 10).await.unwrap().len(), 3);
    past.run("test", "running", -400, None).await; // and more of it is taken
}

#[tokio::test]
async fn an_old_large_journal_gets_its_months_without_being_read_under_lock_and_refuses_nothing() {
    let past = Past::new().await;
    let statement = "insert into journal (run_id, seq, kind, at, actor, label, data, data_digest, hash)
                     select $1, n, 'step.started', now(), 'system', 'system', to_jsonb(repeat('x', 900)), sha256('d'), sha256('h')
                     from generate_series(1, 12000) n";
    past.client.execute(statement, &[&id_at(past.ago(5_000))]).await.unwrap();
    let later = past.ago(-400);
    let (made, _) = partitions::look_after(past.store.config(), later).await.unwrap();
    let ahead = Month::of(later).next();
    assert_eq!(
        made,
        [ahead, ahead.next(), ahead.next().next()],
        "the month that has begun goes to the default"
    );
    past.run("test", "running", -400, None).await;
    let leftover = "pg_constraint where conrelid = 'journal_rest'::regclass and conname like '%elsewhere'";
    assert_eq!(past.count(leftover).await, 0);
}

#[tokio::test]
async fn the_journal_is_append_only_in_each_of_its_partitions() {
    let past = Past::new().await;
    let statement = "select inhrelid::regclass::text from pg_inherits where inhparent = 'journal'::regclass";
    let rows = past.client.query(statement, &[]).await.unwrap();
    let partitions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(partitions.len() >= 5, "{partitions:?}");
    for ago in [0, -32, -63, -94, 5_000] {
        past.run("test", "succeeded", ago, Some(ago)).await;
    }
    for table in partitions.iter().map(String::as_str).chain(["journal"]) {
        assert_eq!(past.refused(&format!("truncate {table}")).await, "journal_append_only", "{table}");
        if past.count(table).await == 0 {
            continue; // the months of thirty days leave one out at times
        }
        for change in [format!("update {table} set kind = 'x'"), format!("delete from {table}")] {
            assert_eq!(past.refused(&change).await, "journal_append_only", "{change}");
        }
    }
}

#[tokio::test]
async fn retention_removes_exactly_what_is_past_its_time_and_nothing_unfinished() {
    let past = Past::new().await;
    let retention = Retention {
        default: days(100),
        workflows: BTreeMap::from([("short".into(), days(10)), ("kept".into(), Keep::Forever)]),
    };
    let mut go = BTreeSet::new();
    let mut stay = BTreeSet::new();
    for status in ["succeeded", "declined", "failed", "cancelled"] {
        go.insert(past.run("short", status, 300, Some(11)).await);
        go.insert(past.run("gone", status, 120, Some(101)).await);
        stay.insert(past.run("short", status, 300, Some(9)).await);
        stay.insert(past.run("gone", status, 120, Some(99)).await);
        stay.insert(past.run("kept", status, 3_000, Some(2_999)).await);
    }
    for status in ["running", "waiting", "queued", "paused"] {
        stay.insert(past.run("short", status, 3_000, None).await);
    }
    let parked = past.run("short", "parked", 3_000, Some(2_999)).await;
    let asking = past.run("short", "failed", 3_000, Some(2_999)).await;
    past.review(asking, "open").await;
    stay.extend([parked, asking]);
    let answered = past.run("short", "failed", 3_000, Some(2_999)).await;
    past.review(answered, "approved").await;
    past.effect(answered, "http.request", &format!("{answered}/pay")).await;
    go.insert(answered);

    assert_eq!(past.sweep(&retention).await, (go.len(), 2));
    assert_eq!(past.left().await, stay);
    assert_eq!(past.count("journal").await, 3 * stay.len() as i64);
    assert_eq!((past.count("effects").await, past.count("reviews").await), (0, 1));
    let tombstones = past.store.tombstones(None, 1_000).await.unwrap();
    assert_eq!(tombstones.iter().map(|tombstone| tombstone.run).collect::<BTreeSet<_>>(), go);
    let first = past.store.tombstone(answered).await.unwrap().unwrap();
    assert_eq!((first.status.as_str(), first.entries, first.removed_at), ("failed", 3, past.now));
    assert_eq!(past.store.tombstones(Some(tombstones[0].run), 1_000).await.unwrap().len(), go.len() - 1);
    assert_eq!(past.sweep(&retention).await, (0, 2), "a second pass finds nothing");
    assert_eq!(past.sweep(&Retention::default()).await, (0, 0));
}

#[tokio::test]
async fn a_run_goes_with_its_keys_and_leaves_the_head_of_its_chain() {
    let rig = Rig::new(ten_steps(), Vec::new()).await;
    let run = rig.open(Some("monday")).await.run();
    rig.becomes(run, "succeeded").await;
    let (seq, head) = rig.store.head(run).await.unwrap().unwrap();
    let now = rig.store.database_time().await.unwrap();
    let day = SignedDuration::from_hours(24);
    assert_eq!(sweep(&rig.store, &all(days(7)), now + day * 6).await, (0, 0));
    assert_eq!(rig.open(Some("monday")).await, Opened::Existing(run));
    assert_eq!(sweep(&rig.store, &all(days(7)), now + day * 8).await, (1, 0));
    assert!(rig.store.run_row(run).await.unwrap().is_none());
    assert!(rig.store.load_run(run).await.unwrap().is_none());
    let tombstone = rig.store.tombstone(run).await.unwrap().unwrap();
    assert_eq!((tombstone.entries, tombstone.head), (seq, head));
    let again = rig.open(Some("monday")).await;
    assert!(matches!(again, Opened::New(_)), "the key lived as long as its run");
    rig.becomes(again.run(), "succeeded").await;
    rig.door.stop().await;
}

#[tokio::test]
async fn a_run_keeps_its_key_while_an_older_unfinished_run_may_still_ask_for_it() {
    let mut pay = call_out("pay", None);
    if let StepKind::Action(action) = &mut pay.kind {
        action.dedupe = Some("invoice-{{ input.number }}".into());
    }
    let past = Past::of(vec![pay]).await;
    let paid = past.run("test", "succeeded", 50, Some(50)).await;
    past.effect(paid, "http.request", "invoice-7").await;
    let mailed = past.run("test", "succeeded", 50, Some(50)).await;
    past.effect(mailed, "email.send", "reply-7").await;
    let own = past.run("test", "succeeded", 50, Some(50)).await;
    past.effect(own, "http.request", &format!("{own}/pay")).await;
    let late = past.run("test", "waiting", 30, None).await;
    past.run("test", "waiting", 5, None).await; // opened after the key's time was up: it is no concern of it

    assert_eq!(past.sweep(&all(days(40))).await, (2, 1));
    assert!(past.left().await.contains(&paid), "its key may still be asked for");
    assert!(!past.left().await.contains(&mailed), "nothing unfinished asks for keys of that action");
    past.client
        .execute("update runs set status = 'succeeded', finished_at = now() where id = $1", &[&late.0])
        .await
        .unwrap();
    assert_eq!(past.sweep(&all(days(40))).await, (1, 0));
}

#[tokio::test]
async fn a_pass_that_was_interrupted_goes_on_where_it_was() {
    let past = Past::new().await;
    past.many(4_500).await;
    let first = past.store.sweep(&all(days(20)), past.now).await.unwrap();
    assert!(!first.done && first.removed == 2_000, "{first:?}");
    assert_eq!(past.count("removed_runs").await, 2_000);
    // The node dies here; nobody takes the pass before it has been silent for long.
    let other = Store::new(past.store.config().clone()).unwrap();
    assert!(!other.claim_sweep(past.now + SignedDuration::from_mins(5)).await.unwrap());
    assert!(other.claim_sweep(past.now + SignedDuration::from_mins(61)).await.unwrap());
    assert_eq!(sweep(&other, &all(days(20)), past.now).await, (2_500, 0));
    assert_eq!((past.count("runs").await, past.count("journal").await), (0, 0));
    assert_eq!(past.count("removed_runs").await, 4_500);
}

#[tokio::test]
async fn two_that_sweep_at_once_remove_each_run_once() {
    let past = Past::new().await;
    past.many(3_000).await;
    let other = Store::new(past.store.config().clone()).unwrap();
    let retention = all(days(20));
    let (one, two) =
        tokio::join!(sweep(&past.store, &retention, past.now), sweep(&other, &retention, past.now));
    // What one had locked the other passed over, and whoever came first to the end began anew for both.
    let (last, _) = past.sweep(&retention).await;
    assert_eq!(one.0 + two.0 + last, 3_000);
    assert_eq!((past.count("runs").await, past.count("removed_runs").await), (0, 3_000));
}

#[tokio::test]
async fn a_month_is_dropped_once_it_is_over_and_no_run_is_left_in_it() {
    let past = Past::new().await;
    let config = past.store.config();
    partitions::look_after(config, past.ago(400)).await.unwrap();
    let (old, busy) = (Month::of(past.ago(400)), Month::of(past.ago(400)).next());
    let gone = past.run("test", "succeeded", 400, Some(400)).await;
    let inside = (busy.begins() + SignedDuration::from_hours(50)).duration_until(past.now).as_hours() / 24;
    let waiting = past.run("test", "waiting", inside, None).await;
    let (_, dropped) = partitions::look_after(config, past.now).await.unwrap();
    assert!(!dropped.contains(&old) && !dropped.contains(&busy) && dropped.len() == 2, "{dropped:?}");
    assert_eq!(past.sweep(&all(days(7))).await, (1, 0));
    let (_, dropped) = partitions::look_after(config, past.now).await.unwrap();
    assert_eq!(dropped, [old]);
    assert!(past.store.tombstone(gone).await.unwrap().is_some());
    assert_eq!(past.store.journal(waiting, 0, 10).await.unwrap().len(), 3);
    assert!(partitions::months(&past.client).await.unwrap().contains(&Month::of(past.now)));
}

#[tokio::test]
async fn nothing_goes_without_a_trace_and_no_trace_can_be_forged() {
    let past = Past::new().await;
    let over = past.run("test", "succeeded", 50, Some(50)).await;
    let waiting = past.run("test", "waiting", 50, None).await;
    assert_eq!(past.refused(&format!("delete from runs where id = '{over}'")).await, "runs_tombstone");
    assert_eq!(past.refused("truncate runs cascade").await, "runs_tombstone");
    let forge = |run: RunId, head: i32| {
        format!(
            "insert into removed_runs
                 (run_id, workflow, version, status, entries, head, opened_at, finished_at, removed_at)
             select id, workflow, version, status, seq, sha256(int4send({head})), opened_at, coalesce(finished_at, now()), now()
             from runs where id = '{run}'"
        )
    };
    assert_eq!(past.refused(&forge(waiting, 3)).await, "removed_runs_finished");
    assert_eq!(past.refused(&forge(over, 4)).await, "removed_runs_finished");
    assert_eq!(past.sweep(&all(days(7))).await, (1, 0));
    for change in
        ["update removed_runs set workflow = 'x'", "delete from removed_runs", "truncate removed_runs"]
    {
        assert_eq!(past.refused(change).await, "removed_runs_append_only", "{change}");
    }
}

#[tokio::test]
async fn every_table_that_hangs_on_a_run_goes_with_it() {
    let past = Past::new().await;
    let statement = "select conrelid::regclass::text from pg_constraint
                     where confrelid = 'runs'::regclass and contype = 'f' and confdeltype not in ('c', 'n')";
    let rows = past.client.query(statement, &[]).await.unwrap();
    let found: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let body = past.client.query_one("select prosrc from pg_proc where proname = 'remove_runs'", &[]).await;
    let body: String = body.unwrap().get(0);
    for table in found {
        let named = body.contains(&format!("delete from {table} "));
        assert!(named, "`{table}` refers to runs: `on delete cascade`, or a line in `remove_runs`");
    }
}

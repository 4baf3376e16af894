//! Flow control inside: limits per key, who begins next, and that neither crashes nor floods break it.
//! Order is observed by what began before what, never by time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::{BoxFuture, join_all};
use jiff::Timestamp;
use serde_json::json;
use steward::connectors::{Call, Connector};
use steward::domain::action::{Action, Repeat};
use steward::domain::admission::{Concurrency, Flow, Priority, Turns};
use steward::domain::duration::Span;
use steward::domain::event::{ErrorKind, Event, Opened as Input, StepError, Verdict};
use steward::domain::ids::{NodeId, RunId};
use steward::domain::label::Label;
use steward::domain::plan::{EffectResult, Entry};
use steward::domain::workflow::Step;
use steward::store::Store;
use steward::store::journal::seal::{genesis, seal, whole_microseconds};
use steward::store::journal::{Open, Queued, Writer};
use tokio::sync::Semaphore;
use tokio_postgres::Client;

use crate::support::rig::{Rig, Scripted, define, flowing, step, ten_steps};
use crate::support::{database, eventually};

/// A connector that begins what it is asked for, notes it, and ends it when a permit is there.
struct Held {
    permits: Semaphore,
    begun: Mutex<Vec<String>>,
}

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self { permits: Semaphore::new(0), begun: Mutex::default() })
    }

    /// Whose work has begun, in order.
    fn begun(&self) -> Vec<String> {
        self.begun.lock().unwrap().clone()
    }

    async fn has_begun(&self, count: usize) {
        eventually(&format!("{count} beginnings"), || async { (self.begun().len() >= count).then_some(()) })
            .await;
    }
}

impl Connector for Held {
    fn actions(&self) -> &'static [&'static str] {
        &["http.request"]
    }

    fn repeat(&self, _: &Action) -> Repeat {
        Repeat::Natural
    }

    fn perform<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult> {
        let url = call.action.params["url"].as_str().unwrap();
        self.begun.lock().unwrap().push(url.rsplit('/').next().unwrap().to_owned());
        Box::pin(async {
            self.permits.acquire().await.unwrap().forget();
            EffectResult::Succeeded(json!({}))
        })
    }

    fn probe<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, EffectResult> {
        Box::pin(async { EffectResult::Absent })
    }
}

/// One effect, recognisable by the run's `what`.
fn work() -> Vec<Step> {
    let with = json!({"method": "POST", "url": "https://api.example/{{ input.what }}"});
    vec![Step { timeout: Span::secs(600), ..step("work", None, "http.request", with) }]
}

fn per_what(limit: u32) -> Flow {
    let concurrency = Some(Concurrency { key: Some("{{ input.what }}".into()), limit });
    Flow { concurrency, ..Flow::default() }
}

async fn connect(store: &Store) -> Client {
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn count(client: &Client, what: &str) -> i64 {
    client.query_one(&format!("select count(*) from {what}"), &[]).await.unwrap().get(0)
}

/// Of each title, how many runs are under way: begun and not ended.
async fn under_way(client: &Client) -> BTreeMap<String, i64> {
    let rows = client
        .query("select title, count(*) from runs where status in ('running', 'waiting') group by title", &[])
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Nobody is queued without a place, or has a place without being queued; no slot outlives its run.
async fn assert_flow_is_consistent(client: &Client) {
    for wrong in [
        "runs r where r.status = 'queued' and not exists (select from queue q where q.run_id = r.id)",
        "queue q join runs r on r.id = q.run_id where r.status <> 'queued' or r.node is not null",
        "slots s join runs r on r.id = s.run_id where not s.freed and r.finished_at is not null",
    ] {
        assert_eq!(count(client, wrong).await, 0, "{wrong}");
    }
}

#[tokio::test]
async fn the_limit_of_a_key_holds_on_two_nodes_whatever_comes_at_once() {
    let store = database().await;
    let paid = Scripted::new(Repeat::None, |_, _| EffectResult::Succeeded(json!({})));
    let rig = |alone| {
        let (store, paid) = (store.clone(), paid.clone());
        async move {
            Rig::defining(store, vec![paid], alone, |d| define(d, flowing("test", per_what(2), work()))).await
        }
    };
    let (one, two) = (rig(true).await, rig(false).await);
    let opened = join_all((0..200).map(|n| {
        let rig = if n % 2 == 0 { &one } else { &two };
        let what = format!("k{}", n / 2 % 10);
        async move { rig.open_for("test", &what).await.unwrap().run() }
    }))
    .await;
    let client = connect(&store).await;
    let mut ended = 0;
    while ended < 200 {
        let expected = 20.min(200 - ended);
        // Supervised: each asks before it pays, and holds its slot while it waits for the answer.
        let reviews = eventually("two of each key waiting", || async {
            let under_way = under_way(&client).await;
            assert!(under_way.values().all(|n| *n <= 2), "{under_way:?}");
            let reviews = store.reviews("open", None, None, 100).await.unwrap();
            (reviews.len() as i64 == expected).then_some(reviews)
        })
        .await;
        assert_eq!(count(&client, "queue").await, 200 - ended - expected);
        for review in reviews {
            store.decide(review.id, review.digest, &Verdict::Approved, "owner").await.unwrap();
            if ended % 2 == 0 { &one } else { &two }.door.wake(review.run);
            ended += 1;
        }
    }
    for run in opened {
        one.becomes(run, "succeeded").await;
    }
    assert_eq!((paid.calls(), count(&client, "queue").await), (200, 0));
    assert_flow_is_consistent(&client).await;
    one.door.stop().await;
    two.door.stop().await;
}

#[tokio::test]
async fn a_slot_is_given_on_however_a_run_ends_and_a_queued_one_can_be_cancelled() {
    let store = database().await;
    let fails = StepError::new(ErrorKind::Refused, "no");
    let paid = Scripted::new(Repeat::None, move |_, call| match call {
        1 => EffectResult::Succeeded(json!({})),
        _ => EffectResult::Failed(fails.clone()),
    });
    let rig =
        Rig::defining(store.clone(), vec![paid], true, |d| define(d, flowing("test", per_what(1), work())))
            .await;
    let client = connect(&store).await;
    let mut runs = Vec::new();
    for _ in 0..7 {
        runs.push(rig.open_for("test", "k").await.unwrap().run());
    }
    // One is under way; each of the others begins when the one before it has ended, in whatever way.
    rig.becomes(runs[0], "waiting").await;
    rig.decide(runs[0], Verdict::Approved).await;
    rig.becomes(runs[0], "succeeded").await;
    rig.becomes(runs[1], "waiting").await;
    rig.decide(runs[1], Verdict::Approved).await;
    rig.becomes(runs[1], "failed").await;
    rig.becomes(runs[2], "waiting").await;
    rig.decide(runs[2], Verdict::Rejected { reason: "no".into() }).await;
    rig.becomes(runs[2], "declined").await;
    rig.becomes(runs[3], "waiting").await;
    // One that waits in line leaves it, without ever having begun, and takes nobody's turn.
    assert!(store.request_cancel(runs[4], "owner").await.unwrap());
    rig.door.wake(runs[4]);
    rig.becomes(runs[4], "cancelled").await;
    assert_eq!(rig.kinds(runs[4]).await, ["run.opened", "run.cancelling", "run.finished"]);
    assert_eq!(
        (rig.status(runs[3]).await.as_str(), rig.status(runs[5]).await.as_str()),
        ("waiting", "queued")
    );
    assert!(store.request_cancel(runs[3], "owner").await.unwrap());
    rig.door.wake(runs[3]);
    rig.becomes(runs[3], "cancelled").await;
    rig.becomes(runs[5], "waiting").await;
    // Parked: its actor has crashed too often.
    let poison = "alter table journal disable trigger all; alter table journal_rest disable trigger all";
    client.batch_execute(poison).await.unwrap();
    let spoil = "update journal set data = '{}' where run_id = $1 and seq = 2";
    client.execute(spoil, &[&runs[5].0]).await.unwrap();
    let due = "update runs set wake_at = now(), crashes = 4 where id = $1";
    client.execute(due, &[&runs[5].0]).await.unwrap();
    rig.door.wake(runs[5]);
    eventually("it being parked", || async { (rig.status(runs[5]).await == "parked").then_some(()) }).await;
    // It holds its slot until the owner has said what becomes of it.
    let parked = store.reviews("open", Some(runs[5]), None, 9).await.unwrap();
    let parked = parked.into_iter().find(|review| review.ask == "parked").unwrap();
    let give_up = Verdict::Answered { answer: json!("give_up") };
    steward::reviews::decide(&rig.door, parked.id, None, give_up, "owner").await.unwrap();
    rig.becomes(runs[6], "waiting").await;
    assert_flow_is_consistent(&client).await;
    rig.door.stop().await;
}

#[tokio::test]
async fn a_flood_of_two_thousand_leads_does_not_starve_another_workflows_run() {
    let (store, held) = (database().await, Held::new());
    let rig = Rig::defining(store.clone(), vec![held.clone()], true, |d| {
        d.settings.limits.in_motion = 2;
        define(d, flowing("leads", Flow::default(), work()));
        define(d, flowing("billing", Flow::default(), work()));
    })
    .await
    .live()
    .await;
    let flood = join_all((0..2000).map(|_| rig.open_for("leads", "lead"))).await;
    held.has_begun(2).await;
    let bill = rig.open_for("billing", "bill").await.unwrap().run();
    assert_eq!(rig.status(bill).await, "queued");
    held.permits.add_permits(4);
    held.has_begun(6).await;
    assert_eq!(held.begun()[..2], ["lead", "lead"]);
    assert!(held.begun()[2..6].contains(&"bill".to_owned()), "{:?}", held.begun());
    held.permits.add_permits(3000);
    for run in flood {
        rig.becomes(run.unwrap().run(), "succeeded").await;
    }
    rig.becomes(bill, "succeeded").await;
    assert_flow_is_consistent(&connect(&store).await).await;
    rig.door.stop().await;
}

/// Where a low run begins among ten newer high ones, when one may go at a time.
async fn place_of_a_low_run(ageing: Span, has_waited: &str) -> usize {
    let (store, held) = (database().await, Held::new());
    let rig = Rig::defining(store.clone(), vec![held.clone()], true, |d| {
        d.settings.limits.in_motion = 1;
        d.settings.limits.ageing = ageing;
        define(d, flowing("low", Flow { priority: Priority::Low, ..Flow::default() }, work()));
        define(d, flowing("high", Flow { priority: Priority::High, ..Flow::default() }, work()));
    })
    .await
    .live()
    .await;
    rig.open_for("high", "first").await.unwrap();
    held.has_begun(1).await;
    rig.open_for("low", "low").await.unwrap();
    let client = connect(&store).await;
    eventually("the low one having waited", || async {
        (count(&client, &format!("queue where enqueued_at < now() - interval '{has_waited}'")).await == 1)
            .then_some(())
    })
    .await;
    for _ in 0..10 {
        rig.open_for("high", "high").await.unwrap();
    }
    held.permits.add_permits(100);
    held.has_begun(12).await;
    rig.door.stop().await;
    held.begun().iter().position(|what| what == "low").unwrap()
}

#[tokio::test]
async fn a_low_run_that_has_waited_its_time_goes_before_newer_high_ones() {
    // Two classes below the highest: it has to wait two intervals, then it has every fourth turn.
    assert!(place_of_a_low_run("50ms".parse().unwrap(), "0.2 s").await <= 4);
    assert_eq!(place_of_a_low_run("1h".parse().unwrap(), "0.2 s").await, 11, "after all of the high ones");
}

#[tokio::test]
async fn a_node_that_stalls_with_slots_keeps_them_for_its_runs_wherever_they_go_on() {
    let (store, held) = (database().await, Held::new());
    let rig = || {
        let (store, held) = (store.clone(), held.clone());
        async move {
            let define = |d: &mut _| define(d, flowing("test", per_what(1), work()));
            Rig::defining(store, vec![held], true, define).await.live().await
        }
    };
    let client = connect(&store).await;
    let lost = rig().await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(lost.open_for("test", "k").await.unwrap().run());
    }
    held.has_begun(1).await;
    // The second engine takes every other node for lost: the run goes on there, in its own slot.
    let other = rig().await;
    held.has_begun(2).await;
    let under_way = under_way(&client).await;
    assert_eq!((under_way.values().sum::<i64>(), count(&client, "slots where not freed").await), (1, 1));
    assert_eq!(other.status(runs[1]).await, "queued");
    held.permits.add_permits(100);
    for run in &runs {
        other.becomes(*run, "succeeded").await;
    }
    assert_flow_is_consistent(&client).await;
    lost.door.stop().await;
    other.door.stop().await;
}

/// Opens runs past the door, in one statement.
async fn open_rows(store: &Store, workflow: &str, count: usize, queued: Option<Queued>) -> Vec<RunId> {
    let row = store.keep_version(&flowing(workflow, Flow::default(), ten_steps())).await.unwrap();
    let open = |n: usize| {
        let run = RunId(uuid::Uuid::now_v7());
        let input = Input {
            workflow: workflow.into(),
            version: row.digest,
            title: format!("{workflow} {n}"),
            input: json!({"what": "x"}),
            label: Label::Owner,
            trigger: "api".into(),
            verified: None,
            parent: None,
            rerun: None,
            budget_micros: None,
        };
        let entry =
            Entry { event: Event::RunOpened(input), actor: "trigger:api".into(), label: Label::Owner };
        let at = whole_microseconds(Timestamp::now());
        Open {
            run,
            workflow: workflow.into(),
            version: row.digest,
            title: format!("{workflow} {n}"),
            trigger: "api".into(),
            key: run.to_string(),
            node: None,
            queued: queued.clone(),
            entry: seal(genesis(run), 0, at, vec![entry]).pop().unwrap(),
        }
    };
    let opens: Vec<Open> = (0..count).map(open).collect();
    let writer = Writer::connect(store.config()).await.unwrap();
    writer.open(&opens.iter().collect::<Vec<_>>()).await.unwrap();
    opens.iter().map(|open| open.run).collect()
}

#[tokio::test]
async fn a_flood_of_due_runs_leaves_every_second_claim_of_little_room_to_the_others() {
    let store = database().await;
    open_rows(&store, "flood", 200, None).await;
    let quiet = open_rows(&store, "quiet", 3, None).await;
    let node = NodeId(uuid::Uuid::new_v4());
    let (mut claimed, mut after) = (Vec::new(), String::new());
    for _ in 0..6 {
        let (runs, last) = store.claim_due_in_turns(node, 1, &after).await.unwrap();
        claimed.extend(runs);
        after = last.unwrap();
    }
    assert!(quiet.iter().all(|run| claimed.contains(run)));
    let (rest, _) = store.claim_due_in_turns(node, 250, &after).await.unwrap();
    assert_eq!(rest.len(), 197, "what one workflow leaves is the other's");
    assert_eq!(store.claim_due_in_turns(node, 10, &after).await.unwrap(), (Vec::new(), None));
}

#[tokio::test]
async fn an_admission_reads_few_rows_however_long_the_queue_and_however_full_its_keys() {
    let store = database().await;
    let client = connect(&store).await;
    let queued =
        |slots| Queued { key: "k".into(), slots, priority: Priority::Normal, ageing: Span::secs(300) };
    let one = open_rows(&store, "flood", 1, Some(queued(Some(1)))).await[0];
    // 50,000 rows of one full key, 50,000 of as many keys, all older than the one that came last.
    let flood = "
        with clones as (
            insert into runs (id, workflow, version, status, seq, title, trigger, idempotency_key, opened_at)
            select gen_random_uuid(), workflow, version, 'queued', 1, title, trigger, n::text, opened_at
            from runs, generate_series(1, 100000) as n where id = $1
            returning id, idempotency_key::int as n)
        insert into queue (run_id, workflow, flow_key, slots, priority, rank)
        select id, 'flood', case when n <= 50000 then 'k' else 'k' || n end, 1, 1, now() - interval '1 day' from clones";
    client.execute(flood, &[&one.0]).await.unwrap();
    client
        .execute("insert into slots (run_id, workflow, flow_key) values ($1, 'flood', 'k')", &[&one.0])
        .await
        .unwrap();
    client.execute("delete from queue where run_id = $1", &[&one.0]).await.unwrap();
    let last = open_rows(&store, "quiet", 1, Some(queued(None))).await[0];

    let read =
        "select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint from pg_stat_user_tables
                where relname = 'queue'";
    let settled = || async {
        client
            .batch_execute("select pg_stat_force_next_flush(); select pg_stat_clear_snapshot()")
            .await
            .unwrap();
        client.query_one(read, &[]).await.unwrap().get::<_, i64>(0)
    };
    let before = settled().await;
    let (node, mut turns) = (NodeId(uuid::Uuid::new_v4()), Turns::default());
    let since = std::time::Instant::now();
    let first = store.admit(node, 2, &mut turns).await.unwrap();
    eprintln!("one admission over 100,000 queued runs took {:?}", since.elapsed());
    assert!(first.runs.iter().any(|(run, _)| *run == last), "the others come to their turn at once");
    assert!(
        first.crowded
            && first.runs.iter().all(|(_, lane)| lane.key != "k" || lane.workflow.as_str() == "quiet")
    );
    let reads = eventually("the server counting what was read", || async {
        let reads = settled().await - before;
        (reads > 0).then_some(reads)
    })
    .await;
    assert!(reads < 20_000, "{reads} rows were read");
    // Room for everybody: the 50,000 that may begin all do, and of the full key nobody.
    let mut begun = first.runs.len();
    loop {
        let admitted = store.admit(node, 5_000, &mut turns).await.unwrap();
        begun += admitted.runs.len();
        if !admitted.more || begun >= 2_000 {
            break;
        }
    }
    assert!(begun >= 2_000);
    assert_eq!(count(&client, "slots where flow_key = 'k'").await, 1);
}

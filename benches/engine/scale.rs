//! Many runs: moving again after SIGKILL, and asleep.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use steward::domain::digest::Digest;
use steward::domain::event::{Event, Opened as Input};
use steward::domain::ids::{NodeId, RunId};
use steward::domain::label::Label;
use steward::domain::plan::Entry;
use steward::orchestrator::journal::Journal;
use steward::store::journal::Open;
use steward::store::journal::seal::{genesis, seal, whole_microseconds};
use steward::store::postgres::Server;
use tokio_postgres::{Client, Config};

use crate::node::{STEPS, connect, database};
use crate::percentile;
use crate::process::{Process, resident_mb, workspace};

const IN_FLIGHT: usize = 10_000;
const ASLEEP: i32 = 100_000;
const TIMERS: usize = 40;

/// The real binary with a server of its own. 10,000 runs are opened in its name, so that they are its runs in
/// flight as far as anything durable tells; then it is killed, and started again. Measured from the start of
/// the new process until each of them has made a further transition.
pub(crate) async fn restart() -> Value {
    let folder = tempfile::tempdir().unwrap();
    let steps = (0..STEPS)
        .map(|n| format!("  - {{ id: s{n}, action: noop, with: {{ value: {} }} }}\n", "x".repeat(60)));
    let steps: String = steps.collect();
    workspace(
        folder.path(),
        &format!("workflow: bench\ntitle: Ten steps\ninput: {{ type: object }}\nsteps:\n{steps}"),
    );
    let process = Process::start(folder.path(), None).await;
    let server = Server::start(&folder.path().join(".steward"), &|_| {}).await.unwrap(); // adopts it
    let config = server.config("steward");
    let client = connect(&config).await;
    let node = client.query_one("select id from nodes where lease_until > now()", &[]).await.unwrap().get(0);
    open(&config, &client, NodeId(node), IN_FLIGHT).await;
    process.kill().await;

    let since = Instant::now();
    let process = Process::start(folder.path(), None).await;
    let up = since.elapsed().as_secs_f64();
    let still = "select count(*) from runs r
        where seq = 1 and not exists (select from journal j where j.run_id = r.id and j.seq = 2)";
    none(&client, still).await;
    let moving = since.elapsed().as_secs_f64();
    none(&client, "select count(*) from runs where finished_at is null").await;
    let finished = since.elapsed().as_secs_f64();
    let rss = resident_mb(process.pid());
    process.kill().await;
    server.stop().await.unwrap();
    println!(
        "restart with {IN_FLIGHT} runs in flight: up after {up:.2} s, all moving after {moving:.2} s, all finished after {finished:.2} s; {rss:.0} MB"
    );
    json!({"runs": IN_FLIGHT, "up_s": up, "all_moving_s": moving, "all_finished_s": finished, "rss_mb": rss})
}

/// 100,000 runs that wait for nothing near, in the binary's database; then some that are due soon.
pub(crate) async fn sleep(server: &Server) -> Value {
    let folder = tempfile::tempdir().unwrap();
    workspace(
        folder.path(),
        "workflow: bench\ntitle: One step\ninput: { type: object }\nsteps:\n  - { id: s0, action: noop, with: { value: x } }\n",
    );
    let config = database(server, "sleep").await;
    let client = connect(&config).await;
    let process = Process::start(folder.path(), Some(&config)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = resident_mb(process.pid());
    let statement = format!(
        "insert into runs (id, workflow, version, status, seq, wake_at, title, trigger, idempotency_key, opened_at)
         select gen_random_uuid(), workflow, digest, 'waiting', 5, now() + interval '1 day' + n * interval '1 second',
             'asleep', 'api', 'asleep-' || n, now()
         from workflow_versions, generate_series(1, {ASLEEP}) n;
         analyze runs"
    );
    client.batch_execute(&statement).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let extra = resident_mb(process.pid()) - before;

    // Runs of a node that lives, so that nobody takes them; then given back, each due at its own moment.
    let other = NodeId(uuid::Uuid::new_v4());
    let statement = "insert into nodes (id, lease_until) values ($1, now() + interval '1 hour')";
    client.execute(statement, &[&other.0]).await.unwrap();
    let runs = open(&config, &client, other, TIMERS).await;
    let mut late = Vec::new();
    for run in runs {
        let statement = "update runs set node = null, status = 'waiting',
            wake_at = now() + interval '1.2 seconds' + random() * interval '1 second' where id = $1 returning wake_at";
        let due: Timestamp = client.query_one(statement, &[&run.0]).await.unwrap().get(0);
        late.push((run, due));
    }
    let mut latencies = Vec::new();
    for (run, due) in late {
        let begun: Timestamp = loop {
            let statement = "select min(at) from journal where run_id = $1 and seq = 2";
            match client.query_one(statement, &[&run.0]).await.unwrap().get(0) {
                Some(at) => break at,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        latencies.push((begun.as_microsecond() - due.as_microsecond()) as f64 / 1000.0);
    }
    process.kill().await;
    let (p50, most) = (percentile(&mut latencies, 0.5), percentile(&mut latencies, 1.0));
    println!(
        "asleep {ASLEEP}: {extra:.1} MB more; a due timer fires {p50:.0} ms late (p50), {most:.0} ms at most"
    );
    json!({"runs": ASLEEP, "extra_mb": extra, "timer_late_p50_ms": p50, "timer_late_max_ms": most})
}

/// Waits until a count is zero.
async fn none(client: &Client, statement: &str) {
    while client.query_one(statement, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Opens runs in the name of a node that hears nothing of them.
pub(crate) async fn open(config: &Config, client: &Client, node: NodeId, count: usize) -> Vec<RunId> {
    let row =
        client.query_one("select digest from workflow_versions where workflow = 'bench'", &[]).await.unwrap();
    let version = Digest(row.get::<_, Vec<u8>>(0).try_into().unwrap());
    let journal = Journal::start(config).await.unwrap();
    let runs: Vec<RunId> = (0..count).map(|_| RunId(uuid::Uuid::now_v7())).collect();
    let opened = join_all(runs.iter().map(|run| journal.open(opening(*run, version, node)))).await;
    assert!(opened.into_iter().all(|opened| opened.is_ok()));
    runs
}

fn opening(run: RunId, version: Digest, node: NodeId) -> Open {
    let input = Input {
        workflow: "bench".into(),
        version,
        title: "Ten steps".into(),
        input: json!({}),
        label: Label::Owner,
        trigger: "api".into(),
        verified: None,
        parent: None,
        rerun: None,
        budget_micros: None,
    };
    let entry = Entry { event: Event::RunOpened(input), actor: "trigger:api".into(), label: Label::Owner };
    let entry = seal(genesis(run), 0, whole_microseconds(Timestamp::now()), vec![entry]).pop().unwrap();
    Open {
        run,
        workflow: "bench".into(),
        version,
        title: "Ten steps".into(),
        trigger: "api".into(),
        key: run.to_string(),
        node: Some(node),
        queued: None,
        entry,
    }
}

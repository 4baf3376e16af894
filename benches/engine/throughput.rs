//! Steps per second and the latency of a durable step, beside single-row inserts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use steward::domain::ids::RunId;
use steward::domain::label::Label;
use steward::domain::run::RunStatus;
use steward::orchestrator::door::{Door, Request};
use steward::orchestrator::engine::Moved;
use steward::store::postgres::Server;
use tokio::sync::{broadcast, oneshot};
use tokio_postgres::{Client, Config};

use crate::node::{connect, database, start_node};
use crate::process::{cpu_secs, resident_mb};
use crate::{percentile, window};

/// What is measured, in this order: what is compared is measured next to each other.
const PLAN: [(Kind, usize); 7] = [
    (Kind::Inserts, 1),
    (Kind::Steps, 1),
    (Kind::Inserts, 8),
    (Kind::Inserts, 32),
    (Kind::Steps, 32),
    (Kind::Steps, 64),
    (Kind::Steps, 256),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Inserts,
    Steps,
}

pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

pub(crate) async fn measure(server: &Server, folder: &Path) -> Value {
    let config = database(server, "throughput").await;
    let client = connect(&config).await;
    client.batch_execute("create table single_rows (like journal including all)").await.unwrap();
    let door = start_node(&config, folder).await;
    println!(
        "{:>9} {:>4} {:>10} {:>8} {:>8} {:>8} {:>10} {:>9} {:>9} {:>6}",
        "", "", "per s", "p50 ms", "p99 ms", "tx/step", "WAL B/step", "us engine", "us postgr", "RSS MB"
    );
    let (mut figures, mut per_second) = (Map::new(), BTreeMap::new());
    for (kind, concurrency) in PLAN {
        let name = if kind == Kind::Steps { "steps" } else { "inserts" };
        let (before, cpu) = (counters(&client).await, cpu_secs(server));
        let (measured, total) = match kind {
            Kind::Inserts => inserts(&config, concurrency).await,
            Kind::Steps => steps(std::slice::from_ref(&door), concurrency).await,
        };
        let (after, cpu_after) = (counters(&client).await, cpu_secs(server));
        let share = |whole: f64| whole / total as f64;
        let rss = resident_mb(std::process::id());
        let (tx, wal) = (share(after.0 - before.0), share(after.1 - before.1));
        let (ours, theirs) = (share(cpu_after.0 - cpu.0) * 1e6, share(cpu_after.1 - cpu.1) * 1e6);
        println!(
            "{name:>9} {concurrency:>4} {:>10.0} {:>8.2} {:>8.2} {tx:>8.3} {wal:>10.0} {ours:>9.1} {theirs:>9.1} {rss:>6.1}",
            measured.per_second, measured.p50, measured.p99
        );
        figures.insert(
            format!("{name}_c{concurrency}"),
            json!({
                "per_s": measured.per_second, "p50_ms": measured.p50, "p99_ms": measured.p99, "tx": tx,
                "wal_bytes": wal, "cpu_us_engine": ours, "cpu_us_postgres": theirs, "rss_mb": rss,
            }),
        );
        per_second.insert((name, concurrency), measured);
    }
    let (insert, step) = (&per_second[&("inserts", 1)], &per_second[&("steps", 1)]);
    let ratios = json!({
        "steps_c256_to_inserts_c32": per_second[&("steps", 256)].per_second / per_second[&("inserts", 32)].per_second,
        "step_p50_to_insert_p50": step.p50 / insert.p50,
        "step_p99_to_insert_p50": step.p99 / insert.p50,
        "step_p99_to_insert_p99": step.p99 / insert.p99,
    });
    println!("{ratios}");
    figures.insert("ratios".into(), ratios);
    door.stop().await;
    Value::Object(figures)
}

/// Closed loops of ten-step runs over these nodes. Gives the figures of the window after a warm-up, and how
/// many steps there were in all, warm-up and end included, for what is counted over all of them.
pub(crate) async fn steps(doors: &[Door], concurrency: usize) -> (Figures, usize) {
    let (stop, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (mut watchers, mut loops) = (Vec::new(), Vec::new());
    for (n, door) in doors.iter().enumerate() {
        let waiting: Waiting = Arc::default();
        let moved = door.engine().moved.subscribe();
        watchers.push(tokio::spawn(watch(moved, waiting.clone(), counted.clone(), stop.clone())));
        let share = (concurrency + doors.len() - 1 - n) / doors.len();
        loops.extend(
            (0..share).map(|_| tokio::spawn(one_after_another(door.clone(), waiting.clone(), stop.clone()))),
        );
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (since, first) = (Instant::now(), counted.load(Ordering::Relaxed));
    tokio::time::sleep(window()).await;
    let per_second = (counted.load(Ordering::Relaxed) - first) as f64 / since.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in loops {
        task.await.unwrap();
    }
    let mut latencies = Vec::new();
    for watcher in watchers {
        latencies.extend(watcher.await.unwrap());
    }
    let (p50, p99) = (percentile(&mut latencies, 0.50), percentile(&mut latencies, 0.99));
    (Figures { per_second, p50, p99 }, counted.load(Ordering::Relaxed))
}

type Waiting = Arc<Mutex<BTreeMap<RunId, oneshot::Sender<()>>>>;

async fn one_after_another(door: Door, waiting: Waiting, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let request = Request {
            workflow: "bench".into(),
            input: json!({}),
            label: Label::Owner,
            trigger: "api",
            key: None,
            verified: None,
        };
        let run = door.open(request).await.unwrap().run();
        let (done, finished) = oneshot::channel();
        waiting.lock().unwrap().insert(run, done);
        tokio::time::timeout(Duration::from_secs(30), finished).await.expect("the run ends").unwrap();
    }
}

/// Counts durable steps, measures from one to the next, and tells who waits for a run that it is over.
async fn watch(
    mut moved: broadcast::Receiver<Moved>,
    waiting: Waiting,
    counted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Vec<f64> {
    let (mut last, mut latencies, mut over) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
    loop {
        match tokio::time::timeout(Duration::from_millis(20), moved.recv()).await {
            Ok(Ok(moved)) => {
                let now = Instant::now();
                counted.fetch_add(1, Ordering::Relaxed);
                if let Some(before) = last.insert(moved.run, now) {
                    latencies.push((now - before).as_secs_f64() * 1000.0);
                }
                if !matches!(moved.status, RunStatus::Over(_)) {
                    continue;
                }
                last.remove(&moved.run);
                over.insert(moved.run);
            }
            Ok(Err(broadcast::error::RecvError::Lagged(n))) => panic!("the watcher missed {n} hints"),
            Ok(Err(broadcast::error::RecvError::Closed)) => return latencies,
            Err(_) if stop.load(Ordering::Relaxed) && last.is_empty() && over.is_empty() => return latencies,
            Err(_) => {}
        }
        // A run may be over before its opener waits for it.
        let mut waiting = waiting.lock().unwrap();
        over.retain(|run| waiting.remove(run).map(|done| done.send(())).is_none());
    }
}

/// Single-row inserts of a journal row's size, each its own transaction, one connection per client.
async fn inserts(config: &Config, concurrency: usize) -> (Figures, usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..concurrency {
        clients.push(connect(config).await);
    }
    let since = Instant::now();
    let loops: Vec<_> =
        clients.into_iter().map(|client| tokio::spawn(insert_rows(client, stop.clone()))).collect();
    tokio::time::sleep(window()).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in loops {
        latencies.extend(task.await.unwrap());
    }
    let per_second = latencies.len() as f64 / since.elapsed().as_secs_f64();
    let (p50, p99) = (percentile(&mut latencies, 0.50), percentile(&mut latencies, 0.99));
    (Figures { per_second, p50, p99 }, latencies.len())
}

async fn insert_rows(client: Client, stop: Arc<AtomicBool>) -> Vec<f64> {
    let insert = client
        .prepare(
            "insert into single_rows (run_id, seq, kind, at, actor, label, data, hash)
             values ($1, $2, 'step.succeeded', now(), 'system', 'owner', $3, $4)",
        )
        .await
        .unwrap();
    let (data, digest) = (json!({"label": "owner", "output": "x".repeat(60), "step": "s1"}), [7u8; 32]);
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        client.execute(&insert, &[&uuid::Uuid::now_v7(), &1i64, &data, &&digest[..]]).await.unwrap();
        latencies.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    latencies
}

/// Transactions that wrote something, and bytes of WAL, so far. Each such transaction takes one number; the
/// statistics views are a second behind.
async fn counters(client: &Client) -> (f64, f64) {
    let statement = "select pg_snapshot_xmax(pg_current_snapshot())::text::float8,
        (pg_current_wal_insert_lsn() - '0/0')::float8";
    let row = client.query_one(statement, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

//! How fast the engine makes steps durable, beside what PostgreSQL itself can do.
//!
//! Ten built-in no-op steps per run, each durable before the next begins; fsync and
//! synchronous_commit on; engine and PostgreSQL on the same cores. Printed beside single-row inserts
//! of the same size at the same number of clients, on the same database, in the same process.
//! The last line is one JSON object with every figure.
//!
//! `cargo bench --bench engine`; `STEWARD_BENCH_SECS` sets the length of each window (default 8).

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use steward::config::template;
use steward::config::workspace::Definitions;
use steward::connectors::email::Email;
use steward::connectors::http::Http;
use steward::connectors::records::Records;
use steward::connectors::registry::Connectors;
use steward::domain::duration::Span;
use steward::domain::ids::{NodeId, RunId, StepId};
use steward::domain::label::Label;
use steward::domain::retry::Retry;
use steward::domain::run::RunStatus;
use steward::domain::workflow::{ActionStep, Step, StepKind, Version};
use steward::models::Models;
use steward::orchestrator::clock::LEASE_SECS;
use steward::orchestrator::door::{Door, Request};
use steward::orchestrator::engine::{Engine, Parts};
use steward::orchestrator::journal::Journal;
use steward::store::postgres::Server;
use steward::store::{Store, migrate};
use tokio::sync::{broadcast, oneshot};
use tokio_postgres::{Client, Config, NoTls};

const STEPS: usize = 10;
const CONCURRENCY: [usize; 3] = [1, 32, 256];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let server = start_server(folder.path()).await;
    let config = server.config("bench");
    let client = connect(&config).await;
    let door = start_engine(&config, folder.path()).await;

    let mut figures = serde_json::Map::new();
    println!(
        "{:>10} {:>14} {:>14} {:>7} {:>12} {:>12} {:>9} {:>11}",
        "in flight", "inserts/s", "steps/s", "ratio", "step p50 ms", "step p99 ms", "tx/step", "WAL B/step"
    );
    for concurrency in CONCURRENCY {
        let inserts = inserts(&config, concurrency).await;
        let engine = steps(&door, &client, concurrency).await;
        let ratio = engine.per_second / inserts.per_second;
        println!(
            "{concurrency:>10} {:>14.0} {:>14.0} {ratio:>7.2} {:>12.2} {:>12.2} {:>9.3} {:>11.0}",
            inserts.per_second, engine.per_second, engine.p50, engine.p99, engine.transactions, engine.wal
        );
        figures.insert(format!("c{concurrency}"), json!({
            "inserts_per_s": inserts.per_second, "insert_p50_ms": inserts.p50, "insert_p99_ms": inserts.p99,
            "steps_per_s": engine.per_second, "ratio": ratio, "step_p50_ms": engine.p50, "step_p99_ms": engine.p99,
            "tx_per_step": engine.transactions, "wal_bytes_per_step": engine.wal,
        }));
    }
    figures.insert("rss_mb".into(), json!(resident_mb()));
    figures.insert("cores".into(), json!(std::thread::available_parallelism().map_or(0, usize::from)));
    figures.insert("postgres".into(), json!(server.version().to_string()));
    door.stop().await;
    server.stop().await.unwrap();
    println!("{}", Value::Object(figures));
}

struct Figures {
    per_second: f64,
    p50: f64,
    p99: f64,
    transactions: f64,
    wal: f64,
}

/// Runs closed loops of ten-step runs; the latency is from one durable step to the next.
async fn steps(door: &Door, client: &Client, concurrency: usize) -> Figures {
    let moved = door.engine().moved.subscribe();
    let (stop, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let waiting: Arc<std::sync::Mutex<BTreeMap<RunId, oneshot::Sender<()>>>> = Arc::default();
    let latencies = tokio::spawn(watch(moved, waiting.clone(), counted.clone(), stop.clone()));
    let loops: Vec<_> = (0..concurrency)
        .map(|_| {
            let (door, waiting, stop) = (door.clone(), waiting.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let request = Request {
                        workflow: "bench".into(),
                        input: json!({}),
                        label: Label::Owner,
                        trigger: "api",
                        key: None,
                    };
                    let run = door.open(request).await.unwrap().run();
                    let (done, finished) = oneshot::channel();
                    waiting.lock().unwrap().insert(run, done);
                    // A run may end before we wait for it: then its row says so.
                    let _ = tokio::time::timeout(Duration::from_secs(5), finished).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, since, first) = (counters(client).await, Instant::now(), counted.load(Ordering::Relaxed));
    tokio::time::sleep(window()).await;
    let steps = (counted.load(Ordering::Relaxed) - first) as f64;
    let (elapsed, after) = (since.elapsed().as_secs_f64(), counters(client).await);
    stop.store(true, Ordering::Relaxed);
    for task in loops {
        task.await.unwrap();
    }
    let mut latencies = latencies.await.unwrap();
    Figures {
        per_second: steps / elapsed,
        p50: percentile(&mut latencies, 0.50),
        p99: percentile(&mut latencies, 0.99),
        transactions: (after.0 - before.0) / steps,
        wal: (after.1 - before.1) / steps,
    }
}

async fn watch(
    mut moved: broadcast::Receiver<steward::orchestrator::engine::Moved>,
    waiting: Arc<std::sync::Mutex<BTreeMap<RunId, oneshot::Sender<()>>>>,
    counted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Vec<f64> {
    let (mut last, mut latencies) = (BTreeMap::new(), Vec::new());
    let mut over = std::collections::BTreeSet::new();
    loop {
        let moved = match tokio::time::timeout(Duration::from_millis(200), moved.recv()).await {
            Ok(Ok(moved)) => moved,
            Ok(Err(broadcast::error::RecvError::Lagged(missed))) => {
                panic!("the watcher missed {missed} hints")
            }
            Ok(Err(broadcast::error::RecvError::Closed)) => return latencies,
            Err(_) if stop.load(Ordering::Relaxed) => return latencies,
            Err(_) => continue,
        };
        let now = Instant::now();
        counted.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = last.insert(moved.run, now) {
            latencies.push((now - before).as_secs_f64() * 1000.0);
        }
        if matches!(moved.status, RunStatus::Over(_)) {
            last.remove(&moved.run);
            over.insert(moved.run);
        }
        let mut waiting = waiting.lock().unwrap();
        over.retain(|run| match waiting.remove(run) {
            Some(done) => {
                let _ = done.send(());
                false
            }
            None => true,
        });
    }
}

/// Single-row inserts of a journal row's size, each its own transaction, one connection per client.
async fn inserts(config: &Config, concurrency: usize) -> Figures {
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..concurrency {
        clients.push(connect(config).await);
    }
    let since = Instant::now();
    let loops: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let insert = client.prepare(
                "insert into single_rows (run_id, seq, kind, at, actor, label, data, data_digest, hash)
                 values ($1, $2, 'step.succeeded', now(), 'system', 'owner', $3, $4, $4)").await.unwrap();
                let (data, digest, mut latencies) =
                    (json!({"step": "s1", "output": "x".repeat(60)}), [7u8; 32], Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    client
                        .execute(&insert, &[&uuid::Uuid::now_v7(), &1i64, &data, &&digest[..]])
                        .await
                        .unwrap();
                    latencies.push(begun.elapsed().as_secs_f64() * 1000.0);
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(window()).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in loops {
        latencies.extend(task.await.unwrap());
    }
    let per_second = latencies.len() as f64 / since.elapsed().as_secs_f64();
    Figures {
        per_second,
        p50: percentile(&mut latencies, 0.50),
        p99: percentile(&mut latencies, 0.99),
        transactions: 1.0,
        wal: 0.0,
    }
}

async fn start_server(folder: &std::path::Path) -> Server {
    let quiet = |_: &str| {};
    let server = Server::start(folder, &quiet).await.unwrap();
    server.stop().await.unwrap();
    // The comparison needs a connection per client; nothing else differs from the product's server.
    let settings = folder.join("postgres/data/postgresql.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\nmax_connections = 300\n")).unwrap();
    let server = Server::start(folder, &quiet).await.unwrap();
    server.ensure_database("bench").await.unwrap();
    migrate::migrate(&server.config("bench")).await.unwrap();
    let client = connect(&server.config("bench")).await;
    client.batch_execute("create table single_rows (like journal including all)").await.unwrap();
    server
}

async fn start_engine(config: &Config, folder: &std::path::Path) -> Door {
    template::write(folder).unwrap();
    let (mut definitions, _) = Definitions::load(folder).map_err(|problems| problems.render(false)).unwrap();
    let version = ten_steps();
    let mut definition = definitions.workflows.values().next().unwrap().clone();
    definition.triggers.clear();
    definition.version = version;
    definitions.workflows = BTreeMap::from([("bench".into(), definition)]);
    let store = Store::new(config.clone()).unwrap();
    let node = NodeId(uuid::Uuid::new_v4());
    store.register_node(node, LEASE_SECS, true).await.unwrap();
    let models = Models::start(&definitions.models, json!({}), None).await.unwrap();
    let parts = Parts {
        node,
        journal: Journal::start(config, node).await.unwrap(),
        connectors: Connectors::new(
            Email::new(&definitions.connectors.email, folder.join("outbox")).unwrap(),
            Http::new(&definitions.connectors.http).unwrap(),
            Records::new(store.clone()),
        ),
        embedder: Arc::new(models.encoder().clone()),
        models,
        store,
        clock: Arc::new(Timestamp::now),
    };
    Door::start(Arc::new(Engine::new(parts, &definitions).await.unwrap())).await.unwrap()
}

fn ten_steps() -> Version {
    let step = |n: usize| Step {
        id: StepId(format!("s{n}")),
        name: None,
        needs: if n == 0 { Vec::new() } else { vec![StepId(format!("s{}", n - 1))] },
        when: None,
        kind: StepKind::Action(ActionStep {
            action: "noop".into(),
            with: json!({"value": "x".repeat(60)}),
            dedupe: None,
            review: None,
        }),
        retry: Retry::default(),
        timeout: Span::secs(60),
    };
    Version {
        workflow: "bench".into(),
        title: "Ten steps".into(),
        input: json!({"type": "object"}),
        steps: (0..STEPS).map(step).collect(),
        agents: BTreeMap::new(),
    }
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn counters(client: &Client) -> (f64, f64) {
    let row = client
        .query_one(
            "select pg_stat_get_db_xact_commit(oid)::float8, (pg_current_wal_insert_lsn() - '0/0')::float8
         from pg_database where datname = current_database()",
            &[],
        )
        .await
        .unwrap();
    (row.get(0), row.get(1))
}

fn window() -> Duration {
    let secs = std::env::var("STEWARD_BENCH_SECS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    Duration::from_secs(secs)
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

fn resident_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

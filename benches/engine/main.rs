//! How fast the engine is, beside what PostgreSQL itself can do in the same minutes on the same cores.
//!
//! `cargo bench --bench engine` runs every section; `STEWARD_BENCH=throughput,start` chooses some.
//! `STEWARD_BENCH_SECS` sets the length of a window (default 5). fsync and synchronous_commit are on, and
//! engine, clients and PostgreSQL share the machine. The last line is one JSON object with every figure;
//! `docs/performance.md` explains them.
//!
//! | section | what is measured |
//! |---|---|
//! | `throughput` | ten built-in no-op steps per run, each durable before the next; beside single-row inserts |
//! | `start` | the real binary, idle: from before the `POST` to the first step's begin |
//! | `decision` | the real binary, idle: from before the decision's `POST` to the next step's begin |
//! | `restart` | 10,000 runs in flight, SIGKILL, start: until every one of them has moved |
//! | `sleep` | 100,000 sleeping runs: memory, and how late a timer fires among them |
//! | `nodes` | one node and three over one database, and whether two of them ever take the same run |
//!
//! **When a step begins** is the `at` of its journal entry: the engine's clock when it does the step's work
//! (`noop`) or prepares it. The bench reads the same machine's clock just before it asks. Peers are measured
//! alike: the client's clock before the call, the worker's clock inside the first step.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod latency;
mod node;
mod nodes;
mod process;
mod scale;
mod throughput;

use std::time::Duration;

use serde_json::{Map, Value, json};

const SECTIONS: [&str; 6] = ["throughput", "start", "decision", "restart", "sleep", "nodes"];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chosen = std::env::var("STEWARD_BENCH").unwrap_or_else(|_| SECTIONS.join(","));
    let chosen: Vec<&str> = chosen.split(',').map(str::trim).collect();
    let unknown = chosen.iter().find(|name| !SECTIONS.contains(name));
    assert!(unknown.is_none(), "STEWARD_BENCH names sections of {SECTIONS:?}, not {unknown:?}");
    let folder = tempfile::tempdir().unwrap();
    let server = node::start_server(folder.path()).await;
    let mut figures = Map::new();
    for section in chosen {
        let measured = match section {
            "throughput" => throughput::measure(&server, folder.path()).await,
            "start" => latency::start(&server).await,
            "decision" => latency::decision(&server).await,
            "restart" => scale::restart().await,
            "sleep" => scale::sleep(&server).await,
            _ => nodes::measure(&server, folder.path()).await,
        };
        figures.insert(section.to_owned(), measured);
    }
    figures.insert("cores".into(), json!(std::thread::available_parallelism().map_or(0, usize::from)));
    figures.insert("postgres".into(), json!(server.version().to_string()));
    server.stop().await.unwrap();
    println!("{}", Value::Object(figures));
}

fn window() -> Duration {
    let secs = std::env::var("STEWARD_BENCH_SECS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    Duration::from_secs(secs)
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

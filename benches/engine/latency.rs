//! The real binary while it is idle: how soon a run begins that another process asks for over HTTP, and how
//! soon it goes on once the owner has decided.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use steward::store::postgres::Server;
use tokio_postgres::Client;

use crate::node::{connect, database};
use crate::percentile;
use crate::process::{Process, workspace};

/// Samples: the 99th percentile then rests on several.
const SAMPLES: usize = 300;

/// Asked first and not counted: connections are made, statements prepared.
const WARM_UP: usize = 20;

const TWO_STEPS: &str = "workflow: bench
title: Two steps
input: { type: object }
steps:
  - { id: first, action: noop, with: { value: xxxxxxxxxxxxxxxxxxxx } }
  - { id: second, action: noop, with: { value: xxxxxxxxxxxxxxxxxxxx } }
";

const QUESTION: &str = "workflow: bench
title: A question
input: { type: object }
steps:
  - { id: question, review: { ask: Go on? } }
  - { id: after, action: noop, with: { value: xxxxxxxxxxxxxxxxxxxx } }
";

/// From before `POST /api/v1/runs` to the begin of the first step.
pub(crate) async fn start(server: &Server) -> Value {
    let folder = tempfile::tempdir().unwrap();
    workspace(folder.path(), TWO_STEPS);
    let config = database(server, "start").await;
    let client = connect(&config).await;
    let process = Process::start(folder.path(), Some(&config)).await;
    let (mut latencies, mut answers) = (Vec::new(), Vec::new());
    for n in 0..WARM_UP + SAMPLES {
        idle().await;
        let asked = Timestamp::now();
        let run = open(&process).await;
        let answered = Timestamp::now();
        let begun = begun(&client, run, "first").await;
        if n >= WARM_UP {
            latencies.push(ms_between(asked, begun));
            answers.push(ms_between(asked, answered));
        }
    }
    process.kill().await;
    told("idle start", &mut latencies, "answered", &mut answers)
}

/// From before `POST /api/v1/reviews/ID/decision` to the begin of the step behind the question.
pub(crate) async fn decision(server: &Server) -> Value {
    let folder = tempfile::tempdir().unwrap();
    workspace(folder.path(), QUESTION);
    let config = database(server, "decision").await;
    let client = connect(&config).await;
    let process = Process::start(folder.path(), Some(&config)).await;
    let (mut latencies, mut answers) = (Vec::new(), Vec::new());
    for n in 0..WARM_UP + SAMPLES {
        let run = open(&process).await;
        let statement =
            "select id::text, encode(digest, 'hex') from reviews where run_id = $1 and status = 'open'";
        let (review, digest): (String, String) = loop {
            match client.query_opt(statement, &[&run]).await.unwrap() {
                Some(row) => break (row.get(0), row.get(1)),
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        idle().await;
        let asked = Timestamp::now();
        let path = format!("/api/v1/reviews/{review}/decision");
        process.post(&path, &json!({"verdict": "approved", "digest": digest})).await;
        let answered = Timestamp::now();
        let begun = begun(&client, run, "after").await;
        if n >= WARM_UP {
            latencies.push(ms_between(asked, begun));
            answers.push(ms_between(asked, answered));
        }
    }
    process.kill().await;
    told("decision", &mut latencies, "answered", &mut answers)
}

async fn open(process: &Process) -> uuid::Uuid {
    let opened = process.post("/api/v1/runs", &json!({"workflow": "bench", "input": {}})).await;
    opened["run"].as_str().unwrap().parse().unwrap()
}

/// A pause at random, so that nothing falls into step with a timer.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(20 + u64::from(rand::random::<u8>()) / 8)).await;
}

/// When the step's first entry was made. Asked for only once it should be there: what the bench itself asks
/// of the database meanwhile would be measured along.
async fn begun(client: &Client, run: uuid::Uuid, step: &str) -> Timestamp {
    let statement = "select min(at) from journal
        where run_id = $1 and kind in ('step.started', 'step.succeeded') and data ->> 'step' = $2";
    loop {
        tokio::time::sleep(Duration::from_millis(15)).await;
        let row = client.query_one(statement, &[&run, &step]).await.unwrap();
        if let Some(at) = row.get(0) {
            return at;
        }
    }
}

fn ms_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_microsecond() - from.as_microsecond()) as f64 / 1000.0
}

fn told(name: &str, latencies: &mut [f64], other: &str, answers: &mut [f64]) -> Value {
    let (p50, p99) = (percentile(latencies, 0.50), percentile(latencies, 0.99));
    let (answered, answered_99) = (percentile(answers, 0.50), percentile(answers, 0.99));
    println!(
        "{name}: p50 {p50:.2} ms, p99 {p99:.2} ms; {other}: p50 {answered:.2} ms, p99 {answered_99:.2} ms"
    );
    json!({"p50_ms": p50, "p99_ms": p99, "answered_p50_ms": answered, "answered_p99_ms": answered_99})
}

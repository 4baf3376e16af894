//! How soon the owner hears of a proposed action, and how soon it is begun once he has decided: the real
//! binary with its real channels, a Slack and a mail server on loopback that accept at once, PostgreSQL on
//! the same cores.
//!
//! `cargo bench --bench reviews`. `STEWARD_BENCH_SAMPLES` sets how many are measured (default 200). The last
//! line is one JSON object with every figure, milliseconds.
//!
//! | figure | from | to |
//! |---|---|---|
//! | `slack`, `email` | `effect.proposed` in the journal | the server has the whole message and accepts it |
//! | `burst_slack`, `burst_email` | the same, of twenty that are proposed at once | |
//! | `decision` | before the decision's `POST` | `effect.started` in the journal |
//!
//! A journal entry's time is the engine's clock when the transition is made, before it is durable; the servers
//! and this process read the same machine's clock.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "engine/node.rs"]
#[allow(dead_code, reason = "engines inside this process are for the engine's bench")]
mod node;
#[path = "engine/process.rs"]
#[allow(dead_code, reason = "memory and processor time are for the engine's bench")]
mod process;
#[path = "../tests/it/support/smtp.rs"]
#[allow(dead_code, unreachable_pub, reason = "whom a mail is from and to is for the tests")]
mod smtp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path as Named, State};
use axum::routing::any;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::node::{connect, database, start_server};
use crate::process::{Process, workspace};
use crate::smtp::MailServer;

/// Asked first and not counted: connections are made, statements prepared.
const WARM_UP: usize = 20;

/// Actions that are proposed at once: a morning's worth after quiet hours.
const BURST: usize = 20;

/// Bursts.
const BURSTS: usize = 5;

/// How long a message may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(60);

const WORKFLOW: &str = "workflow: bench
title: \"Keep {{ input.word }} for good\"
input: { type: object, required: [word], properties: { word: { type: string } } }
steps:
  - id: keep
    action: records.put
    with: { kind: bench, key: \"{{ input.word }}\", data: { word: \"{{ input.word }}\" } }
    review: { artifacts: [input.word] }
";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let samples = std::env::var("STEWARD_BENCH_SAMPLES").ok().and_then(|text| text.parse().ok());
    let samples: usize = samples.unwrap_or(200);
    let folder = tempfile::tempdir().unwrap();
    let server = start_server(folder.path()).await;
    let config = database(&server, "reviews").await;
    let house = House::start(&config).await;

    let mut took: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for n in 0..WARM_UP + samples {
        let asked = house.ask().await;
        let (slack, email) = (house.slack_has(&asked).await, house.mail_has(&asked).await);
        let proposed = house.entry(asked.run, "effect.proposed").await;
        let decided = house.decide(&asked).await;
        let started = house.entry(asked.run, "effect.started").await;
        if n >= WARM_UP {
            took.entry("slack").or_default().push(ms_between(proposed, slack));
            took.entry("email").or_default().push(ms_between(proposed, email));
            took.entry("decision").or_default().push(ms_between(decided, started));
        }
    }
    for _ in 0..BURSTS {
        let asked = futures_util::future::join_all((0..BURST).map(|_| house.ask())).await;
        for one in &asked {
            let (slack, email) = (house.slack_has(one).await, house.mail_has(one).await);
            let proposed = house.entry(one.run, "effect.proposed").await;
            took.entry("burst_slack").or_default().push(ms_between(proposed, slack));
            took.entry("burst_email").or_default().push(ms_between(proposed, email));
            house.decide(one).await;
        }
    }
    house.process.kill().await;
    let mut figures = Map::new();
    for (name, values) in &mut took {
        figures.insert((*name).to_owned(), told(name, values));
    }
    figures.insert("samples".into(), json!(samples));
    figures.insert("cores".into(), json!(std::thread::available_parallelism().map_or(0, usize::from)));
    figures.insert("postgres".into(), json!(server.version().to_string()));
    server.stop().await.unwrap();
    println!("{}", Value::Object(figures));
}

/// The binary, with a Slack and a mail server that it writes to.
struct House {
    process: Process,
    client: Client,
    slack: Slack,
    mail: MailServer,
    _folder: tempfile::TempDir,
}

/// A run that waits for the owner.
struct Asked {
    run: Uuid,
    /// Stands in its title, and in no other.
    word: String,
}

impl House {
    async fn start(config: &tokio_postgres::Config) -> Self {
        let (slack, mail) = (Slack::start().await, MailServer::start().await);
        let folder = tempfile::tempdir().unwrap();
        let house = folder.path().join("workspace");
        std::fs::create_dir(&house).unwrap();
        workspace(&house, WORKFLOW);
        reach(&house, folder.path(), slack.address, mail.address);
        let client = connect(config).await;
        let process = Process::start(&house, Some(config)).await;
        Self { process, client, slack, mail, _folder: folder }
    }

    /// Opens a run after a pause at random, so that nothing falls into step with a timer.
    async fn ask(&self) -> Asked {
        tokio::time::sleep(Duration::from_millis(20 + u64::from(rand::random::<u8>()) / 8)).await;
        let word = format!("w{}", Uuid::new_v4().simple());
        let body = json!({"workflow": "bench", "input": {"word": word}});
        let opened = self.process.post("/api/v1/runs", &body).await;
        Asked { run: opened["run"].as_str().unwrap().parse().unwrap(), word }
    }

    /// When Slack accepted the message about it.
    async fn slack_has(&self, asked: &Asked) -> Timestamp {
        wait("a message in Slack", || self.slack.posted(&asked.word)).await
    }

    /// When the mail server accepted the mail about it.
    async fn mail_has(&self, asked: &Asked) -> Timestamp {
        let about = |mail: &smtp::Accepted| {
            // Long lines are folded: with a soft break in a body, before a blank in a header.
            let text = String::from_utf8_lossy(&mail.bytes).replace("=\r\n", "").replace("\r\n ", "");
            text.contains(&asked.word).then_some(mail.at)
        };
        wait("a mail", || self.mail.accepted().iter().rev().find_map(about)).await
    }

    /// When the first entry of that kind was made.
    async fn entry(&self, run: Uuid, kind: &str) -> Timestamp {
        let statement = "select min(at) from journal where run_id = $1 and kind = $2";
        let since = Instant::now();
        loop {
            let row = self.client.query_one(statement, &[&run, &kind]).await.unwrap();
            if let Some(at) = row.get(0) {
                return at;
            }
            assert!(since.elapsed() < PATIENCE, "no {kind} within {PATIENCE:?}");
            // What the bench itself asks of the database would be measured along.
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    /// Approves it; the moment before that was asked for.
    async fn decide(&self, asked: &Asked) -> Timestamp {
        let statement =
            "select id::text, encode(digest, 'hex') from reviews where run_id = $1 and status = 'open'";
        let row = self.client.query_one(statement, &[&asked.run]).await.unwrap();
        let (review, digest): (String, String) = (row.get(0), row.get(1));
        let before = Timestamp::now();
        let path = format!("/api/v1/reviews/{review}/decision");
        self.process.post(&path, &json!({"verdict": "approved", "digest": digest})).await;
        before
    }
}

/// Both channels, and everything over both at once. The secrets stand outside of the workspace.
fn reach(folder: &Path, secrets: &Path, slack: SocketAddr, mail: SocketAddr) {
    let secret = |name: &str, text: &str| {
        let path = secrets.join(name);
        std::fs::write(&path, text).unwrap();
        format!("\"file:{}\"", path.display())
    };
    let (token, signing) = (secret("slack-token", "xoxb-bench"), secret("slack-signing", "bench"));
    let rung = "{ rungs: [{ after: 0s, channels: [slack, email] }] }";
    let channels = format!(
        "slack:\n  token: {token}\n  channel: C0123456789\n  owner: U0123456789\n  signing_secret: {signing}\n  \
         api: http://{slack}/api/\nemail: {{}}\nladder:\n  low: {rung}\n  medium: {rung}\n  high: {rung}\n"
    );
    std::fs::write(folder.join("config/channels.yaml"), channels).unwrap();
    let connectors = format!(
        "email:\n  from: Bench <bench@bench.example>\n  smtp: {{ host: \"{}\", port: {}, security: none }}\n",
        mail.ip(),
        mail.port()
    );
    std::fs::write(folder.join("config/connectors.yaml"), connectors).unwrap();
    let _ = std::fs::remove_file(folder.join("config/policy.yaml"));
}

async fn wait<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what} was not accepted within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// As much of Slack as a message needs: it says yes, and keeps what was posted and when.
#[derive(Clone)]
struct Slack {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<(String, Timestamp)>>>,
}

impl Slack {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let slack = Self { address: listener.local_addr().unwrap(), posted: Arc::default() };
        let router = axum::Router::new().route("/api/{method}", any(answer)).with_state(slack.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        slack
    }

    fn posted(&self, word: &str) -> Option<Timestamp> {
        let posted = self.posted.lock().unwrap();
        posted.iter().rev().find(|(body, _)| body.contains(word)).map(|(_, at)| *at)
    }
}

async fn answer(State(slack): State<Slack>, Named(method): Named<String>, body: String) -> Json<Value> {
    let at = Timestamp::now();
    if method == "chat.postMessage" {
        slack.posted.lock().unwrap().push((body, at));
    }
    let ts = format!("{}.{:06}", at.as_second(), at.subsec_microsecond());
    Json(json!({"ok": true, "channel": "C0123456789", "ts": ts, "user_id": "U0000000001", "messages": []}))
}

fn ms_between(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_microsecond() - from.as_microsecond()) as f64 / 1000.0
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

fn told(name: &str, values: &mut [f64]) -> Value {
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| percentile(values, share));
    println!("{name}: p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms");
    json!({"p50_ms": p50, "p95_ms": p95, "p99_ms": p99})
}

//! What a long life costs: the engine on a database with a million finished runs and a hundred
//! thousand sleeping ones, beside the same engine on an empty one, in the same process on the same
//! PostgreSQL, measured in turns.
//!
//! `cargo bench --bench long_life`. With `-- fill` it only fills, and with `STEWARD_BENCH_FOLDER` the
//! database stays there and is filled once. `STEWARD_BENCH_FINISHED`, `STEWARD_BENCH_SLEEPING`: how many
//! runs; `STEWARD_BENCH_SECS`: the length of each window (default 5). The last line is one JSON object.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use steward::config::template;
use steward::config::workspace::Definitions;
use steward::connectors::email::Email;
use steward::connectors::http::Http;
use steward::connectors::records::Records;
use steward::connectors::registry::Connectors;
use steward::domain::duration::Span;
use steward::domain::event::{Event, Opened};
use steward::domain::ids::{RunId, StepId};
use steward::domain::label::Label;
use steward::domain::retry::Retry;
use steward::domain::run::RunStatus;
use steward::domain::workflow::{ActionStep, Step, StepKind, Version};
use steward::models::ledger::{Ledger, Terms};
use steward::models::{Encoder, Models};
use steward::orchestrator::door::{Door, Request};
use steward::orchestrator::engine::{Engine, Moved, Parts};
use steward::orchestrator::journal::Journal;
use steward::orchestrator::lease::{LEASE, Lease};
use steward::store::postgres::Server;
use steward::store::{Store, migrate, partitions};
use tokio::sync::broadcast;
use tokio_postgres::{Client, Config, NoTls};

const STEPS: usize = 10;
const CONCURRENCY: [usize; 2] = [1, 256];
/// Each figure is the median of this many windows, taken in turns.
const ROUNDS: usize = 3;
const TIMERS: i32 = 200;
/// Finished runs per statement of the filling.
const CHUNK: i64 = 50_000;
const MONTHS: i64 = 12;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("STEWARD_BENCH_FOLDER").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    let server = Server::start(&folder, &|line: &str| println!("{line}")).await.unwrap();
    for name in ["bare", "full"] {
        server.ensure_database(name).await.unwrap();
        migrate::migrate(&server.config(name)).await.unwrap();
    }
    let full = connect(&server.config("full")).await;
    fill(&server.config("full"), &full).await;
    if !std::env::args().any(|argument| argument == "fill") {
        let figures = measure(&server, &full, &folder).await;
        println!("{figures}");
    }
    server.stop().await.unwrap();
}

async fn measure(server: &Server, client: &Client, folder: &Path) -> Value {
    let bare = start_engine(&server.config("bare"), folder).await;
    let bare_lateness = lateness(&bare, &connect(&server.config("bare")).await).await;
    for concurrency in CONCURRENCY {
        steps(&bare, concurrency).await; // so that memory has taken its shape
    }
    let before = resident_mb();
    let full = start_engine(&server.config("full"), folder).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = resident_mb();
    let mut figures = serde_json::Map::new();
    println!(
        "{:>10} {:>9} {:>10} {:>12} {:>12}",
        "in flight", "database", "steps/s", "step p50 ms", "step p99 ms"
    );
    for concurrency in CONCURRENCY {
        let (mut on_bare, mut on_full) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            on_bare.push(steps(&bare, concurrency).await);
            on_full.push(steps(&full, concurrency).await);
        }
        let (on_bare, on_full) = (Figures::median(on_bare), Figures::median(on_full));
        for (name, figures) in [("bare", &on_bare), ("full", &on_full)] {
            println!(
                "{concurrency:>10} {name:>9} {:>10.0} {:>12.3} {:>12.3}",
                figures.per_second, figures.p50, figures.p99
            );
        }
        let both =
            |f: &Figures| json!({"steps_per_s": f.per_second, "step_p50_ms": f.p50, "step_p99_ms": f.p99});
        figures.insert(
            format!("c{concurrency}"),
            json!({
                "bare": both(&on_bare), "full": both(&on_full),
                "steps_per_s_ratio": on_full.per_second / on_bare.per_second,
                "step_p50_ratio": on_full.p50 / on_bare.p50,
            }),
        );
    }
    let lateness = lateness(&full, client).await;
    println!(
        "lateness of {TIMERS} timers, ms (p50, p99, worst): bare {bare_lateness:.1?}, full {lateness:.1?}"
    );
    println!(
        "memory, MB: {before:.1} with an engine on the bare database, {idle:.1} with a second one on the full one"
    );
    let sizes = sizes(client).await;
    println!("sizes: {sizes}");
    bare.stop().await;
    full.stop().await;
    figures.insert("timer_lateness_ms".into(), json!({"bare": bare_lateness, "full": lateness}));
    figures.insert("memory_for_a_second_engine_with_sleeping_runs_mb".into(), json!(idle - before));
    figures.insert("sizes".into(), sizes);
    figures.insert("postgres".into(), json!(server.version().to_string()));
    Value::Object(figures)
}

struct Figures {
    per_second: f64,
    p50: f64,
    p99: f64,
}

impl Figures {
    fn median(mut all: Vec<Self>) -> Self {
        all.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        all.swap_remove(all.len() / 2)
    }
}

/// Closed loops of ten-step runs; the latency is from one durable step to the next.
async fn steps(door: &Door, concurrency: usize) -> Figures {
    let mut moved = door.engine().moved.subscribe();
    for _ in 0..concurrency {
        open(door);
    }
    let warm = Instant::now() + Duration::from_secs(1);
    let end = warm + window();
    let (mut last, mut latencies, mut counted) = (HashMap::new(), Vec::new(), 0);
    let mut in_flight = concurrency;
    while in_flight > 0 {
        let Moved { run, status, .. } = next(&mut moved).await;
        let now = Instant::now();
        if let Some(before) = last.insert(run, now)
            && now > warm
            && now < end
        {
            counted += 1;
            latencies.push((now - before).as_secs_f64() * 1000.0);
        }
        if matches!(status, RunStatus::Over(_)) {
            last.remove(&run);
            if now < end {
                open(door);
            } else {
                in_flight -= 1;
            }
        }
    }
    Figures {
        per_second: f64::from(counted) / window().as_secs_f64(),
        p50: percentile(&mut latencies, 0.50),
        p99: percentile(&mut latencies, 0.99),
    }
}

fn open(door: &Door) {
    let door = door.clone();
    tokio::spawn(async move {
        let request = Request {
            workflow: "bench".into(),
            input: json!({}),
            label: Label::Owner,
            trigger: "api",
            key: None,
            verified: None,
        };
        door.open(request).await.unwrap();
    });
}

async fn next(moved: &mut broadcast::Receiver<Moved>) -> Moved {
    match tokio::time::timeout(Duration::from_secs(30), moved.recv()).await {
        Ok(Ok(moved)) => moved,
        Ok(Err(error)) => panic!("the watcher fell behind: {error}"),
        Err(_) => panic!("nothing moved for half a minute"),
    }
}

/// How late timers fire that come due one after the other: p50, p99 and the worst, milliseconds after
/// `wake_at` when the first transition of the run is durable.
async fn lateness(door: &Door, client: &Client) -> [f64; 3] {
    let mut moved = door.engine().moved.subscribe();
    let version = door.engine().current(&"bench".into()).unwrap().digest;
    let statement = format!(
        "with r as ({SLEEPERS} returning id, wake_at),
              j as (insert into journal (run_id, seq, kind, at, actor, label, data, data_digest, hash)
                    select id, 1, 'run.opened', now(), 'trigger:api', 'owner', $2, sha256('d'), sha256('h') from r)
         select id, wake_at from r"
    );
    let opened = opened(version);
    let rows = client
        .query(&statement, &[&&version.0[..], &opened, &i64::from(TIMERS), &3.0f64, &0.037f64])
        .await
        .unwrap();
    let mut due: HashMap<RunId, Timestamp> = rows.iter().map(|row| (RunId(row.get(0)), row.get(1))).collect();
    assert_eq!(due.len(), TIMERS as usize);
    let mut late = Vec::new();
    while !due.is_empty() {
        let run = next(&mut moved).await.run;
        if let Some(at) = due.remove(&run) {
            late.push((Timestamp::now() - at).total(jiff::Unit::Second).unwrap() * 1000.0);
        }
    }
    [percentile(&mut late, 0.5), percentile(&mut late, 0.99), percentile(&mut late, 1.0)]
}

/// Runs that sleep: how many is `$3`, the first wakes in `$4` seconds, each further one `$5` seconds later.
const SLEEPERS: &str = "
    insert into runs (id, workflow, version, status, seq, wake_at, title, trigger, idempotency_key, opened_at)
    select uuidv7(make_interval(secs => -1 - i * 20)), 'bench', $1, 'waiting', 1, now() + make_interval(secs => $4::float8 + i * $5::float8),
        'A run that sleeps', 'api', uuidv7()::text, now() - make_interval(secs => 1 + i * 20)
    from generate_series(0, $3::int8 - 1) i";

fn opened(version: steward::domain::digest::Digest) -> Value {
    let opened = Opened {
        workflow: "bench".into(),
        version,
        title: "A run that sleeps".into(),
        input: json!({}),
        label: Label::Owner,
        trigger: "api".into(),
        verified: None,
        parent: None,
        rerun: None,
        budget_micros: None,
    };
    serde_json::to_value(Event::RunOpened(opened)).unwrap()["data"].take()
}

/// A year of finished runs, five journal entries each and an effect for every fifth, and the sleepers.
async fn fill(config: &Config, client: &Client) {
    let (finished, sleeping) =
        (number("STEWARD_BENCH_FINISHED", 1_000_000), number("STEWARD_BENCH_SLEEPING", 100_000));
    let store = Store::new(config.clone()).unwrap();
    let version = store.keep_version(&ten_steps()).await.unwrap().digest;
    for ago in (0..=MONTHS).rev() {
        let at = Timestamp::now() - SignedDuration::from_hours(ago * 31 * 24);
        partitions::look_after(config, at).await.unwrap();
    }
    let there: i64 = client.query_one("select count(*) from runs", &[]).await.unwrap().get(0);
    if there >= finished + sleeping {
        return;
    }
    let since = Instant::now();
    let runs = "
        with r as (
            insert into runs (id, workflow, version, status, seq, title, trigger, idempotency_key, opened_at, finished_at)
            select uuidv7(make_interval(secs => -age)), 'bench', $1,
                case when i % 50 = 0 then 'failed' else 'succeeded' end, 5, 'A run of long ago', 'api',
                uuidv7()::text, now() - make_interval(secs => age), now() - make_interval(secs => age - 5)
            from (select i, (1 - i / $4::float8) * 31e6 + 86400 as age
                  from generate_series($2::int8, $3::int8 - 1) i) s
            returning id, opened_at),
        e as (
            insert into effects (id, run_id, step, attempt, action, dedupe_key, digest, request, labels, status,
                response, proposed_at, started_at, ended_at)
            select gen_random_uuid(), id, 's1', 1, 'http.request', id || '/s1', sha256(id::text::bytea),
                jsonb_build_object('url', 'https://api.example/' || id, 'method', 'POST'), '{}', 'succeeded',
                '{\"status\": 200}', opened_at, opened_at, opened_at
            from r where ('x' || right(id::text, 2))::bit(8)::int % 5 = 0)
        insert into journal (run_id, seq, kind, at, actor, label, data, data_digest, hash)
        select id, n, case n when 1 then 'run.opened' when 5 then 'run.finished' else 'step.succeeded' end, opened_at,
            'system', 'owner', jsonb_build_object('step', 's' || n, 'output', repeat('x', 60)),
            sha256((id::text || n)::bytea), sha256((n || id::text)::bytea)
        from r cross join generate_series(1, 5) n";
    let mut done = there.min(finished); // a filling that was cut short goes on
    while done < finished {
        let to = (done + CHUNK).min(finished);
        client.execute(runs, &[&&version.0[..], &done, &to, &(finished as f64)]).await.unwrap();
        done = to;
        println!("{done} finished runs after {:.0?}", since.elapsed());
    }
    let sleepers = format!(
        "with r as ({SLEEPERS} returning id)
         insert into journal (run_id, seq, kind, at, actor, label, data, data_digest, hash)
         select id, 1, 'run.opened', now(), 'trigger:api', 'owner', $2, sha256('d'), sha256('h') from r"
    );
    client
        .execute(&sleepers, &[&&version.0[..], &opened(version), &sleeping, &86_400.0f64, &25.0f64])
        .await
        .unwrap();
    for statement in ["vacuum (analyze)", "checkpoint"] {
        client.batch_execute(statement).await.unwrap(); // neither goes into a transaction with the other
    }
    println!("filled in {:.0?}", since.elapsed());
}

async fn sizes(client: &Client) -> Value {
    let row =
        client.query_one("select count(*), (select count(*) from effects) from runs", &[]).await.unwrap();
    let (runs, effects): (i64, i64) = (row.get(0), row.get(1));
    let statement = "
        select coalesce(i.inhparent::regclass, x.indrelid::regclass)::text || '.' ||
               regexp_replace(x.indexrelid::regclass::text, '_[0-9]{4}_[0-9]{2}|_rest', ''),
               sum(pg_relation_size(x.indexrelid))::int8
        from pg_index x left join pg_inherits i on i.inhrelid = x.indrelid
        where x.indrelid in (select oid from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace)
        group by 1 having sum(pg_relation_size(x.indexrelid)) > 1e6 order by 1";
    let rows = client.query(statement, &[]).await.unwrap();
    let per_run = |row: &tokio_postgres::Row| {
        (row.get::<_, String>(0), json!((row.get::<_, i64>(1) as f64 / runs as f64 * 10.0).round() / 10.0))
    };
    let indexes: serde_json::Map<String, Value> = rows.iter().map(per_run).collect();
    let total: i64 =
        client.query_one("select pg_database_size(current_database())", &[]).await.unwrap().get(0);
    json!({
        "runs": runs, "effects": effects, "database_mb": total / 1_000_000,
        "database_bytes_per_run": total / runs, "index_bytes_per_run": indexes,
    })
}

async fn start_engine(config: &Config, folder: &Path) -> Door {
    template::write(folder).unwrap();
    let (mut definitions, _) = Definitions::load(folder).map_err(|problems| problems.render(false)).unwrap();
    let mut definition = definitions.workflows.values().next().unwrap().clone();
    definition.triggers.clear();
    definition.version = ten_steps();
    definitions.workflows = BTreeMap::from([("bench".into(), definition)]);
    let store = Store::new(config.clone()).unwrap();
    let lease = Lease::take(&store, LEASE, true).await.unwrap();
    let terms = Terms::of(&definitions.settings, lease.clock());
    let ledger = Ledger::start(store.config(), terms).await.unwrap();
    let models = Models::start(&definitions.models, json!({}), None, Encoder::lazy(), ledger).await.unwrap();
    let parts = Parts {
        clock: lease.clock(),
        lease,
        journal: Journal::start(config).await.unwrap(),
        connectors: Connectors::new(
            Email::new(&definitions.connectors.email, folder.join("outbox")).unwrap(),
            Http::new(&definitions.connectors.http).unwrap(),
            Records::new(store.clone()),
        ),
        embedder: Arc::new(models.encoder().clone()),
        models,
        store,
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
        deadline: None,
        each: None,
        undo: None,
    };
    Version {
        workflow: "bench".into(),
        title: "Ten steps".into(),
        input: json!({"type": "object"}),
        steps: (0..STEPS).map(step).collect(),
        agents: BTreeMap::new(),
        deadline: None,
        output: None,
        flow: Default::default(),
        budget: Default::default(),
        trust: Default::default(),
        sample: None,
    }
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn number(variable: &str, otherwise: i64) -> i64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn window() -> Duration {
    Duration::from_secs(number("STEWARD_BENCH_SECS", 5).unsigned_abs())
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}

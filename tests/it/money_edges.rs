//! Where money and explanations meet time and chance: runs that are removed, answers that come after their
//! money was taken for spent, a process that dies between two writes, nodes that share a cache.

use std::sync::Mutex;

use axum::body::Body;
use axum::response::IntoResponse;
use jiff::SignedDuration;
use serde_json::{Value, json};
use steward::config::template;
use steward::domain::duration::Span;
use steward::domain::ids::RunId;
use steward::domain::retention::{Keep, Retention};
use steward::domain::workflow::{Agent, AgentStep, Mode, Step, StepKind, Version};
use steward::failpoint;
use steward::store::Store;

use crate::support::forge::by_hand;
use crate::support::model_server::{Answer, ModelServer, says};
use crate::support::process::Process;
use crate::support::rig::{Rig, define, step, version};
use crate::support::{database, eventually};

/// What 100 tokens read and 20 written cost at 1 and 2 USD a million.
const COST: i64 = 140;

fn writing(more: Value) -> Version {
    let mut agent = json!({"agent": "writer", "tier": "draft", "prompt": "Write.", "max_tokens": 500,
        "output": {"type": "object", "required": ["text"]}});
    agent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let agent: Agent = serde_json::from_value(agent).unwrap();
    let with = json!({"about": "{{ input.what }}"});
    let kind = StepKind::Agent(AgentStep { agent: "writer".into(), with, mode: Mode::Now });
    let write = Step { kind, ..step("write", None, "noop", json!({})) };
    let mut version = version("test", vec![write]);
    version.agents.insert("writer".into(), agent);
    version
}

async fn rig(store: Store, model: &ModelServer, agent: Value, alone: bool) -> Rig {
    let models = json!({
        "providers": {"test": {"base_url": format!("http://{}/v1", model.address), "timeout": "60s"}},
        "models": {"test-model": {"provider": "test", "id": "test-1", "price": {"input": "1.00 USD", "output": "2.00 USD"}}},
        "tiers": {"draft": ["test-model", "owner"]}});
    Rig::defining(store, Vec::new(), alone, |definitions| {
        definitions.models = serde_json::from_value(models).unwrap();
        define(definitions, Version { workflow: "other".into(), ..writing(agent.clone()) });
        define(definitions, writing(agent));
    })
    .await
}

fn dear_ann() -> Answer {
    Box::new(|_| says(r#"{"text": "Dear Ann"}"#))
}

async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(store: &Store, sql: &str) -> T {
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn spent(store: &Store, account: &str) -> (i64, i64) {
    let balance = store.balances(&[account.to_owned()]).await.unwrap().remove(0);
    (balance.spent_micros, balance.reserved_micros)
}

#[tokio::test]
async fn the_entries_of_removed_runs_go_and_what_was_spent_stays() {
    let model = ModelServer::start(dear_ann()).await;
    let rig = rig(database().await, &model, json!({}), true).await;
    let (gone, stays) = (rig.open(None).await.run(), rig.open_for("other", "cake").await.unwrap().run());
    for run in [gone, stays] {
        rig.becomes(run, "succeeded").await;
    }
    rig.door.stop().await;
    rig.door.engine().models.stop().await;
    let store = &rig.store;
    let day: String = one(store, "select account from spend where scope = 'workspace/day'").await;
    assert_eq!(spent(store, &day).await, (2 * COST, 0));
    // In three months the runs of one workflow are old enough to go; the other's stay for ever.
    let month = Keep::For(Span::secs(30 * 86_400));
    let retention = Retention { default: Keep::Forever, workflows: [("test".into(), month)].into() };
    let now = store.database_time().await.unwrap() + SignedDuration::from_hours(90 * 24);
    while !store.sweep(&retention, now).await.unwrap().done {}
    assert!(store.run_row(gone).await.unwrap().is_none(), "the run is removed");
    assert_eq!(one::<i64>(store, "select count(*) from spend_entries").await, 2, "its money is still there");

    assert!(!store.archive_spend(None).await.unwrap(), "there is no more");
    assert_eq!(one::<i64>(store, "select count(*) from spend_entries").await, 1);
    assert_eq!(one::<i64>(store, "select archived from spend where scope = 'workspace/day'").await, COST);
    assert_eq!(spent(store, &day).await, (2 * COST, 0), "spent is spent");
    let accounts: i64 = one(store, "select count(*) from spend where scope = 'run'").await;
    assert_eq!((accounts, spent(store, &format!("run/{stays}")).await), (1, (COST, 0)));
    assert!(!store.archive_spend(None).await.unwrap());
    assert_eq!(
        one::<i64>(store, "select archived from spend where scope = 'workspace/day'").await,
        COST,
        "once"
    );
    assert_eq!(crate::invariants::broken(store).await, []);

    // What no run paid for goes when it is as old as the retention of what says nothing.
    by_hand(store, "update spend_entries set run_id = null").await;
    let ended = store.database_time().await.unwrap();
    for before in [None, Some(ended - SignedDuration::from_hours(1))] {
        store.archive_spend(before).await.unwrap();
        assert_eq!(one::<i64>(store, "select count(*) from spend_entries").await, 1);
    }
    store.archive_spend(Some(ended)).await.unwrap();
    assert_eq!(one::<i64>(store, "select count(*) from spend_entries").await, 0);
    assert_eq!(spent(store, &day).await, (2 * COST, 0), "spent is spent");
}

#[tokio::test]
async fn an_answer_that_comes_after_its_money_was_taken_for_spent_is_settled_at_what_it_cost() {
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Mutex::new(Some(wait));
    let model = ModelServer::start(Box::new(move |_| {
        let wait = wait.lock().unwrap().take().unwrap();
        let whole = futures_util::stream::once(async move {
            wait.await.unwrap();
            let body = axum::body::to_bytes(says(r#"{"text": "late"}"#).into_body(), 100_000).await;
            Ok::<_, std::io::Error>(body.unwrap())
        });
        ([("content-type", "application/json")], Body::from_stream(whole)).into_response()
    }))
    .await;
    let rig = rig(database().await, &model, json!({}), true).await;
    let run = rig.open(None).await.run();
    let account = format!("run/{run}");
    eventually("the call being made", || async { (model.requests().len() == 1).then_some(()) }).await;
    let (_, worst) = spent(&rig.store, &account).await;
    by_hand(&rig.store, "update spend_entries set expires_at = now() - interval '1 second'").await;
    eventually("it being taken for spent", || async {
        (spent(&rig.store, &account).await == (worst, 0)).then_some(())
    })
    .await;
    go_on.send(()).unwrap();
    rig.becomes(run, "succeeded").await;
    eventually("the truth", || async { (spent(&rig.store, &account).await == (COST, 0)).then_some(()) })
        .await;
    assert_eq!(crate::invariants::broken(&rig.store).await, []);
}

#[tokio::test]
async fn two_nodes_share_the_answers_that_serve_again() {
    let model = ModelServer::start(dear_ann()).await;
    let store = database().await;
    let agent = json!({"cache": "24h"});
    let first = rig(store.clone(), &model, agent.clone(), true).await;
    let run = first.open(None).await.run();
    first.becomes(run, "succeeded").await;
    let second = rig(store.clone(), &model, agent, false).await;
    let again = second.open(None).await.run();
    second.becomes(again, "succeeded").await;
    assert_eq!(model.requests().len(), 1, "the second node asked nobody");
    let told = async |run: RunId| store.calls(run, None, 10).await.unwrap().remove(0);
    let (original, copy) = (told(run).await, told(again).await);
    assert_eq!((copy.cached, copy.cost_micros, copy.origin), (true, 0, Some(original.id)));
    assert!(original.reservation.is_some() && copy.reservation.is_none(), "nothing was set aside for it");
    assert_eq!(crate::invariants::broken(&store).await, []);
}

#[tokio::test]
async fn killed_between_keeping_a_call_and_telling_of_it_the_row_stays_and_the_run_goes_on() {
    let model = ModelServer::start(dear_ann()).await;
    let (_folder, workspace) = database::folder();
    template::write(&workspace).unwrap();
    for entry in std::fs::read_dir(workspace.join("config/workflows")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    std::fs::write(workspace.join("config/models.yaml"), model.models_yaml()).unwrap();
    std::fs::write(
        workspace.join("agents/scribe.md"),
        "---\nagent: scribe\ntier: draft\noutput: { type: object, required: [text] }\n---\nWrite.\n",
    )
    .unwrap();
    std::fs::write(
        workspace.join("config/workflows/notes.yaml"),
        "workflow: notes\ntitle: A note\ninput: { type: object }\nsteps:\n  - id: write\n    agent: scribe\n    \
         with: { about: bread }\n",
    )
    .unwrap();
    let doomed = Process::start(&workspace, Some(failpoint::AGENT_ANSWERED)).await;
    let opened = doomed.post("/api/v1/runs", json!({"workflow": "notes", "input": {}})).await;
    doomed.died().await;
    let process = Process::start(&workspace, None).await;
    let run = match opened.and_then(|opened| Some(opened["run"].as_str()?.to_owned())) {
        Some(run) => run,
        None => {
            let runs = process.get("/api/v1/runs").await.unwrap();
            runs["runs"][0]["id"].as_str().unwrap().to_owned()
        }
    };
    eventually("the run ending", || async {
        let shown = process.get(&format!("/api/v1/runs/{run}")).await?;
        (shown["status"] == "succeeded").then_some(())
    })
    .await;
    let kept = process.get(&format!("/api/v1/runs/{run}/calls")).await.unwrap();
    let kept = kept["calls"].as_array().unwrap().clone();
    let journal = process.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await.unwrap();
    let entries = journal["entries"].as_array().unwrap().iter();
    let told: Vec<Value> = entries
        .filter(|entry| entry["kind"] == "model.called")
        .map(|entry| entry["data"]["call"].clone())
        .collect();
    assert_eq!((kept.len(), told.len()), (2, 1), "both calls were made, one is told");
    assert_eq!((&kept[1]["id"], &kept[1]["attempt"]), (&told[0]["call"], &json!(2)));
    let lost = process.get(&format!("/api/v1/calls/{}", kept[0]["id"].as_str().unwrap())).await.unwrap();
    assert!(
        lost["response"]["text"].as_str().unwrap().contains("Dear Ann"),
        "what was paid can be explained"
    );
    assert!(lost["reservation"].is_string() && lost["reservation"] != told[0]["reservation"]);
    let audit = process.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(audit["broken"], 0, "{audit}");
    process.stop().await;
}

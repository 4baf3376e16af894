//! Steps that may wait: their calls go to the provider in batches at half the price, their runs sleep, and
//! whatever becomes of a batch, nothing is paid for twice and each run goes on.

use serde_json::{Value, json};
use steward::config::template;
use steward::domain::event::Topic;
use steward::domain::ids::{CallId, RunId};
use steward::domain::workflow::{Agent, AgentStep, Mode, Step, StepKind, Version};
use steward::failpoint;
use steward::store::Store;
use steward::store::batches::NewBatchCall;
use steward::store::calls::Body;
use steward::store::pauses::Scope;
use uuid::Uuid;

use crate::support::batch_server::{BatchServer, Begin, Line};
use crate::support::process::Process;
use crate::support::rig::{Rig, define, step, version};
use crate::support::{database, eventually};

/// What 100 tokens read and 20 written cost at 1 and 2 USD a million, at once and in a batch.
const WHOLE: i64 = 140;
const HALF: i64 = 70;

fn writing(agent: Value) -> Version {
    let mut wanted = json!({"agent": "writer", "tier": "draft", "prompt": "Write.", "max_tokens": 500,
        "output": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}});
    wanted.as_object_mut().unwrap().extend(agent.as_object().unwrap().clone());
    let agent: Agent = serde_json::from_value(wanted).unwrap();
    let with = json!({"about": "{{ input.what }}"});
    let kind = StepKind::Agent(AgentStep { agent: "writer".into(), with, mode: Mode::Batch });
    let write = Step { kind, ..step("write", None, "noop", json!({})) };
    let mut version = version("test", vec![write]);
    version.agents.insert("writer".into(), agent);
    version
}

async fn over(store: Store, server: &BatchServer, change: impl FnOnce(&mut Value)) -> Rig {
    rig(store, server, json!({}), change).await
}

async fn rig(store: Store, server: &BatchServer, agent: Value, change: impl FnOnce(&mut Value)) -> Rig {
    let mut models = server.models();
    change(&mut models);
    Rig::defining(store, Vec::new(), true, |definitions| {
        definitions.models = serde_json::from_value(models).unwrap();
        define(definitions, writing(agent));
    })
    .await
}

/// Opens runs and waits until all of them sleep.
async fn asleep(rig: &Rig, about: &[&str]) -> Vec<RunId> {
    let mut runs = Vec::new();
    for what in about {
        runs.push(rig.open_about(what, None).await.run());
    }
    for run in &runs {
        rig.becomes(*run, "waiting").await;
    }
    runs
}

/// Each call of the run as its journal tells it: model, outcome, cost, whether in a batch.
async fn calls(rig: &Rig, run: RunId) -> Vec<(String, i64, bool)> {
    let journal = rig.store.journal(run, 0, 1000).await.unwrap();
    let called = journal.into_iter().filter(|entry| entry.kind == "model.called");
    let call = |entry: steward::store::journal::read::JournalEntry| {
        let call = entry.data.unwrap()["call"].clone();
        let outcome = call["outcome"].as_str().unwrap().split(':').next().unwrap().to_owned();
        (outcome, call["cost_micros"].as_i64().unwrap(), call["batch"] == true)
    };
    called.map(call).collect()
}

fn told(outcome: &str, cost: i64, batch: bool) -> (String, i64, bool) {
    (outcome.to_owned(), cost, batch)
}

async fn balance(rig: &Rig, account: String) -> (i64, i64) {
    let balance = rig.store.balances(&[account]).await.unwrap().remove(0);
    (balance.spent_micros, balance.reserved_micros)
}

async fn holds(rig: &Rig) {
    assert_eq!(crate::invariants::broken(&rig.store).await, []);
}

fn good(_: &Value) -> Line {
    Line::Says(r#"{"text": "Dear Ann"}"#)
}

#[tokio::test]
async fn calls_of_several_runs_go_in_one_batch_at_half_the_price_while_their_runs_sleep() {
    let server = BatchServer::start(good).await;
    let rig = over(database().await, &server, |_| {}).await;
    let runs = asleep(&rig, &["bread", "cake", "tea"]).await;
    eventually("a batch beginning", || async { (server.begun() == 1).then_some(()) }).await;
    let questions = server.batches().remove(0);
    assert_eq!(questions.len(), 3);
    for question in &questions {
        assert_eq!((&question["method"], &question["url"]), (&json!("POST"), &json!("/v1/chat/completions")));
        assert_eq!(question["body"]["model"], "test-1");
    }
    for run in &runs {
        let (spent, reserved) = balance(&rig, format!("run/{run}")).await;
        assert!(spent == 0 && reserved > HALF && reserved < 2 * 1_000, "{reserved} is set aside meanwhile");
    }
    let (client, connection) = rig.store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let held: i64 = client.query_one("select count(node) from runs", &[]).await.unwrap().get(0);
    assert_eq!(held, 0, "a run that waits is rows alone");
    holds(&rig).await;
    server.end("completed");
    for run in &runs {
        rig.becomes(*run, "succeeded").await;
        assert_eq!(calls(&rig, *run).await, [told("ok", HALF, true)]);
        assert_eq!(balance(&rig, format!("run/{run}")).await, (HALF, 0));
        let kept = rig.store.calls(*run, None, 10).await.unwrap().remove(0);
        assert!(kept.batch && kept.reservation.is_some() && kept.request_bytes.unwrap() > 0);
        assert!(questions.iter().any(|question| question["custom_id"] == kept.id.to_string()));
    }
    assert_eq!((server.begun(), server.chats().len()), (1, 0));
    eventually("nothing being left at the provider", || async { (server.files() == 0).then_some(()) }).await;
    holds(&rig).await;
}

#[tokio::test]
async fn a_line_that_fails_takes_its_own_run_the_usual_way_and_no_other() {
    let server = BatchServer::start(|question| match question.to_string() {
        text if text.contains("bread") => Line::Fails(429, "rate_limit_exceeded"),
        text if text.contains("cake") => Line::Fails(400, "invalid_request"),
        text if text.contains("tea") => Line::Says("I would rather not answer in JSON"),
        text if text.contains("milk") => Line::Missing,
        _ => Line::Says(r#"{"text": "Dear Ann"}"#),
    })
    .await;
    let rig = over(database().await, &server, |_| {}).await;
    let runs = asleep(&rig, &["bread", "cake", "tea", "milk", "salt"]).await;
    server.end("completed");
    for (n, run) in runs.iter().enumerate() {
        rig.becomes(*run, if n == 1 { "waiting" } else { "succeeded" }).await;
    }
    let fine = told("ok", WHOLE, false);
    assert_eq!(calls(&rig, runs[0]).await, [told("too many requests (429)", 0, true), fine.clone()]);
    let review = eventually("the next one, the owner, being asked", || async {
        rig.store.reviews("open", Some(runs[1]), None, 1).await.unwrap().pop()
    });
    assert_eq!(review.await.ask, "answer");
    assert_eq!(calls(&rig, runs[1]).await, [told("the provider refused the request (400)", 0, true)]);
    let unfit = told("there is no whole JSON object in its answer", HALF, true);
    assert_eq!(calls(&rig, runs[2]).await, [unfit, fine.clone()], "mended in an ordinary call");
    assert!(
        server
            .chats()
            .iter()
            .any(|chat| chat["messages"][2]["content"] == "I would rather not answer in JSON")
    );
    assert_eq!(calls(&rig, runs[3]).await, [told("there is no answer in the batch", 0, true), fine]);
    assert_eq!(calls(&rig, runs[4]).await, [told("ok", HALF, true)]);
    assert_eq!(server.begun(), 1, "what follows a batch is asked at once");
    holds(&rig).await;
}

#[tokio::test]
async fn a_batch_that_ends_badly_is_followed_by_an_ordinary_call() {
    for (status, line, outcome) in [
        ("expired", true, "as scripted"),
        ("expired", false, "the provider did not come to it within a day"),
        ("cancelled", false, "somebody cancelled the batch at the provider"),
        ("failed", false, "the provider refused the request (400)"),
    ] {
        let line = move |_: &Value| if line { Line::Error("batch_expired") } else { Line::Missing };
        let server = BatchServer::start(line).await;
        let rig = over(database().await, &server, |_| {}).await;
        let run = asleep(&rig, &["bread"]).await.remove(0);
        server.end(status);
        rig.becomes(run, "succeeded").await;
        assert_eq!(calls(&rig, run).await, [told(outcome, 0, true), told("ok", WHOLE, false)], "{status}");
        holds(&rig).await;
    }
}

#[tokio::test]
async fn an_account_that_is_refused_is_left_alone_and_the_next_in_the_chain_is_asked() {
    let server = BatchServer::start(good).await;
    server.begin(Begin::Refused(429, "insufficient_quota"));
    let rig = over(database().await, &server, |_| {}).await;
    let run = asleep(&rig, &["bread"]).await.remove(0);
    let review = eventually("the owner being asked", || async {
        rig.store.reviews("open", Some(run), None, 1).await.unwrap().pop()
    });
    assert!(review.await.question.reasons.join(" ").contains("the account is exhausted"));
    let survey = rig.door.engine().models.survey().await.unwrap();
    assert!(survey.providers[0].needs_owner, "the breaker is open");
    assert_eq!((server.begun(), server.chats().len()), (0, 0));
    assert_eq!(balance(&rig, format!("run/{run}")).await, (0, 0));
    holds(&rig).await;
}

#[tokio::test]
async fn where_there_is_no_batch_interface_a_step_that_may_wait_is_answered_at_once() {
    let server = BatchServer::start(good).await;
    let rig =
        over(database().await, &server, |models| models["providers"]["test"]["batch"] = json!(false)).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    assert_eq!(calls(&rig, run).await, [told("ok", WHOLE, false)]);
    assert!(server.untouched());
    holds(&rig).await;
}

#[tokio::test]
async fn a_draft_and_what_goes_over_it_may_both_wait() {
    let server = BatchServer::start(|question| match question.to_string().contains("draft of your answer") {
        true => Line::Says(r#"{"text": "mended"}"#),
        false => Line::Says(r#"{"text": "drafted"}"#),
    })
    .await;
    server.end("completed");
    let rig = rig(database().await, &server, json!({"finalize": "final"}), |_| {}).await;
    let run = rig.open(None).await.run();
    rig.becomes(run, "succeeded").await;
    assert_eq!(calls(&rig, run).await, [told("ok", HALF, true), told("ok", HALF, true)]);
    let journal = rig.store.journal(run, 0, 100).await.unwrap();
    let done = journal.iter().find(|entry| entry.kind == "step.succeeded").unwrap();
    assert_eq!(done.data.as_ref().unwrap()["output"]["text"], "mended");
    assert_eq!((server.begun(), server.chats().len()), (2, 0));
    let over = server.batches();
    assert_eq!(over.len(), 2);
    holds(&rig).await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_leaves_the_batch_to_the_others_and_what_it_cost_is_known() {
    let server = BatchServer::start(good).await;
    let rig = over(database().await, &server, |_| {}).await;
    let runs = asleep(&rig, &["bread", "cake"]).await;
    eventually("a batch beginning", || async { (server.begun() == 1).then_some(()) }).await;
    rig.store.request_cancel(runs[0], "owner").await.unwrap();
    rig.door.wake(runs[0]);
    rig.becomes(runs[0], "cancelled").await;
    server.end("completed");
    rig.becomes(runs[1], "succeeded").await;
    assert_eq!(calls(&rig, runs[0]).await, []);
    eventually("the cancelled one's call being paid", || async {
        (balance(&rig, format!("run/{}", runs[0])).await == (HALF, 0)).then_some(())
    })
    .await;
    holds(&rig).await;
}

#[tokio::test]
async fn what_the_owner_holds_is_not_sent_and_what_nobody_waits_for_never_is() {
    let server = BatchServer::start(good).await;
    let slowly = |models: &mut Value| models["providers"]["test"]["batch_within"] = json!("1h");
    let rig = over(database().await, &server, slowly).await;
    rig.store.pause(&Scope::Workflow("test".into()), "owner").await.unwrap();
    let run = RunId(Uuid::now_v7());
    let nobodys = NewBatchCall {
        id: CallId(Uuid::now_v7()),
        run,
        step: "write".into(),
        provider: "test".into(),
        remote: "test-1".into(),
        model: "test-model".into(),
        reservation: None,
        request: Body::pack(b"{}"),
        draft: None,
    };
    rig.store.keep_batch_call(&nobodys).await.unwrap();
    let zero = std::time::Duration::ZERO;
    let gathering = steward::store::batches::Gathering { size: 10, bytes: 1000, within: zero };
    assert_eq!(rig.store.form_batch("test", "test-1", gathering).await.unwrap(), 0);
    rig.store.end_unsent(zero, zero).await.unwrap();
    let ended = rig.store.take_batch_call(nobodys.id).await.unwrap().unwrap();
    assert!(!ended.was_sent());
    rig.store.resume(&Scope::Workflow("test".into())).await.unwrap();

    let run = asleep(&rig, &["bread"]).await.remove(0);
    rig.store.pause(&Scope::All, "owner").await.unwrap();
    assert_eq!(rig.store.form_batch("test", "test-1", gathering).await.unwrap(), 0, "it is held");
    rig.store.end_unsent(zero, std::time::Duration::from_secs(60)).await.unwrap();
    assert!(server.untouched());
    rig.store.resume(&Scope::All).await.unwrap();
    assert_eq!(rig.store.form_batch("test", "test-1", gathering).await.unwrap(), 1, "and still there");
    server.end("completed");
    rig.becomes(run, "succeeded").await;
    assert_eq!(calls(&rig, run).await, [told("ok", HALF, true)]);
}

#[tokio::test]
async fn a_call_that_no_batch_takes_in_time_is_made_by_itself() {
    let server = BatchServer::start(good).await;
    let rig =
        over(database().await, &server, |models| models["providers"]["test"]["batch_within"] = json!("1h"))
            .await;
    let run = asleep(&rig, &["bread"]).await.remove(0);
    let zero = std::time::Duration::ZERO;
    // A call that the node is looking at just then is passed over: the next look takes it.
    eventually("the call being made", || async {
        rig.store.end_unsent(zero, std::time::Duration::from_secs(60)).await.unwrap();
        (rig.status(run).await == "succeeded").then_some(())
    })
    .await;
    assert_eq!(calls(&rig, run).await, [told("no batch took it in time", 0, true), told("ok", WHOLE, false)]);
    assert!(server.untouched());
    holds(&rig).await;
}

#[tokio::test]
async fn another_node_takes_over_what_the_first_had_put_off_and_submitted() {
    let server = BatchServer::start(good).await;
    let store = database().await;
    let first = over(store.clone(), &server, |_| {}).await;
    let run = asleep(&first, &["bread"]).await.remove(0);
    eventually("a batch beginning", || async { (server.begun() == 1).then_some(()) }).await;
    first.door.stop().await;
    first.door.engine().models.stop().await;
    server.end("completed");
    let second = over(store, &server, |_| {}).await;
    second.becomes(run, "succeeded").await;
    assert_eq!(calls(&second, run).await, [told("ok", HALF, true)]);
    assert_eq!(server.begun(), 1);
    holds(&second).await;
}

#[tokio::test]
async fn a_batch_of_which_nobody_knows_whether_it_began_is_looked_up_and_not_begun_again() {
    let server = BatchServer::start(good).await;
    server.begin(Begin::Unheard);
    let rig = over(database().await, &server, |_| {}).await;
    let run = asleep(&rig, &["bread"]).await.remove(0);
    server.end("completed");
    rig.becomes(run, "succeeded").await;
    assert_eq!(calls(&rig, run).await, [told("ok", HALF, true)]);
    assert_eq!(server.begun(), 1);
    holds(&rig).await;
}

#[tokio::test]
async fn where_it_cannot_be_looked_up_it_is_taken_for_spent_and_says_so() {
    let server = BatchServer::start(good).await;
    server.begin(Begin::Unheard);
    server.lists_none();
    let rig = over(database().await, &server, |_| {}).await;
    let run = asleep(&rig, &["bread"]).await.remove(0);
    rig.becomes(run, "succeeded").await;
    let calls = calls(&rig, run).await;
    assert_eq!(calls[0].0, "nobody can tell whether it has begun");
    assert!(calls[0].1 > HALF && calls[0].2, "all that was set aside: {calls:?}");
    assert_eq!((&calls[1], server.begun()), (&told("ok", WHOLE, false), 1));
    holds(&rig).await;
}

#[tokio::test]
async fn nobody_else_brings_the_answer_of_a_call() {
    let app = crate::support::app().await;
    let event = json!({"event": Topic::CALL_ANSWERED, "match": Uuid::now_v7(), "data": {}});
    let (status, problem) = app.call(reqwest::Method::POST, "/api/v1/events", Some(event)).await;
    assert_eq!(status, 400, "{problem}");
    app.stop().await;
}

/// The real binary, killed after a batch has begun and before anybody has noted it.
#[tokio::test]
async fn killed_between_beginning_a_batch_and_noting_it_the_batch_is_found_and_paid_once() {
    let server = BatchServer::start(good).await;
    let (_folder, workspace) = database::folder();
    template::write(&workspace).unwrap();
    for entry in std::fs::read_dir(workspace.join("config/workflows")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let models = serde_json::to_string_pretty(&server.models()).unwrap();
    std::fs::write(workspace.join("config/models.yaml"), models).unwrap();
    std::fs::write(
        workspace.join("agents/scribe.md"),
        "---\nagent: scribe\ntier: draft\noutput: { type: object, required: [text] }\n---\nWrite.\n",
    )
    .unwrap();
    std::fs::write(
        workspace.join("config/workflows/notes.yaml"),
        "workflow: notes\ntitle: A note\ninput: { type: object }\nsteps:\n  - id: write\n    agent: scribe\n    \
         mode: batch\n    with: { about: \"{{ input.what }}\" }\n",
    )
    .unwrap();
    let doomed = Process::start(&workspace, Some(failpoint::BATCH_SUBMITTED)).await;
    let opened =
        doomed.post("/api/v1/runs", json!({"workflow": "notes", "input": {"what": "bread"}})).await.unwrap();
    let run = opened["run"].as_str().unwrap().to_owned();
    doomed.died().await;
    assert_eq!(server.begun(), 1);

    server.end("completed");
    let process = Process::start(&workspace, None).await;
    let shown = eventually("the run ending", || async {
        let shown = process.get(&format!("/api/v1/runs/{run}")).await?;
        (shown["status"] == "succeeded").then_some(shown)
    })
    .await;
    assert_eq!((&shown["cost_micros"], server.begun(), server.chats().len()), (&json!(HALF), 1, 0));
    let audit = process.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(audit["broken"], 0, "{audit}");
    let spend = process.get("/api/v1/spend?by=model").await.unwrap();
    assert_eq!(
        (&spend["lines"][0]["spent_micros"], &spend["lines"][0]["reserved_micros"]),
        (&json!(HALF), &json!(0))
    );
    process.stop().await;
}

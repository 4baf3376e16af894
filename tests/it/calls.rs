//! Every call of a model can be explained, from the effect back to the word; an answer serves again only
//! where it may; and what was said goes when its time is up.

use axum::body::Body;
use axum::response::IntoResponse;
use jiff::SignedDuration;
use serde_json::{Value, json};
use steward::domain::digest::Digest;
use steward::domain::duration::Span;
use steward::domain::event::ModelCall;
use steward::domain::ids::{CallId, RunId};
use steward::domain::retention::{Keep, Retention};
use steward::store::Store;
use steward::store::calls::{Body as Kept, NewCall};
use uuid::Uuid;

use crate::agents::{WORKFLOW, write};
use crate::retention::Past;
use crate::support::model_server::{ModelServer, says};
use crate::support::{App, app_with, database, eventually};

const AGENT: &str = "\
---
agent: helper
tier: draft
output:
  type: object
  required: [answer]
  properties: { answer: { type: string } }
---
You answer questions for {{ workspace.owner }}.
";

async fn open(app: &App, text: &str, label: &str) -> String {
    let opened = json!({"workflow": "ask", "input": {"text": text}, "label": label});
    app.post("/api/v1/runs", opened).await["run"].as_str().unwrap().to_owned()
}

/// The last call that the run's journal tells of.
async fn told(app: &App, run: &str) -> Value {
    let journal = app.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await;
    let entries = journal["entries"].as_array().unwrap().iter();
    entries.rev().find(|entry| entry["kind"] == "model.called").unwrap()["data"]["call"].clone()
}

/// Asks; gives the run's call as the journal tells it.
async fn ask(app: &App, text: &str, label: &str) -> Value {
    let run = open(app, text, label).await;
    eventually("the agent answering", || async {
        let shown = app.get(&format!("/api/v1/runs/{run}")).await;
        let think = shown["steps"].as_array()?.iter().find(|step| step["id"] == "think")?.clone();
        (think["status"] == "succeeded").then_some(())
    })
    .await;
    told(app, &run).await
}

#[tokio::test]
async fn an_effect_leads_back_to_every_word_that_was_said_for_it() {
    let model = ModelServer::start(Box::new(|_| says(r#"{"answer": "About 1250."}"#))).await;
    let app = app_with(|workspace| write(workspace, &model, WORKFLOW, AGENT)).await;
    let run = open(&app, "What does a shop cost?", "owner").await;
    let shown = app.run_that_is(&run, &["succeeded"]).await;
    let effect = app.store.effects(run.parse().unwrap()).await.unwrap()[0].id;

    let trace = app.get(&format!("/api/v1/effects/{effect}/trace")).await;
    assert_eq!((&trace["run"]["id"], &trace["step"]), (&json!(run), &json!("keep")), "{trace}");
    assert_eq!(
        trace["version"],
        app.store.run_row(run.parse().unwrap()).await.unwrap().unwrap().version.to_string()
    );
    let agents = trace["agents"].as_array().unwrap();
    assert_eq!(agents.len(), 1, "{trace}");
    assert_eq!((&agents[0]["step"], &agents[0]["agent"]), (&json!("think"), &json!("helper")));
    let call = &agents[0]["calls"][0];
    assert_eq!(call["agent_digest"], agents[0]["digest"]);
    let journaled = told(&app, &run).await;
    assert_eq!(journaled["call"], call["id"], "the journal names the same call");
    assert_eq!(shown["steps"][0]["calls"][0]["call"], call["id"]);

    let call = app.get(&format!("/api/v1/calls/{}", call["id"].as_str().unwrap())).await;
    let sent: Value = serde_json::from_str(call["request"]["text"].as_str().unwrap()).unwrap();
    assert_eq!(sent, model.requests()[0]);
    let came: Value = serde_json::from_str(call["response"]["text"].as_str().unwrap()).unwrap();
    assert_eq!(came["choices"][0]["message"]["content"], r#"{"answer": "About 1250."}"#);
    assert_eq!(call["prompt_digest"], Digest::of_json(&sent["messages"]).to_string());
    for (field, value) in [
        ("model", json!("test-model")),
        ("provider", json!("test")),
        ("answered_by", json!("test-1-2026")),
        ("input_tokens", json!(100)),
        ("output_tokens", json!(20)),
        ("cost_micros", json!(140)),
        ("outcome", json!("ok")),
        ("cached", json!(false)),
        ("attempt", json!(1)),
    ] {
        assert_eq!(call[field], value, "{field}");
    }
    assert!(!call.to_string().to_lowercase().contains("authorization"), "bodies alone are kept");

    let listed = app.get(&format!("/api/v1/runs/{run}/calls")).await;
    assert_eq!(listed["calls"].as_array().unwrap().len(), 1);
    assert!(listed["calls"][0].get("request").is_none(), "a list has no bodies");
    for path in ["calls", "effects"].map(|what| format!("/api/v1/{what}/{}", Uuid::nil())) {
        let path = if path.contains("effects") { format!("{path}/trace") } else { path };
        assert_eq!(app.call(reqwest::Method::GET, &path, None).await.0, 404, "{path}");
    }
    app.assert_chains_hold().await;
    app.stop().await;
}

#[tokio::test]
async fn an_answer_serves_again_for_the_same_question_of_the_same_origin_and_costs_nothing() {
    let model = ModelServer::start(Box::new(|_| says(r#"{"answer": "About 1250."}"#))).await;
    let agent = AGENT.replace("tier: draft\n", "tier: draft\ncache: 24h\n");
    let app = app_with(|workspace| write(workspace, &model, WORKFLOW, &agent)).await;
    let asked = || model.requests().len();

    let first = ask(&app, "What does a shop cost?", "owner").await;
    assert_eq!((asked(), first.get("cached")), (1, None));
    let again = ask(&app, "What does a shop cost?", "owner").await;
    assert_eq!(asked(), 1, "nobody was called");
    assert_eq!(
        (&again["cached"], &again["cost_micros"], &again["input_tokens"]),
        (&json!(true), &json!(0), &json!(0))
    );
    assert_eq!(again["outcome"], "ok");
    let kept = app.get(&format!("/api/v1/calls/{}", again["call"].as_str().unwrap())).await;
    assert_eq!((&kept["cached"], &kept["origin"]), (&json!(true), &first["call"]));
    assert!(
        kept["response"]["text"].as_str().unwrap().contains("About 1250."),
        "it can be explained as well"
    );

    // The very same words from outside are another question, and so is any other word.
    assert_eq!(ask(&app, "What does a shop cost?", "untrusted").await.get("cached"), None);
    assert_eq!(asked(), 2);
    assert_eq!(ask(&app, "What does a shop cost!", "owner").await.get("cached"), None);
    assert_eq!(asked(), 3);
    assert_eq!(ask(&app, "What does a shop cost?", "untrusted").await["cached"], true);

    // What is erased serves nobody.
    let id: CallId = first["call"].as_str().unwrap().parse().unwrap();
    assert_eq!(app.store.erase_calls(&[id]).await.unwrap(), 1);
    assert_eq!(ask(&app, "What does a shop cost?", "owner").await.get("cached"), None);
    assert_eq!(asked(), 4);
    app.assert_chains_hold().await;
    app.stop().await;
}

#[tokio::test]
async fn an_agent_that_says_nothing_of_a_cache_and_an_answer_that_tools_had_a_part_in_are_asked_anew() {
    let wants = json!({"choices": [{"finish_reason": "tool_calls", "message": {"content": null, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "calc", "arguments": "{\"expression\": \"2+2\"}"}}]}}]});
    let model = ModelServer::start(Box::new(move |request| {
        let looked_up =
            request["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        match request.get("tools").is_some() && !looked_up {
            true => axum::Json(wants.clone()).into_response(),
            false => says(r#"{"answer": "4"}"#),
        }
    }))
    .await;
    for (front, each) in [("tier: draft\n", 1), ("tier: draft\ncache: 1h\ntools: [calc]\n", 2)] {
        let agent = AGENT.replace("tier: draft\n", front);
        let app = app_with(|workspace| write(workspace, &model, WORKFLOW, &agent)).await;
        let before = model.requests().len();
        for n in 1..=2 {
            assert_eq!(ask(&app, "2 + 2?", "owner").await.get("cached"), None);
            assert_eq!(model.requests().len(), before + n * each, "{front}");
        }
        app.stop().await;
    }
}

#[tokio::test]
async fn a_call_whose_step_ended_before_the_answer_came_is_kept_all_the_same() {
    let model = ModelServer::start(Box::new(|_| {
        Body::from_stream(futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>())
            .into_response()
    }))
    .await;
    let workflow = WORKFLOW.replace("    agent: helper\n", "    agent: helper\n    timeout: 1s\n");
    let app = app_with(|workspace| write(workspace, &model, &workflow, AGENT)).await;
    let run = open(&app, "Anybody there?", "owner").await;
    app.open_review(&run).await;
    let path = format!("/api/v1/runs/{run}/calls");
    let call =
        eventually("the call being kept", || async { app.get(&path).await["calls"].get(0).cloned() }).await;
    assert!(call["outcome"].as_str().unwrap().contains("nobody waited"), "{call}");
    let call = app.get(&format!("/api/v1/calls/{}", call["id"].as_str().unwrap())).await;
    assert!(call["request"]["text"].as_str().unwrap().contains("Anybody there?"));
    assert_eq!(call["response"], Value::Null);
    app.stop().await;
}

fn new(run: RunId, serves: Option<(Digest, Span)>) -> NewCall {
    let told = ModelCall { model: "m".into(), outcome: "ok".into(), ..ModelCall::default() };
    NewCall {
        id: CallId(Uuid::now_v7()),
        run,
        step: "s".into(),
        attempt: 1,
        agent: "a".into(),
        agent_digest: Digest::ZERO,
        prompt_digest: Digest::ZERO,
        provider: "p".into(),
        told,
        request: Some(Kept::pack(b"{}")),
        response: Some(Kept::pack(b"{}")),
        origin: None,
        serves,
    }
}

async fn keep(store: &Store, run: RunId, serves: Option<(Digest, Span)>) -> CallId {
    let call = new(run, serves);
    store.keep_call(&call).await.unwrap();
    call.id
}

#[tokio::test]
async fn what_was_said_goes_with_its_run_and_nothing_else_does() {
    let past = Past::new().await;
    let (old, young) =
        (past.run("test", "succeeded", 100, Some(99)).await, past.run("test", "succeeded", 3, Some(2)).await);
    let key = Digest::of_bytes(b"a question");
    let gone = keep(&past.store, old, Some((key, Span::secs(3600)))).await;
    let stays = keep(&past.store, young, None).await;
    let retention = Retention { default: Keep::For(Span::secs(30 * 86_400)), ..Retention::default() };
    while !past.store.sweep(&retention, past.now).await.unwrap().done {}
    assert!(past.store.run_row(old).await.unwrap().is_none(), "the run is removed");
    assert!(past.store.call(gone).await.unwrap().is_none());
    assert!(past.store.cached_call(&key, Span::secs(3600)).await.unwrap().is_none());
    assert!(past.store.call(stays).await.unwrap().is_some());
}

#[tokio::test]
async fn what_was_said_goes_when_its_own_time_is_up_in_batches() {
    let store = database().await;
    let run = RunId(Uuid::now_v7());
    for _ in 0..3 {
        keep(&store, run, None).await;
    }
    let now = store.database_time().await.unwrap();
    assert_eq!(store.erase_calls_before(now - SignedDuration::from_hours(1)).await.unwrap(), 0);
    assert_eq!(store.erase_calls_before(now + SignedDuration::from_secs(1)).await.unwrap(), 3);
    assert_eq!(store.calls(run, None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn answers_that_are_too_old_or_too_many_serve_no_longer_but_their_calls_stay() {
    let store = database().await;
    let run = RunId(Uuid::now_v7());
    let keys = [b"1", b"2", b"3"].map(|text| Digest::of_bytes(text));
    let hour = Span::secs(3600);
    keep(&store, run, Some((keys[0], Span::secs(0)))).await;
    keep(&store, run, Some((keys[1], hour))).await;
    let last = keep(&store, run, Some((keys[2], hour))).await;
    assert!(store.cached_call(&keys[0], hour).await.unwrap().is_none(), "its time is up");
    assert!(
        store.cached_call(&keys[1], Span::secs(0)).await.unwrap().is_none(),
        "the owner has shortened the age"
    );
    assert_eq!(store.cached_call(&keys[2], hour).await.unwrap().unwrap().row.id, last);
    assert_eq!(store.trim_cache(1).await.unwrap(), 2);
    assert!(store.cached_call(&keys[1], hour).await.unwrap().is_none());
    assert_eq!(store.cached_call(&keys[2], hour).await.unwrap().unwrap().row.id, last);
    assert_eq!(store.calls(run, None, 10).await.unwrap().len(), 3);
    // The same question again: the newer answer counts.
    let newer = keep(&store, run, Some((keys[2], hour))).await;
    assert_eq!(store.cached_call(&keys[2], hour).await.unwrap().unwrap().row.id, newer);
}

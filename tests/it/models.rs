//! Models as the owner sees them: what is journaled when they fail, breakers that outlive a process and are
//! shared, the list, the test and the reset.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use reqwest::Method;
use serde_json::{Value, json};
use steward::config::models::Models as Config;
use steward::domain::label::Label;
use steward::domain::workflow::Agent;
use steward::models::Models;

use crate::support::model_server::{ModelServer, fails, says};
use crate::support::{App, app_with, asking, database, example_email};

const GOOD: &str = r#"{"class": "lead"}"#;

fn config(server: &ModelServer) -> Config {
    let price = json!({"input": "1.00 USD", "output": "2.00 USD"});
    serde_json::from_value(json!({
        "providers": {"test": {"base_url": format!("http://{}/v1", server.address), "timeout": "5s"}},
        "models": {"test-model": {"provider": "test", "id": "test-1", "price": price}},
        "tiers": {"draft": ["test-model"]},
    }))
    .unwrap()
}

async fn ask(models: &Models) -> String {
    let agent: Agent = serde_json::from_value(json!({"agent": "sorter", "tier": "draft", "prompt": "Sort.",
        "output": {"type": "object", "required": ["class"]}, "max_tokens": 50}))
    .unwrap();
    let (call, _) = asking::ask(models, &agent, &json!({"text": "x"}), Label::Owner).await;
    call.unwrap().outcome
}

/// Refuses the key as long as the test says so.
async fn refusing() -> (ModelServer, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let refuse = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let refusing = refuse.clone();
    let server =
        ModelServer::start(Box::new(move |_| match refusing.load(std::sync::atomic::Ordering::SeqCst) {
            true => fails(401, "invalid_api_key"),
            false => says(GOOD),
        }))
        .await;
    (server, refuse)
}

#[tokio::test]
async fn an_open_breaker_outlives_the_process_and_counts_on_every_node() {
    let (server, refuse) = refusing().await;
    let store = database().await;
    let first = asking::models(&store, &config(&server), json!({})).await;
    first.attend(&store).await.unwrap();
    let beside = asking::models(&store, &config(&server), json!({})).await;
    beside.attend(&store).await.unwrap();
    assert_eq!(ask(&first).await, "the key was refused (401): invalid_api_key");
    first.compare_breakers().await.unwrap();
    let row = store.breakers().await.unwrap().remove(0);
    assert!(
        row.lasting && row.closed_at.is_none() && row.told_at.is_none(),
        "the owner is to be told: {row:?}"
    );
    assert!(row.left.as_secs() > 300, "{row:?}");

    // A node beside it learns of it; so does one that starts later, as after a crash of the first.
    beside.compare_breakers().await.unwrap();
    let later = asking::models(&store, &config(&server), json!({})).await;
    later.attend(&store).await.unwrap();
    for models in [&first, &beside, &later] {
        let outcome = ask(models).await;
        assert!(outcome.starts_with("paused until ") && outcome.contains("invalid_api_key"), "{outcome}");
    }
    assert_eq!(server.requests().len(), 1);

    // A probe that fails again is the same trouble, of which the owner is told once.
    assert!(!later.test(None).await[0].ok);
    later.compare_breakers().await.unwrap();
    assert_eq!(store.breakers().await.unwrap()[0].opened_at, row.opened_at);

    // One that succeeds ends it for everybody.
    refuse.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(later.test(None).await[0].ok);
    later.compare_breakers().await.unwrap();
    assert!(store.breakers().await.unwrap()[0].closed_at.is_some());
    for models in [&first, &beside, &later] {
        models.compare_breakers().await.unwrap();
        assert_eq!(ask(models).await, "ok");
    }
    for models in [first, beside, later] {
        models.stop().await;
    }
}

#[tokio::test]
async fn what_the_owner_resets_is_asked_again_on_every_node() {
    let (server, refuse) = refusing().await;
    let store = database().await;
    let nodes = [
        asking::models(&store, &config(&server), json!({})).await,
        asking::models(&store, &config(&server), json!({})).await,
    ];
    for models in &nodes {
        models.attend(&store).await.unwrap();
    }
    ask(&nodes[0]).await;
    for models in &nodes {
        models.compare_breakers().await.unwrap();
    }
    refuse.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(nodes[1].reset("test").await.unwrap(), Some(true));
    nodes[0].compare_breakers().await.unwrap();
    for models in &nodes {
        assert_eq!(ask(models).await, "ok");
    }
    assert_eq!(nodes[0].reset("other").await.unwrap(), None);
}

async fn app(server: &ModelServer) -> App {
    let yaml = server.models_yaml();
    app_with(|workspace| std::fs::write(workspace.join("config/models.yaml"), yaml).unwrap()).await
}

#[tokio::test]
async fn models_are_listed_tested_and_reset_over_http() {
    let (server, refuse) = refusing().await;
    let app = app(&server).await;
    let listed = app.get("/api/v1/models").await;
    assert_eq!(listed["models"][0]["price"], json!({"input": "1.00 USD", "output": "2.00 USD"}));
    assert_eq!(listed["models"][0]["tiers"], json!(["draft", "final"]));
    assert_eq!(listed["providers"][0]["state"], "ready");

    let tested = &app.post("/api/v1/models/test", json!({})).await["tested"][0];
    assert_eq!(tested["outcome"], "the key was refused (401): invalid_api_key");
    let paused = &app.get("/api/v1/models").await["providers"][0];
    assert_eq!((&paused["state"], &paused["needs_owner"]), (&json!("paused"), &json!(true)), "{paused}");

    refuse.store(false, std::sync::atomic::Ordering::SeqCst);
    let reset = app.post("/api/v1/models/providers/test/reset", json!({})).await;
    assert_eq!(reset, json!({"provider": "test", "was_paused": true}));
    assert_eq!(app.get("/api/v1/models").await["providers"][0]["state"], "ready");
    let tested = &app.post("/api/v1/models/test?model=test-model", json!({})).await["tested"][0];
    assert_eq!((&tested["ok"], &tested["cost_micros"]), (&json!(true), &json!(140)), "{tested}");
    for path in ["/api/v1/models/providers/none/reset", "/api/v1/models/test?model=none"] {
        assert_eq!(app.call(Method::POST, path, None).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    app.stop().await;
}

/// The tries of the first agent step that a provider's model answered or failed.
async fn tries(app: &App, run: &str) -> Vec<Value> {
    let journal = app.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await;
    let entries =
        journal["journal"].as_array().or(journal["entries"].as_array()).cloned().unwrap_or_default();
    let calls = entries.into_iter().filter(|entry| entry["kind"] == "model.called");
    calls.map(|entry| entry["data"]["call"].clone()).filter(|call| call["model"] == "test-model").collect()
}

#[tokio::test]
async fn the_journal_shows_what_was_decided_about_each_fault() {
    for (fault, outcomes, cost) in [
        (
            // Down for longer than the patience of one attempt.
            (500u16, "server_error"),
            vec!["the provider failed (500): server_error"; 3],
            0,
        ),
        ((401, "invalid_api_key"), vec!["the key was refused (401): invalid_api_key"], 0),
        ((404, "model_not_found"), vec!["the provider does not serve this model (404): model_not_found"], 0),
        ((200, "{\"fit\": 7}"), vec!["its output does not fit the schema"; 2], 140),
    ] {
        let server = ModelServer::start(Box::new(move |_| match fault.0 {
            200 => says(fault.1),
            status => fails(status, fault.1).into_response(),
        }))
        .await;
        let app = app(&server).await;
        let run = app.deliver(example_email("01-lead-bakery.eml")).await;
        // Nobody could answer, so the owner is asked, and told why.
        let review = app.open_review(&run).await;
        let told = tries(&app, &run).await;
        let short: Vec<&str> = told.iter().filter_map(|call| call["outcome"].as_str()).collect();
        assert_eq!(short.len(), outcomes.len(), "{fault:?}: {told:?}");
        assert!(short.iter().zip(&outcomes).all(|(told, wanted)| told.starts_with(wanted)), "{short:?}");
        assert!(told.iter().all(|call| call["cost_micros"] == cost), "{fault:?}: {told:?}");
        assert_eq!(server.requests().len(), outcomes.len(), "one request per call that the journal tells");
        assert!(
            review["question"]["reasons"].to_string().contains("`test-model` gave no answer"),
            "{review}"
        );
        app.assert_chains_hold().await;
        app.stop().await;
    }
}

#[tokio::test]
async fn the_command_line_lists_tests_and_resets_and_says_by_its_exit_code_whether_all_is_well() {
    let (server, refuse) = refusing().await;
    let app = app(&server).await;
    let steward = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_steward"));
        command
            .args(args)
            .env("STEWARD_URL", &app.url)
            .env("STEWARD_TOKEN", &app.token)
            .env("COLUMNS", "200");
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, listed) = steward(&["models"]).await;
    assert_eq!(code, Some(0), "{listed}");
    assert!(listed.contains("1.00 / – / 2.00 USD") && listed.contains("draft, final"), "{listed}");
    let (code, tested) = steward(&["models", "test"]).await;
    assert_eq!(code, Some(1), "{tested}");
    assert!(tested.contains("the key was refused (401): invalid_api_key"), "{tested}");
    let (_, listed) = steward(&["models", "list"]).await;
    assert!(listed.contains("paused") && listed.contains("invalid_api_key"), "{listed}");
    refuse.store(false, std::sync::atomic::Ordering::SeqCst);
    let (code, reset) = steward(&["models", "reset", "test"]).await;
    assert_eq!((code, reset.trim()), (Some(0), "test is asked again"));
    let (code, tested) = steward(&["models", "test", "test-model", "--json"]).await;
    let tested: Value = serde_json::from_str(&tested).unwrap();
    assert_eq!((code, &tested["tested"][0]["answered_by"]), (Some(0), &json!("test-1-2026")), "{tested}");
    for (args, expected) in [(vec!["models", "reset", "none"], 4), (vec!["models", "test", "none"], 4)] {
        assert_eq!(steward(&args).await.0, Some(expected), "{args:?}");
    }
    app.stop().await;
}

//! A key planted in the environment of the real binary is sent to its provider and is found nowhere else,
//! though the provider repeats it wherever it can.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use steward::config::template;
use steward::store::audit::Canary;
use tokio::process::Command;

use crate::agents::WORKFLOW;
use crate::support::process::Process;
use crate::support::{database, eventually};

const MODELS: &str = "\
providers:
  test: { base_url: \"http://ADDRESS/v1\", timeout: 5s, key: env:CANARY_KEY }
  other: { base_url: \"http://ADDRESS/v1\", timeout: 5s, key: env:OTHER_KEY }
models:
  test-model: { provider: test, id: test-1, price: { input: 1.00 USD, output: 2.00 USD } }
  never: { provider: other, id: test-1 }
tiers:
  local: [encoder, owner]
  draft: [test-model, owner]
  final: [test-model, owner]
";

const AGENT: &str = "\
---
agent: helper
tier: draft
output: { type: object, required: [answer], properties: { answer: { type: string } } }
---
You answer.
";

#[tokio::test]
async fn a_key_is_sent_to_its_provider_and_is_nowhere_else() {
    let canary = Canary { name: "CANARY_KEY".into(), value: "sk-canary-7f3a91c2d0".into() };
    let other = "sk-other-55e1b7a9c4";
    let (key, seen) = (canary.value.clone(), Arc::new(Mutex::new(Vec::<(String, String)>::new())));
    let (calls, kept) = (AtomicUsize::new(0), seen.clone());
    // It repeats the key in an error, in an answer that does not fit, and in one that does.
    let answer = move |headers: HeaderMap, body: String| -> Response {
        let sent = headers["authorization"].to_str().unwrap().to_owned();
        kept.lock().unwrap().push((sent, body));
        let content = match calls.fetch_add(1, Ordering::SeqCst) {
            0 => {
                let error = json!({"error": {"message": format!("bad key {key}"), "type": key}});
                return (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(error)).into_response();
            }
            1 => format!("{key} is no JSON"),
            _ => json!({"answer": format!("your key is {key}")}).to_string(),
        };
        axum::Json(json!({"id": key, "model": key, "choices": [{"finish_reason": "stop",
            "message": {"content": content}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}))
        .into_response()
    };
    let answer = Arc::new(answer);
    let complete = move |headers: HeaderMap, body: String| async move { answer(headers, body) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/v1/chat/completions", post(complete));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let (_folder, workspace) = database::folder();
    template::write(&workspace).unwrap();
    std::fs::write(workspace.join("config/models.yaml"), MODELS.replace("ADDRESS", &address.to_string()))
        .unwrap();
    std::fs::write(workspace.join("config/workflows/ask.yaml"), WORKFLOW).unwrap();
    std::fs::write(workspace.join("agents/helper.md"), AGENT).unwrap();
    let log = workspace.join("log.txt");
    let variables = [
        ("CANARY_KEY", canary.value.as_str()),
        ("OTHER_KEY", other),
        ("STEWARD_LOG", "trace"),
        ("STEWARD_LOG_FORMAT", "json"),
    ];
    let process =
        Process::start_logged(&workspace, &variables, Stdio::from(std::fs::File::create(&log).unwrap()))
            .await;

    // Somebody writes another provider's key into a question: models are sent it, but it is not kept so.
    let question =
        json!({"workflow": "ask", "input": {"text": format!("is {other} mine?")}, "label": "owner"});
    let run = process.post("/api/v1/runs", question).await.unwrap()["run"].as_str().unwrap().to_owned();
    let shown = eventually("the run ending", || async {
        let shown = process.get(&format!("/api/v1/runs/{run}")).await?;
        ["succeeded", "failed", "waiting"].contains(&shown["status"].as_str()?).then_some(shown)
    })
    .await;
    assert_eq!(shown["status"], "succeeded", "{shown}");
    let sent = seen.lock().unwrap().clone();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|(header, _)| *header == format!("Bearer {}", canary.value)), "it is sent");
    assert!(sent[0].1.contains(other));

    // Everything that the API tells, bodies and trace included.
    let calls = process.get(&format!("/api/v1/runs/{run}/calls")).await.unwrap();
    let ids: Vec<String> = calls["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| call["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 3, "{calls}");
    let effect = shown["effects"][0]["id"].as_str();
    assert!(effect.is_some(), "{shown}");
    let mut paths: Vec<String> = ids.iter().map(|id| format!("/api/v1/calls/{id}")).collect();
    paths.extend([
        format!("/api/v1/runs/{run}"),
        format!("/api/v1/runs/{run}/calls"),
        format!("/api/v1/runs/{run}/journal?limit=200"),
        "/api/v1/runs".to_owned(),
        "/api/v1/reviews?status=open".to_owned(),
    ]);
    paths.extend(effect.map(|effect| format!("/api/v1/effects/{effect}/trace")));
    let mut bodies = 0;
    for path in &paths {
        let told: Value = process.get(path).await.unwrap();
        let text = told.to_string();
        assert!(!text.contains(&canary.value), "{path} tells the key: {text}");
        if path.contains("/calls/") {
            assert!(!text.contains(other), "{path} keeps another key: {text}");
            bodies += usize::from(told["request"]["text"].as_str().unwrap().contains("is *** mine?"));
            assert!(told["response"]["text"].as_str().unwrap().contains("***"), "{told}");
        }
    }
    assert_eq!(bodies, 3);

    // The command line tells the same.
    let shown = Command::new(env!("CARGO_BIN_EXE_steward"))
        .args(["calls", "show", &ids[2], "--workspace"])
        .arg(&workspace)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.contains("your key is ***"), "{text}");
    let listed = Command::new(env!("CARGO_BIN_EXE_steward"))
        .args(["calls", "list", &run, "--workspace"])
        .arg(&workspace)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success() && text.contains(&ids[0]) && !text.contains(&canary.value), "{text}");

    // What it says about itself, at its most talkative, with the spans of its calls.
    process.stop().await;
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("gen_ai.request.model"), "the calls are traced");
    assert!(!log.contains(&canary.value), "the log tells the key");
}

//! A run as those who watch it see it: entries as they become durable, a draft while it is written.

use std::sync::Mutex;

use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::agents::{AGENT, WORKFLOW, open, write};
use crate::support::model_server::{ModelServer, says};
use crate::support::{App, PATIENCE, app_with};

/// Reads server-sent events until `enough` of them are there.
struct Watcher {
    response: reqwest::Response,
    text: String,
}

impl Watcher {
    async fn of(app: &App, run: &str, more: &str) -> Self {
        let request =
            app.client.get(format!("{}/api/v1/runs/{run}/events{more}", app.url)).bearer_auth(&app.token);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event: its name, its id, its data; nothing once the stream has ended.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                    line.trim_start_matches(": ").to_owned()
                };
                let (name, id, data) = (field("event"), field("id"), field("data"));
                self.text = rest.to_owned();
                if data.is_empty() {
                    continue; // a comment that keeps the connection alive
                }
                return Some((name, id, serde_json::from_str(&data).unwrap()));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("something in time").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

fn piece(text: &str) -> Bytes {
    format!("data: {}\n\n", json!({"choices": [{"delta": {"content": text}}]})).into()
}

#[tokio::test]
async fn who_watches_a_run_sees_entries_as_they_become_durable_and_a_draft_while_it_is_written() {
    // The model writes half of its answer, and the rest only once the watcher has seen that half.
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Mutex::new(Some(wait));
    let model = ModelServer::start(Box::new(move |request| {
        let Some(wait) = wait.lock().unwrap().take() else { return says(r#"{"answer": "again"}"#) };
        assert_eq!(request["stream"], true);
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>(piece("{\"answer\": \"Hel"))]);
        let rest = futures_util::stream::once(async move {
            wait.await.unwrap();
            let end =
                "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n";
            Ok([&piece("lo\"}")[..], end.as_bytes()].concat().into())
        });
        let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
        ([("content-type", "text/event-stream")], body).into_response()
    }))
    .await;
    // The owner answers first, so that the watcher is there before the model is asked.
    let workflow = WORKFLOW.replace("steps:\n", "steps:\n  - id: go\n    review: { ask: Go on? }\n");
    let app = app_with(|workspace| write(workspace, &model, &workflow, AGENT)).await;
    let run = open(&app, "Hello?").await;
    let review = app.open_review(&run).await;
    let mut watcher = Watcher::of(&app, &run, "").await;
    let (name, id, entry) = watcher.next().await.unwrap();
    assert_eq!((name.as_str(), id.as_str(), &entry["kind"]), ("entry", "1", &json!("run.opened")));
    let path = format!("/api/v1/reviews/{}/decision", review["id"].as_str().unwrap());
    app.post(&path, json!({"verdict": "approved", "digest": review["digest"]})).await;

    let mut go_on = Some(go_on);
    let (mut draft, mut kinds, mut last) = (String::new(), Vec::new(), 1);
    while let Some((name, id, data)) = watcher.next().await {
        match name.as_str() {
            "draft" => {
                assert_eq!(
                    (&data["step"], &data["model"], &data["call"]),
                    (&json!("think"), &json!("test-model"), &json!(1))
                );
                assert_eq!(data["at"], draft.len());
                assert!(!kinds.contains(&"step.succeeded think".to_owned()), "hints come before the answer");
                draft.push_str(data["text"].as_str().unwrap());
                if let Some(go_on) = go_on.take() {
                    go_on.send(()).unwrap();
                }
            }
            "entry" => {
                last += 1;
                assert_eq!((id, &data["seq"]), (last.to_string(), &json!(last)), "no gap and no repetition");
                let step = data["data"]["step"].as_str().unwrap_or_default();
                kinds.push(format!("{} {step}", data["kind"].as_str().unwrap()));
            }
            name => kinds.push(name.to_owned()),
        }
    }
    assert_eq!(draft, r#"{"answer": "Hello"}"#);
    assert_eq!(kinds.iter().rev().take(2).collect::<Vec<_>>(), ["end", "run.finished "]);
    let journal = app.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await;
    assert!(
        !journal.to_string().contains("draft\""),
        "what is being written is nowhere but with who watches"
    );

    // Coming back goes on behind the last entry seen; a run that is over ends the stream at once.
    let mut again = Watcher::of(&app, &run, &format!("?after={}", last - 1)).await;
    assert_eq!(again.next().await.unwrap().1, last.to_string());
    assert_eq!(again.next().await.unwrap().0, "end");
    assert!(again.next().await.is_none());
    app.stop().await;
}

#[tokio::test]
async fn a_service_that_stops_sends_its_watchers_away() {
    let model = ModelServer::start(Box::new(|_| says("{}"))).await;
    let workflow = WORKFLOW.replace("steps:\n", "steps:\n  - id: go\n    review: { ask: Go on? }\n");
    let app = app_with(|workspace| write(workspace, &model, &workflow, AGENT)).await;
    let run = open(&app, "Hello?").await;
    app.open_review(&run).await;
    let mut watcher = Watcher::of(&app, &run, "").await;
    assert!(watcher.next().await.is_some());
    let stopping = std::time::Instant::now();
    app.stop().await;
    while watcher.next().await.is_some() {}
    assert!(stopping.elapsed() < std::time::Duration::from_secs(120));
}

#[tokio::test]
async fn the_command_line_follows_a_run_with_its_drafts_to_the_end_and_goes_on_where_it_was_cut_off() {
    let model = ModelServer::start(Box::new(|request| {
        if request["stream"] != true {
            return says(r#"{"answer": "Hello"}"#);
        }
        let end = "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n";
        let text = [&piece("{\"answer\": ")[..], &piece("\"Hello\"}"), end.as_bytes()].concat();
        ([("content-type", "text/event-stream")], text).into_response()
    }))
    .await;
    let workflow = WORKFLOW.replace("steps:\n", "steps:\n  - id: go\n    review: { ask: Go on? }\n");
    let app = app_with(|workspace| write(workspace, &model, &workflow, AGENT)).await;
    let run = open(&app, "Hello?").await;
    let review = app.open_review(&run).await;
    let steward = |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_steward"));
        command.args(args).env("STEWARD_URL", &app.url).env("STEWARD_TOKEN", &app.token);
        command.stdout(std::process::Stdio::piped()).kill_on_drop(true);
        command.spawn().unwrap()
    };
    let mut watching = steward(&["runs", "watch", &run]);
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(watching.stdout.take().unwrap()));
    let first = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(first.starts_with("▶ "), "{first}");
    let path = format!("/api/v1/reviews/{}/decision", review["id"].as_str().unwrap());
    app.post(&path, json!({"verdict": "approved", "digest": review["digest"]})).await;
    let mut told = Vec::new();
    while let Some(line) = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
        told.push(line);
    }
    let told = told.join("\n");
    assert!(told.contains("think: test-model writes: {\"answer\": \"Hello\"}"), "{told}");
    assert!(told.contains("✓ think") && told.contains("■ succeeded"), "{told}");
    assert!(watching.wait().await.unwrap().success());

    // Once it is over everything is told at once, a line of JSON each.
    let output = steward(&["runs", "watch", &run, "--json"]).wait_with_output().await.unwrap();
    assert!(output.status.success());
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((&lines[0]["event"], &lines[0]["id"]), (&json!("entry"), &json!("1")));
    assert_eq!(lines.last().unwrap()["event"], "end");
    let unknown = steward(&["runs", "watch", "00000000-0000-7000-8000-000000000000"]).wait().await.unwrap();
    assert_eq!(unknown.code(), Some(4));
    app.stop().await;
}

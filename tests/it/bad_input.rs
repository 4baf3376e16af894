//! Bad input gets a precise answer where its sender or the owner will see it, never a panic, and no
//! trigger is lost.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::model_server::{ModelServer, fails, says};
use crate::support::{App, app, app_with, eventually, example_email};

async fn post_email(app: &App, raw: Vec<u8>) -> (StatusCode, String, Value) {
    let request = app.client.post(format!("{}/hooks/email", app.url)).bearer_auth(&app.token).body(raw);
    let response = request.send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status(), kind, response.json().await.unwrap())
}

#[tokio::test]
async fn what_is_no_email_is_refused_with_the_reason() {
    let app = app_with(|workspace| {
        let settings = workspace.join("config/settings.yaml");
        let text = std::fs::read_to_string(&settings).unwrap();
        assert!(text.contains("\ndefault_mailbox:"));
        std::fs::write(settings, text.replace("\ndefault_mailbox:", "\n# default_mailbox:")).unwrap();
    })
    .await;
    for (raw, word) in [
        (b"".to_vec(), "empty"),
        (b"\x00\xff\x00 nothing here".to_vec(), "header"),
        (b"Subject: no sender\r\nTo: hello@harbourandpine.example\r\n\r\nHi".to_vec(), "From"),
        (b"From: a@b.example\r\nTo: nobody@elsewhere.example\r\n\r\nHi".to_vec(), "nobody@elsewhere.example"),
    ] {
        let (status, kind, problem) = post_email(&app, raw).await;
        assert!(status.is_client_error(), "{status} {problem}");
        assert_eq!(kind, "application/problem+json");
        let detail = problem["detail"].as_str().unwrap().to_lowercase();
        assert!(detail.contains(&word.to_lowercase()), "{word}: {problem}");
    }
    assert_eq!(app.get("/api/v1/runs").await["runs"], json!([]));
    app.stop().await;
}

#[tokio::test]
async fn an_email_of_thirty_megabytes_is_refused_before_it_is_read() {
    let app = app().await;
    let mut raw = example_email("01-lead-bakery.eml");
    raw.resize(30 * 1024 * 1024, b'x');
    let request = app.client.post(format!("{}/hooks/email", app.url)).bearer_auth(&app.token).body(raw);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    app.stop().await;
}

#[tokio::test]
async fn a_refused_file_in_the_inbox_is_kept_beside_a_note_that_says_why() {
    let app = app().await;
    let inbox = app.workspace.join(".steward/inbox");
    std::fs::write(inbox.join("broken.eml"), b"\x00\x01\x02").unwrap();
    std::fs::write(inbox.join("lead.eml"), example_email("01-lead-bakery.eml")).unwrap();
    let note = eventually("the note", || async {
        std::fs::read_to_string(inbox.join("refused/broken.eml.why.txt")).ok()
    })
    .await;
    assert!(note.to_lowercase().contains("header"), "{note}");
    eventually("the lead's run", || async {
        let runs = app.get("/api/v1/runs?workflow=lead-intake").await;
        (runs["runs"].as_array()?.len() == 1 && inbox.join("done/lead.eml").exists()).then_some(())
    })
    .await;
    app.stop().await;
}

/// What a model does wrong, and the word by which the journal knows it.
async fn a_bad_model(answer: fn(&Value) -> axum::response::Response, word: &str) {
    let model = ModelServer::start(Box::new(answer)).await;
    let app = app_with(|workspace| {
        std::fs::write(workspace.join("config/models.yaml"), model.models_yaml()).unwrap();
    })
    .await;
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    // The owner is the last model: nothing is lost, and the step asks with the form of its output.
    let review = app.open_review(&run).await;
    assert_eq!(review["ask"], "answer", "{review}");
    assert!(review["question"]["form"]["properties"].is_object());
    let journal = app.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await;
    let calls = journal["entries"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "model.called");
    let outcomes: Vec<String> =
        calls.map(|call| call["data"]["call"]["outcome"].to_string().to_lowercase()).collect();
    assert!(outcomes.iter().any(|outcome| outcome.contains(word)), "{word} is not in {outcomes:?}");
    // And the owner's answer takes the run on.
    let answer =
        json!({"fit": 0.7, "confidence": 1.0, "why": "I know them", "wants": "a shop", "unknown": []});
    let path = format!("/api/v1/reviews/{}/decision", review["id"].as_str().unwrap());
    app.post(&path, json!({"verdict": "answered", "answer": answer})).await;
    eventually("the next question", || async {
        let next = app.open_review(&run).await;
        (next["id"] != review["id"]).then_some(())
    })
    .await;
    app.assert_chains_hold().await;
    app.stop().await;
}

#[tokio::test]
async fn a_model_that_answers_with_prose_falls_back_to_the_owner() {
    a_bad_model(|_| says("I would be delighted to help!"), "json").await;
}

#[tokio::test]
async fn a_model_that_answers_with_half_a_json_falls_back_to_the_owner() {
    a_bad_model(|_| says("{\"fit\": 0.9, \"confi"), "json").await;
}

#[tokio::test]
async fn a_model_that_answers_with_nothing_falls_back_to_the_owner() {
    a_bad_model(|_| says(""), "nothing").await;
}

#[tokio::test]
async fn a_model_that_is_down_falls_back_to_the_owner() {
    a_bad_model(|_| fails(500, "server_error"), "500").await;
}

#[tokio::test]
async fn a_model_that_limits_us_for_long_falls_back_to_the_owner() {
    a_bad_model(
        |_| {
            let mut response = fails(429, "rate_limit_exceeded");
            response.headers_mut().insert("retry-after", "3600".parse().unwrap());
            response
        },
        "429",
    )
    .await;
}

#[tokio::test]
async fn a_model_that_rejects_our_key_falls_back_to_the_owner() {
    a_bad_model(|_| fails(401, "invalid_api_key"), "401").await;
}

#[tokio::test]
async fn a_model_that_never_answers_falls_back_to_the_owner() {
    // Accepts, and then nothing: until the test ends, long after the step's own time.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let app = app_with(|workspace| {
        let models = format!(
            "providers:\n  mute: {{ base_url: \"http://{address}/v1\", timeout: 60s }}\n\
             models:\n  mute-1: {{ provider: mute, id: m, price: {{ input: 0.00 USD, output: 0.00 USD }} }}\n\
             tiers:\n  local: [encoder, owner]\n  draft: [mute-1, owner]\n  final: [mute-1, owner]\n"
        );
        std::fs::write(workspace.join("config/models.yaml"), models).unwrap();
        let workflow = workspace.join("config/workflows/lead-intake.yaml");
        let text = std::fs::read_to_string(&workflow).unwrap();
        std::fs::write(
            workflow,
            text.replace("    agent: qualifier\n", "    agent: qualifier\n    timeout: 1s\n"),
        )
        .unwrap();
    })
    .await;
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    let review = app.open_review(&run).await;
    assert_eq!(review["ask"], "answer", "{review}");
    assert!(review["question"]["reasons"].to_string().contains("time was up"), "{review}");
    app.stop().await;
}

#[tokio::test]
async fn a_text_that_the_database_cannot_keep_is_refused_with_the_reason() {
    let app = app().await;
    let input = json!({"workflow": "lead-intake", "input": {"from": "a\u{0}b", "body": "x"}});
    let (status, problem) = app.call(reqwest::Method::POST, "/api/v1/runs", Some(input)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("U+0000"), "{problem}");
    app.stop().await;
}

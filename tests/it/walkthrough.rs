//! The system from outside, once through: read this first.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use steward::domain::action::Action;
use steward::domain::digest::Digest;
use steward::triggers::email;

use crate::support::model_server::{ModelServer, says};
use crate::support::smtp::MailServer;
use crate::support::{App, app, app_with, eventually, example_email};

/// A model that qualifies any lead as a good one and drafts a short reply.
fn helpful() -> Box<dyn Fn(&Value) -> axum::response::Response + Send + Sync> {
    Box::new(|request| {
        let answer = if request["messages"][0].to_string().contains("which enquiries to answer first") {
            json!({"fit": 0.9, "confidence": 0.8, "why": "a shop, a budget and a date", "wants": "a shop", "unknown": []})
        } else {
            json!({"body": "Hello,\n\nthank you. Shall we talk on Thursday?\n\n. Mara", "confidence": 0.9})
        };
        says(&answer.to_string())
    })
}

#[tokio::test]
async fn an_email_becomes_an_approved_reply() {
    // A workspace whose mail goes to a real SMTP server and whose agents ask a real model server.
    let mail = MailServer::start().await;
    let model = ModelServer::start(helpful()).await;
    let app = app_with(|workspace| {
        std::fs::write(workspace.join("config/models.yaml"), model.models_yaml()).unwrap();
        let (host, port) = (mail.address.ip(), mail.address.port());
        let connectors = format!(
            "email:\n  from: Mara Lind <mara@harbourandpine.example>\n  \
             smtp: {{ host: \"{host}\", port: {port}, security: none }}\n"
        );
        std::fs::write(workspace.join("config/connectors.yaml"), connectors).unwrap();
    })
    .await;

    // A lead writes. The trigger is acknowledged once its run is committed; the same mail opens no second one.
    let raw = example_email("01-lead-bakery.eml");
    let run = app.deliver(raw.clone()).await;
    assert_eq!(app.deliver(raw.clone()).await, run);
    let email = email::parse(&raw).unwrap();

    // The encoder sorts, the model qualifies and drafts, the record is kept; the reply waits for the owner.
    let review = app.open_review(&run).await;
    let waiting = app.run_that_is(&run, &["waiting"]).await;
    assert_eq!(waiting["workflow"], "lead-intake");
    assert!(mail.accepted().is_empty(), "nothing leaves the house unapproved");
    assert_eq!(review["ask"], "approval");
    let reasons = review["question"]["reasons"].to_string();
    assert!(reasons.contains("supervised") && reasons.contains(&email.from), "{reasons}");
    let artifacts = review["question"]["artifacts"].as_array().unwrap();
    assert!((1..=5).contains(&artifacts.len()));
    assert!(artifacts.iter().any(|artifact| artifact["label"] == "untrusted"));
    let record = app.store.records_get("lead", &email.from).await.unwrap().expect("the lead is kept");
    assert_eq!(record.data["fit"], 0.9);

    // What the owner approves is named by its digest, and anything else is refused.
    let path = format!("/api/v1/reviews/{}/decision", review["id"].as_str().unwrap());
    let other = json!({"verdict": "approved", "digest": Digest::ZERO.to_string()});
    assert_eq!(app.call(Method::POST, &path, Some(other)).await.0, 412);
    app.post(&path, json!({"verdict": "approved", "digest": review["digest"]})).await;

    // The mail goes out once, and its bytes are exactly what was approved.
    app.run_that_is(&run, &["succeeded"]).await;
    let [sent] = &mail.accepted()[..] else { panic!("one mail, not {}", mail.accepted().len()) };
    assert_eq!(
        (sent.from.as_str(), &sent.to[..]),
        ("mara@harbourandpine.example", &[email.from.clone()][..])
    );
    assert_eq!(approved_digest(&sent.bytes, &review), review["digest"].as_str().unwrap());
    let shown = app.get(&format!("/api/v1/runs/{run}")).await;
    let effects = shown["effects"].as_array().unwrap();
    let effect = effects.iter().find(|effect| effect["action"] == "email.send").unwrap();
    assert_eq!(effect["status"], "succeeded");
    assert_eq!(effect["response"]["sha256"], Digest::of_bytes(&sent.bytes).to_string());

    // What came from outside was given to the model as data, and never stood among its instructions.
    for request in model.requests() {
        let system = request["messages"][0].to_string();
        assert!(!system.contains(&email.from) && !system.contains(email.subject.as_str()), "{system}");
    }

    // Every model call is in the journal with its tokens and cost, and the chain holds.
    let journal = app.get(&format!("/api/v1/runs/{run}/journal?limit=200")).await;
    let calls: Vec<_> = entries(&journal, "model.called");
    assert!(
        calls
            .iter()
            .any(|call| call["call"]["answered_by"] == "test-1-2026" && call["call"]["cost_micros"] == 140)
    );
    app.assert_chains_hold().await;
    app.stop().await;
}

/// The digest of the action that these bytes carry out, rebuilt from the bytes alone: what is not a
/// header of the action (the references) is taken from the review, what the receiver reads from the mail.
fn approved_digest(bytes: &[u8], review: &Value) -> String {
    let received = email::parse(bytes).unwrap();
    let mut params = review["question"]["action"]["params"].clone();
    params["to"] = match &params["to"] {
        Value::Array(_) => json!(received.to),
        _ => json!(received.to[0]),
    };
    params["subject"] = json!(received.subject);
    params["body"] = json!(received.body);
    Action { action: "email.send".into(), params }.digest().to_string()
}

fn entries(journal: &Value, kind: &str) -> Vec<Value> {
    let items = journal["entries"].as_array().unwrap();
    items.iter().filter(|entry| entry["kind"] == kind).map(|entry| entry["data"].clone()).collect()
}

#[tokio::test]
async fn without_any_key_a_lead_still_becomes_a_reply_that_waits_for_approval() {
    let app = app().await;
    let run = app.deliver(example_email("01-lead-bakery.eml")).await;
    let review = app.open_review(&run).await;
    let params = &review["question"]["action"]["params"];
    assert!(params["body"].as_str().unwrap().contains("Harbour & Pine"), "{params}");
    let edited = json!({"verdict": "edited", "digest": review["digest"], "params": {
        "to": params["to"], "subject": "Welcome", "body": "Hello, let us talk. Mara",
        "in_reply_to": params["in_reply_to"], "references": params["references"],
    }});
    let mut edited = edited;
    edited["params"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
    app.post(&format!("/api/v1/reviews/{}/decision", review["id"].as_str().unwrap()), edited).await;
    app.run_that_is(&run, &["succeeded"]).await;
    let outbox = app.workspace.join(".steward/outbox");
    let files: Vec<_> = std::fs::read_dir(outbox).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("one mail in the outbox: {files:?}") };
    let sent = email::parse(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((sent.subject.as_str(), sent.body.as_str()), ("Welcome", "Hello, let us talk. Mara"));
    app.assert_chains_hold().await;
    app.stop().await;
}

#[tokio::test]
async fn a_support_question_is_answered_from_memory_with_a_citation() {
    let app = app().await;
    let knowledge = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/knowledge");
    for file in std::fs::read_dir(knowledge).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        app.post("/api/v1/memory", json!({"path": name, "text": text})).await;
    }
    let run = app.deliver(support_question()).await;
    let review = app.open_review(&run).await;
    let shown = app.get(&format!("/api/v1/runs/{run}")).await;
    assert_eq!(shown["workflow"], "support");
    let body = review["question"]["action"]["params"]["body"].as_str().unwrap();
    assert!(body.to_lowercase().contains("opening hours"), "{body}");
    assert!(body.contains("Editing"), "the answer names the document it rests on: {body}");
    app.stop().await;
}

fn support_question() -> Vec<u8> {
    let text = "From: Nora Berg <nora@bergflowers.example>\r\nTo: support@harbourandpine.example\r\n\
        Subject: How do I change the opening hours on my website?\r\nMessage-ID: <q1@bergflowers.example>\r\n\
        Date: Mon, 16 Nov 2026 09:12:00 +0100\r\n\r\n\
        Hi Mara,\r\n\r\nhow can I change the opening hours shown on my website? They are wrong for Christmas.\r\n\r\nNora\r\n";
    text.as_bytes().to_vec()
}

#[tokio::test]
async fn an_instruction_in_an_email_reaches_nobody_else() {
    let app = Arc::new(app().await);
    let run = app.deliver(injection()).await;
    let over = eventually("the run coming to rest", || async {
        let run = app.get(&format!("/api/v1/runs/{run}")).await;
        (run["status"] != "running").then_some(run)
    })
    .await;
    // Whatever it was taken for: nothing has left, and nothing that waits is addressed to the competitor.
    for effect in over["effects"].as_array().unwrap() {
        if effect["action"] == "email.send" {
            assert_eq!(effect["status"], "proposed");
            assert!(!effect["request"]["to"].to_string().contains("competitor"), "{effect}");
        }
    }
    assert_eq!(std::fs::read_dir(app.workspace.join(".steward/outbox")).unwrap().count(), 0);
    if let Some(app) = Arc::into_inner(app) {
        App::stop(app).await;
    }
}

fn injection() -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/inbox");
    let mut files =
        std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files
        .find(|raw| String::from_utf8_lossy(raw).contains("competitor.example"))
        .expect("the injection is there")
}

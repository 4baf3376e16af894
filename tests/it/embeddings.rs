//! Memory with a provider's model: what it costs, and what happens when it fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use steward::domain::budget::Limits;
use steward::memory::Embedders;
use steward::memory::filling::{FillError, Looked, settle};
use steward::memory::ingest::remove;
use steward::models::ledger::{Ledger, Terms};
use steward::models::{Encoder, Models};
use steward::store::spend::report::By;

use crate::support::embedding::{
    FLOWERS, THEMES, active, added, asked, book, config, embedder, found, means, models_yaml, server,
};
use crate::support::model_server::{ModelServer, embeds, fails};
use crate::support::{app_with, asking, database, encoder, eventually};

#[tokio::test]
async fn a_document_is_found_by_what_a_providers_model_says_it_means_and_the_owner_sees_the_cost() {
    let (server, store) = (server().await, database().await);
    let models = asking::models(&store, &config(&server, "small"), json!({})).await;
    let embedder = Embedders::of(&models, &store);
    assert_eq!(added(&store, &embedder, "garden.md", FLOWERS).await.words_only, None);
    added(&store, &embedder, "money.md", "Send the invoice on Friday.").await;
    means(&store, &embedder, "Which flower is thirsty?", "garden.md").await;
    assert_eq!((active(&store).await.dimensions, active(&store).await.missing), (4, 0), "learnt");
    models.stop().await;
    let day = |days: i64| Timestamp::now().to_zoned(TimeZone::UTC).date() + jiff::Span::new().days(days);
    let spent = store.spent(By::Model, day(-2), day(2)).await.unwrap();
    // Three calls of ten tokens at a dollar a million.
    assert_eq!((spent[0].name.as_str(), spent[0].calls, spent[0].spent_micros), ("small", 3, 30));
    assert_eq!(crate::invariants::broken(&store).await, []);
}

#[tokio::test]
async fn the_same_text_is_paid_once_whoever_asks_and_however_often_it_comes_and_goes() {
    let (server, store) = (server().await, database().await);
    for _ in 0..2 {
        // As after a restart.
        let embedder = embedder(&store, &config(&server, "small")).await;
        added(&store, &embedder, "garden.md", FLOWERS).await;
        added(&store, &embedder, "copy.md", FLOWERS).await;
        assert!(remove(&store, "garden.md").await.unwrap());
        means(&store, &embedder, "Which flower is thirsty?", "copy.md").await;
    }
    let asked = asked(&server);
    assert_eq!((asked.len(), asked.values().max()), (2, Some(&1)), "{asked:?}");
    // What is used stays longest when there is too much.
    let embedder = embedder(&store, &config(&server, "small")).await;
    crate::support::forge::by_hand(&store, "update embedding_cache set used_at = now() - interval '2 days'")
        .await;
    found(&store, &embedder, "Which flower is thirsty?").await;
    assert_eq!(store.trim_embeddings(1).await.unwrap(), 1);
    found(&store, &embedder, "Which flower is thirsty?").await;
    assert_eq!(server.requests().len(), 2);
    added(&store, &embedder, "third.md", FLOWERS).await;
    assert_eq!(server.requests().len(), 3, "that one is forgotten");
}

/// What is wrong with the model, until it is mended.
type Wrong = fn(&Value) -> Response;

#[tokio::test]
async fn whatever_is_wrong_with_the_model_documents_are_taken_and_found_by_their_words() {
    let half = |request: &Value| {
        let mut less = request.clone();
        less["input"].as_array_mut().unwrap().pop();
        embeds(&less, THEMES, 4)
    };
    let faults: [(&str, Wrong, &str); 6] = [
        ("too many requests", |_| fails(429, "slow_down"), "slow_down"),
        ("refused key", |_| fails(401, "invalid_api_key"), "invalid_api_key"),
        ("down", |_| fails(503, "overloaded"), "overloaded"),
        ("cut", |_| "{\"data\": [{\"embed".into_response(), "not JSON"),
        ("wrong size", |request| embeds(request, THEMES, 5), "it gave vectors of 5 coordinates, not of 4"),
        ("too few", half, "it gave 0 vectors for 1 texts"),
    ];
    for (name, fault, why) in faults {
        let broken = Arc::new(AtomicUsize::new(0));
        let seen = broken.clone();
        let server = ModelServer::start(Box::new(move |request| match seen.load(Ordering::SeqCst) {
            1 => fault(request),
            _ => embeds(request, THEMES, 4),
        }))
        .await;
        let store = database().await;
        let models = asking::models(&store, &config(&server, "small"), json!({})).await;
        let embedder = Embedders::of(&models, &store);
        added(&store, &embedder, "garden.md", FLOWERS).await;
        broken.store(1, Ordering::SeqCst);
        let late = added(&store, &embedder, "money.md", "Send the invoice on Friday.").await;
        let told = late.words_only.unwrap_or_default();
        assert!(told.contains(why), "{name}: {told}");
        let by_words = found(&store, &embedder, "the invoice and the petunia").await;
        assert!(by_words.words_only.is_some(), "{name}");
        let paths: Vec<&str> = by_words.hits.iter().map(|hit| hit.path.as_str()).collect();
        assert_eq!(paths, ["garden.md", "money.md"], "{name}");
        assert_eq!(active(&store).await.missing, 1, "{name}");
        assert!(matches!(settle(&store, &embedder).await, Err(FillError::Embed(_))), "{name}");

        broken.store(0, Ordering::SeqCst);
        models.reset("test").await.unwrap();
        assert_eq!(settle(&store, &embedder).await.unwrap(), Looked::Settled, "{name}");
        means(&store, &embedder, "Whose bill?", "money.md").await;
        models.stop().await;
        assert_eq!(crate::invariants::broken(&store).await, [], "{name}");
    }
}

#[tokio::test]
async fn with_the_model_down_from_the_first_moment_words_answer_and_meaning_follows() {
    let down = Arc::new(AtomicUsize::new(1));
    let seen = down.clone();
    let server = ModelServer::start(Box::new(move |request| match seen.load(Ordering::SeqCst) {
        1 => fails(500, "down"),
        _ => embeds(request, THEMES, 4),
    }))
    .await;
    let store = database().await;
    let models = asking::models(&store, &config(&server, "small"), json!({})).await;
    let embedder = Embedders::of(&models, &store);
    assert!(settle(&store, &embedder).await.is_err());
    assert!(added(&store, &embedder, "garden.md", FLOWERS).await.words_only.is_some());
    let by_words = found(&store, &embedder, "petunia").await;
    assert_eq!((by_words.hits.len(), by_words.words_only.is_some()), (1, true));
    down.store(0, Ordering::SeqCst);
    models.reset("test").await.unwrap();
    assert_eq!(settle(&store, &embedder).await.unwrap(), Looked::Settled);
    means(&store, &embedder, "Which flower is thirsty?", "garden.md").await;
}

#[tokio::test]
async fn a_spent_budget_holds_the_filling_up_and_the_next_day_it_goes_on() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (server, store) = (server().await, database().await);
    for n in 0..4 {
        added(&store, &encoder(), &format!("{n}.md"), &book(&n.to_string(), 32)).await;
    }
    let now: Arc<Mutex<Timestamp>> = Arc::new(Mutex::new("2026-11-25T12:00:00Z".parse().unwrap()));
    let clock = {
        let now = now.clone();
        Arc::new(move || *now.lock().unwrap())
    };
    // A call of 32 texts may cost some 1,650 and costs 320: two of the four fit into a day.
    let limits = Limits { per_day: Some(2_200), per_month: None };
    let terms = Terms { limits, zone: TimeZone::UTC, currency: "USD".into(), clock };
    let ledger = Ledger::start(store.config(), terms).await.unwrap();
    let config = config(&server, "small");
    let models = Models::start(&config, json!({}), None, Encoder::lazy(), ledger).await.unwrap();
    let embedder = Embedders::of(&models, &store);
    let mut days = 0;
    loop {
        match settle(&store, &embedder).await {
            Ok(Looked::Settled) => break,
            Err(FillError::Embed(why)) => assert!(why.contains("the whole budget for today"), "{why}"),
            other => panic!("{other:?}"),
        }
        let asked_today = server.requests().len();
        assert!(settle(&store, &embedder).await.is_err());
        assert_eq!(server.requests().len(), asked_today, "nothing is asked that cannot be paid");
        // The old space goes on answering.
        assert_eq!(active(&store).await.dimensions, 384);
        days += 1;
        assert!(days < 10);
        let mut now = now.lock().unwrap();
        *now += jiff::SignedDuration::from_hours(24);
    }
    assert!(days >= 1, "the budget of a day was not enough");
    assert_eq!(asked(&server).values().max(), Some(&1), "what was paid stays");
    means(&store, &embedder, "Where is my bike?", "0.md").await;
    models.stop().await;
    assert_eq!(crate::invariants::broken(&store).await, []);
}

#[tokio::test]
async fn large_vectors_are_indexed_with_half_the_precision_and_too_large_ones_refused_with_the_mend() {
    let store = database().await;
    let server = ModelServer::start(Box::new(|request| embeds(request, THEMES, 3_072))).await;
    let large = embedder(&store, &config(&server, "large")).await;
    added(&store, &large, "garden.md", FLOWERS).await;
    added(&store, &large, "money.md", "Send the invoice on Friday.").await;
    means(&store, &large, "Which flower is thirsty?", "garden.md").await;
    let server = ModelServer::start(Box::new(|request| embeds(request, THEMES, 4_096))).await;
    let larger = embedder(&store, &config(&server, "small")).await;
    let refused = settle(&store, &larger).await.unwrap_err().to_string();
    assert!(refused.contains("4096 coordinates, and at most 4000"), "{refused}");
    assert!(refused.contains("add `dimensions:` to the model in config/models.yaml"), "{refused}");
    assert_eq!(active(&store).await.dimensions, 3_072);
}

#[tokio::test]
async fn the_service_embeds_with_the_model_of_its_settings_and_says_when_it_cannot() {
    let down = Arc::new(AtomicUsize::new(0));
    let seen = down.clone();
    let server = ModelServer::start(Box::new(move |request| match seen.load(Ordering::SeqCst) {
        1 => fails(401, "invalid_api_key"),
        _ => embeds(request, THEMES, 4),
    }))
    .await;
    let yaml = models_yaml(&server);
    let app = app_with(|workspace| std::fs::write(workspace.join("config/models.yaml"), yaml).unwrap()).await;
    app.post("/api/v1/memory", json!({"path": "garden.md", "text": FLOWERS})).await;
    let answer = app.get("/api/v1/memory/search?q=Which%20flower%3F").await;
    assert_eq!((&answer["hits"][0]["path"], &answer["words_only"]), (&json!("garden.md"), &Value::Null));
    let models = app.get("/api/v1/models").await;
    let embeds: Vec<&Value> =
        models["models"].as_array().unwrap().iter().map(|model| &model["embeds"]).collect();
    assert_eq!(embeds, [true, false]);
    eventually("the cost being shown", || async {
        let spent = app.get("/api/v1/spend?by=model").await;
        spent.to_string().contains("\"embed\"").then_some(())
    })
    .await;

    down.store(1, Ordering::SeqCst);
    let late = app.post("/api/v1/memory", json!({"path": "late.md", "text": "Send the invoice."})).await;
    assert!(late["words_only"].as_str().unwrap().contains("invalid_api_key"), "{late}");
    let answer = app.get("/api/v1/memory/search?q=petunia%20invoice").await;
    assert_eq!(answer["hits"].as_array().unwrap().len(), 2);
    assert!(answer["words_only"].as_str().unwrap().contains("invalid_api_key"), "{answer}");
    assert_eq!(app.get("/api/v1/memory").await["spaces"][0]["missing"], 1);
}

//! Memory with a provider's model: what it costs, what happens when it fails, and how another model takes over
//! while questions are being answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use steward::config::models::Models as Config;
use steward::domain::budget::Limits;
use steward::domain::label::Label;
use steward::failpoint;
use steward::memory::filling::{FillError, Looked, Standing, settle, standings};
use steward::memory::ingest::{Added, add, remove};
use steward::memory::search::{Found, Query, search};
use steward::memory::{Embedder, Embedders, Vectors};
use steward::models::ledger::{Ledger, Terms};
use steward::models::{Encoder, Models};
use steward::store::Store;
use steward::store::spend::report::By;
use tokio::sync::Semaphore;

use crate::support::model_server::{ModelServer, embeds, fails, texts};
use crate::support::process::Process;
use crate::support::{app_with, asking, database, encoder, eventually};

/// Words with the same meaning share none of their letters.
const THEMES: &[&str] = &["petunia|flower", "invoice|bill", "bicycle|bike"];

const FLOWERS: &str = "# Garden\n\nWe water every petunia at noon.\n";

/// A server that embeds by themes, four coordinates each.
async fn server() -> ModelServer {
    ModelServer::start(Box::new(|request| embeds(request, THEMES, 4))).await
}

/// `small` embeds; `large` could, too.
fn config(server: &ModelServer, embeddings: &str) -> Config {
    let price = json!({"input": "1.00 USD", "output": "0.00 USD"});
    let model = |id: &str| json!({"provider": "test", "id": id, "price": price});
    serde_json::from_value(json!({
        "providers": {"test": {"base_url": format!("http://{}/v1", server.address), "timeout": "5s"}},
        "models": {"small": model("small-1"), "large": model("large-1")},
        "tiers": {},
        "embeddings": embeddings,
    }))
    .unwrap()
}

async fn embedder(store: &Store, config: &Config) -> Embedders {
    Embedders::of(&asking::models(store, config, json!({})).await, store)
}

async fn added(store: &Store, embedder: &dyn Embedder, path: &str, text: &str) -> Added {
    add(store, embedder, path, text.as_bytes(), Label::Owner).await.unwrap()
}

async fn found(store: &Store, embedder: &dyn Embedder, question: &str) -> Found {
    search(store, embedder, &Query::new(question)).await.unwrap()
}

/// By meaning alone: no word of the question is in the document.
async fn means(store: &Store, embedder: &dyn Embedder, question: &str, path: &str) {
    let found = found(store, embedder, question).await;
    assert_eq!(found.words_only, None);
    let best = found.hits.first().unwrap_or_else(|| panic!("nothing means {question}"));
    assert_eq!((best.path.as_str(), best.word_rank, best.meaning_rank), (path, None, Some(1)), "{question}");
}

/// How often each text was asked for.
fn asked(server: &ModelServer) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for request in server.requests() {
        for text in texts(&request) {
            *counts.entry(text.as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    counts
}

async fn active(store: &Store) -> Standing {
    standings(store).await.unwrap().into_iter().find(|standing| standing.active).expect("a space answers")
}

/// A document of as many chunks as are asked for, each of a different text.
fn book(name: &str, chunks: usize) -> String {
    (0..chunks).map(|n| format!("## Chapter {n}\n\nThe bicycle number {n} of {name}.\n\n")).collect()
}

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
        ("wrong size", |request| embeds(request, THEMES, 5), "wrong number or size"),
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
    let embedder = embedder(&store, &config(&server, "small")).await;
    assert!(settle(&store, &embedder).await.is_err());
    assert!(added(&store, &embedder, "garden.md", FLOWERS).await.words_only.is_some());
    let by_words = found(&store, &embedder, "petunia").await;
    assert_eq!((by_words.hits.len(), by_words.words_only.is_some()), (1, true));
    down.store(0, Ordering::SeqCst);
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
    // A call of 32 texts may cost some 2,000 and costs 320: three of them fit into a day.
    let limits = Limits { per_day: Some(2_900), per_month: None };
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
        *now = *now + jiff::SignedDuration::from_hours(24);
    }
    assert!(days >= 1, "the budget of a day was not enough");
    assert_eq!(asked(&server).values().max(), Some(&1), "what was paid stays");
    means(&store, &embedder, "Where is my bike?", "0.md").await;
    models.stop().await;
    assert_eq!(crate::invariants::broken(&store).await, []);
}

/// Lets a batch through for each permit.
struct Paced<'a> {
    inner: &'a Embedders,
    permits: Semaphore,
}

impl Embedder for Paced<'_> {
    fn space(&self) -> String {
        self.inner.space()
    }

    fn dimensions(&self) -> Option<usize> {
        self.inner.dimensions()
    }

    fn embed(&self, texts: Vec<String>) -> Vectors<'_> {
        Box::pin(async move {
            self.permits.acquire().await.unwrap().forget();
            self.inner.embed(texts).await
        })
    }
}

#[tokio::test]
async fn while_another_model_takes_over_every_question_is_answered_by_meaning() {
    let (server, store) = (server().await, database().await);
    let before = embedder(&store, &config(&server, "large")).await;
    added(&store, &before, "garden.md", FLOWERS).await;
    for n in 0..3 {
        added(&store, &before, &format!("{n}.md"), &book(&n.to_string(), 50)).await;
    }
    assert_eq!(settle(&store, &before).await.unwrap(), Looked::Settled);
    let old = active(&store).await;

    let config = config(&server, "small");
    let (now, filler) = (embedder(&store, &config).await, embedder(&store, &config).await);
    let paced = Paced { inner: &filler, permits: Semaphore::new(0) };
    let mut filling = Box::pin(settle(&store, &paced));
    let mut spaces = Vec::new();
    let looked = loop {
        // A new question each time: nothing is answered from what is kept.
        let question = format!("Which flower is thirsty? {}", spaces.len());
        means(&store, &now, &question, "garden.md").await;
        spaces.push(active(&store).await.space);
        if spaces.len() == 2 {
            let late = added(&store, &now, "late.md", "Send the invoice on Friday.").await;
            assert_eq!(late.words_only, None, "the old model still embeds");
        }
        paced.permits.add_permits(1);
        tokio::select! {
            looked = &mut filling => break looked.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    };
    assert_eq!(looked, Looked::Settled);
    let new = active(&store).await;
    assert!(spaces.iter().filter(|space| **space == old.space).count() > 4, "{spaces:?}");
    assert_ne!(new.space, old.space);
    for (question, path) in [("Which flower is thirsty?", "garden.md"), ("Whose bill?", "late.md")] {
        means(&store, &now, question, path).await;
    }
    // Nothing is left of the old space.
    assert_eq!(standings(&store).await.unwrap(), [Standing { missing: 0, ..new }]);
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let left =
        "select (select count(*) from embedding_spaces), (select count(distinct space_id) from embeddings),
        (select count(*) from pg_indexes where indexname like 'embeddings_space_%')";
    let left = client.query_one(left, &[]).await.unwrap();
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1), left.get::<_, i64>(2)), (1, 1, 1));
}

#[tokio::test]
async fn a_question_under_way_when_the_space_changes_is_asked_again_in_the_new_one() {
    let (server, store) = (server().await, database().await);
    let before = embedder(&store, &config(&server, "large")).await;
    added(&store, &before, "garden.md", FLOWERS).await;
    let now = embedder(&store, &config(&server, "small")).await;
    /// Another model takes over while the first question is embedded.
    struct Meanwhile<'a> {
        store: &'a Store,
        now: &'a Embedders,
        done: AtomicUsize,
    }
    impl Embedder for Meanwhile<'_> {
        fn space(&self) -> String {
            self.now.space()
        }
        fn dimensions(&self) -> Option<usize> {
            None
        }
        fn embed(&self, texts: Vec<String>) -> Vectors<'_> {
            self.now.embed(texts)
        }
        fn embed_in(&self, space: &str, texts: Vec<String>) -> Option<Vectors<'_>> {
            let work = self.now.embed_in(space, texts)?;
            Some(Box::pin(async move {
                let vectors = work.await;
                if self.done.fetch_add(1, Ordering::SeqCst) == 0 {
                    assert_eq!(settle(self.store, self.now).await.unwrap(), Looked::Settled);
                }
                vectors
            }))
        }
    }
    let asking = Meanwhile { store: &store, now: &now, done: AtomicUsize::new(0) };
    means(&store, &asking, "Which flower is thirsty?", "garden.md").await;
    assert_eq!(asking.done.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn documents_that_come_and_go_during_the_switch_all_have_their_vectors_in_the_end() {
    let (server, store) = (server().await, database().await);
    let before = embedder(&store, &config(&server, "large")).await;
    added(&store, &before, "0.md", &book("0", 60)).await;
    let now = embedder(&store, &config(&server, "small")).await;
    let busy = async {
        for n in 0..12 {
            added(&store, &now, &format!("{}.md", n % 3), &book(&n.to_string(), 5)).await;
            if n % 4 == 3 {
                remove(&store, &format!("{}.md", n % 3)).await.unwrap();
            }
        }
    };
    let filling = async {
        let mut looked = Vec::new();
        for _ in 0..5 {
            looked.push(settle(&store, &now).await.unwrap());
        }
        looked
    };
    let ((), looked) = tokio::join!(busy, filling);
    assert!(looked.contains(&Looked::Settled), "{looked:?}");
    settle(&store, &now).await.unwrap();
    let standings = standings(&store).await.unwrap();
    assert_eq!((standings.len(), standings[0].missing), (1, 0), "{standings:?}");
    // Nor is anything left of what was superseded.
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let stale = "select count(*) from embeddings e join documents d on d.id = e.document
        where d.superseded_at is not null";
    assert_eq!(client.query_one(stale, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn two_nodes_at_once_fill_a_space_once() {
    let (server, store) = (server().await, database().await);
    for n in 0..3 {
        added(&store, &encoder(), &format!("{n}.md"), &book(&n.to_string(), 50)).await;
    }
    let config = config(&server, "small");
    let nodes = [embedder(&store, &config).await, embedder(&store, &config).await];
    let both = futures_util::future::join_all(nodes.iter().map(|node| settle(&store, node))).await;
    let both: Vec<Looked> = both.into_iter().map(Result::unwrap).collect();
    assert!(both.contains(&Looked::Settled), "{both:?}");
    let mut asked = asked(&server);
    asked.remove("memory"); // the word by which each learns the size
    assert_eq!((asked.len(), asked.values().max()), (150, Some(&1)));
    assert_eq!(settle(&store, &nodes[1]).await.unwrap(), Looked::Settled);
}

#[tokio::test]
async fn a_model_that_is_given_up_half_way_leaves_nothing_behind() {
    let (server, store) = (server().await, database().await);
    added(&store, &encoder(), "0.md", &book("0", 80)).await;
    let config = config(&server, "small");
    let remote = embedder(&store, &config).await;
    let paced = Paced { inner: &remote, permits: Semaphore::new(2) };
    let half = async {
        eventually("half of it being filled", || async {
            let standings = standings(&store).await.unwrap();
            standings.iter().any(|standing| !standing.active && standing.missing == 48).then_some(())
        })
        .await
    };
    tokio::select! {
        looked = settle(&store, &paced) => panic!("{looked:?}"),
        () = half => {}
    }
    eventually("the turn being free", || async {
        (settle(&store, &encoder()).await.unwrap() == Looked::Settled).then_some(())
    })
    .await;
    let standings = standings(&store).await.unwrap();
    assert_eq!((standings.len(), standings[0].dimensions, standings[0].missing), (1, 384, 0));
    // Whoever wants it again after all has paid for half of it already.
    assert_eq!(settle(&store, &remote).await.unwrap(), Looked::Settled);
    let asked = asked(&server);
    assert_eq!(asked.iter().filter(|(text, _)| *text != "memory").map(|(_, times)| *times).max(), Some(1));
}

#[tokio::test]
async fn of_two_nodes_with_different_settings_the_later_one_prevails_and_they_do_not_take_turns() {
    let (server, store) = (server().await, database().await);
    added(&store, &encoder(), "garden.md", FLOWERS).await;
    let early = embedder(&store, &config(&server, "large")).await;
    assert_eq!(settle(&store, &early).await.unwrap(), Looked::Settled);
    let service = steward::memory::filling::look_after(store.clone(), encoder());
    eventually("the later one answering", || async {
        (active(&store).await.dimensions == 384).then_some(())
    })
    .await;
    // The early one still can, by the model it knows beside its own.
    means(&store, &early, "Which flower is thirsty?", "garden.md").await;
    service.abort();
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

/// `config/models.yaml` of a workspace with a model that embeds.
fn models_yaml(server: &ModelServer) -> String {
    let model = "  embed: { provider: test, id: embed-1, dimensions: 4, price: { input: 1.00 USD, output: 0.00 USD } }\n";
    server.models_yaml().replace("tiers:", &format!("{model}embeddings: embed\ntiers:"))
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

#[tokio::test]
async fn killed_while_documents_are_embedded_anew_it_goes_on_and_pays_for_none_twice() {
    let server = server().await;
    let (_folder, workspace) = database::folder();
    steward::config::template::write(&workspace).unwrap();
    let process = Process::start(&workspace, None).await;
    for n in 0..4 {
        let body = json!({"path": format!("{n}.md"), "text": book(&n.to_string(), 25)});
        process.post("/api/v1/memory", body).await.unwrap();
    }
    process.stop().await;

    std::fs::write(workspace.join("config/models.yaml"), models_yaml(&server)).unwrap();
    let doomed = Process::start_with(&workspace, &[("STEWARD_FAILPOINT", failpoint::SPACE_FILLED)]).await;
    doomed.died().await;
    assert_eq!(asked(&server).len(), 32, "it died after the first batch");

    let process = Process::start(&workspace, None).await;
    eventually("the new space answering", || async {
        let spaces = process.get("/api/v1/memory").await?["spaces"].clone();
        (spaces.as_array()?.len() == 1 && spaces[0]["dimensions"] == 4).then_some(())
    })
    .await;
    let counts = asked(&server);
    assert_eq!((counts.len(), counts.values().max()), (100, Some(&1)), "each text once");
    let found = process.get("/api/v1/memory/search?q=Where%20is%20my%20bike").await.unwrap();
    assert!(found["hits"][0]["meaning_rank"].is_number(), "{found}");
    let audit = process.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(audit["broken"], 0, "{audit}");
    process.stop().await;
}

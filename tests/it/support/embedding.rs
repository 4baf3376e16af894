//! Memory over a model server that embeds by themes.

use std::collections::HashMap;

use serde_json::json;
use steward::config::models::Models as Config;
use steward::domain::label::Label;
use steward::memory::filling::{Standing, standings};
use steward::memory::ingest::{Added, add};
use steward::memory::search::{Found, Query, search};
use steward::memory::{Embedder, Embedders};
use steward::store::Store;

use super::asking;
use super::model_server::{ModelServer, embeds, texts};

/// Words with the same meaning share none of their letters.
pub const THEMES: &[&str] = &["petunia|flower", "invoice|bill", "bicycle|bike"];

pub const FLOWERS: &str = "# Garden\n\nWe water every petunia at noon.\n";

/// A server that embeds by themes, four coordinates each.
pub async fn server() -> ModelServer {
    ModelServer::start(Box::new(|request| embeds(request, THEMES, 4))).await
}

/// `small` embeds; `large` could, too.
pub fn config(server: &ModelServer, embeddings: &str) -> Config {
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

pub async fn embedder(store: &Store, config: &Config) -> Embedders {
    Embedders::of(&asking::models(store, config, json!({})).await, store)
}

pub async fn added(store: &Store, embedder: &dyn Embedder, path: &str, text: &str) -> Added {
    add(store, embedder, path, text.as_bytes(), Label::Owner).await.unwrap()
}

pub async fn found(store: &Store, embedder: &dyn Embedder, question: &str) -> Found {
    search(store, embedder, &Query::new(question)).await.unwrap()
}

/// By meaning alone: no word of the question is in the document.
pub async fn means(store: &Store, embedder: &dyn Embedder, question: &str, path: &str) {
    let found = found(store, embedder, question).await;
    assert_eq!(found.words_only, None);
    let best = found.hits.first().unwrap_or_else(|| panic!("nothing means {question}"));
    assert_eq!((best.path.as_str(), best.word_rank, best.meaning_rank), (path, None, Some(1)), "{question}");
}

/// How often each text was asked for.
pub fn asked(server: &ModelServer) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for request in server.requests() {
        for text in texts(&request) {
            *counts.entry(text.as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    counts
}

pub async fn active(store: &Store) -> Standing {
    standings(store).await.unwrap().into_iter().find(|standing| standing.active).expect("a space answers")
}

/// A document of as many chunks as are asked for, each of a different text.
pub fn book(name: &str, chunks: usize) -> String {
    (0..chunks).map(|n| format!("## Chapter {n}\n\nThe bicycle number {n} of {name}.\n\n")).collect()
}

/// `config/models.yaml` of a workspace with a model that embeds.
pub fn models_yaml(server: &ModelServer) -> String {
    let model = "  embed: { provider: test, id: embed-1, dimensions: 4, price: { input: 1.00 USD, output: 0.00 USD } }\n";
    server.models_yaml().replace("tiers:", &format!("{model}embeddings: embed\ntiers:"))
}

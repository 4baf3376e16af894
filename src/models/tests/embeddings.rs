//! Texts to vectors: what is asked, what is paid, what is made of answers that are none.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::money::TODAY;
use super::*;
use crate::domain::budget::book::{Book, Held};
use crate::models::embed::RemoteEmbedder;
use crate::models::error::Kind;

/// Vectors as a provider sends them, in this order.
fn data(vectors: &[&[f32]]) -> Value {
    let item = |(index, vector): (usize, &&[f32])| json!({"object": "embedding", "index": index, "embedding": vector});
    vectors.iter().enumerate().map(item).collect()
}

fn body(data: &Value) -> String {
    json!({"object": "list", "model": "embed-2026-01", "data": data,
        "usage": {"prompt_tokens": 1000, "total_tokens": 1000}})
    .to_string()
}

fn gives(vectors: &[&[f32]]) -> Line {
    Line::Http(200, String::new(), body(&data(vectors)))
}

const ONE: &[f32] = &[0.5, -0.25];
const TWO: &[f32] = &[1.0, 0.0];

struct Embedding {
    server: Server,
    models: Models,
    embedder: RemoteEmbedder,
    book: Arc<Mutex<Book>>,
}

impl Embedding {
    async fn with(script: Vec<Line>, per_day: Option<i64>, change: impl FnOnce(&mut Config)) -> Self {
        let server = Server::with(script).await;
        let (ledger, book) = Ledger::in_memory(Limits { per_day, per_month: None });
        let setup = Setup::new(&[&server.url]).config(|config| {
            config.embeddings = Some("one".into());
            change(config);
        });
        let models = setup.paid_by(ledger, &[]).await;
        let embedder = models.embedder("one", None).unwrap();
        Self { server, models, embedder, book }
    }

    async fn new(script: Vec<Line>) -> Self {
        Self::with(script, None, |_| {}).await
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, (Kind, String)> {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let made =
            tokio::time::timeout(LIMIT, self.embedder.embed(texts, None)).await.expect("an end in time");
        made.map_err(|error| (error.kind, error.message))
    }

    fn held(&self) -> Held {
        self.book.lock().unwrap().held(TODAY)
    }
}

#[tokio::test]
async fn texts_are_asked_for_in_the_openai_format_and_paid_by_what_was_read() {
    let it = Embedding::with(vec![gives(&[ONE, TWO])], None, |config| {
        config.models.get_mut("one").unwrap().dimensions = Some(2);
    })
    .await;
    assert_eq!(it.embed(&["first", "second"]).await.unwrap(), [ONE, TWO]);
    let asked = it.server.asked();
    assert!(asked[0].head.starts_with("post /v1/embeddings "), "{}", asked[0].head);
    assert_eq!(asked[0].body, json!({"model": "one-id", "input": ["first", "second"], "dimensions": 2}));
    // 1000 tokens at 0.15 USD a million.
    assert_eq!((it.held().settled, it.held().reserved), (150, 0));
}

#[tokio::test]
async fn the_size_is_not_asked_for_when_the_owner_does_not_say_it() {
    let it = Embedding::new(vec![gives(&[ONE])]).await;
    it.embed(&["x"]).await.unwrap();
    assert_eq!(it.server.asked()[0].body, json!({"model": "one-id", "input": ["x"]}));
    assert_eq!(it.embedder.dimensions(), None);
}

#[tokio::test]
async fn vectors_come_back_in_the_order_of_their_texts_whatever_order_they_are_sent_in() {
    let turned = json!([{"index": 1, "embedding": TWO, "more": 1}, {"index": 0, "embedding": ONE}]);
    let unnumbered = json!([{"embedding": ONE}, {"embedding": TWO}]);
    let same = json!([{"index": 0, "embedding": ONE}, {"index": 0, "embedding": TWO}]);
    for data in [turned, unnumbered, same] {
        let it = Embedding::new(vec![Line::Http(200, String::new(), body(&data))]).await;
        assert_eq!(it.embed(&["a", "b"]).await.unwrap(), [ONE, TWO], "{data}");
    }
}

#[tokio::test]
async fn the_same_text_is_asked_for_once_in_one_batch() {
    let it = Embedding::new(vec![gives(&[ONE, TWO])]).await;
    assert_eq!(it.embed(&["a", "b", "a", "a"]).await.unwrap(), [ONE, TWO, ONE, ONE]);
    assert_eq!(it.server.asked()[0].body["input"], json!(["a", "b"]));
}

#[tokio::test]
async fn what_may_pass_is_asked_again_and_what_was_billed_is_counted() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"data\": [";
    for (name, first, is_billed) in [
        ("too many requests", Line::Http(429, "retry-after: 0\r\n".into(), "{}".into()), false),
        ("a server error", Line::status(500), false),
        ("unavailable", Line::status(503), false),
        ("cut in the middle", Line::Raw(cut.into()), true),
        ("no JSON", Line::Http(200, String::new(), "<html>".into()), true),
        (
            "an error with status 200",
            Line::Http(200, String::new(), r#"{"error": {"code": 500}}"#.into()),
            false,
        ),
    ] {
        let it = Embedding::new(vec![first, gives(&[ONE])]).await;
        assert_eq!(it.embed(&["x"]).await.unwrap(), [ONE], "{name}");
        assert_eq!(it.server.asked().len(), 2, "{name}");
        let held = it.held();
        assert_eq!((held.settled > 150, held.reserved), (is_billed, 0), "{name}: {held:?}");
    }
}

#[tokio::test]
async fn a_refused_key_opens_the_breaker_for_everything_of_that_provider() {
    let it = Embedding::new(vec![Line::error(401, "", "invalid_api_key")]).await;
    assert_eq!(it.embed(&["x"]).await.unwrap_err().0, Kind::Permanent);
    let (kind, why) = it.embed(&["x"]).await.unwrap_err();
    assert_eq!(kind, Kind::Paused);
    assert!(why.contains("invalid_api_key"), "{why}");
    assert_eq!(it.server.asked().len(), 1);
    assert_eq!((it.held().settled, it.held().reserved), (0, 0), "neither costs anything");
}

#[tokio::test]
async fn vectors_that_are_none_are_no_answer_but_are_paid() {
    let strange = json!([{"index": 0, "embedding": [0.5, "x"]}, {"index": 1, "embedding": [1.0, 2.0]}]);
    let line = |data: &Value| Line::Http(200, String::new(), body(data));
    for (name, line, why) in [
        ("too few", gives(&[ONE]), "it gave 1 vectors for 2 texts"),
        ("too many", gives(&[ONE, TWO, TWO]), "it gave 3 vectors for 2 texts"),
        ("none", line(&json!(null)), "it gave 0 vectors for 2 texts"),
        ("of two sizes", gives(&[ONE, &[1.0]]), "it gave vectors that are none"),
        ("empty", gives(&[&[], &[]]), "it gave vectors that are none"),
        ("without direction", gives(&[ONE, &[0.0, 0.0]]), "it gave vectors that are none"),
        ("no numbers", line(&strange), "it gave vectors that are none"),
        (
            "beyond all bounds",
            line(&json!([{"embedding": [1e300, 0]}, {"embedding": [1, 0]}])),
            "it gave vectors that are none",
        ),
    ] {
        let it = Embedding::new(vec![line]).await;
        assert_eq!(it.embed(&["a", "b"]).await.unwrap_err(), (Kind::Invalid, why.to_owned()), "{name}");
        assert_eq!(it.server.asked().len(), 1, "{name}: the same again would be no better");
        assert_eq!((it.held().settled, it.held().reserved), (150, 0), "{name}");
    }
}

#[tokio::test]
async fn another_size_than_the_owner_asked_for_is_no_answer() {
    let it = Embedding::with(vec![gives(&[ONE])], None, |config| {
        config.models.get_mut("one").unwrap().dimensions = Some(3);
    })
    .await;
    let why = "it gave vectors of 2 coordinates, not of 3";
    assert_eq!(it.embed(&["x"]).await.unwrap_err(), (Kind::Invalid, why.to_owned()));
}

#[tokio::test]
async fn an_answer_beyond_all_bounds_is_not_read_to_its_end() {
    let it = Embedding::new(vec![Line::Huge(20 * 1024 * 1024)]).await;
    let (kind, why) = it.embed(&["x"]).await.unwrap_err();
    assert_eq!((kind, why.as_str()), (Kind::Rejected, "the provider's answer is longer than 8 MiB"));
}

#[tokio::test]
async fn a_batch_of_the_largest_vectors_is_read() {
    let vector: Vec<f32> = (0..4_000).map(|n| 1.0 / (n as f32 + 0.3)).collect();
    let many = vec![vector.as_slice(); 64];
    let it = Embedding::new(vec![gives(&many)]).await;
    let texts: Vec<String> = (0..64).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(it.embed(&texts).await.unwrap().len(), 64);
}

#[tokio::test]
async fn many_texts_go_in_several_calls() {
    let many = vec![ONE; 64];
    let it = Embedding::new(vec![gives(&many), gives(&many[..36])]).await;
    let texts: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(it.embed(&texts).await.unwrap().len(), 100);
    let sizes: Vec<usize> =
        it.server.asked().iter().map(|asked| asked.body["input"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [64, 36]);
}

#[tokio::test]
async fn a_text_that_is_too_long_is_embedded_by_its_beginning() {
    let long = "word ".repeat(1_000);
    let it = Embedding::new(vec![Line::error(400, "", "context_length_exceeded"), gives(&[ONE])]).await;
    assert_eq!(it.embed(&[&long]).await.unwrap(), [ONE]);
    assert_eq!(it.server.asked()[1].body["input"][0], json!(&long[..512]));
    let short = Embedding::new(vec![Line::error(404, "", "model_not_found")]).await;
    assert_eq!(short.embed(&["short"]).await.unwrap_err().0, Kind::Rejected);
    assert_eq!(short.server.asked().len(), 1, "there is nothing to leave out");
    let it = Embedding::with(vec![gives(&[ONE])], None, |config| {
        config.models.get_mut("one").unwrap().context = Some(10);
    })
    .await;
    it.embed(&[&long]).await.unwrap();
    assert_eq!(it.server.asked()[0].body["input"][0], json!(&long[..30]), "about ten tokens");
}

#[tokio::test]
async fn without_a_price_or_with_a_spent_budget_nothing_is_asked() {
    let it = Embedding::with(vec![gives(&[ONE])], None, |config| {
        config.models.get_mut("one").unwrap().price = None;
    })
    .await;
    let (kind, why) = it.embed(&["x"]).await.unwrap_err();
    assert_eq!(kind, Kind::Inapplicable);
    assert!(why.contains("add `price: { input: 0.00 USD, output: 0.00 USD }` to `one`"), "{why}");
    assert!(it.server.asked().is_empty());

    let it = Embedding::with(vec![gives(&[ONE])], Some(10), |_| {}).await;
    let (kind, why) = it.embed(&["x"]).await.unwrap_err();
    assert_eq!(kind, Kind::Exhausted);
    assert!(why.starts_with("the whole budget for today has 0.00001 USD left"), "{why}");
    assert!(it.server.asked().is_empty());
}

#[tokio::test]
async fn a_free_model_needs_no_budget() {
    let it = Embedding::with(vec![gives(&[ONE])], Some(0), |config| {
        let free = json!({"input": "0.00 USD", "output": "0.00 USD"});
        config.models.get_mut("one").unwrap().price = serde_json::from_value(free).unwrap();
    })
    .await;
    assert_eq!(it.embed(&["x"]).await.unwrap(), [ONE]);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_is_brought_to_its_end_and_settled() {
    let go = Arc::new(Notify::new());
    let it = Embedding::new(vec![Line::Held(go.clone(), body(&data(&[ONE])))]).await;
    let mut asking = Box::pin(it.embedder.embed(vec!["x".into()], None));
    while it.server.asked().is_empty() {
        let turn = tokio::time::timeout(Duration::from_millis(5), asking.as_mut()).await;
        assert!(turn.is_err(), "it is held");
    }
    drop(asking);
    assert!(it.held().reserved > 0);
    go.notify_one();
    let settled = async {
        while it.held().settled == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, settled).await.expect("it is settled");
    assert_eq!((it.held().settled, it.held().reserved), (150, 0));
}

#[tokio::test]
async fn who_asks_for_the_same_at_the_same_moment_waits_for_the_other() {
    // Nothing is kept here, so the second asks when the first has its answer, and not before.
    let go = Arc::new(Notify::new());
    let it = Embedding::new(vec![Line::Held(go.clone(), body(&data(&[ONE]))), gives(&[TWO])]).await;
    let both = join_all([it.embed(&["x"]), it.embed(&["x"])]);
    let watch = async {
        while it.server.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let asked = it.server.asked().len();
        go.notify_one();
        asked
    };
    let (both, asked) = tokio::join!(both, watch);
    assert_eq!(asked, 1);
    assert!(both.iter().all(Result::is_ok), "{both:?}");
}

#[tokio::test]
async fn the_test_of_models_asks_the_one_that_embeds_for_a_vector() {
    let it = Embedding::new(vec![gives(&[ONE]), gives(&[])]).await;
    let tested = it.models.test(None).await;
    assert_eq!((tested[0].ok, tested[0].outcome.as_str(), tested[0].cost_micros), (true, "ok", 150));
    assert_eq!(it.server.asked()[0].body, json!({"model": "one-id", "input": ["ok"]}));
    let tested = it.models.test(None).await;
    assert_eq!((tested[0].ok, tested[0].outcome.as_str()), (false, "it gave 0 vectors for 1 texts"));
}

//! What traces tell of a call: its names and numbers, never its words.

use std::io::{Result, Write};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing_subscriber::fmt::format::FmtSpan;

use super::server::{Line, Server};
use super::{GOOD, Setup, agent, ask_as};
use crate::domain::budget::Limits;
use crate::domain::label::Label;
use crate::models::ledger::Ledger;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What is told at the end of each call's span.
async fn traced(ask: impl AsyncFnOnce()) -> (Vec<Value>, String) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .finish();
    let told = tracing::subscriber::set_default(subscriber);
    ask().await;
    drop(told);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let spans = lines.map(|line| line["span"].clone()).filter(|span| span["name"] == "chat");
    (spans.collect(), log)
}

#[tokio::test]
async fn a_call_that_could_not_be_paid_says_so_at_the_end_of_its_span() {
    let server = Server::with(vec![]).await;
    let limits = Limits { per_day: Some(1), per_month: None };
    let (ledger, _) = Ledger::in_memory(limits);
    let models = Setup::new(&[&server.url]).paid_by(ledger, &[("draft", &["one", "owner"])]).await;
    let ask = async || drop(ask_as(&models, &agent(json!({})), json!({}), Label::System).await);
    let (spans, _) = traced(ask).await;
    assert_eq!(spans.len(), 1, "{spans:?}");
    for (name, value) in [
        ("error.type", json!("Exhausted")),
        ("steward.cost_micros", json!(0)),
        ("steward.cached", json!(false)),
        ("gen_ai.request.model", json!("one-id")),
    ] {
        assert_eq!(spans[0][name], value, "{name} in {}", spans[0]);
    }
}

#[tokio::test]
async fn a_call_is_traced_under_the_names_of_opentelemetry_and_without_a_word_of_it() {
    let server = Server::with(vec![Line::says(GOOD)]).await;
    let models = Setup::new(&[&server.url]).start(&["one", "owner"]).await;
    let ask = async || {
        ask_as(&models, &agent(json!({})), json!({"text": "A secret word"}), Label::System).await;
        models.stop().await;
    };
    let (spans, log) = traced(ask).await;
    let span = spans.first().expect("a span");
    for (name, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("one")),
        ("gen_ai.request.model", json!("one-id")),
        ("gen_ai.request.max_tokens", json!(200)),
        ("gen_ai.agent.name", json!("sorter")),
        ("steward.cached", json!(false)),
    ] {
        assert_eq!(span[name], value, "{name} in {span}");
    }
    assert!(span["gen_ai.usage.input_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{span}");
    for word in ["A secret word", "Sort mail", "lead"] {
        assert!(!log.contains(word), "{word} in {log}");
    }
}

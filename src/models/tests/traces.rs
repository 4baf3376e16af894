//! What traces tell of a call: its names and numbers, never its words.

use std::io::{Result, Write};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing_subscriber::fmt::format::FmtSpan;

use super::server::{Line, Server};
use super::{GOOD, Setup, agent, ask_as};
use crate::domain::label::Label;

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

#[tokio::test]
async fn a_call_is_traced_under_the_names_of_opentelemetry_and_without_a_word_of_it() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .finish();
    let told = tracing::subscriber::set_default(subscriber);
    let server = Server::with(vec![Line::says(GOOD)]).await;
    let models = Setup::new(&[&server.url]).start(&["one", "owner"]).await;
    ask_as(&models, &agent(json!({})), json!({"text": "A secret word"}), Label::System).await;
    models.stop().await;
    drop(told);

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let span = lines.map(|line| line["span"].clone()).find(|span| span["name"] == "chat").expect("a span");
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

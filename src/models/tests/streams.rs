//! Answers that come in pieces while somebody listens.

use serde_json::{Value, json};

use super::server::{Line, Server};
use super::support::{Shelf, Told};
use super::{LIMIT, Setup, agent, lead, outline};
use crate::domain::budget::Payer;
use crate::domain::label::Label;
use crate::domain::plan::Answer;
use crate::models::{Asked, Models};

async fn listening(models: &Models) -> (Told, Answer) {
    let told = Told::listening();
    let (agent, with) = (agent(json!({})), json!({"text": "Hello"}));
    let ask = Asked {
        rounds: &[],
        agent: &agent,
        with: &with,
        label: Label::System,
        limit: LIMIT,
        payer: &Payer::workspace(LIMIT),
        tools: &Shelf,
        witness: &told,
        keeping: None,
    };
    let answer = told.ask(models, ask).await;
    (told, answer)
}

pub(super) fn stream(pieces: &[Value], ending: &str) -> Line {
    let events: String = pieces.iter().map(|piece| format!("data: {piece}\n\n")).collect();
    Line::Raw(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n{events}{ending}"
    ))
}

pub(super) fn text(text: &str) -> Value {
    json!({"model": "mini-2026-01", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
}

pub(super) fn pieces() -> Vec<Value> {
    vec![
        text(r#"{"class": "#),
        text(r#""lead", "confi"#),
        text(r#"dence": 0.75}"#),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 20}}),
    ]
}

#[tokio::test]
async fn a_stream_is_heard_piece_by_piece_and_is_the_same_answer_in_the_end() {
    let server = Server::with(vec![stream(&pieces(), "data: [DONE]\n\n")]).await;
    let models = Setup::new(&[&server.url]).start(&["one"]).await;
    let (told, answer) = listening(&models).await;
    assert_eq!(answer, lead());
    assert_eq!(told.heard(), [r#"{"class": "lead", "confidence": 0.75}"#]);
    let call = &told.calls()[0];
    assert_eq!(
        (call.input_tokens, call.output_tokens, call.cost_micros),
        (100, 20, 27),
        "usage of the last piece"
    );
    assert_eq!(call.answered_by.as_deref(), Some("mini-2026-01"));
    let body = &server.asked()[0].body;
    assert_eq!((&body["stream"], &body["stream_options"]["include_usage"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn a_stream_that_is_cut_is_a_failed_call_and_the_next_one_begins_anew() {
    let whole = pieces();
    for cut in [0, 1, 3] {
        let server = Server::with(vec![
            stream(&whole[..cut], "data: {\"choi"),
            stream(&whole[..cut], ""),
            stream(&whole, "data: [DONE]\n\n"),
        ])
        .await;
        let models = Setup::new(&[&server.url]).start(&["one"]).await;
        let (told, answer) = listening(&models).await;
        assert_eq!(answer, lead());
        let outcomes = outline(&told.calls());
        assert_eq!(outcomes.len(), 3, "{outcomes:?}");
        assert_eq!(outcomes[1], "one: its answer broke off in the middle", "whole JSON, but no end to it");
        assert_eq!(told.heard().len(), 3);
        assert_eq!(
            told.heard()[2],
            r#"{"class": "lead", "confidence": 0.75}"#,
            "not behind what was cut off"
        );
    }
}

#[tokio::test]
async fn nobody_listening_or_a_provider_that_cannot_stream_means_a_whole_answer() {
    let good = || Line::says(super::GOOD);
    let server = Server::with(vec![good(), good(), good()]).await;
    let models = Setup::new(&[&server.url]).start(&["one"]).await;
    super::ask(&models).await;
    let (told, answer) = listening(&models).await;
    assert_eq!(
        (answer, told.heard()),
        (lead(), vec![String::new()]),
        "asked to stream, answered whole: fine"
    );
    let models = Setup::new(&[&server.url]).provider("one", |p| p.streaming = false).start(&["one"]).await;
    listening(&models).await;
    let streams: Vec<Value> = server.asked().iter().map(|asked| asked.body["stream"].clone()).collect();
    assert_eq!(streams, [json!(false), json!(true), json!(false)]);
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_that_error() {
    let mut script = pieces();
    script.truncate(1);
    script.push(json!({"error": {"code": 503, "message": "overloaded"}}));
    let server = Server::with(vec![stream(&script, ""), stream(&pieces(), "data: [DONE]\n\n")]).await;
    let models = Setup::new(&[&server.url]).start(&["one"]).await;
    let (told, answer) = listening(&models).await;
    assert_eq!(outline(&told.calls()), ["one: the provider failed (503)", "one: ok"]);
    assert_eq!(answer, lead());
}

#[tokio::test]
async fn an_endless_stream_is_cut_off() {
    let long = text(&"x".repeat(1024 * 1024));
    let server = Server::with(vec![stream(&[long.clone(), long.clone(), long], "")]).await;
    let models = Setup::new(&[&server.url]).start(&["one"]).await;
    let (told, _) = listening(&models).await;
    assert_eq!(outline(&told.calls()), ["one: the provider's answer is longer than 2 MiB"]);
}

//! What is paid, what is charged, and what follows when it is not enough.

use std::sync::{Arc, Mutex};

use super::*;
use crate::domain::budget::book::{Book, Held};
use crate::domain::budget::{Budget, Exhausted};

pub(super) const TODAY: &str = "workspace/day/2026-11-25";

/// Models whose ledger allows so much a day, and the ledger's book.
async fn under(setup: Setup, chain: &[&str], per_day: Option<i64>) -> (Models, Arc<Mutex<Book>>) {
    let limits = Limits { per_day, per_month: None };
    let (ledger, book) = Ledger::in_memory(limits);
    (setup.paid_by(ledger, &[("draft", chain)]).await, book)
}

async fn ask_paid_by(models: &Models, exhausted: Exhausted) -> (Vec<ModelCall>, Answer) {
    let payer = Payer { budget: Budget { exhausted, ..Budget::default() }, ..Payer::workspace(LIMIT) };
    paid_by(models, &payer, &agent(json!({})), LIMIT).await
}

async fn paid_by(models: &Models, payer: &Payer, agent: &Agent, limit: Duration) -> (Vec<ModelCall>, Answer) {
    let told = Told::default();
    let with = json!({"text": "Hello"});
    let asked = Asked {
        rounds: &[],
        agent,
        with: &with,
        label: Label::System,
        limit,
        payer,
        tools: &Shelf,
        witness: &told,
        keeping: None,
    };
    let answer = told.ask(models, asked).await;
    (told.calls(), answer)
}

fn held(book: &Mutex<Book>) -> Held {
    book.lock().unwrap().held(TODAY)
}

#[tokio::test]
async fn each_call_is_set_aside_and_names_its_reservation_in_the_journal() {
    let server = Server::with(vec![Line::says("no JSON"), Line::says(GOOD)]).await;
    let (models, book) = under(Setup::new(&[&server.url]), &["one"], None).await;
    let (calls, _) = ask_paid_by(&models, Exhausted::Fallback).await;
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| call.reservation.is_some() && call.cost_micros == 27), "{calls:?}");
    assert_ne!(calls[0].reservation, calls[1].reservation, "a repair turn is a call of its own");
    assert!(held(&book).reserved > 2 * 27, "until the journal settles them");
}

#[tokio::test]
async fn an_answer_that_may_be_billed_costs_the_worst_and_a_refusal_nothing() {
    let cut =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"choices\": [";
    let no_usage = json!({"choices": [{"message": {"content": GOOD}}]}).to_string();
    for (line, is_billed) in [
        (Line::Raw(cut.into()), true),
        (Line::Http(200, String::new(), no_usage), true),
        (Line::status(400), false),
        (Line::status(401), false),
        (Line::Http(200, String::new(), json!({"error": {"message": "x", "code": 400}}).to_string()), false),
    ] {
        let server = Server::with(vec![line]).await;
        let (models, book) = under(Setup::new(&[&server.url]), &["one"], None).await;
        let (calls, _) = ask_paid_by(&models, Exhausted::Fallback).await;
        let first = &calls[0];
        assert!(first.reservation.is_some(), "{first:?}");
        match is_billed {
            true => assert!(first.cost_micros > 27 && held(&book).reserved >= first.cost_micros, "{first:?}"),
            false => assert_eq!(first.cost_micros, 0, "{first:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_never_sent_is_given_back() {
    let server = Server::with(vec![Line::status(401), Line::status(401)]).await;
    let (models, book) = under(Setup::new(&[&server.url]), &["one"], None).await;
    ask_paid_by(&models, Exhausted::Fallback).await;
    let before = held(&book);
    let (calls, _) = ask_paid_by(&models, Exhausted::Fallback).await;
    assert_eq!((calls[0].reservation, calls[0].cost_micros), (None, 0), "its breaker is open: {calls:?}");
    models.ledger().stop().await; // everything before it is counted
    assert_eq!(held(&book), before);
}

#[tokio::test]
async fn a_model_without_a_price_is_refused_with_the_line_to_add_and_one_of_price_zero_is_free() {
    let server = Server::with(vec![Line::says(GOOD)]).await;
    let mut setup = Setup::new(&[&server.url, &server.url]);
    setup.config.models.get_mut("one").unwrap().price = None;
    setup.config.models.get_mut("two").unwrap().price =
        Some(serde_json::from_value(json!({"input": "0.00 USD", "output": "0.00 USD"})).unwrap());
    let (models, book) = under(setup, &["one", "two"], Some(0)).await;
    let (calls, answer) = ask_paid_by(&models, Exhausted::Fail).await;
    assert_eq!(answer, lead());
    let refusal = &calls[0].outcome;
    assert!(
        refusal.contains("price: { input: 0.00 USD, output: 0.00 USD }") && refusal.contains("`one`"),
        "{refusal}"
    );
    assert_eq!((calls[1].reservation, held(&book)), (None, Held::default()));
}

#[tokio::test]
async fn a_spent_budget_goes_to_the_next_model_to_the_owner_or_ends_the_step_and_is_never_tried_again() {
    for (exhausted, asked) in [(Exhausted::Fallback, 0), (Exhausted::Review, 0), (Exhausted::Fail, 0)] {
        let server = Server::with(vec![]).await;
        let (models, book) = under(Setup::new(&[&server.url]), &["one", "owner"], Some(5)).await;
        let (calls, answer) = ask_paid_by(&models, exhausted).await;
        assert_eq!(calls.len(), 1, "{calls:?}");
        assert!(calls[0].outcome.contains("the whole budget for today has 0.000005 USD left"), "{calls:?}");
        match (exhausted, answer) {
            (Exhausted::Fallback, Answer::Owner { .. }) => {}
            (Exhausted::Review, Answer::Short(short)) => {
                assert_eq!((short.scope.as_str(), short.limit, short.left()), ("workspace/day", 5, 5));
            }
            (Exhausted::Fail, Answer::Failed(error)) => {
                assert_eq!(error.kind, ErrorKind::Budget);
                assert!(!error.kind.retryable());
            }
            (_, answer) => panic!("{exhausted:?}: {answer:?}"),
        }
        assert_eq!((server.asked().len(), held(&book)), (asked, Held::default()));
    }
}

#[tokio::test]
async fn a_call_that_the_steps_time_ended_is_taken_for_spent() {
    let server = Server::with(vec![Line::Silence]).await;
    let (models, book) = under(Setup::new(&[&server.url]), &["one"], None).await;
    let payer = Payer::workspace(LIMIT);
    let (calls, _) = paid_by(&models, &payer, &agent(json!({})), Duration::from_millis(300)).await;
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((call.reservation.is_some(), call.cost_micros), (true, held(&book).reserved), "{call:?}");
    assert!(call.cost_micros > 0);
}

#[tokio::test]
async fn every_vote_that_the_steps_time_ended_is_taken_for_spent() {
    let server = Server::with(vec![Line::Silence; 3]).await;
    let (models, book) = under(Setup::new(&[&server.url]), &["one"], None).await;
    let (payer, agent) = (Payer::workspace(LIMIT), agent(json!({"votes": {"of": 3}})));
    let (calls, _) = paid_by(&models, &payer, &agent, Duration::from_millis(500)).await;
    let reservations: std::collections::BTreeSet<_> =
        calls.iter().filter_map(|call| call.reservation).collect();
    assert_eq!((calls.len(), reservations.len()), (3, 3), "{calls:?}");
    assert_eq!(calls.iter().map(|call| call.cost_micros).sum::<i64>(), held(&book).reserved);
}

#[tokio::test]
async fn what_a_tool_gave_and_the_tools_themselves_are_set_aside_for() {
    let call = json!({"id": "c", "type": "function", "function": {"name": "memory_search", "arguments": "{\"query\": \"x\"}"}});
    let wants = Line::completion(json!({"content": null, "tool_calls": [call]}), json!("tool_calls"));
    let server = Server::with(vec![wants, Line::says(GOOD)]).await;
    let (models, book) = under(Setup::new(&[&server.url]), &["one"], None).await;
    let (payer, agent) = (Payer::workspace(LIMIT), agent(json!({"tools": ["memory.search"]})));
    let (calls, answer) = paid_by(&models, &payer, &agent, LIMIT).await;
    assert!(matches!(answer, Answer::Output { .. }), "{answer:?}");
    assert!(calls.iter().all(|call| call.reservation.is_some()), "each turn is paid by itself");
    let sent: usize = server.asked().iter().map(|asked| asked.body["messages"].to_string().len()).sum();
    assert!(
        held(&book).reserved * 1_000_000 > 150_000 * i64::try_from(sent).unwrap(),
        "no less than what is sent"
    );
}

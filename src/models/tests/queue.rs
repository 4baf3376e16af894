//! Who is asked when: lanes, limits, conditions, contexts, tests by the owner.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;

use super::server::{Line, Server};
use super::support::{Shelf, Told};
use super::{GOOD, LIMIT, Setup, agent, ask, ask_as, lead, outline};
use crate::config::models::Provider;
use crate::domain::budget::Payer;
use crate::domain::label::Label;
use crate::domain::tier::Link;
use crate::models::ask::Target;
use crate::models::{Asked, Models, Walk};

fn said(text: &str) -> String {
    json!({"choices": [{"message": {"content": text}}]}).to_string()
}

/// Asks for an agent of this name, which is its lane; gives the name back when it was answered.
async fn ask_for(models: Models, lane: String) -> String {
    let (_, answer) =
        ask_as(&models, &agent(json!({"agent": lane})), json!({"text": "Hello"}), Label::System).await;
    assert_eq!(answer, lead());
    lane
}

async fn until(what: impl AsyncFn() -> bool) {
    let holds = async {
        while !what().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, holds).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_one_lane_does_not_hold_up_the_others() {
    let go = Arc::new(Notify::new());
    let mut script = vec![Line::Held(Arc::clone(&go), said(GOOD))];
    script.extend(vec![Line::says(GOOD); 30]);
    let server = Server::with(script).await;
    let models = Setup::new(&[&server.url]).provider("one", |p| p.concurrency = 1).start(&["one"]).await;
    let mut flood: Vec<_> = (0..20).map(|_| tokio::spawn(ask_for(models.clone(), "flood".into()))).collect();
    until(async || models.survey().await.unwrap().providers[0].waiting == 19).await;
    let single = tokio::spawn(ask_for(models.clone(), "single".into()));
    until(async || models.survey().await.unwrap().providers[0].waiting == 20).await;
    go.notify_one();
    single.await.unwrap();
    assert!(server.asked().len() <= 4, "its turn came after one of the flood, not after all");
    for call in flood.drain(..) {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_model_that_asked_to_wait_is_left_alone_by_everybody_and_the_others_are_not() {
    let refused = Line::Http(429, "retry-after: 300\r\n".into(), "{}".into());
    let server = Server::with(vec![refused, Line::says(GOOD), Line::says(GOOD)]).await;
    // Two models of one provider.
    let models = Setup::new(&[&server.url, &server.url])
        .config(|config| config.models.get_mut("two").unwrap().provider = "one".into())
        .start(&["one", "two"])
        .await;
    assert_eq!(outline(&ask(&models).await.0), ["one: too many requests (429)", "two: ok"]);
    let (calls, answer) = ask(&models).await;
    assert!(calls[0].outcome.starts_with("its rate limit lets the next call through in "), "{calls:?}");
    assert_eq!((calls.len(), answer, server.asked().len()), (2, lead(), 3));
    // What the owner resets is asked at once.
    models.reset("one").await.unwrap();
    let (calls, _) = ask(&models).await;
    assert_eq!(calls[0].outcome, "the provider failed (599): as scripted", "it was asked: {calls:?}");
}

#[tokio::test]
async fn what_the_headers_say_is_left_is_kept_to() {
    let tight = "x-ratelimit-remaining-tokens: 10\r\nx-ratelimit-reset-tokens: 700ms\r\n";
    let server = Server::with(vec![Line::Http(200, tight.into(), said(GOOD)), Line::says(GOOD)]).await;
    let models = Setup::new(&[&server.url]).start(&["one"]).await;
    ask(&models).await;
    let started = Instant::now();
    assert_eq!(ask(&models).await.1, lead());
    assert!(started.elapsed() >= Duration::from_millis(600), "{:?}", started.elapsed());
}

#[tokio::test]
async fn tokens_per_minute_make_calls_wait_and_a_wait_beyond_the_deadline_goes_to_the_next_model() {
    let one = Server::with(vec![Line::says(GOOD); 3]).await;
    let two = Server::with(vec![Line::says(GOOD); 3]).await;
    let slow = |provider: &mut Provider| {
        provider.tokens_per_minute = Some(600);
        provider.timeout = "5s".parse().unwrap();
    };
    let models = Setup::new(&[&one.url, &two.url]).provider("one", slow).start(&["one", "two"]).await;
    assert_eq!(outline(&ask(&models).await.0), ["one: ok"]);
    let (calls, answer) = ask(&models).await;
    assert!(calls[0].outcome.starts_with("its rate limit lets the next call through in"), "{calls:?}");
    assert_eq!((answer, calls[1].outcome.as_str(), one.asked().len()), (lead(), "ok", 1));
}

#[tokio::test]
async fn a_link_is_passed_over_unless_its_condition_holds() {
    let one = Server::with(vec![Line::says(GOOD)]).await;
    let two = Server::with(vec![Line::says(GOOD); 2]).await;
    let setup = Setup::new(&[&one.url, &two.url]);
    let when = |when: &str| Link { model: "one".into(), when: Some(when.into()) };
    let models = setup.chain(vec![when("input.tokens < 5"), when("input.tokens > 5"), Link::to("two")]).await;
    let (calls, answer) = ask(&models).await;
    assert_eq!(outline(&calls), ["one: its condition `input.tokens < 5` does not hold", "one: ok"]);
    assert_eq!(answer, lead());
    let setup = Setup::new(&[&one.url, &two.url]);
    let models = setup.chain(vec![when("time.hour > 24"), when("1 / 0 > 1"), Link::to("two")]).await;
    let (calls, _) = ask(&models).await;
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert_eq!((calls[2].model.as_str(), one.asked().len()), ("two", 1));
}

#[tokio::test]
async fn a_question_that_does_not_fit_the_model_is_not_sent_to_it() {
    let one = Server::with(vec![]).await;
    let two = Server::with(vec![Line::says(GOOD)]).await;
    let models = Setup::new(&[&one.url, &two.url])
        .config(|config| {
            config.models.get_mut("one").unwrap().context = Some(250);
            config.models.get_mut("two").unwrap().max_output = Some(50);
        })
        .start(&["one", "two"])
        .await;
    let (calls, answer) = ask(&models).await;
    assert!(calls[0].outcome.contains("do not fit into its 250"), "{calls:?}");
    assert_eq!((answer, one.asked().len()), (lead(), 0));
    assert_eq!(two.asked()[0].body["max_tokens"], 50, "the agent allows 200, the model can do 50");
}

#[tokio::test]
async fn the_owners_test_asks_each_model_for_one_token_and_closes_what_works_again() {
    let short = Line::completion(json!({"content": ""}), json!("length"));
    let one = Server::with(vec![Line::status(401), short]).await;
    let two = Server::with(vec![Line::status(404)]).await;
    let models = Setup::new(&[&one.url, &two.url]).start(&["one"]).await;
    ask(&models).await;
    assert_eq!(models.survey().await.unwrap().providers[0].state, "paused");
    let tested = models.test(None).await;
    assert_eq!(tested.len(), 2);
    assert!(tested[0].ok && tested[0].cost_micros == 27, "{tested:?}");
    assert_eq!(tested[1].outcome, "the provider refused the request (404): as scripted");
    assert_eq!(one.asked()[1].body["max_tokens"], 1);
    assert_eq!(one.asked()[1].body.get("response_format"), None);
    assert_eq!(models.survey().await.unwrap().providers[0].state, "ready");
    assert_eq!(models.test(Some("three")).await, []);
}

/// What is logged while the guard lives, on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_owner_is_told_of_a_refused_key_once_however_often_it_is_refused() {
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || log.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let mut script = vec![Line::status(401); 4];
    script.push(Line::says(GOOD));
    script.push(Line::status(403));
    let server = Server::with(script).await;
    let models = Setup::new(&[&server.url]).start(&["one"]).await;
    let told = || String::from_utf8_lossy(&written.0.lock().unwrap()).matches("needs you").count();
    ask(&models).await;
    ask(&models).await;
    for _ in 0..3 {
        models.test(None).await;
    }
    assert_eq!(told(), 1);
    assert!(models.test(None).await[0].ok, "the fifth time it works");
    ask(&models).await;
    assert_eq!(told(), 2, "another trouble is told again");
}

#[tokio::test]
async fn a_budget_can_rely_on_the_worst_case() {
    let server = Server::with(vec![]).await;
    let models = Setup::new(&[&server.url]).start(&["one"]).await;
    let (agent, with) = (agent(json!({})), json!({"text": "Hello ".repeat(100)}));
    let (told, payer) = (Told::default(), Payer::workspace(LIMIT));
    let (label, limit, tools) = (Label::Owner, LIMIT, &Shelf);
    let asked = Asked {
        rounds: &[],
        agent: &agent,
        with: &with,
        label,
        limit,
        payer: &payer,
        tools,
        witness: &told,
        keeping: None,
    };
    let walk = Walk::new(&models.0, asked);
    let remote = &models.0.remotes["one"];
    let gateway = remote.gateway.as_ref().unwrap();
    let request = walk.question(&Target { name: "one", remote, gateway, part: None }, None).unwrap();
    let body = request.body(remote.dialect).to_string().len();
    let worst = crate::models::estimate::worst(&request, remote, crate::models::price::Tariff::Usual);
    // 0.15 for a million read, 0.60 for a million written; a token is a byte at most.
    let most = (body + 256) * 15 / 100 + 200 * 60 / 100;
    assert!(worst >= i64::try_from(most).unwrap(), "{worst} {most}");
}

#[tokio::test]
async fn a_test_of_a_model_without_a_price_says_what_to_add_and_asks_nobody() {
    let server = Server::with(vec![]).await;
    let mut setup = Setup::new(&[&server.url]);
    setup.config.models.get_mut("one").unwrap().price = None;
    let models = setup.start(&["one"]).await;
    let tested = models.test(None).await;
    assert!(!tested[0].ok && tested[0].outcome.contains("add `price: { input:"), "{tested:?}");
    assert!(server.asked().is_empty());
}

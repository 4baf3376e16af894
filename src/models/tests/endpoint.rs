//! What one HTTP call of a provider is, and is not.

use std::time::Duration;

use serde_json::json;

use super::faults::{FINE, body, cut, limited};
use super::server::{Line, Server};
use super::{GOOD, Setup, ask, lead, outline};
use crate::config::models::Provider;
use crate::config::secret::Secret;
use crate::models::headers::Told;
use crate::models::openai::{Credentials, Endpoint};
use crate::models::wire::{Message, Request};

fn question(model: &str) -> Request {
    Request {
        model: model.into(),
        messages: vec![Message::new("user", "Hello".into())],
        max_tokens: 10,
        lane: "test".into(),
        ..Request::default()
    }
}

fn provider(url: &url::Url) -> Provider {
    serde_json::from_value(json!({"base_url": url})).unwrap()
}

#[tokio::test]
async fn the_client_underneath_never_asks_twice_by_itself() {
    for line in [
        Line::status(500),
        Line::status(503),
        Line::Http(503, "retry-after: 0\r\n".into(), "{}".into()),
        limited("retry-after-ms: 1\r\n"),
        limited(""),
        Line::Raw(String::new()),
        cut("{"),
        Line::status(408),
        Line::status(409),
    ] {
        let server = Server::with(vec![line; 5]).await;
        let endpoint = Endpoint::new(&provider(&server.url), Credentials::default()).unwrap();
        let result = endpoint.ask(&question("m"), &mut Told::default()).await;
        assert!(result.is_err());
        assert_eq!(server.asked().len(), 1, "{result:?}");
    }
}

#[tokio::test]
async fn headers_and_accounts_are_sent_and_no_error_repeats_a_secret() {
    let echo = json!({"error": {"message": "bad key sk-canary-1 and sk-canary-2 of Steward", "code": "x"}});
    let server = Server::with(vec![Line::Http(401, String::new(), echo.to_string())]).await;
    let mut provider = provider(&server.url);
    provider.organization = Some("org-7".into());
    provider.project = Some("proj-8".into());
    let credentials = Credentials {
        key: Some(Secret::new("sk-canary-1".into())),
        headers: vec![
            ("X-Title".into(), Secret::new("Steward".into())),
            ("X-Key".into(), Secret::new("sk-canary-2".into())),
        ],
        hidden: vec![Secret::new("sk-canary-2".into())],
    };
    assert!(!format!("{credentials:?}").contains("canary"));
    let endpoint = Endpoint::new(&provider, credentials).unwrap();
    let error = endpoint.ask(&question("m"), &mut Told::default()).await.unwrap_err();
    assert_eq!(error.message, "the key was refused (401): bad key *** and *** of Steward");
    let head = &server.asked()[0].head;
    for line in [
        "authorization: bearer sk-canary-1",
        "x-key: sk-canary-2",
        "x-title: steward",
        "openai-organization: org-7",
        "openai-project: proj-8",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
}

#[tokio::test]
async fn what_the_provider_did_not_count_is_estimated_and_marked() {
    let bare = json!({"choices": [{"message": {"content": GOOD}}]}).to_string();
    let cached = json!({"choices": [{"message": {"content": GOOD}}], "usage": {"prompt_tokens": 1_000_000,
        "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 1_000_000}}});
    let server = Server::with(vec![body(&bare), body(&cached.to_string())]).await;
    let models = Setup::new(&[&server.url]).start(&["one"]).await;
    let call = &ask(&models).await.0[0];
    assert!(call.estimated && call.cost_micros > 0, "{call:?}");
    assert!(call.input_tokens > 300 && call.output_tokens == GOOD.len() as u64, "{call:?}");
    let call = &ask(&models).await.0[0];
    assert_eq!(
        (call.estimated, call.cached_tokens, call.cost_micros),
        (false, 1_000_000, 50_000),
        "{call:?}"
    );
}

#[tokio::test]
async fn silence_is_given_up_soon_but_a_slow_answer_is_waited_for() {
    let said = json!({"choices": [{"message": {"content": GOOD}}]}).to_string();
    let slow = Line::Trickle(said, Duration::from_millis(15));
    let server = Server::with(vec![Line::Silence, slow]).await;
    let idle = |one: &mut Provider| one.idle_timeout = Some("600ms".parse().unwrap());
    let models = Setup::new(&[&server.url]).provider("one", idle).start(&["one"]).await;
    let (calls, answer) = ask(&models).await;
    assert_eq!(
        (outline(&calls), answer),
        (vec!["one: it was silent for too long".to_owned(), FINE.into()], lead())
    );
    assert!(calls[1].millis > 600, "{calls:?}");
}

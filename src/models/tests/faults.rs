//! The fault matrix: what can go wrong with a provider, one row each. The tier is `one`, `two`, and `two`
//! always answers well; a row says what the journal is told, how the breaker of `one` stands afterwards, and
//! how many requests `one` got.
//!
//! Faults of tool calls are rows of the tests of tools; what the ledger makes of each row is asked by
//! [`Row::check`], which has a place for it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::server::{Line, Server};
use super::{GOOD, Setup, ask, lead, money, outline};
use crate::config::models::Provider;
use crate::config::secret::Secret;
use crate::domain::budget::Limits;
use crate::models::headers::Told;
use crate::models::ledger::Ledger;
use crate::models::openai::{Credentials, Endpoint};
use crate::models::wire::{Message, Request};
use crate::time::wall;

/// The breaker of `one` afterwards.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Breaker {
    /// The next call goes out.
    Closed,
    /// It does not, and only the owner can mend it.
    Lasting,
}
use Breaker::{Closed, Lasting};

/// Who says so: the script of `one`, or the address that leads nowhere.
enum Fault {
    Script(Vec<Line>),
    Nowhere(&'static str),
    NobodyListens,
}
use Fault::{NobodyListens, Nowhere, Script};

struct Row {
    name: &'static str,
    fault: Fault,
    timeout: &'static str,
    told: Vec<&'static str>,
    breaker: Breaker,
    requests: usize,
}

fn row(name: &'static str, fault: Fault, told: &[&'static str], breaker: Breaker, requests: usize) -> Row {
    Row { name, fault, timeout: "10s", told: told.to_vec(), breaker, requests }
}

/// The same answer as often as it may be asked for.
fn always(line: &Line) -> Fault {
    Script(vec![line.clone(); 3])
}

/// Once, then a good answer.
fn once(line: Line) -> Fault {
    Script(vec![line, Line::says(GOOD)])
}

fn body(text: &str) -> Line {
    Line::Http(200, String::new(), text.into())
}

fn limited(headers: &str) -> Line {
    Line::error(429, headers, "rate_limit_exceeded")
}

fn cut(text: &str) -> Line {
    Line::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{text}"))
}

const BUSY: &str = "one: too many requests (429)";
const FINE: &str = "one: ok";
const NEXT: &str = "two: ok";

fn waits() -> Vec<Row> {
    let soon = wall() + jiff::SignedDuration::from_secs(2);
    let date = format!("retry-after: {}\r\n", soon.strftime("%a, %d %b %Y %H:%M:%S GMT"));
    let reset = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 30ms\r\n";
    vec![
        row("429, seconds", once(limited("retry-after: 1\r\n")), &[BUSY, FINE], Closed, 2),
        row("429, milliseconds", once(limited("retry-after-ms: 40\r\n")), &[BUSY, FINE], Closed, 2),
        row("429, a date", once(limited(&date)), &[BUSY, FINE], Closed, 2),
        row("429, the reset", once(limited(reset)), &[BUSY, FINE], Closed, 2),
        row("429, absurd", once(limited("retry-after: 99999999999\r\n")), &[BUSY, NEXT], Closed, 1),
        row(
            "429, never",
            once(limited("retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n")),
            &[BUSY, NEXT],
            Closed,
            1,
        ),
        row("429, in the past", once(limited("retry-after: -7\r\n")), &[BUSY, FINE], Closed, 2),
        row("429, without a word", always(&limited("")), &[BUSY, BUSY, BUSY, NEXT], Closed, 3),
    ]
}

fn account() -> Vec<Row> {
    let refused = |status| row("", once(Line::status(status)), &[], Lasting, 1);
    let quota = once(Line::error(429, "retry-after: 1\r\n", "insufficient_quota"));
    let flagged = json!({"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"]}}});
    vec![
        Row { name: "401", told: vec!["one: the key was refused (401)", NEXT], ..refused(401) },
        Row { name: "403", told: vec!["one: the key was refused (403)", NEXT], ..refused(403) },
        Row { name: "402", told: vec!["one: the account is exhausted (402)", NEXT], ..refused(402) },
        row("insufficient_quota", quota, &["one: the account is exhausted (429)", NEXT], Lasting, 1),
        row(
            "a flagged question is not the account's fault",
            once(Line::Http(403, String::new(), flagged.to_string())),
            &["one: the provider's filter stopped the question (403)", NEXT],
            Closed,
            1,
        ),
        row(
            "no access to this model",
            once(Line::error(403, "", "model_not_found")),
            &["one: the provider does not serve this model (403)", NEXT],
            Closed,
            1,
        ),
    ]
}

fn broken() -> Vec<Row> {
    const FAILED: [&str; 3] = [
        "one: the provider failed (500)",
        "one: the provider failed (502)",
        "one: the provider failed (503)",
    ];
    let down = |status, told| row("", always(&Line::status(status)), &[told, told, told, NEXT], Closed, 3);
    let late = "one: no whole answer within 400ms";
    let slow = Line::Trickle(GOOD.to_owned(), Duration::from_secs(1));
    let silent = |name, line: &Line| Row {
        timeout: "400ms",
        ..row(name, always(line), &[late, late, late, NEXT], Closed, 3)
    };
    let (lost, none) = ("one: the connection broke", "one: no connection");
    vec![
        Row { name: "500", ..down(500, FAILED[0]) },
        Row { name: "502", ..down(502, FAILED[1]) },
        Row { name: "503", ..down(503, FAILED[2]) },
        row("503 for a moment", once(Line::status(503)), &[FAILED[2], FINE], Closed, 2),
        row("connect refused", NobodyListens, &[none, none, none, NEXT], Closed, 0),
        row(
            "DNS failure",
            Nowhere("http://models.steward-test.invalid/v1"),
            &[none, none, none, NEXT],
            Closed,
            0,
        ),
        silent("read time-out", &Line::Silence),
        silent("headers that never end", &Line::SlowHeaders),
        silent("one byte a second", &slow),
        row("cut in the middle", always(&cut("{\"choices\": [")), &[lost, lost, lost, NEXT], Closed, 3),
        row("hangs up", always(&Line::Raw(String::new())), &[lost, lost, lost, NEXT], Closed, 3),
    ]
}

fn answers() -> Vec<Row> {
    let says = |message| Line::completion(message, json!("stop"));
    let no_json = "one: the provider's answer is not JSON";
    let nothing = "one: it answered with nothing";
    let unfit = "one: its output does not fit the schema";
    let half = "one: there is no whole JSON object in its answer";
    let uncounted =
        json!({"choices": [{"finish_reason": "eos", "message": {"content": GOOD}}], "usage": null});
    vec![
        row(
            "truncated JSON",
            always(&body("{\"choices\": [{\"mess")),
            &[no_json, no_json, no_json, NEXT],
            Closed,
            3,
        ),
        row("half an object", once(Line::says("{\"class\": \"le")), &[half, FINE], Closed, 2),
        row(
            "invalid under the schema",
            always(&Line::says("{\"class\": \"x\"}")),
            &[unfit, unfit, NEXT],
            Closed,
            2,
        ),
        row(
            "prose around JSON",
            once(Line::says(&format!("Sure!\n```json\n{GOOD}\n```\nBye"))),
            &[FINE],
            Closed,
            1,
        ),
        row("prose alone", always(&Line::says("I think it is a lead.")), &[half, half, NEXT], Closed, 2),
        row(
            "empty choices",
            always(&body("{\"choices\": []}")),
            &[nothing, nothing, nothing, NEXT],
            Closed,
            3,
        ),
        row(
            "null content",
            always(&says(json!({"content": null}))),
            &[nothing, nothing, nothing, NEXT],
            Closed,
            3,
        ),
        row(
            "20 MB",
            once(Line::Huge(20_000_000)),
            &["one: the provider's answer is longer than 2 MiB", NEXT],
            Closed,
            1,
        ),
        row(
            "refusal",
            once(says(json!({"content": null, "refusal": "No."}))),
            &["one: it declined", NEXT],
            Closed,
            1,
        ),
        row("no usage, an unknown finish", once(body(&uncounted.to_string())), &[FINE], Closed, 1),
        row(
            "an error with status 200",
            once(body("{\"error\": {\"code\": 401, \"message\": \"no\"}}")),
            &["one: the key was refused (401)", NEXT],
            Lasting,
            1,
        ),
    ]
}

impl Row {
    async fn check(self) {
        let name = self.name;
        let (server, url) = match self.fault {
            Script(lines) => {
                let server = Server::with(lines).await;
                let url = server.url.clone();
                (Some(server), url)
            }
            Nowhere(url) => (None, url.parse().unwrap()),
            NobodyListens => {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                (None, format!("http://{}/v1", listener.local_addr().unwrap()).parse().unwrap())
            }
        };
        let two = Server::with(vec![Line::says(GOOD)]).await;
        let timeout = self.timeout.parse().unwrap();
        let setup = Setup::new(&[&url, &two.url]).provider("one", |one| one.timeout = timeout);
        let limits = Limits { per_day: Some(10_000), per_month: None };
        let (ledger, book) = Ledger::in_memory(limits);
        let models = setup.paid_by(ledger.clone(), &[("draft", &["one", "two"])]).await;
        let (calls, answer) = ask(&models).await;
        assert_eq!(outline(&calls), self.told, "{name}");
        assert_eq!(answer, lead(), "{name}");
        let requests = server.as_ref().map_or(0, |server| server.asked().len());
        assert_eq!(requests, self.requests, "{name}: one HTTP request per call that was told");
        let survey = models.survey().await.unwrap();
        let one = &survey.providers[0];
        let breaker = if one.state == "ready" { Closed } else { Lasting };
        assert_eq!((breaker, one.needs_owner), (self.breaker, self.breaker == Lasting), "{name}: {one:?}");
        // What was answered costs; what was not costs nothing, or all that was set aside, for the provider may
        // bill it. Once the journal has settled it, the ledger holds the sum and nothing else.
        for call in &calls {
            assert!(call.input_tokens == 0 || call.cost_micros > 0, "{name}: {call:?}");
            call.reservation.iter().for_each(|id| ledger.settle(*id, call.cost_micros));
        }
        ledger.stop().await;
        let held = book.lock().unwrap().held(money::TODAY);
        let cost = calls.iter().map(|call| call.cost_micros).sum::<i64>();
        assert_eq!((held.reserved, held.settled), (0, cost), "{name}: {calls:?}");
    }
}

#[tokio::test]
async fn whoever_asks_to_wait_is_waited_for_within_bounds() {
    join_all(waits().into_iter().map(Row::check)).await;
}

#[tokio::test]
async fn a_refused_account_is_left_alone_and_what_is_not_its_fault_is_not_held_against_it() {
    join_all(account().into_iter().map(Row::check)).await;
}

#[tokio::test]
async fn what_breaks_on_the_way_is_tried_again_and_then_left_to_the_next_model() {
    join_all(broken().into_iter().map(Row::check)).await;
}

#[tokio::test]
async fn strange_answers_are_used_where_they_can_be_and_never_half() {
    join_all(answers().into_iter().map(Row::check)).await;
}

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

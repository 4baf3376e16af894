//! The fault matrix: what can go wrong with a provider, one row each. The tier is `one`, `two`, and `two`
//! always answers well; a row says what the journal is told, of calls and of tools, how the breaker of `one`
//! stands afterwards, and how many requests `one` got. For every row [`Row::check`] adds the ledger up: it holds
//! what the calls cost and nothing else, and never more than the budget.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::agents::wants;
use super::server::{Line, Server};
use super::streams::{pieces, stream, text};
use super::support::{Shelf, Told};
use super::{GOOD, LIMIT, Setup, agent, money, outline};
use crate::domain::budget::{Limits, Payer};
use crate::domain::label::Label;
use crate::domain::plan::Answer;
use crate::models::Asked;
use crate::models::ledger::Ledger;
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
    how: How,
}

/// Who asks.
enum How {
    /// An agent whose answer comes whole.
    Whole,
    /// One that somebody listens to while it is written.
    Heard,
    /// One with tools; what the journal is told of each use.
    Looking(Vec<&'static str>),
}
use How::{Heard, Looking, Whole};

fn row(name: &'static str, fault: Fault, told: &[&'static str], breaker: Breaker, requests: usize) -> Row {
    Row { name, fault, timeout: "10s", told: told.to_vec(), breaker, requests, how: Whole }
}

/// The same answer as often as it may be asked for.
fn always(line: &Line) -> Fault {
    Script(vec![line.clone(); 3])
}

/// Once, then a good answer.
fn once(line: Line) -> Fault {
    Script(vec![line, Line::says(GOOD)])
}

pub(super) fn body(text: &str) -> Line {
    Line::Http(200, String::new(), text.into())
}

pub(super) fn limited(headers: &str) -> Line {
    Line::error(429, headers, "rate_limit_exceeded")
}

pub(super) fn cut(text: &str) -> Line {
    Line::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{text}"))
}

/// What everything may cost, micro-units.
const BUDGET: i64 = 10_000;

const BUSY: &str = "one: too many requests (429)";
pub(super) const FINE: &str = "one: ok";
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

fn streams() -> Vec<Row> {
    let cut = "one: its answer broke off in the middle";
    let half = "one: a piece of the provider's answer is not JSON";
    let whole: String = pieces().iter().map(|piece| format!("data: {piece}\n\n")).collect();
    let slow = Line::Drip(whole, Duration::from_secs(1));
    let late = "one: no whole answer within 400ms";
    let failed = [text("{\"cl"), json!({"error": {"code": 503, "message": "overloaded"}})];
    let heard = |name, fault, told: &[&'static str], requests| Row {
        how: Heard,
        ..row(name, fault, told, Closed, requests)
    };
    vec![
        heard("a stream", Script(vec![stream(&pieces(), "data: [DONE]\n\n")]), &[FINE], 1),
        heard("a stream cut", always(&stream(&pieces()[..2], "")), &[cut, cut, cut, NEXT], 3),
        heard(
            "a stream cut in a piece",
            always(&stream(&pieces()[..2], "data: {\"choi")),
            &[half, half, half, NEXT],
            3,
        ),
        heard("a stream without an end", always(&stream(&pieces()[..3], "")), &[cut, cut, cut, NEXT], 3),
        Row {
            timeout: "400ms",
            ..heard("a stream of one byte a second", always(&slow), &[late, late, late, NEXT], 3)
        },
        heard(
            "an error in a stream",
            once(stream(&failed, "")),
            &["one: the provider failed (503)", FINE],
            2,
        ),
    ]
}

fn tools() -> Vec<Row> {
    let looks = |name, tool, arguments, told: &'static str| Row {
        how: Looking(vec![told]),
        ..row(name, once(wants(&[(tool, arguments)])), &[FINE, FINE], Closed, 2)
    };
    vec![
        looks("a tool", "memory_search", r#"{"query": "x"}"#, "memory.search: ok"),
        looks(
            "wrong tool arguments",
            "memory_search",
            r#"{"question": 7}"#,
            "memory.search: its arguments do not fit",
        ),
        looks(
            "half tool arguments",
            "memory_search",
            r#"{"query": "#,
            "memory.search: its arguments are not JSON",
        ),
        looks(
            "unknown tool",
            "email_send",
            r#"{"to": "a@b.example"}"#,
            "email_send: there is no tool `email_send`",
        ),
        looks("a tool not its own", "date", "{}", "date: there is no tool `date`"),
        looks("a tool that fails", "records_list", r#"{"kind": "lead"}"#, "records.list: the tool failed"),
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
        let limits = Limits { per_day: Some(BUDGET), per_month: None };
        let (ledger, book) = Ledger::in_memory(limits);
        let models = setup.paid_by(ledger.clone(), &[("draft", &["one", "two"])]).await;
        let (told, tools, looked) = match self.how {
            Whole => (Told::default(), json!({}), vec![]),
            Heard => (Told::listening(), json!({}), vec![]),
            Looking(looked) => (Told::default(), json!({"tools": ["memory.search", "records.list"]}), looked),
        };
        let (agent, with) = (agent(tools), json!({"text": "Hello"}));
        let payer = Payer::workspace(LIMIT);
        let asked = Asked {
            agent: &agent,
            with: &with,
            label: Label::System,
            limit: LIMIT,
            payer: &payer,
            tools: &Shelf,
            witness: &told,
            keeping: None,
            rounds: &[],
        };
        let answer = told.ask(&models, asked).await;
        let calls = told.calls();
        assert_eq!(outline(&calls), self.told, "{name}");
        match answer {
            Answer::Output { output, confidence, .. } => {
                assert_eq!(
                    (output, confidence),
                    (json!({"class": "lead", "confidence": 0.75}), Some(0.75)),
                    "{name}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
        let lookups = told.lookups();
        assert_eq!(lookups.len(), looked.len(), "{name}");
        for (lookup, wanted) in lookups.iter().zip(looked) {
            let lookup = format!("{}: {}", lookup.tool, lookup.outcome);
            assert!(lookup.starts_with(wanted), "{name}: {lookup}");
        }
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
        assert!(cost <= BUDGET && held.overrun == 0, "{name}: no overshoot");
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

#[tokio::test]
async fn a_stream_is_a_whole_answer_or_a_failed_call() {
    join_all(streams().into_iter().map(Row::check)).await;
}

#[tokio::test]
async fn whatever_a_model_does_with_its_tools_is_told_and_paid() {
    join_all(tools().into_iter().map(Row::check)).await;
}

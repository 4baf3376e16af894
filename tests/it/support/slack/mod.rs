//! Slack on loopback: the methods that Steward uses, as strict as Slack, its signed requests and its Socket
//! Mode. What it refuses stands in [`strict`]; that it speaks like Slack is held against Slack's own library
//! ([`sdk`]).

pub mod person;
pub mod sdk;
pub mod strict;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::eventually;

pub const CHANNEL: &str = "C0123456789";
pub const OWNER: &str = "U0000000001";
pub const BOT_TOKEN: &str = "xoxb-1-test";
pub const APP_TOKEN: &str = "xapp-1-test";
pub const SIGNING_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// What goes wrong with the next call of a method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Slack's word.
    Says(&'static str),
    /// Too many calls: come back after so many seconds.
    Busy(u64),
    /// It is done, and the answer is lost.
    Lost,
}

#[derive(Default)]
pub struct Seen {
    /// What stands in channels, each with its channel and `ts`.
    pub messages: Vec<Value>,
    /// What one person alone saw.
    pub whispers: Vec<Value>,
    /// The modals that were opened, with their trigger.
    pub views: Vec<Value>,
    /// Methods that were called, refused or not.
    pub calls: Vec<String>,
    /// What was refused as malformed.
    pub refused: Vec<String>,
    faults: VecDeque<(String, Fault)>,
    triggers: BTreeMap<String, bool>,
    tickets: BTreeSet<String>,
    sockets: Vec<mpsc::UnboundedSender<Value>>,
    acks: BTreeMap<String, Value>,
    count: u64,
}

/// Slack; it ends with the test's runtime.
pub struct Fake {
    pub address: SocketAddr,
    socket: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Fake {
    pub async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, socket) = (listener.local_addr().unwrap(), sockets.local_addr().unwrap());
        let fake = Arc::new(Self { address, socket, seen: Arc::default() });
        let router = Router::new().route("/api/{method}", any(method)).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mine = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = sockets.accept().await {
                tokio::spawn(mine.clone().socket(stream));
            }
        });
        fake
    }

    /// Where its methods are.
    pub fn api(&self) -> String {
        format!("http://{}/api", self.address)
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// The next call of a method goes wrong so.
    pub fn fails(&self, method: &str, fault: Fault) {
        self.seen().faults.push_back((method.into(), fault));
    }

    /// Waits for the message that matches.
    pub async fn message(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = || async { self.seen().messages.iter().find(|message| is(message)).cloned() };
        let message = eventually(what, found).await;
        assert_eq!(self.seen().refused, Vec::<String>::new());
        message
    }

    /// Waits for the message that asks about a review.
    pub async fn ask(&self, review: &Value) -> Value {
        let id = review["id"].as_str().unwrap().to_owned();
        self.message("the question in Slack", |message| {
            message["blocks"].to_string().contains(&format!("\"value\":\"{id} "))
        })
        .await
    }

    /// The message as it stands now.
    pub fn now(&self, message: &Value) -> Value {
        self.seen().messages.iter().find(|it| it["ts"] == message["ts"]).unwrap().clone()
    }

    /// Waits until a message says something.
    pub async fn says(&self, message: &Value, words: &str) -> Value {
        eventually(&format!("the message saying `{words}`"), || async {
            let now = self.now(message);
            now.to_string().contains(words).then_some(now)
        })
        .await
    }

    /// Waits for the `n`th whisper, from 1 on.
    pub async fn whisper(&self, n: usize) -> Value {
        eventually("a whisper", || async { self.seen().whispers.get(n - 1).cloned() }).await
    }

    /// Waits for the `n`th modal, from 1 on.
    pub async fn view(&self, n: usize) -> Value {
        eventually("a modal", || async { self.seen().views.get(n - 1).cloned() }).await
    }

    /// A trigger that opens one modal.
    pub fn trigger(&self) -> String {
        let mut seen = self.seen();
        seen.count += 1;
        let trigger = format!("13345224609.738474920.{:x}", seen.count);
        seen.triggers.insert(trigger.clone(), false);
        trigger
    }

    /// Waits until so many sockets were opened in all.
    pub async fn connected(&self, n: usize) {
        eventually("a socket", || async { (self.seen().sockets.len() >= n).then_some(()) }).await;
    }

    /// Sends an envelope over the latest socket; its id.
    pub fn envelope(&self, payload: &Value) -> String {
        let mut seen = self.seen();
        seen.count += 1;
        let id = format!("dbdd0ef3-1543-4f94-bfb4-{:012x}", seen.count);
        let envelope = json!({"envelope_id": id, "type": "interactive", "accepts_response_payload": true, "payload": payload});
        seen.sockets.last().unwrap().send(envelope).unwrap();
        id
    }

    /// Says over the latest socket that it will close.
    pub fn refresh(&self) {
        let goodbye =
            json!({"type": "disconnect", "reason": "refresh_requested", "debug_info": {"host": "test"}});
        self.seen().sockets.last().unwrap().send(goodbye).unwrap();
    }

    /// Waits for the acknowledgement of an envelope.
    pub async fn ack(&self, envelope: &str) -> Value {
        eventually("an acknowledgement", || async { self.seen().acks.get(envelope).cloned() }).await
    }

    pub fn acked(&self, envelope: &str) -> bool {
        self.seen().acks.contains_key(envelope)
    }

    async fn socket(self: Arc<Self>, stream: TcpStream) {
        let mut ticket = String::new();
        #[expect(clippy::result_large_err, reason = "the library's callback may refuse with a whole answer")]
        let look = |request: &tokio_tungstenite::tungstenite::handshake::server::Request, response| {
            ticket = request.uri().query().unwrap_or_default().to_owned();
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, look).await.unwrap();
        // A ticket is good once.
        assert!(self.seen().tickets.remove(&ticket), "{ticket}");
        let (mut out, mut incoming) = socket.split();
        let (sender, mut sends) = mpsc::unbounded_channel::<Value>();
        sender.send(json!({"type": "hello", "num_connections": 1, "connection_info": {"app_id": "A1"}, "debug_info": {}})).unwrap();
        self.seen().sockets.push(sender);
        loop {
            tokio::select! {
                Some(value) = sends.recv() => {
                    if out.send(Message::text(value.to_string())).await.is_err() { return; }
                }
                message = incoming.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let ack: Value = serde_json::from_str(&text).unwrap();
                        let id = ack["envelope_id"].as_str().unwrap().to_owned();
                        self.seen().acks.insert(id, ack);
                    }
                    Some(Ok(_)) => {}
                    _ => return,
                }
            }
        }
    }

    fn answer(&self, method: &str, token: &str, body: &Value) -> Result<Value, strict::Refusal> {
        let right = if method == "apps.connections.open" { APP_TOKEN } else { BOT_TOKEN };
        if token != format!("Bearer {right}") {
            return Err(("invalid_auth", String::new()));
        }
        let mut seen = self.seen();
        let known = |channel: &Value| match channel == CHANNEL
            || channel.as_str().is_some_and(|it| it.starts_with('D'))
        {
            true => Ok(()),
            false => Err(("channel_not_found", String::new())),
        };
        Ok(match method {
            "auth.test" => json!({"user_id": "U0BOT", "bot_id": "B1", "team_id": "T1"}),
            "conversations.open" => {
                json!({"channel": {"id": format!("D{}", body["users"].as_str().unwrap())}})
            }
            "apps.connections.open" => {
                seen.count += 1;
                let ticket = format!("ticket={}", seen.count);
                seen.tickets.insert(ticket.clone());
                json!({"url": format!("ws://{}/link/?{ticket}", self.socket)})
            }
            "chat.postMessage" => {
                strict::message(body, &["channel"])?;
                known(&body["channel"])?;
                seen.count += 1;
                let mut message = body.clone();
                message["ts"] = json!(format!("1503435956.{:06}", seen.count));
                let answer = json!({"channel": message["channel"], "ts": message["ts"], "message": message});
                seen.messages.push(message);
                answer
            }
            "chat.update" => {
                strict::message(body, &["channel", "ts"])?;
                let missing = ("message_not_found", String::new());
                let message = seen.messages.iter_mut().find(|it| it["ts"] == body["ts"]).ok_or(missing)?;
                for name in ["text", "blocks"] {
                    message[name] = body[name].clone();
                }
                json!({"channel": body["channel"], "ts": body["ts"], "text": body["text"]})
            }
            "chat.postEphemeral" => {
                strict::message(body, &["channel", "user"])?;
                known(&body["channel"])?;
                seen.whispers.push(body.clone());
                json!({"message_ts": "1503435957.000001"})
            }
            "views.open" => {
                strict::view(&body["view"])?;
                let trigger = body["trigger_id"].as_str().unwrap_or_default();
                match seen.triggers.insert(trigger.to_owned(), true) {
                    None => return Err(("invalid_trigger_id", trigger.into())),
                    Some(true) => return Err(("exchanged_trigger_id", trigger.into())),
                    Some(false) => {}
                }
                let mut view = body["view"].clone();
                view["id"] = json!(format!("V{:08}", seen.views.len() + 1));
                seen.views.push(view.clone());
                json!({"view": view})
            }
            "conversations.history" => {
                known(&body["channel"])?;
                let mut messages: Vec<Value> = seen
                    .messages
                    .iter()
                    .rev()
                    .filter(|it| it["channel"] == body["channel"])
                    .cloned()
                    .collect();
                for message in &mut messages {
                    if body["include_all_metadata"] != "true" && body["include_all_metadata"] != "1" {
                        message["metadata"].take();
                    }
                }
                json!({"messages": messages, "has_more": false})
            }
            other => return Err(("unknown_method", other.to_owned())),
        })
    }
}

/// One call, with its arguments as JSON, as a form or in the query; reading methods take no JSON.
async fn method(
    State(fake): State<Arc<Fake>>,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let of = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    let form = |raw: &[u8]| -> Value {
        let pairs: Map<String, Value> =
            reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8_lossy(raw)))
                .unwrap()
                .query_pairs()
                .map(|(name, value)| (name.into_owned(), json!(value)))
                .collect();
        Value::Object(pairs)
    };
    let body = match of("content-type").starts_with("application/json") {
        true if method == "conversations.history" => Value::Null,
        true => serde_json::from_slice(&body).unwrap_or_default(),
        false if body.is_empty() => form(query.unwrap_or_default().as_bytes()),
        false => form(&body),
    };
    fake.seen().calls.push(method.clone());
    let fault = {
        let mut seen = fake.seen();
        let at = seen.faults.iter().position(|(of, _)| *of == method);
        at.and_then(|at| seen.faults.remove(at)).map(|(_, fault)| fault)
    };
    let no = |code: &str| axum::Json(json!({"ok": false, "error": code})).into_response();
    match fault {
        Some(Fault::Says(code)) => return no(code),
        Some(Fault::Busy(seconds)) => {
            let wait = [("retry-after", seconds.to_string())];
            return (StatusCode::TOO_MANY_REQUESTS, wait, "").into_response();
        }
        Some(Fault::Lost) | None => {}
    }
    match fake.answer(&method, &of("authorization"), &body) {
        Ok(_) if fault == Some(Fault::Lost) => StatusCode::BAD_GATEWAY.into_response(),
        Ok(mut answer) => {
            answer["ok"] = json!(true);
            axum::Json(answer).into_response()
        }
        Err((code, why)) => {
            if !why.is_empty() && code != "exchanged_trigger_id" {
                fake.seen().refused.push(format!("{method}: {code}: {why}"));
            }
            no(code)
        }
    }
}

//! A model server with `/files` and `/batches` beside its chat completions, as OpenAI has them. When a batch is
//! done and how it ended is the test's to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::model_server::{fails, says};

/// How one question of a batch is answered.
pub enum Line {
    /// With this content.
    Says(&'static str),
    /// With this status and an error of this code.
    Fails(u16, &'static str),
    /// Not at all: the batch's error file has this code.
    Error(&'static str),
    /// Neither file has a line for it.
    Missing,
}

/// Answers the question that has this body.
type Answer = Box<dyn Fn(&Value) -> Line + Send + Sync>;

/// What goes wrong when a batch is begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// Nothing.
    Well,
    /// It begins, and the answer is lost.
    Unheard,
    /// It is refused with this status and code.
    Refused(u16, &'static str),
}

struct Inner {
    files: BTreeMap<String, Vec<u8>>,
    batches: Vec<Value>,
    begun: usize,
    chats: Vec<Value>,
    answer: Answer,
    status: &'static str,
    begin: Begin,
    lists: bool,
}

/// The server; it ends with the test's runtime.
pub struct BatchServer {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

type Shared = State<Arc<Mutex<Inner>>>;

impl BatchServer {
    pub async fn start(answer: impl Fn(&Value) -> Line + Send + Sync + 'static) -> Self {
        let inner = Arc::new(Mutex::new(Inner {
            files: BTreeMap::new(),
            batches: Vec::new(),
            begun: 0,
            chats: Vec::new(),
            answer: Box::new(answer),
            status: "in_progress",
            begin: Begin::Well,
            lists: true,
        }));
        let router = Router::new()
            .route("/v1/files", post(upload))
            .route("/v1/files/{id}", axum::routing::delete(remove))
            .route("/v1/files/{id}/content", get(content))
            .route("/v1/batches", post(begin).get(list))
            .route("/v1/batches/{id}", get(look))
            .route("/v1/batches/{id}/cancel", post(look))
            .route("/v1/chat/completions", post(chat))
            .with_state(inner.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, inner }
    }

    /// From now on batches that are looked at stand so: `completed`, `expired`, `failed`, `cancelled`.
    pub fn end(&self, status: &'static str) {
        self.inner.lock().unwrap().status = status;
    }

    /// What happens to batches that are to begin.
    pub fn begin(&self, begin: Begin) {
        self.inner.lock().unwrap().begin = begin;
    }

    /// Batches cannot be listed.
    pub fn lists_none(&self) {
        self.inner.lock().unwrap().lists = false;
    }

    /// The questions of each batch that has begun.
    pub fn batches(&self) -> Vec<Vec<Value>> {
        let inner = self.inner.lock().unwrap();
        inner.batches.iter().map(|batch| questions(&inner.files, batch)).collect()
    }

    /// How many batches have begun.
    pub fn begun(&self) -> usize {
        self.inner.lock().unwrap().begun
    }

    /// The bodies of the ordinary calls.
    pub fn chats(&self) -> Vec<Value> {
        self.inner.lock().unwrap().chats.clone()
    }

    /// How many files are left.
    pub fn files(&self) -> usize {
        self.inner.lock().unwrap().files.len()
    }

    /// Whether anything was given over.
    pub fn untouched(&self) -> bool {
        let inner = self.inner.lock().unwrap();
        inner.files.is_empty() && inner.batches.is_empty()
    }

    /// `config/models.yaml` with this server, whose batches go soon.
    pub fn models(&self) -> Value {
        let price = json!({"input": "1.00 USD", "output": "2.00 USD"});
        json!({
            "providers": {"test": {"base_url": format!("http://{}/v1", self.address), "timeout": "5s", "batch": true,
                "batch_within": "400ms", "batch_look": "200ms"}},
            "models": {"test-model": {"provider": "test", "id": "test-1", "price": price}},
            "tiers": {"draft": ["test-model", "owner"], "local": ["encoder", "owner"], "final": ["test-model", "owner"]}})
    }
}

fn questions(files: &BTreeMap<String, Vec<u8>>, batch: &Value) -> Vec<Value> {
    let file = files.get(batch["input_file_id"].as_str().unwrap());
    let text = String::from_utf8_lossy(file.map_or(&[][..], |file| file)).into_owned();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

async fn upload(State(inner): Shared, body: Bytes) -> Response {
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("name=\"purpose\"\r\n\r\nbatch\r\n"), "{text}");
    let (_, rest) = text.split_once("name=\"file\"").unwrap();
    let (_, rest) = rest.split_once("\r\n\r\n").unwrap();
    let (lines, _) = rest.rsplit_once("\r\n--").unwrap();
    let mut inner = inner.lock().unwrap();
    let id = format!("file-in-{}", inner.files.len() + inner.batches.len() + 1);
    inner.files.insert(id.clone(), lines.as_bytes().to_vec());
    Json(json!({"id": id, "object": "file", "purpose": "batch", "status": "processed"})).into_response()
}

async fn begin(State(inner): Shared, Json(wanted): Json<Value>) -> Response {
    let mut inner = inner.lock().unwrap();
    if let Begin::Refused(status, code) = inner.begin {
        return fails(status, code);
    }
    assert_eq!(
        (&wanted["endpoint"], &wanted["completion_window"]),
        (&json!("/v1/chat/completions"), &json!("24h"))
    );
    assert!(inner.files.contains_key(wanted["input_file_id"].as_str().unwrap()));
    inner.begun += 1;
    let batch = json!({"id": format!("batch-{}", inner.begun), "object": "batch", "status": "validating",
        "input_file_id": wanted["input_file_id"], "metadata": wanted["metadata"],
        "created_at": jiff::Timestamp::now().as_second()});
    inner.batches.push(batch.clone());
    if inner.begin == Begin::Unheard {
        return (StatusCode::BAD_GATEWAY, "it went on its way").into_response();
    }
    Json(batch).into_response()
}

async fn list(State(inner): Shared, Query(_): Query<BTreeMap<String, String>>) -> Response {
    let inner = inner.lock().unwrap();
    if !inner.lists {
        return fails(404, "not_found");
    }
    let newest: Vec<&Value> = inner.batches.iter().rev().collect();
    Json(json!({"object": "list", "data": newest, "has_more": false})).into_response()
}

async fn look(State(inner): Shared, Path(id): Path<String>) -> Response {
    let mut inner = inner.lock().unwrap();
    let Some(place) = inner.batches.iter().position(|batch| batch["id"] == id.as_str()) else {
        return fails(404, "not_found");
    };
    let mut batch = inner.batches[place].clone();
    batch["status"] = json!(inner.status);
    match inner.status {
        "failed" => {
            batch["errors"] = json!({"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]});
        }
        "in_progress" => {}
        _ if batch["output_file_id"].is_null() => {
            let (mut output, mut errors) = (String::new(), String::new());
            for question in questions(&inner.files, &batch) {
                let answered = |status: u16, body: Value| {
                    json!({"id": "r", "custom_id": question["custom_id"], "error": null,
                        "response": {"status_code": status, "request_id": "q", "body": body}})
                };
                match (inner.answer)(&question["body"]) {
                    Line::Says(content) => output += &format!("{}\n", answered(200, completion(content))),
                    Line::Fails(status, code) => {
                        let error = json!({"error": {"message": code, "type": code, "code": code}});
                        errors += &format!("{}\n", answered(status, error));
                    }
                    Line::Error(code) => {
                        let line = json!({"id": "r", "custom_id": question["custom_id"], "response": null,
                            "error": {"code": code, "message": "as scripted"}});
                        errors += &format!("{line}\n");
                    }
                    Line::Missing => {}
                }
            }
            for (name, text) in [("output_file_id", output), ("error_file_id", errors)] {
                let file = format!("file-{name}-{id}");
                batch[name] = json!(file);
                inner.files.insert(file, text.into_bytes());
            }
            inner.batches[place] = batch.clone();
        }
        _ => {}
    }
    Json(batch).into_response()
}

async fn content(State(inner): Shared, Path(id): Path<String>) -> Response {
    let file = inner.lock().unwrap().files.get(&id).cloned();
    file.map_or_else(|| fails(404, "not_found"), IntoResponse::into_response)
}

async fn remove(State(inner): Shared, Path(id): Path<String>) -> Response {
    inner.lock().unwrap().files.remove(&id);
    Json(json!({"id": id, "object": "file", "deleted": true})).into_response()
}

async fn chat(State(inner): Shared, Json(question): Json<Value>) -> Response {
    inner.lock().unwrap().chats.push(question);
    says(r#"{"text": "at once"}"#)
}

fn completion(content: &str) -> Value {
    json!({"id": "c", "object": "chat.completion", "created": 1, "model": "test-1-2026",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}})
}

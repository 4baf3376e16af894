//! A model server that answers by a script, one line per request, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use url::Url;

/// What the server does with one request.
#[derive(Clone)]
pub(super) enum Line {
    /// A whole HTTP answer: status, further headers, body.
    Http(u16, String, String),
    /// These bytes, then the connection closes.
    Raw(String),
    /// The beginning of a header, then nothing for ever.
    SlowHeaders,
    /// Nothing at all.
    Silence,
    /// A good status and a body of this many bytes.
    Huge(usize),
    /// A good answer, one byte at a time with this pause between them.
    Trickle(String, Duration),
    /// A good stream, one byte at a time with this pause between them.
    Drip(String, Duration),
    /// A whole HTTP answer once the test says so.
    Held(Arc<Notify>, String),
}

impl Line {
    /// A usual good answer with this content.
    pub(super) fn says(content: &str) -> Self {
        Self::completion(json!({"content": content}), json!("stop"))
    }

    pub(super) fn completion(message: Value, finish: Value) -> Self {
        let body = json!({"id": "c1", "object": "chat.completion", "created": 1, "model": "mini-2026-01",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}});
        Self::Http(200, String::new(), body.to_string())
    }

    pub(super) fn status(status: u16) -> Self {
        Self::Http(status, String::new(), r#"{"error": {"message": "as scripted"}}"#.into())
    }

    /// A refusal with this code, as OpenAI words it.
    pub(super) fn error(status: u16, headers: &str, code: &str) -> Self {
        let body = json!({"error": {"message": code, "type": code, "code": code, "param": null}});
        Self::Http(status, headers.into(), body.to_string())
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) head: String,
    pub(super) body: Value,
}

pub(super) struct Server {
    pub(super) url: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(super) async fn with(script: Vec<Line>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (Arc::clone(&asked), Arc::new(Mutex::new(VecDeque::from(script))));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { url, asked }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<VecDeque<Line>>>, log: Arc<Mutex<Vec<Asked>>>) {
    let Some(asked) = read(&mut stream).await else { return };
    log.lock().unwrap().push(asked);
    let line = script.lock().unwrap().pop_front().unwrap_or_else(|| Line::status(599));
    let bytes = match line {
        Line::Http(status, headers, body) => format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ),
        Line::Held(go, body) => {
            go.notified().await;
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        }
        Line::Trickle(body, pause) => {
            let head = format!("content-length: {}", body.len());
            return one_by_one(&mut stream, &head, &body, pause).await;
        }
        Line::Drip(body, pause) => {
            return one_by_one(&mut stream, "content-type: text/event-stream", &body, pause).await;
        }
        Line::Raw(bytes) => bytes,
        Line::SlowHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-ty").await.unwrap();
            return std::future::pending().await;
        }
        Line::Silence => return std::future::pending().await,
        Line::Huge(length) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let chunk = vec![b' '; 64 * 1024];
            // The client hangs up long before the end.
            while stream.write_all(&chunk).await.is_ok() {}
            return;
        }
    };
    let _ = stream.write_all(bytes.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn one_by_one(stream: &mut TcpStream, head: &str, body: &str, pause: Duration) {
    let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
    for byte in body.bytes() {
        tokio::time::sleep(pause).await; // this is the fault itself
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 8192];
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
        if bytes.len() >= end + 4 + length {
            let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default();
            return Some(Asked { head, body });
        }
    }
}

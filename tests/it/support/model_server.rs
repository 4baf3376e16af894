//! A model server on loopback that speaks the OpenAI wire format; what it answers is the test's to say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

/// Answers one request of the chat completions or the embeddings interface.
pub type Answer = Box<dyn Fn(&Value) -> Response + Send + Sync>;

/// The server; it ends with the test's runtime.
pub struct ModelServer {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl ModelServer {
    pub async fn start(answer: Answer) -> Self {
        let requests: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        let complete = move |body: Bytes| {
            let (seen, answer) = (seen.clone(), answer.clone());
            async move {
                let request: Value = serde_json::from_slice(&body).unwrap();
                seen.lock().unwrap().push(request.clone());
                answer(&request)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/v1/chat/completions", post(complete.clone()))
            .route("/v1/embeddings", post(complete));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, requests }
    }

    /// Every request so far, as it came.
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().clone()
    }

    /// `config/models.yaml` that asks this server first.
    pub fn models_yaml(&self) -> String {
        format!(
            "providers:\n  test:\n    base_url: http://{}/v1\n    timeout: 5s\n\
             models:\n  test-model: {{ provider: test, id: test-1, price: {{ input: 1.00 USD, output: 2.00 USD }} }}\n\
             tiers:\n  local: [encoder, owner]\n  draft: [test-model, owner]\n  final: [test-model, owner]\n",
            self.address
        )
    }
}

/// A whole answer whose content is this text.
pub fn says(content: &str) -> Response {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "test-1-2026",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    });
    axum::Json(body).into_response()
}

/// Vectors for the texts of a request: a coordinate for each theme that a text has a word of (words of a theme
/// are divided by `|`), and one that all have, so that none is nothing. `size` coordinates in all.
pub fn embeds(request: &Value, themes: &[&str], size: usize) -> Response {
    let vector = |text: &Value| {
        let text = text.as_str().unwrap().to_lowercase();
        let has = |theme: &&str| theme.split('|').any(|word| text.contains(word));
        let mut vector: Vec<f32> = themes.iter().map(|theme| f32::from(u8::from(has(theme)))).collect();
        vector.push(0.05);
        vector.resize(size, 0.0);
        vector
    };
    let texts = texts(request);
    let item = |(index, text)| json!({"object": "embedding", "index": index, "embedding": vector(text)});
    let data: Vec<Value> = texts.iter().enumerate().map(item).collect();
    let tokens = 10 * texts.len();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    axum::Json(json!({"object": "list", "data": data, "model": request["model"], "usage": usage}))
        .into_response()
}

/// The texts that a request wants embedded.
pub fn texts(request: &Value) -> &[Value] {
    request["input"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// An error as providers word it.
pub fn fails(status: u16, code: &str) -> Response {
    let body = json!({"error": {"message": code, "type": code, "code": code, "param": null}});
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

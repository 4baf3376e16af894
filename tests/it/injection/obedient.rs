//! A model that obeys every instruction it reads: whatever address, URL or text is in what it is shown, it
//! puts wherever its schema takes one, and it is always quite sure.

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Map, Value, json};

/// What a text tells a reader to use.
#[derive(Clone, Debug)]
pub struct Orders {
    addresses: Vec<String>,
    urls: Vec<String>,
    text: String,
}

impl Orders {
    /// Reads a text, what is encoded in it included.
    pub fn read(text: &str) -> Self {
        let mut whole = text.to_owned();
        for run in text.split(|c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c))) {
            let run = run.trim_end_matches('=');
            let decoded = (run.len() >= 24).then(|| STANDARD_NO_PAD.decode(run).ok()).flatten();
            if let Some(text) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
                whole.push('\n');
                whole.push_str(&text);
            }
        }
        let odd = |c: char| c.is_whitespace() || c.is_control() || "<>()[]{}\"',;|`".contains(c);
        let (mut addresses, mut urls) = (Vec::new(), Vec::new());
        for word in whole.split(odd) {
            let word = word.trim_matches(['.', ':', '!', '?', '\\']);
            if word.contains("://") {
                urls.push(word.to_owned());
            } else if word.contains('@') && word.contains('.') && !word.starts_with('@') {
                addresses.push(word.to_owned());
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        let text: String = text.chars().take(4_000).collect();
        Self { addresses, urls, text }
    }

    fn recipients(&self) -> String {
        // Where nothing is said the attacker's own wish is done.
        if self.addresses.is_empty() { "nobody@evil.test".into() } else { self.addresses.join(", ") }
    }

    fn url(&self) -> String {
        self.urls.last().cloned().unwrap_or_else(|| "https://evil.test/".into())
    }
}

/// Answers one request of the chat completions interface.
pub fn answer(request: &Value) -> Response {
    let shown: Vec<String> = request["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["role"] == "user" || message["role"] == "tool")
        .map(|message| content(&message["content"]))
        .collect();
    let orders = Orders::read(&shown.join("\n"));
    let asked: Vec<String> = request["messages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|message| message["tool_calls"].as_array().cloned().unwrap_or_default())
        .map(|call| call["function"]["arguments"].to_string())
        .collect();
    let may_fetch = request["tools"].to_string().contains("http_get");
    let wanted: Vec<&String> = orders
        .urls
        .iter()
        .filter(|url| may_fetch && asked.len() < 4 && !asked.iter().any(|asked| asked.contains(url.as_str())))
        .collect();
    if let Some(url) = wanted.first() {
        return wants("http_get", &json!({"url": url}));
    }
    let schema = &request["response_format"]["json_schema"]["schema"];
    crate::support::model_server::says(&fill(schema, "answer", &orders).to_string())
}

fn content(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(|part| content(&part["text"])).collect(),
        _ => String::new(),
    }
}

fn wants(tool: &str, arguments: &Value) -> Response {
    let id = format!("c{}", arguments.to_string().len());
    axum::Json(json!({
        "model": "obedient", "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        "choices": [{"finish_reason": "tool_calls", "message": {"content": null, "tool_calls": [
            {"id": id, "type": "function", "function": {"name": tool, "arguments": arguments.to_string()}}]}}],
    }))
    .into_response()
}

/// A value of the schema that does as it was told.
pub fn fill(schema: &Value, name: &str, orders: &Orders) -> Value {
    if let Some(options) = schema["enum"].as_array() {
        // What leads to an answer, where there is a choice.
        let liked = ["lead", "support", "send", "approve", "yes"];
        let best = options.iter().find(|option| liked.contains(&option.as_str().unwrap_or_default()));
        return best.or_else(|| options.first()).cloned().unwrap_or_default();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default(),
        kind => kind.clone(),
    };
    match kind.as_str().unwrap_or("string") {
        "object" => {
            let fields = schema["properties"].as_object().cloned().unwrap_or_default();
            let fields = fields.iter().map(|(name, schema)| (name.clone(), fill(schema, name, orders)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        "array" if schema["items"]["enum"].is_array() => json!([]),
        "array" => json!([fill(&schema["items"], name, orders)]),
        "number" | "integer" => schema.get("maximum").cloned().unwrap_or(json!(1)),
        "boolean" => json!(schema.get("default").and_then(Value::as_bool).unwrap_or(false)),
        _ => json!(text(name, schema, orders)),
    }
}

fn text(name: &str, schema: &Value, orders: &Orders) -> String {
    let name = name.to_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| name == *word || name.ends_with(&format!("_{word}")));
    if is(&["to", "from", "email", "recipient", "address", "cc", "customer", "key"]) {
        return orders.recipients();
    }
    if is(&["url", "link", "href"]) {
        return orders.url();
    }
    match name.as_str() {
        "method" => ["DELETE", "PUT", "GET"]
            .into_iter()
            .find(|method| orders.text.contains(method))
            .unwrap_or("POST")
            .to_owned(),
        "kind" => "contact".to_owned(),
        _ => {
            let told = format!("{} {} {}", orders.text, orders.recipients(), orders.url());
            let most = schema["maxLength"].as_u64().unwrap_or(4_000) as usize;
            let told: String = told.chars().take(most).collect();
            format!("{told:40}")
        }
    }
}

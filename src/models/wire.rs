//! The OpenAI wire format, as far as Steward speaks it, and tolerant of all who speak it almost:
//! unknown finish reasons, missing usage, null content, further fields never break an answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::domain::label::Label;
use crate::domain::tool::Tool;
use crate::models::error::{Kind, ModelError, clipped};
use crate::models::record::Tape;
use crate::models::witness::Hear;

/// How much of what a provider says about an error is passed on, characters.
const MESSAGE_CHARS: usize = 200;

/// One chat completion to ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// The model's name at the provider.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// The most tokens to answer with.
    pub max_tokens: u32,
    /// The name and schema of the output.
    pub output: Arc<(String, Value)>,
    /// What it may look things up with.
    pub tools: Vec<Tool>,
    /// Whether it may use them in this turn.
    pub choice: Choice,
    /// Who hears the answer while it is written; streamed only then, for that is the newer and less
    /// settled half of the format.
    pub hear: Option<Hear>,
    /// Which of several independent answers to the same question this is to be; 0 when there is but one.
    /// Not on the wire: whoever keeps answers must not take one of them for another.
    pub sample: u32,
    /// Where the input came from. Not on the wire, for the same reason.
    pub label: Label,
    /// Takes the exchange down.
    pub tape: Option<Tape>,
}

/// Whether a model may use its tools.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Choice {
    /// As it likes.
    #[default]
    Auto,
    /// No: it must answer.
    None,
}

/// One message of a conversation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Message {
    pub role: &'static str,
    pub content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    pub(crate) fn new(role: &'static str, content: String) -> Self {
        Self { role, content, tool_calls: Vec::new(), tool_call_id: None }
    }

    /// A model's own words when it asked for tools.
    pub(crate) fn wanting(content: String, calls: &[Wanted]) -> Self {
        Self { tool_calls: calls.iter().map(Wanted::echoed).collect(), ..Self::new("assistant", content) }
    }

    /// What a tool gave.
    pub(crate) fn told(id: &str, content: String) -> Self {
        Self { tool_call_id: Some(id.to_owned()), ..Self::new("tool", content) }
    }
}

/// A tool that a model asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    /// How the answer refers to it.
    pub id: String,
    /// The tool, as the model names it.
    pub name: String,
    /// Its arguments, as they came: a text that should be JSON.
    pub raw: String,
}

impl Wanted {
    /// One of `tool_calls`. Some servers give no id, some arguments that are JSON already.
    fn read(index: usize, call: &Value) -> Self {
        let function = &call["function"];
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let raw = match &function["arguments"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Self {
            id: text(&call["id"]).unwrap_or_else(|| format!("call_{index}")),
            name: text(&function["name"]).unwrap_or_default(),
            raw,
        }
    }

    /// Its arguments; none at all are an empty object.
    pub(crate) fn arguments(&self) -> Result<Value, String> {
        match self.raw.trim() {
            "" => Ok(json!({})),
            text => serde_json::from_str(text).map_err(|error| error.to_string()),
        }
    }

    /// As the model is shown its own call again. Broken JSON is not: some servers read it.
    fn echoed(&self) -> Value {
        let arguments =
            if self.arguments().is_ok() && !self.raw.trim().is_empty() { &self.raw } else { "{}" };
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}})
    }
}

/// A tool as a model is told it.
fn offered(tool: Tool) -> Value {
    json!({"type": "function", "function": {
        "name": tool.name().replace('.', "_"),
        "description": tool.about(),
        "parameters": tool.arguments(),
    }})
}

/// What differs between those who speak the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dialect {
    /// `response_format: json_schema` is understood.
    pub json_schema: bool,
    /// The limit is called `max_completion_tokens`: OpenAI's reasoning models refuse the older
    /// `max_tokens`, which is the only one that many other servers know.
    pub completion_tokens: bool,
}

impl Request {
    /// Whether tools have had a part in it.
    pub(crate) fn has_looked_up(&self) -> bool {
        self.messages.iter().any(|message| message.role == "tool")
    }

    /// The request's body.
    pub(crate) fn body(&self, dialect: Dialect) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), json!(self.model));
        body.insert("messages".into(), json!(self.messages));
        body.insert("stream".into(), json!(self.hear.is_some()));
        if self.hear.is_some() {
            body.insert("stream_options".into(), json!({"include_usage": true}));
        }
        if !self.tools.is_empty() {
            body.insert("tools".into(), self.tools.iter().map(|tool| offered(*tool)).collect());
            let choice = if self.choice == Choice::Auto { "auto" } else { "none" };
            body.insert("tool_choice".into(), json!(choice));
        }
        let limit = if dialect.completion_tokens { "max_completion_tokens" } else { "max_tokens" };
        body.insert(limit.into(), json!(self.max_tokens));
        if dialect.json_schema {
            let (name, schema) = &*self.output;
            // Not strict: strict mode knows only a part of JSON Schema and refuses the rest.
            let format = json!({"name": name, "schema": schema, "strict": false});
            body.insert("response_format".into(), json!({"type": "json_schema", "json_schema": format}));
        }
        Value::Object(body)
    }
}

/// One answer. Reading it never fails on well-formed JSON: what is missing or strange is absent.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(crate) struct Reply {
    /// The answer's text, if it has any.
    pub text: String,
    /// What the model says when it declines.
    pub refusal: Option<String>,
    /// Why it stopped.
    pub finish: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// What the model wants to look up before it answers.
    pub tool_calls: Vec<Wanted>,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// An error sent with status 200, as some routers do: its code and text.
    pub error: Option<(Option<u16>, String)>,
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        let choice = &value["choices"][0];
        let message = &choice["message"];
        let text = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
        let tokens = |name: &str| value["usage"][name].as_u64().unwrap_or(0);
        let code = value["error"]["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        Self {
            text: content(&message["content"]),
            refusal: text(&message["refusal"]),
            finish: text(&choice["finish_reason"]),
            model: text(&value["model"]),
            tool_calls: wanted(&message["tool_calls"]),
            input_tokens: tokens("prompt_tokens"),
            output_tokens: tokens("completion_tokens"),
            error: value
                .get("error")
                .filter(|error| !error.is_null())
                .map(|error| (code, error_text(error).unwrap_or_default())),
        }
    }
}

fn wanted(calls: &Value) -> Vec<Wanted> {
    let calls = calls.as_array().into_iter().flatten().enumerate();
    calls.filter(|(_, call)| call.is_object()).map(|(index, call)| Wanted::read(index, call)).collect()
}

/// A message's content: a text, or a list of parts of which some are texts.
fn content(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

impl Reply {
    /// Whether the model wants to look something up.
    pub(crate) fn wants_tools(&self) -> bool {
        self.error.is_none() && !self.tool_calls.is_empty()
    }

    /// The answer's text, or why there is none.
    pub(crate) fn answer(&self) -> Result<&str, ModelError> {
        if let Some((code, text)) = &self.error {
            return Err(from_status(code.unwrap_or(500), None, text));
        }
        if let Some(refusal) = &self.refusal {
            return Err(ModelError::new(
                Kind::Refused,
                format!("it declined: {}", clipped(refusal, MESSAGE_CHARS)),
            ));
        }
        match self.finish.as_deref() {
            Some("content_filter") => Err(ModelError::new(Kind::Refused, "the provider's filter stopped it")),
            Some("length") if self.text.trim().is_empty() => {
                Err(ModelError::new(Kind::Invalid, "it used up `max_tokens` before it answered"))
            }
            _ if self.text.trim().is_empty() => Err(ModelError::new(Kind::Empty, "it answered with nothing")),
            _ => Ok(&self.text),
        }
    }
}

/// The error behind an HTTP status and the body that came with it.
pub(crate) fn from_body(status: u16, body: &[u8]) -> ModelError {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &parsed["error"];
    let code = ["code", "type"].iter().find_map(|key| error[*key].as_str());
    // A body that is no JSON is some proxy's page; its words help nobody.
    let text = error_text(error).or_else(|| error_text(&parsed)).unwrap_or_default();
    from_status(status, code, &text)
}

fn error_text(error: &Value) -> Option<String> {
    error.as_str().or_else(|| error["message"].as_str()).map(|text| clipped(text, MESSAGE_CHARS))
}

/// The codes that OpenAI and others send with 429 when waiting will not help.
const EXHAUSTED: [&str; 3] = ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"];

fn from_status(status: u16, code: Option<&str>, text: &str) -> ModelError {
    let (kind, what) = match status {
        _ if code.is_some_and(|code| EXHAUSTED.contains(&code)) => {
            (Kind::Permanent, "the account is exhausted")
        }
        401 | 403 => (Kind::Permanent, "the key was refused"),
        402 => (Kind::Permanent, "the account is exhausted"),
        408 => (Kind::Timeout, "the provider gave up waiting"),
        429 => (Kind::RateLimited, "too many requests"),
        500.. => (Kind::Unavailable, "the provider failed"),
        _ => (Kind::Rejected, "the provider refused the request"),
    };
    let said = if text.is_empty() { String::new() } else { format!(": {}", clipped(text, MESSAGE_CHARS)) };
    ModelError::new(kind, format!("{what} ({status}){said}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whatever_is_missing_or_strange_is_absent_and_the_rest_is_read() {
        let reply = Reply::from(json!({"choices": [{"finish_reason": 7, "message": {"content":
            [{"type": "text", "text": "{}"}, {"type": "image"}], "reasoning": "hm", "refusal": null}}],
            "usage": null, "model": ["x"]}));
        assert_eq!(reply, Reply { text: "{}".into(), ..Reply::default() });
        for value in [json!(null), json!([]), json!({"choices": {}}), json!({"choices": [{"message": null}]})]
        {
            assert_eq!(Reply::from(value).answer().unwrap_err().kind, Kind::Empty);
        }
    }

    #[test]
    fn each_status_says_what_follows() {
        let quota = br#"{"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}}"#;
        for (status, body, kind) in [
            (429, &b"slow down"[..], Kind::RateLimited),
            (429, quota, Kind::Permanent),
            (401, b"", Kind::Permanent),
            (503, b"<html>", Kind::Unavailable),
            (404, b"{\"error\": \"model 'x' not found\"}", Kind::Rejected),
            (301, b"", Kind::Rejected),
        ] {
            assert_eq!(from_body(status, body).kind, kind, "{status}");
        }
        assert!(from_body(404, b"{\"error\": \"model 'x' not found\"}").message.contains("not found"));
        assert!(!from_body(503, b"<html>").message.contains("html"));
    }

    proptest! {
        #[test]
        fn no_error_body_breaks_the_reading(status in 300u16..600, body in "[{}\":a-z,\\[\\]]{0,40}") {
            prop_assert!(!from_body(status, body.as_bytes()).message.is_empty());
        }
    }
}

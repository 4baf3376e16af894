//! The OpenAI wire format, as far as Steward speaks it, and tolerant of all who speak it almost:
//! unknown finish reasons, missing usage, null content, further fields never break an answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::models::Provider;
use crate::domain::label::Label;
use crate::domain::tool::Tool;
use crate::models::error::{Kind, ModelError, clipped};
use crate::models::record::Tape;
use crate::models::vectors;
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
    /// The name and schema of the output; any text will do when there is none.
    pub output: Option<Arc<(String, Value)>>,
    /// On whose behalf: calls of one lane wait behind each other, lanes take turns.
    pub lane: Arc<str>,
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
    /// Texts to embed: with these it is no conversation, and `messages` are empty.
    pub texts: Vec<String>,
    /// How many coordinates their vectors are to have, if that is to be asked for.
    pub dimensions: Option<u32>,
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
    /// A stream ends with its usage when `stream_options` ask for it.
    pub stream_usage: bool,
}

impl Dialect {
    /// What this provider speaks.
    pub(crate) fn of(provider: &Provider) -> Self {
        Self {
            json_schema: provider.json_schema,
            completion_tokens: provider.is_openai(),
            stream_usage: provider.stream_usage,
        }
    }
}

impl Request {
    /// Whether tools have had a part in it.
    pub(crate) fn has_looked_up(&self) -> bool {
        self.messages.iter().any(|message| message.role == "tool")
    }

    /// The request's body.
    pub(crate) fn body(&self, dialect: Dialect) -> Value {
        if !self.texts.is_empty() {
            return vectors::body(self);
        }
        let mut body = Map::new();
        body.insert("model".into(), json!(self.model));
        body.insert("messages".into(), json!(self.messages));
        body.insert("stream".into(), json!(self.hear.is_some()));
        if self.hear.is_some() && dialect.stream_usage {
            body.insert("stream_options".into(), json!({"include_usage": true}));
        }
        if !self.tools.is_empty() {
            body.insert("tools".into(), self.tools.iter().map(|tool| offered(*tool)).collect());
            let choice = if self.choice == Choice::Auto { "auto" } else { "none" };
            body.insert("tool_choice".into(), json!(choice));
        }
        let limit = if dialect.completion_tokens { "max_completion_tokens" } else { "max_tokens" };
        body.insert(limit.into(), json!(self.max_tokens));
        if let Some(output) = self.output.as_ref().filter(|_| dialect.json_schema) {
            let (name, schema) = &**output;
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
    /// Vectors, in the order of their texts; what was no number in them is none here, either.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read, those from the provider's cache among them.
    pub input_tokens: u64,
    /// Tokens read from the provider's own prompt cache.
    pub cached_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Which of the counts were missing, and stand for an estimate once [`Reply::complete`] was called.
    pub uncounted: Uncounted,
    /// An error sent with status 200, as some routers do.
    pub error: Option<ModelError>,
}

/// What a provider did not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Uncounted {
    /// The tokens read.
    pub read: bool,
    /// The tokens written.
    pub written: bool,
}

/// The tokens that are paid for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Usage {
    /// Read, those from the provider's cache among them.
    pub read: u64,
    /// Read from the provider's cache.
    pub cached: u64,
    /// Written.
    pub written: u64,
    /// Some of it is an estimate.
    pub estimated: bool,
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        let choice = &value["choices"][0];
        let message = &choice["message"];
        let text = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
        let usage = &value["usage"];
        // OpenAI's names first, then those of servers that translate from elsewhere.
        let read = count(usage, &["/prompt_tokens", "/input_tokens"]);
        let written = count(usage, &["/completion_tokens", "/output_tokens"]);
        let all = count(usage, &["/total_tokens"]);
        let read = read.or_else(|| all?.checked_sub(written?));
        let written = written.or_else(|| all?.checked_sub(read?));
        let cached = count(
            usage,
            &[
                "/prompt_tokens_details/cached_tokens",
                "/input_tokens_details/cached_tokens",
                "/prompt_cache_hit_tokens",
                "/cache_read_input_tokens",
            ],
        );
        Self {
            text: content(&message["content"]),
            refusal: text(&message["refusal"]),
            finish: text(&choice["finish_reason"]),
            model: text(&value["model"]),
            tool_calls: wanted(&message["tool_calls"]),
            vectors: vectors::read(&value["data"]),
            input_tokens: read.unwrap_or(0),
            cached_tokens: cached.unwrap_or(0).min(read.unwrap_or(0)),
            output_tokens: written.unwrap_or(0),
            uncounted: Uncounted { read: read.is_none(), written: written.is_none() },
            error: value.get("error").filter(|error| !error.is_null()).map(|error| {
                let status = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
                from_error(status.filter(|status| *status >= 300).unwrap_or(500), error)
            }),
        }
    }
}

fn wanted(calls: &Value) -> Vec<Wanted> {
    let calls = calls.as_array().into_iter().flatten().enumerate();
    calls.filter(|(_, call)| call.is_object()).map(|(index, call)| Wanted::read(index, call)).collect()
}

/// The first of these counts that is there; some servers write them with a decimal point.
fn count(usage: &Value, places: &[&str]) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not below zero; `as` saturates"
    )]
    let whole = |value: &Value| {
        value.as_u64().or_else(|| value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64))
    };
    places.iter().find_map(|place| usage.pointer(place).and_then(whole))
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
        if let Some(error) = &self.error {
            return Err(error.clone());
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

    /// What is paid for.
    pub(crate) fn usage(&self) -> Usage {
        let Uncounted { read, written } = self.uncounted;
        let estimated = read || written;
        Usage { read: self.input_tokens, cached: self.cached_tokens, written: self.output_tokens, estimated }
    }

    /// Puts an estimate where the provider did not count: rather too high than too low, for it is money.
    pub(crate) fn complete(&mut self, read: impl FnOnce() -> u64, written: impl FnOnce(&str) -> u64) {
        if self.uncounted.read {
            self.input_tokens = read();
        }
        if self.uncounted.written {
            let calls = self.tool_calls.iter().map(|call| call.name.as_str().to_owned() + &call.raw);
            self.output_tokens = written(&calls.fold(self.text.clone(), |all, call| all + &call));
        }
    }
}

/// The error behind an HTTP status and the body that came with it.
pub(crate) fn from_body(status: u16, body: &[u8]) -> ModelError {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    match &parsed["error"] {
        // Some servers leave the wrapping out. A body that is no JSON is some proxy's page; its words help nobody.
        Value::Null => from_error(status, &parsed),
        error => from_error(status, error),
    }
}

/// The error behind a status and an error object, or its bare text.
pub(super) fn from_error(status: u16, error: &Value) -> ModelError {
    let text = error.as_str().or_else(|| error["message"].as_str()).or_else(|| error["detail"].as_str());
    let codes: Vec<&str> = ["code", "type"].iter().filter_map(|key| error[*key].as_str()).collect();
    // OpenRouter's 403 for a question that a moderator took offence at: the key is as good as before.
    let flagged = ["flagged_input", "reasons"].iter().any(|key| !error["metadata"][*key].is_null());
    from_status(status, &codes, flagged, &clipped(text.unwrap_or_default(), MESSAGE_CHARS))
}

/// The codes that OpenAI and others send with 429 when waiting will not help.
const EXHAUSTED: [&str; 4] =
    ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"];

/// The codes that are about this model or this question, whatever the status: the account is not to blame.
const OF_THE_MODEL: [&str; 2] = ["model_not_found", "unsupported_model"];

/// The codes of a question that a filter stopped.
const FILTERED: [&str; 2] = ["content_filter", "content_policy_violation"];

fn from_status(status: u16, codes: &[&str], flagged: bool, text: &str) -> ModelError {
    let says = |known: &[&str]| codes.iter().any(|code| known.contains(code));
    let (kind, what) = match status {
        _ if says(&EXHAUSTED) => (Kind::Permanent, "the account is exhausted"),
        _ if flagged || says(&FILTERED) => (Kind::Refused, "the provider's filter stopped the question"),
        _ if says(&OF_THE_MODEL) => (Kind::Rejected, "the provider does not serve this model"),
        401 | 403 => (Kind::Permanent, "the key was refused"),
        402 => (Kind::Permanent, "the account is exhausted"),
        408 => (Kind::Timeout, "the provider gave up waiting"),
        429 => (Kind::RateLimited, "too many requests"),
        500.. => (Kind::Unavailable, "the provider failed"),
        _ => (Kind::Rejected, "the provider refused the request"),
    };
    let said = if text.is_empty() { String::new() } else { format!(": {text}") };
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
        let uncounted = Uncounted { read: true, written: true };
        assert_eq!(reply, Reply { text: "{}".into(), uncounted, ..Reply::default() });
        for value in [json!(null), json!([]), json!({"choices": {}}), json!({"choices": [{"message": null}]})]
        {
            assert_eq!(Reply::from(value).answer().unwrap_err().kind, Kind::Empty);
        }
    }

    #[test]
    fn tokens_are_read_under_every_name_and_derived_where_one_is_missing() {
        for (usage, read, cached, written, estimated) in [
            (
                json!({"prompt_tokens": 10, "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 8}}),
                10,
                8,
                3,
                false,
            ),
            (
                json!({"input_tokens": 10.0, "output_tokens": 3, "cache_read_input_tokens": 99}),
                10,
                10,
                3,
                false,
            ),
            (json!({"prompt_tokens": 10, "total_tokens": 13}), 10, 0, 3, false),
            (json!({"completion_tokens": 3, "prompt_tokens": null, "total_tokens": 13}), 10, 0, 3, false),
            (json!({"prompt_tokens": 10, "total_tokens": 4}), 10, 0, 77, true),
            (json!({"prompt_tokens": -10, "completion_tokens": "many"}), 55, 0, 77, true),
            (json!(null), 55, 0, 77, true),
        ] {
            let mut reply = Reply::from(json!({"choices": [], "usage": usage}));
            reply.complete(|| 55, |_| 77);
            assert_eq!(reply.usage(), Usage { read, cached, written, estimated }, "{usage}");
        }
    }

    #[test]
    fn a_code_says_more_than_the_status() {
        let flagged = json!({"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"]}}});
        let error = |code: &str| json!({"error": {"code": code, "message": "m"}}).to_string();
        for (status, body, kind) in [
            (403, flagged.to_string(), Kind::Refused),
            (403, error("model_not_found"), Kind::Rejected),
            (400, error("content_filter"), Kind::Refused),
            (403, error("insufficient_quota"), Kind::Permanent),
            (402, r#"{"message": "pay"}"#.to_owned(), Kind::Permanent),
        ] {
            assert_eq!(from_body(status, body.as_bytes()).kind, kind, "{status} {body}");
        }
        let inside = Reply::from(json!({"error": {"code": "insufficient_quota", "message": "m"}}));
        assert_eq!(inside.answer().unwrap_err().kind, Kind::Permanent);
        let busy = Reply::from(json!({"error": {"code": 429, "message": "slow"}, "choices": []}));
        assert_eq!(busy.answer().unwrap_err().kind, Kind::RateLimited);
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

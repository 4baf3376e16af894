//! `config/models.yaml`: who serves models, which models there are, and the tiers agents name.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::secret::{Secret, SecretRef};
use crate::domain::duration::Span;
use crate::domain::money::Money;
use crate::domain::tier::Link;

/// The whole file.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// Who serves models, by name.
    #[serde(default)]
    pub providers: BTreeMap<String, Provider>,
    /// The models, by the name that tiers use.
    #[serde(default)]
    pub models: BTreeMap<String, Model>,
    /// Ordered chains of models, by the name that agents use. Besides the models above a chain may
    /// name `encoder` (built in), `canned` (the agent's own canned output) and `owner` (a review).
    /// An entry is a name, or `{ model: NAME, when: CONDITION }`.
    #[schemars(with = "BTreeMap<String, Vec<LinkSchema>>")]
    pub tiers: BTreeMap<String, Vec<Link>>,
    /// The model that turns documents and questions into vectors, for the search by meaning; the built-in
    /// `encoder` when absent. When another one is named, all documents are embedded anew in the background;
    /// until that is done the model before answers, so leave it in `models` until then.
    #[serde(default)]
    pub embeddings: Option<String>,
}

/// The names in a chain that are not in `models`.
pub const BUILT_IN: [&str; 3] = [ENCODER, "canned", "owner"];

/// The built-in encoder's name.
pub const ENCODER: &str = "encoder";

/// The most coordinates of a vector: what the database's index takes (pgvector's limit for `halfvec`).
pub const MOST_DIMENSIONS: u32 = 4_000;

/// An OpenAI-compatible endpoint: OpenAI, Ollama, llama.cpp, vLLM, OpenRouter, LiteLLM and others.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Such as `https://api.openai.com/v1` or `http://localhost:11434/v1`.
    #[schemars(with = "String", extend("format" = "url"))]
    pub base_url: Url,
    /// The key, as `env:NAME` or `file:/path`. A provider whose key is not there is passed over.
    #[serde(default)]
    pub key: Option<SecretRef>,
    /// Further headers of every request: texts, or secrets as `env:NAME` or `file:/path`.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderText>,
    /// The organization that pays (OpenAI).
    #[serde(default)]
    pub organization: Option<String>,
    /// The project that pays (OpenAI).
    #[serde(default)]
    pub project: Option<String>,
    /// Calls under way at once.
    #[serde(default = "four")]
    pub concurrency: usize,
    /// Calls begun per minute; unlimited when absent.
    #[serde(default)]
    pub per_minute: Option<u32>,
    /// Tokens asked for per minute, those read and the most that may be written; unlimited when absent.
    #[serde(default)]
    pub tokens_per_minute: Option<u32>,
    /// How long one call may take, and how long it may wait in the queue before.
    #[serde(default = "a_minute")]
    #[schemars(with = "String", extend("format" = "span"))]
    pub timeout: Span,
    /// How long a connection may take to open.
    #[serde(default = "ten_seconds")]
    #[schemars(with = "String", extend("format" = "span"))]
    pub connect_timeout: Span,
    /// How long nothing at all may come, be it before the first byte or between two; `timeout` when absent.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub idle_timeout: Option<Span>,
    /// Whether it understands `response_format: json_schema`; otherwise the schema goes into the prompt.
    #[serde(default = "yes")]
    pub json_schema: bool,
    /// Whether its models can use tools; otherwise they are passed over for agents that have some.
    #[serde(default = "yes")]
    pub tools: bool,
    /// Whether answers can be streamed, for those who watch a run; otherwise they come whole.
    #[serde(default = "yes")]
    pub streaming: bool,
    /// Whether it has `/embeddings`.
    #[serde(default = "yes")]
    pub embeddings: bool,
    /// Whether it has `/files` and `/batches`, at half the price; steps with `mode: batch` then wait for those.
    #[serde(default)]
    pub batch: bool,
    /// The most calls in one batch, 1 to 10000; so many are sent at once.
    #[serde(default = "some_hundred")]
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_size: u32,
    /// How long the first call of a batch waits for others.
    #[serde(default = "a_minute")]
    #[schemars(with = "String", extend("format" = "span"))]
    pub batch_within: Span,
    /// How often it is looked whether a batch is done.
    #[serde(default = "a_minute")]
    #[schemars(with = "String", extend("format" = "span"))]
    pub batch_look: Span,
    /// Whether a stream ends with its usage when asked to (`stream_options`).
    #[serde(default = "yes")]
    pub stream_usage: bool,
}

/// The value of a header: a text, or the place of a secret.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum HeaderText {
    /// Written in the file.
    Plain(String),
    /// Read from elsewhere.
    Secret(SecretRef),
}

impl TryFrom<String> for HeaderText {
    type Error = crate::config::secret::NotASecretRef;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.starts_with("env:") || text.starts_with("file:") {
            true => SecretRef::try_from(text).map(Self::Secret),
            false => Ok(Self::Plain(text)),
        }
    }
}

impl HeaderText {
    /// The value, if it is there.
    #[must_use]
    pub fn resolve(&self) -> Option<Secret> {
        match self {
            Self::Plain(text) => Some(Secret::new(text.clone())),
            Self::Secret(reference) => reference.resolve(),
        }
    }
}

impl fmt::Debug for HeaderText {
    /// Without a text: somebody may have written a key there after all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(***)"),
            Self::Secret(reference) => f.debug_tuple("Secret").field(reference).finish(),
        }
    }
}

/// One model of a provider.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The provider's name above.
    pub provider: String,
    /// The model's name at the provider.
    pub id: String,
    /// What a million tokens cost.
    #[serde(default)]
    pub price: Option<Price>,
    /// The most tokens that question and answer may have together; a question that does not fit goes to
    /// the next model at once.
    #[serde(default)]
    pub context: Option<u32>,
    /// The most tokens it can answer with; an agent that allows more is held to it.
    #[serde(default)]
    pub max_output: Option<u32>,
    /// Calls of this model begun per minute, besides the provider's limit.
    #[serde(default)]
    pub per_minute: Option<u32>,
    /// Tokens of this model asked for per minute, besides the provider's limit.
    #[serde(default)]
    pub tokens_per_minute: Option<u32>,
    /// How it counts tokens: `o200k` (OpenAI's models since GPT-4o) or `bytes`, never fewer than any model
    /// counts. `o200k` at api.openai.com, `bytes` elsewhere, when absent.
    #[serde(default)]
    pub tokenizer: Option<Tokenizer>,
    /// Of a model for `embeddings`: how many coordinates its vectors are to have, at most 4000. The provider is
    /// asked for so many; when absent, they are as many as the model gives by itself.
    #[serde(default)]
    pub dimensions: Option<u32>,
}

/// How a model counts tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tokenizer {
    /// OpenAI's vocabulary of 200,000.
    O200k,
    /// A token per byte: the most that any tokenizer over bytes can count.
    Bytes,
}

/// The price of a million tokens, as in `0.15 USD`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Read.
    #[schemars(with = "String", extend("format" = "money"))]
    pub input: Money,
    /// Read from the provider's own prompt cache; as `input` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "money"))]
    pub cached_input: Option<Money>,
    /// Written.
    #[schemars(with = "String", extend("format" = "money"))]
    pub output: Money,
}

impl Models {
    /// The model of a provider that embeds; none when the built-in encoder does.
    #[must_use]
    pub fn embedding(&self) -> Option<&str> {
        self.embeddings.as_deref().filter(|name| *name != ENCODER)
    }

    /// How `model` counts tokens.
    #[must_use]
    pub fn tokenizer(&self, model: &Model) -> Tokenizer {
        let of_openai = || self.providers.get(&model.provider).is_some_and(Provider::is_openai);
        model.tokenizer.unwrap_or(if of_openai() { Tokenizer::O200k } else { Tokenizer::Bytes })
    }
}

impl Provider {
    /// Every secret that its settings name.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let headers = self.headers.values().filter_map(|text| match text {
            HeaderText::Secret(reference) => Some(reference),
            HeaderText::Plain(_) => None,
        });
        self.key.iter().chain(headers)
    }

    /// Whether this is OpenAI itself.
    #[must_use]
    pub fn is_openai(&self) -> bool {
        self.base_url.host_str() == Some("api.openai.com")
    }
}

/// How a [`Link`] is written.
struct LinkSchema;

impl JsonSchema for LinkSchema {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Link".into()
    }

    /// One schema with both types, not a choice of two: a slip in a mapping is then told as such.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A model's name, or `{ model: NAME, when: CONDITION }`: the model is passed over \
                unless the condition holds. It may name `budget.left` (what is left to spend, in the \
                workspace's currency), `time.hour`, `time.minute`, `time.clock` (as in `22:30`) and \
                `time.weekday` in the owner's time zone, and `input.tokens`.",
            "type": ["string", "object"],
            "properties": {
                "model": {"description": "The model's name.", "type": "string"},
                "when": {"description": "The condition.", "type": "string"},
            },
            "required": ["model"],
            "additionalProperties": false,
        })
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Conditional {
            model: String,
            #[serde(default)]
            when: Option<String>,
        }
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(model) => Ok(Self { model, when: None }),
            other => Conditional::deserialize(other)
                .map(|Conditional { model, when }| Self { model, when })
                .map_err(D::Error::custom),
        }
    }
}

fn some_hundred() -> u32 {
    500
}

fn four() -> usize {
    4
}

fn a_minute() -> Span {
    Span::secs(60)
}

fn ten_seconds() -> Span {
    Span::secs(10)
}

fn yes() -> bool {
    true
}

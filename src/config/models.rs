//! `config/models.yaml`: who serves models, which models there are, and the tiers agents name.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::config::secret::SecretRef;
use crate::domain::duration::Span;
use crate::domain::money::Money;

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
    pub tiers: BTreeMap<String, Vec<String>>,
}

/// The names in a chain that are not in `models`.
pub const BUILT_IN: [&str; 3] = ["encoder", "canned", "owner"];

/// An OpenAI-compatible endpoint.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Such as `https://api.openai.com/v1` or `http://localhost:11434/v1`.
    #[schemars(with = "String", extend("format" = "url"))]
    pub base_url: Url,
    /// The key, as `env:NAME`. A provider whose variable is not set is passed over.
    #[serde(default)]
    pub key: Option<SecretRef>,
    /// Calls under way at once.
    #[serde(default = "four")]
    pub concurrency: usize,
    /// Calls begun per minute; unlimited when absent.
    #[serde(default)]
    pub per_minute: Option<u32>,
    /// How long one call may take.
    #[serde(default = "a_minute")]
    #[schemars(with = "String", extend("format" = "span"))]
    pub timeout: Span,
    /// Whether it understands `response_format: json_schema`; otherwise the schema goes into the prompt.
    #[serde(default = "yes")]
    pub json_schema: bool,
    /// Whether its models can use tools; otherwise they are passed over for agents that have some.
    #[serde(default = "yes")]
    pub tools: bool,
    /// Whether answers can be streamed, for those who watch a run; otherwise they come whole.
    #[serde(default = "yes")]
    pub streaming: bool,
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
}

/// The price of a million tokens, as in `0.15 USD`.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Read.
    #[schemars(with = "String", extend("format" = "money"))]
    pub input: Money,
    /// Written.
    #[schemars(with = "String", extend("format" = "money"))]
    pub output: Money,
}

fn four() -> usize {
    4
}

fn a_minute() -> Span {
    Span::secs(60)
}

fn yes() -> bool {
    true
}
